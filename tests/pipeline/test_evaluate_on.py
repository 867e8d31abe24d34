"""A trained run measured on other data."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr.errors import InputError
from cxr.evaluation.evaluate import read_predictions
from cxr.labels import CANONICAL
from cxr.pipeline.config import compose
from cxr.pipeline.ensemble_stage import ensemble_stage
from cxr.pipeline.evaluate_on_stage import evaluate_on_stage
from cxr.pipeline.evaluate_stage import evaluate_stage
from cxr.pipeline.run_folder import SYNTHETIC, find_run

TINY = (
    "data=phantom",
    "data.phantom.size_px=64",
    "data.phantom.patients_per_class=8",
    "data.phantom.images_per_patient=[2,2]",
)
"""The images of the tiny run; how they are prepared is the run's to say."""

pytestmark = pytest.mark.long


def read(path: Path):
    return json.loads(path.read_text())


@pytest.fixture
def copied(tiny_run, tmp_path: Path):
    """Return a copy of the run that a test may change."""
    shutil.copytree(tiny_run.output_root, tmp_path / "outputs")
    return type(tiny_run)(tmp_path / "outputs")


def prepared_of(run):
    return find_run(compose("evaluate", run.where()))[2]


def measure(run, *extra: str):
    overrides = [f"output_root={run.output_root}", "run=phantom/tiny", "resamples=20", *extra]
    return evaluate_on_stage(compose("evaluate_on", overrides))


def folder_of(run, root: Path, labels, *, splits=("test",)) -> Path:
    """Write images of the run's own set as a folder per label."""
    prepared = prepared_of(run)
    for row, image in prepared.table.iterrows():
        if image["label"] in labels and image["split"] in splits:
            path = root / image["label"] / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(prepared.pixels[row]).save(path)
    return root


def of_folder(root: Path, name: str = "other") -> tuple[str, ...]:
    return ("data=folder", f"data.root={root}", f"data.name={name}")


def test_what_the_run_decides_cannot_be_set(tiny_run):
    assert "data.split is 'published'" in refused(tiny_run, *TINY, "data.split=published")
    assert "data.size is 96" in refused(tiny_run, *TINY, "data.size=96")


def refused(run, *extra: str) -> str:
    with pytest.raises(InputError) as caught:
        measure(run, *extra)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_phantom(copied, caplog, capsys):
    with caplog.at_level("INFO"):
        metrics = measure(copied, *TINY, "data.phantom.seed=7", "data.name=second")
    out = copied.folder / "evaluated_on" / "second"
    assert {path.name for path in out.iterdir()} == {
        "metrics.json",
        "predictions.csv",
        "calibration.json",
        "figures",
    }
    assert len(list((out / "figures").glob("*.png"))) == 6
    page = (copied.folder / "report.html").read_text()
    assert "On images from elsewhere" in page
    assert "second" in page
    assert metrics["n"] + metrics["left_out"]["trained_on"]["images"] == 64
    table = read_predictions(out / "predictions.csv")
    assert len(table) == metrics["n"]
    right = (table["prediction"] == table["label"]).mean()
    assert metrics["models"]["ensemble"]["accuracy"]["value"] == pytest.approx(right)
    assert metrics["absent"] == []
    assert "present_alone" not in metrics
    assert metrics["run"]["data"] == "phantom"
    assert metrics["own_test"]["accuracy"]["value"] >= 0
    assert metrics["synthetic"] is True
    assert SYNTHETIC in metrics["note"] == read(out / "calibration.json")["note"]
    assert "phantom/tiny on second" in capsys.readouterr().out
    assert "on its own test split" in caplog.text
    # Its images are prepared as the run's are, and nothing of the run itself has changed.
    assert read(out / "metrics.json")["measured_on"]["counts"]["kept"] == 64


def test_a_folder_of_two_classes(copied, tmp_path, caplog, capsys):
    root = folder_of(copied, tmp_path / "two", ("normal", "viral"))
    with caplog.at_level("INFO"):
        metrics = measure(copied, *of_folder(root))
    assert metrics["absent"] == ["covid", "bacterial"]
    assert metrics["counts"]["covid"] == 0
    assert metrics["present_alone"]["labels"] == ["normal", "viral"]
    assert {"accuracy", "balanced_accuracy"} <= set(
        metrics["present_alone"]["as_they_are"]["ensemble"]
    )
    # They are the run's own test images, so the run says of them what it said before.
    before = read_predictions(copied.folder / "evaluation" / "predictions.csv")
    before = before[before["label"].isin(["normal", "viral"])]
    right = (before["prediction"] == before["label"]).mean()
    assert metrics["models"]["ensemble"]["accuracy"]["value"] == pytest.approx(right)
    assert metrics["in_own_test"]["images"] == metrics["n"] == len(before)
    shown = capsys.readouterr().out
    assert "normal, viral alone, renormalised" in shown
    assert re.search(r"│ (covid|bacterial)", shown) is None
    assert "covid, bacterial: no image, so skipped" in caplog.text
    assert (
        "class covid"
        in read(copied.folder / "evaluated_on" / "other" / "calibration.json")["skipped"]
    )


def test_a_folder_of_one_class(copied, tmp_path):
    metrics = measure(copied, *of_folder(folder_of(copied, tmp_path / "one", ("covid",))))
    assert metrics["absent"] == ["normal", "bacterial", "viral"]
    assert "present_alone" not in metrics
    assert 0 <= metrics["models"]["ensemble"]["per_class"]["covid"]["sensitivity"]["value"] <= 1


def test_images_that_the_run_learnt_from_are_dropped_and_counted(copied, tmp_path, caplog):
    root = folder_of(copied, tmp_path / "all", CANONICAL, splits=("train", "val", "test"))
    with caplog.at_level("INFO"):
        metrics = measure(copied, *of_folder(root))
    table = prepared_of(copied).table
    learnt = int(table["split"].isin(["train", "val"]).sum())
    seen = metrics["left_out"]["trained_on"]
    assert seen == {"images": learnt, "identical": learnt, "near": 0, "with_another_label": 0}
    assert metrics["n"] == len(table) - learnt
    assert f"{learnt} images are left out, since the run learnt from them" in caplog.text
    assert {image["split"] for image in metrics["left_out"]["images"]} == {"train", "val"}


def test_only_images_that_the_run_learnt_from(copied, tmp_path):
    root = folder_of(copied, tmp_path / "train", CANONICAL, splits=("train",))
    assert "are images that the run was trained on" in refused(copied, *of_folder(root))
    assert not (copied.folder / "evaluated_on").exists()


def test_classes_that_the_run_does_not_know(copied, tmp_path, caplog):
    root = folder_of(copied, tmp_path / "new", ("normal",))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    (root / "tuberculosis").mkdir()
    Image.fromarray(noise).save(root / "tuberculosis" / "1.png")
    with caplog.at_level("INFO"):
        metrics = measure(copied, *of_folder(root))
    assert metrics["left_out"]["unknown_classes"] == {"tuberculosis": 1}
    assert "1 images of class tuberculosis are left out" in caplog.text
    shutil.rmtree(root / "normal")
    message = refused(copied, *of_folder(root))
    assert "is of a class that the run knows" in message
    assert "it has tuberculosis" in message


@pytest.mark.parametrize("run", ["phantom/none", "none", "a/b/c", "/tiny", "phantom/"])
def test_a_run_that_is_not_there(copied, run):
    message = refused(copied, *TINY, f"run={run}")
    assert "there is no run" in message
    assert "run=DATA/RUN, one of phantom/tiny" in message


def test_a_plain_name_is_a_run_of_the_same_data(copied):
    config = compose(
        "evaluate_on", [f"output_root={copied.output_root}", *TINY, "run=tiny", "resamples=5"]
    )
    metrics = evaluate_on_stage(config)
    assert metrics["in_own_test"]["images"] == metrics["n"]
    assert (copied.folder / "evaluated_on" / "phantom" / "metrics.json").exists()


def test_other_images_under_the_same_name_are_said(copied, tmp_path, caplog):
    measure(copied, *of_folder(folder_of(copied, tmp_path / "a", ("normal", "viral"))))
    measure(copied, *of_folder(folder_of(copied, tmp_path / "b", ("normal", "covid"))))
    assert "other images called other are replaced" in caplog.text


def test_uncertainty_is_written_by_the_ensemble_and_only_read_by_others(copied):
    path = copied.folder / "uncertainty.json"
    before = read(path)
    assert before["fitted_on"] == "validation"
    assert SYNTHETIC in before["note"]
    val = prepared_of(copied).table.query("split == 'val'")
    assert before["n"] == len(val)
    assert before["counts"] == {label: (val["label"] == label).sum() for label in CANONICAL}
    assert before["n_patients"] == val["group"].nunique()
    patients = {label: val.loc[val["label"] == label, "group"].nunique() for label in CANONICAL}
    assert before["patients"] == patients
    old = {key: before[key] for key in before if key not in ("patients", "n_patients")}
    for content, said in (
        (None, "the run has no uncertainty.json"),
        (before | {"ensemble": "another"}, "fitted for another ensemble"),
        (old, "version 0.1, whose thresholds count images"),
    ):
        path.unlink() if content is None else path.write_text(json.dumps(content))
        with pytest.raises(InputError, match=said) as caught:
            evaluate_stage(compose("evaluate", [*copied.where(), "resamples=5"]))
        assert "\n" not in str(caught.value)
        assert "scripts/ensemble.py data=phantom run=tiny" in str(caught.value)
        assert (read(path) if path.exists() else None) == content
    ensemble_stage(compose("ensemble", copied.where()))
    assert read(path) == before


def test_evaluate_writes_calibration(tiny_run):
    found = read(tiny_run.folder / "evaluation" / "calibration.json")
    metrics = read(tiny_run.folder / "evaluation" / "metrics.json")
    assert SYNTHETIC in found["note"]
    assert found["n"] == metrics["n"]
    assert found["fingerprint"] == metrics["fingerprint"]
    assert set(found["prediction_sets"]) == {"0.8", "0.9", "0.95"}
    nll = metrics["models"]["ensemble"]["nll"]["value"]
    assert found["calibration"]["ensemble"]["after"]["nll"]["value"] == pytest.approx(nll)
    table = pd.read_csv(tiny_run.folder / "evaluation" / "predictions.csv")
    assert found["counts"] == {k: int((table["label"] == k).sum()) for k in CANONICAL}
