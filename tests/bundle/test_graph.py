"""The graph's pools against the ones in numpy, in torch and exported, on small members."""

import dataclasses

import numpy as np
import pytest
import torch

from cxr.bundle.compare import GateError
from cxr.bundle.export import BundleGraph, export_onnx
from cxr.bundle.gates import check_outputs
from cxr.bundle.runtimes import open_runtime
from cxr.models.build import build_member
from cxr.models.ensemble import POOLS, Ensemble, all_probs

LABELS = ("normal", "covid", "bacterial", "viral")


@pytest.fixture(scope="module")
def members():
    torch.manual_seed(0)
    return {name: build_member("mobilenetv2_035", LABELS, input_size_px=32).eval() for name in "ab"}


@pytest.mark.parametrize("stretch", [1.0, 300.0])
@pytest.mark.parametrize("pool", POOLS)
def test_the_graph_pools_as_numpy_does(members, pool, stretch):
    ensemble = Ensemble(
        LABELS,
        ("a", "b"),
        {"a": 0.7 / stretch, "b": 1.3 / stretch},
        {"a": 0.8, "b": 0.2},
        pool,
        temperature=0.6 * stretch,
        equal_temperature=3.0,
    )
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 1, 32, 32), np.uint8))
    with torch.no_grad():
        logits = {name: member(member.prepare(pixels)).numpy() for name, member in members.items()}
        probs, each, *_ = BundleGraph(members, ensemble, 32)(pixels)
    wanted = all_probs(logits, ensemble)
    np.testing.assert_allclose(probs, wanted["ensemble"], atol=1e-5)
    np.testing.assert_allclose(each[:, 0], wanted["a"], atol=1e-5 * stretch)


@pytest.mark.long
@pytest.mark.parametrize("pool", POOLS)
def test_the_exported_pool_passes_the_gates_and_another_pool_does_not(members, pool, tmp_path):
    ensemble = Ensemble(
        LABELS, ("a", "b"), {"a": 0.02, "b": 0.1}, {"a": 0.8, "b": 0.2}, pool, temperature=0.6
    )
    path = tmp_path / "model.onnx"
    graph = BundleGraph(members, ensemble, 32)
    export_onnx(graph, path, size_px=32, note="synthetic", outputs=graph.outputs)
    runtime = open_runtime(path, threads=1)
    pixels = np.random.default_rng(0).integers(0, 256, (7, 32, 32), np.uint8)
    check_outputs(runtime, members, ensemble, pixels, np.random.default_rng(0))
    other = POOLS[1 - POOLS.index(pool)]
    for changed in ({"pool": other}, {"temperature": 1.0}):
        with pytest.raises(GateError, match="exported probs differ"):
            check_outputs(
                runtime,
                members,
                dataclasses.replace(ensemble, **changed),
                pixels,
                np.random.default_rng(0),
            )
