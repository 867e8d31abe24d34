"""What the export stage leaves, and what it does with a run that was not evaluated."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from cxr.bundle.format import read_info
from cxr.bundle.predictor import Predictor
from cxr.errors import InputError
from cxr.files import write_json
from cxr.labels import CANONICAL
from cxr.models.build import load_member
from cxr.pipeline import export_stage as stage
from cxr.pipeline.config import compose
from cxr.pipeline.exported import NOT_EVALUATED, read_set_coverage
from cxr.pipeline.run_folder import RESEARCH, SYNTHETIC, find_run
from cxr.training.inference import predict_logits

pytestmark = pytest.mark.long
MEMBERS = ("mobilenetv2", "inceptionv3")
NOTE = f"{SYNTHETIC} · {RESEARCH}"


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_exported_weights_give_bit_equal_logits(exported_run, tiny_bundle):
    prepared = find_run(compose("export", exported_run.where()))[2]
    rows = np.flatnonzero(prepared.table["split"] == "val")
    evaluation = read(exported_run.folder / "evaluation" / "metrics.json")
    for name in MEMBERS:
        card = read(tiny_bundle / "members" / name / "member.json")
        trained = read(exported_run.folder / "members" / name / "member.json")
        assert card["test"] == evaluation["models"][name]
        assert {key: card[key] for key in trained} == trained
        torch.manual_seed(1)
        logits = [
            predict_logits(load_member(root / "members" / name), prepared.pixels, rows)
            for root in (tiny_bundle, exported_run.folder)
        ]
        assert np.array_equal(*logits)


def test_the_bundle_carries_what_was_fitted_and_measured(exported_run, tiny_bundle):
    found = read_info(tiny_bundle)
    fitted = read(exported_run.folder / "ensemble.json")
    metrics = read(exported_run.folder / "evaluation" / "metrics.json")
    for key in ("labels", "members", "temperatures", "weights", "pool", "temperature"):
        assert found[key] == fitted[key]
    assert found["note"] == NOTE
    assert found["synthetic"] is True
    assert found["data"]["fingerprint"] == metrics["fingerprint"]
    assert found["test"]["ensemble"] == metrics["models"]["ensemble"]
    assert found["uncertainty"] == read(exported_run.folder / "uncertainty.json")
    measured = read(exported_run.folder / "evaluation" / "calibration.json")["prediction_sets"]
    for level, kinds in found["test"]["prediction_sets"].items():
        for key in ("coverage", "size", "per_class"):
            assert kinds[key] == measured[level]["per_class"][key]
    assert found["ood"]["limits"]
    assert not list(exported_run.folder.glob(".bundle.*"))


def test_coverage_of_other_thresholds_or_of_none_is_not_handed_on(tmp_path):
    limits = {"normal": 0.4, "viral": None}
    kinds = {"coverage": {}, "size": {}, "per_class": {}, "thresholds": limits}
    write_json(
        tmp_path / "evaluation" / "calibration.json",
        {"prediction_sets": {"0.9": {"per_class": kinds}}},
    )

    def fitted(per_class):
        return {"conformal": {"levels": {"0.9": {"per_class": per_class}}}}

    assert set(read_set_coverage(tmp_path, fitted(limits))) == {"0.9"}
    other = read_set_coverage(tmp_path, fitted(limits | {"viral": 0.9}))
    assert other == "evaluated with other thresholds (scripts/evaluate.py)"
    assert read_set_coverage(tmp_path / "absent", fitted(limits)) == NOT_EVALUATED


def test_the_card_says_what_it_is_not_for(tiny_bundle):
    card = (tiny_bundle / "MODEL_CARD.md").read_text()
    assert NOTE in card
    assert "has never seen a real image" in card
    assert "no medical device" in card


def test_the_graph_takes_any_batch_and_names_no_path_of_this_machine(tiny_bundle):
    path = tiny_bundle / "model.onnx"
    graph = onnx.load(path).graph
    pixels = graph.input[0]
    assert pixels.name == "pixels"
    shape = pixels.type.tensor_type.shape.dim
    assert shape[0].dim_param
    assert [axis.dim_value for axis in shape[1:]] == [1, 64, 64]
    names = [value.name for value in graph.output]
    assert names[:3] == ["probs", "member_probs", "map_ensemble"]
    content = path.read_bytes()
    for word in (str(Path(__file__).parents[2]), "site-packages", str(Path.home())):
        assert word.encode() not in content


def test_a_run_that_was_not_evaluated_is_exported_without_its_test_split(
    exported_run, tmp_path, monkeypatch
):
    model = (exported_run.folder / "bundle" / "model.onnx").read_bytes()
    monkeypatch.setattr(stage, "export_onnx", lambda _graph, path, **_: path.write_bytes(model))
    root = tmp_path / "outputs"
    shutil.copytree(exported_run.output_root, root)
    run = type(exported_run)(root)
    shutil.rmtree(run.folder / "evaluation")
    shutil.rmtree(run.folder / "bundle")
    bundle = stage.export_stage(compose("export", [*run.where(), "threads=1"]))
    info = read_info(bundle)
    assert info["test"] == info["gates"]["test"] == "not evaluated (scripts/evaluate.py)"
    image = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    assert Predictor(bundle, threads=1).predict(image).label in CANONICAL


@pytest.mark.parametrize("value", ["true", "false"])
def test_the_option_of_the_8_bit_variant_is_refused_in_one_line(exported_run, value):
    with pytest.raises(InputError, match=f"int8={value} is gone") as caught:
        stage.export_stage(compose("export", [*exported_run.where(), f"int8={value}"]))
    assert "\n" not in str(caught.value)
