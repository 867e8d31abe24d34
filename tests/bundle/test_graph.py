"""The graph's pools against the ones in numpy, on members too small to need an export."""

import numpy as np
import pytest
import torch

from cxr.bundle.graph import BundleGraph
from cxr.training.ensemble import POOLS, Ensemble, all_probs
from cxr.training.members import build_member

LABELS = ("normal", "covid", "bacterial", "viral")


@pytest.fixture(scope="module")
def members():
    torch.manual_seed(0)
    return {name: build_member("mobilenetv2_035", LABELS, input_size_px=32).eval() for name in "ab"}


@pytest.mark.parametrize("stretch", [1.0, 300.0])
@pytest.mark.parametrize("pool", POOLS)
def test_the_graph_pools_as_numpy_does(members, pool, stretch):
    ensemble = Ensemble(
        LABELS, ("a", "b"), {"a": 0.7 / stretch, "b": 1.3 / stretch}, {"a": 0.8, "b": 0.2}, pool,
        temperature=0.6 * stretch, equal_temperature=3.0,
    )  # fmt: skip
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 1, 32, 32), np.uint8))
    with torch.no_grad():
        logits = {name: member(member.prepare(pixels)).numpy() for name, member in members.items()}
        probs, each, *_ = BundleGraph(members, ensemble, 32)(pixels)
    wanted = all_probs(logits, ensemble)
    np.testing.assert_allclose(probs, wanted["ensemble"], atol=1e-5)
    np.testing.assert_allclose(each[:, 0], wanted["a"], atol=1e-5 * stretch)
