"""An exported graph that is wrong in any way is not handed on."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from onnx import numpy_helper

from cxr.bundle.compare import GateError, check_classes, check_metrics, tie_slack
from cxr.bundle.format import read_info
from cxr.bundle.gates import ROUNDINGS, check_outputs
from cxr.bundle.runtimes import open_runtime
from cxr.models.build import load_member
from cxr.models.ensemble import WEIGHTED, Ensemble, all_probs
from cxr.pipeline import export_stage as stage
from cxr.pipeline.config import compose
from cxr.pipeline.run_folder import find_run

pytestmark = pytest.mark.long


def snapshot(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def parts(exported_run):
    """Return members, ensemble and images of the exported run."""
    _, _, prepared = find_run(compose("export", exported_run.where()))
    info = read_info(exported_run.folder / "bundle")
    ensemble = Ensemble.from_dict(info)
    members = {
        name: load_member(exported_run.folder / "members" / name) for name in info["members"]
    }
    return members, ensemble, np.asarray(prepared.pixels[:7])


def checked(model: onnx.ModelProto, path: Path, parts) -> dict[str, dict[str, float]]:
    onnx.save(model, path)
    members, ensemble, images = parts
    runtime = open_runtime(path, threads=1)
    return check_outputs(runtime, members, ensemble, images, np.random.default_rng(0))


def test_the_exported_graph_passes_and_its_figures_are_kept(tiny_bundle, tmp_path, parts):
    found = checked(onnx.load(tiny_bundle / "model.onnx"), tmp_path / "model.onnx", parts)
    kept = read_info(tiny_bundle)["gates"]
    for name, limit in (("probs", 1e-5), ("maps", 1e-4), ("features", 1e-4)):
        for figures in (found[name], kept["outputs"][name]):
            allowed = max(limit, ROUNDINGS * figures["pytorch_rounding"])
            assert figures["largest_difference"] <= allowed
            assert allowed < 3e-3
    assert kept["test"]["images"] > 0
    assert kept["test"]["metrics"] <= 1e-4


def test_one_wrong_bias_fails_with_its_figure(tiny_bundle, tmp_path, parts):
    model = onnx.load(tiny_bundle / "model.onnx")
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    bias = next(value for value in model.graph.initializer if value.name == gemm.input[2])
    wrong = numpy_helper.to_array(bias).copy()
    wrong[0] += 0.01
    bias.CopyFrom(numpy_helper.from_array(wrong, bias.name))
    with pytest.raises(GateError, match=r"probs differ from PyTorch's by \S+ on real pixels"):
        checked(model, tmp_path / "model.onnx", parts)


def test_members_that_float32_does_not_hold_are_told_from_a_wrong_graph(
    tiny_bundle, parts, caplog, monkeypatch
):
    members, ensemble, images = parts
    # Logits far from what float32 tells apart: PyTorch is off by as much as the graph is.
    hot = dataclasses.replace(
        ensemble, temperatures=dict.fromkeys(members, 0.3), pool="linear", temperature=1.0
    )
    runtime = open_runtime(tiny_bundle / "model.onnx", threads=1)
    answer = runtime.run

    def at_another_temperature(pixels, outputs):
        found = answer(pixels, outputs)
        with torch.no_grad():
            logits = {
                name: member(member.prepare(torch.from_numpy(pixels))).numpy()
                for name, member in members.items()
            }
        probs = all_probs(logits, chosen)
        found["probs"] = probs[WEIGHTED] + shift
        found["member_probs"] = np.stack([probs[name] for name in members], axis=1)
        return found

    runtime.run = at_another_temperature
    shift, chosen = 0.0, hot
    found = check_outputs(runtime, members, hot, images, np.random.default_rng(0))
    rounding = found["probs"]["pytorch_rounding"]
    assert rounding > 2.5e-6
    assert "exported probs differ" not in caplog.text
    # No answer is near 0 or 1 here, where float32 would not round at all.
    shift, chosen = 1e-9, dataclasses.replace(hot, temperatures=dict.fromkeys(members, 10.0))
    with monkeypatch.context() as patch:
        patch.setattr("cxr.bundle.gates.PROBS_LIMIT", 1e-12)
        check_outputs(runtime, members, chosen, images, np.random.default_rng(0))
    assert "exported probs differ from PyTorch's by up to 1e-09" in caplog.text
    shift, chosen = 20 * rounding + 1e-5, hot
    with pytest.raises(GateError, match="the exported probs differ"):
        check_outputs(runtime, members, hot, images, np.random.default_rng(0))


def test_a_wrong_map_fails(tiny_bundle, tmp_path, parts):
    model = onnx.load(tiny_bundle / "model.onnx")
    for value in model.graph.initializer:
        array = numpy_helper.to_array(value)
        if array.ndim == 4 and array.shape[0] == 4:
            value.CopyFrom(numpy_helper.from_array(array[::-1].copy(), value.name))
    with pytest.raises(GateError, match="the exported maps differ"):
        checked(model, tmp_path / "model.onnx", parts)


def test_a_failed_gate_leaves_the_former_bundle(exported_run, monkeypatch):
    before = snapshot(exported_run.folder)

    def wrong(graph, path, **options):
        path.write_bytes((exported_run.folder / "bundle" / "model.onnx").read_bytes())
        model = onnx.load(path)
        last = model.graph.initializer[-1]
        for value in model.graph.initializer:
            if numpy_helper.to_array(value).ndim == 4:
                last = value
        last.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(last) * 1.5, last.name))
        onnx.save(model, path)

    monkeypatch.setattr(stage, "export_onnx", wrong)
    with pytest.raises(GateError, match="differ from PyTorch's"):
        stage.export_stage(compose("export", [*exported_run.where(), "threads=1"]))
    assert snapshot(exported_run.folder) == before
    assert not list(exported_run.folder.glob(".bundle.*"))


def test_another_class_on_one_image_fails_and_names_it():
    wanted = np.array([[0.9, 0.1], [0.4, 0.6], [0.500001, 0.499999]])
    found = wanted.copy()
    found[2] = found[2][::-1]
    assert check_classes(found, wanted, ["a", "b", "c"], "test")["ties"] == 1
    found[1] = [0.6, 0.4]
    with pytest.raises(GateError, match=r"another class .* on 1 of 3 test images \(first b;"):
        check_classes(found, wanted, ["a", "b", "c"], "test")


def test_another_metric_fails_and_names_it():
    wanted = {"ensemble": {"accuracy": 0.9, "auroc": None, "nll": float("nan")}}
    same = {"ensemble": {"accuracy": 0.9, "auroc": np.nan, "nll": np.nan}}
    assert check_metrics(same, wanted, {}) == 0
    for changed, words in (
        ({"accuracy": 0.91}, "accuracy of ensemble is 0.91"),
        ({"auroc": 0.5}, "auroc of ensemble is 0.5"),
    ):
        found = {"ensemble": same["ensemble"] | changed}
        with pytest.raises(GateError, match=words):
            check_metrics(found, wanted, {})
        slack = {"ensemble": dict.fromkeys(changed, 0.02)}
        if "accuracy" in changed:
            assert check_metrics(found, wanted, slack) == 0


def test_ties_explain_a_swapped_pair_and_no_more():
    probs = np.array([[0.6, 0.4], [0.600001, 0.399999], [0.2, 0.8], [0.9, 0.1]])
    targets = np.array([0, 1, 1, 0])
    slack = tie_slack(probs, targets, ("a", "b"))
    assert slack["auroc for a"] == 1 / 4
    assert slack["average_precision for a"] == 1 / 2
    assert slack["macro_auroc"] == 1 / 4
    assert "accuracy" not in slack
    assert "nll" not in slack
    probs[2] = [1, 1e-40]
    assert tie_slack(probs, targets, ("a", "b"))["nll"] == np.inf
    assert tie_slack(np.full((4, 2), 0.5), targets, ("a", "b"))["accuracy"] == np.inf


def test_changed_test_predictions_fail(exported_run, monkeypatch):
    model = (exported_run.folder / "bundle" / "model.onnx").read_bytes()
    monkeypatch.setattr(stage, "export_onnx", lambda _graph, path, **_: path.write_bytes(model))
    path = exported_run.folder / "evaluation" / "predictions.csv"
    before = path.read_bytes()
    table = pd.read_csv(path)
    columns = [name for name in table if name.startswith("prob_ensemble_")]
    table[columns] = table[columns[::-1]].to_numpy()
    table.to_csv(path, index=False)
    try:
        with pytest.raises(GateError, match="another class than PyTorch"):
            stage.export_stage(compose("export", [*exported_run.where(), "threads=1"]))
    finally:
        path.write_bytes(before)
