"""Two parts, three sources and label sets, from the manifests to the report."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.data.manifest import read_manifest, write_manifest
from cxr.data.phantom.writer import PhantomSettings, write_phantom
from cxr.errors import InputError
from cxr.evaluation.adults import one_class_note
from cxr.evaluation.evaluate import read_predictions
from cxr.pipeline.audit_stage import audit_stage
from cxr.pipeline.config import compose
from cxr.pipeline.cv_stage import cv_stage, leave_sources_out
from cxr.pipeline.ensemble_stage import ensemble_stage
from cxr.pipeline.evaluate_stage import evaluate_stage
from cxr.pipeline.explain_stage import explain_stage
from cxr.pipeline.prepare_stage import prepare_stage
from cxr.pipeline.train_stage import train_stage

pytestmark = pytest.mark.slow

SET = "bacterial|viral"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Write ``home``, children of every class, and ``away``, adults: normal of two, covid of three.

    Of the pneumonia of ``two`` nobody knows the agent.
    """
    folder = tmp_path_factory.mktemp("parts")
    for part, seed in (("home", 0), ("away", 1)):
        settings = PhantomSettings(
            patients_per_class=6, images_per_patient=[2, 2], size_px=64, seed=seed
        )
        write_phantom(folder / part, settings)
        table = read_manifest(folder / part / "manifest.csv")
        if part == "away":
            table["source"] = np.where(table["label"] == "covid", "three", "two")
            table["label"] = table["label"].where(table["label"].isin(["normal", "covid"]), SET)
        table["age"] = "5" if part == "home" else "50"
        table["source"] = table["source"].replace("phantom", "home")
        write_manifest(table, folder / part / "manifest.csv")
    return folder


def overrides(root: Path, run: str, *extra: str) -> list[str]:
    return [
        *("data=cxr4plus", f"data.root={root}", "data.parts=[home,away]", "data.size=64"),
        *(f"output_root={root / 'outputs'}", f"run={run}"),
        *("model=mobilenetv2", "model.pretrained=none", "model.freeze=[]", "model.input_size=64"),
        *("trainer.max_epochs=1", "trainer.batch_size=8", "trainer.progress=false", *extra),
    ]


def test_joined_parts_are_prepared_with_their_sets(root):
    prepared = prepare_stage(compose("train", overrides(root, "x")))
    assert prepared.labels == ("normal", "covid", "bacterial", "viral")
    partly = (prepared.table["label"] == SET).to_numpy(bool)
    assert prepared.info["counts"]["images"][SET] == (
        prepared.table["split"][partly].value_counts().to_dict()
    )
    assert partly.sum() == 24
    assert (prepared.targets[partly] == -1).all()
    assert prepared.memberships[partly].tolist() == [[False, False, True, True]] * 24
    assert prepared.table["image"].str.startswith(("home/", "away/")).all()
    # Both parts have a patient normal_0000.
    assert prepared.table.loc[prepared.table["label"] == "normal", "group"].nunique() == 12


@pytest.fixture(scope="module")
def crossed(root) -> dict:
    return cv_stage(compose("cv", overrides(root, "cv", "split=source")))


def test_every_source_that_can_be_is_left_out_once(root, crossed):
    assert [fold["fold"] for fold in crossed["per_fold"]] == ["two", "three"]
    assert crossed["split"] == "source"
    folder = root / "outputs" / "cxr4plus" / "cv" / "cv-source"
    pooled = read_predictions(folder / "predictions.csv")
    assert pooled.groupby("fold")["source"].unique().map(list).to_dict() == {
        "two": ["two"],
        "three": ["three"],
    }
    for name in ("two", "three"):
        assert json.loads((folder / f"fold-{name}" / "fold.json").read_text())["left_out"] == name
        card = json.loads((folder / f"fold-{name}/members/mobilenetv2/member.json").read_text())
        assert (
            card["data"]["train_images"]
            == crossed["per_fold"][["two", "three"].index(name)]["images"]["train"]
        )


def test_its_figures_are_those_of_adults(crossed):
    pooled = crossed["adults"]["models"]["ensemble"]
    assert (pooled["normal"], pooled["covid"], pooled["pneumonia"]) == (12, 12, 24)
    each = crossed["adults"]["sources"]
    assert each["two"]["normal_called_covid"] == pooled["normal_called_covid"]
    assert each["three"]["covid_found"] == pooled["covid_found"]
    found, called = pooled["covid_found"]["value"], pooled["normal_found"]["value"]
    assert pooled["balanced_accuracy"]["value"] == pytest.approx((found + called) / 2)
    assert crossed["partly_known"]["images"] == 24
    # Of folds with one class AUROC is undefined, and so is its spread.
    assert np.isnan(crossed["across_folds"]["ensemble"]["macro_auroc"]["mean"])


def test_sources_joined_are_left_out_together(root):
    prepared = prepare_stage(compose("train", overrides(root, "x")))
    sets = leave_sources_out(prepared, ["two+three"], [0.7, 0.15, 0.15], 0)
    (images,) = sets.values()
    tested = images.table.loc[images.table["split"] == "test", "source"]
    assert list(sets) == ["two+three"]
    assert set(tested) == {"two", "three"}
    assert set(images.table.loc[images.table["split"] != "test", "source"]) == {"home"}


def test_folds_of_one_class_are_called_biased(crossed):
    assert "biased downwards" in crossed["one_class_each"]
    both = {"normal": 1, "covid": 1}
    assert one_class_note({"two": both, "three": {"normal": 1, "covid": 0}}) == ""
    assert one_class_note({"two": {"normal": 1, "covid": 0}}) == ""


def test_sources_named_go_on_where_the_others_were(root, crossed):
    again = cv_stage(compose("cv", overrides(root, "cv", "split=source", "sources=[three]")))
    assert [fold["fold"] for fold in again["per_fold"]] == ["three"]
    assert again["n"] == 12


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["split=source", "sources=[home]"], "no other source has an image of bacterial and viral"),
        (["split=source", "sources=[moon]"], "names the source 'moon': the images have home, th"),
        (["split=source", "sources=[two+three,two]"], r"names 'two' twice"),
        (["split=hospital"], "split is 'hospital'.*allowed are patient, source"),
        (["sources=[two]"], "sources= beside split=source alone"),
    ],
)
def test_what_cannot_be_left_out_is_refused_in_one_line(root, extra, message):
    with pytest.raises(InputError, match=message) as error:
        cv_stage(compose("cv", overrides(root, "cv2", *extra)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["data.split=source"], r"needs the sources that are test.*data\.leave_out=\[nih\]"),
        (["data.leave_out=[two]"], "data.split is 'patient' and data.leave_out"),
    ],
)
def test_leave_out_goes_with_split_source(root, extra, message):
    with pytest.raises(Exception, match=message):
        compose("train", overrides(root, "x", *extra))


def trained(root: Path, run: str, leave_out: str, *extra: str) -> list[str]:
    config = overrides(root, run, "data.split=source", f"data.leave_out=[{leave_out}]", *extra)
    train_stage(compose("train", config))
    where = ["data=cxr4plus", f"run={run}", f"output_root={root / 'outputs'}"]
    ensemble_stage(compose("ensemble", where))
    return where


def test_a_run_on_a_test_split_without_some_classes_goes_to_its_report(root):
    where = trained(root, "both", "two,three", "trainer.imbalance=class_source")
    metrics = evaluate_stage(compose("evaluate", [*where, "resamples=50"]))
    assert metrics["counts"] == {"normal": 12, "covid": 12, "bacterial": 0, "viral": 0}
    assert metrics["partly_known"]["labels"] == {SET: 24}
    assert metrics["adults"]["ensemble"]["normal"] == 12
    audit = audit_stage(
        compose("audit", [*where, "tests=[baselines,sources,subgroups]", "resamples=50"])
    )
    assert len(audit["results"]) == 3
    explain_stage(compose("explain", [*where, "per_class=1"]))
    folder = root / "outputs" / "cxr4plus" / "both"
    assert {path.name for path in (folder / "explain" / "figures").glob("*.png")} == {
        "normal.png",
        "covid.png",
    }
    report = (folder / "report.html").read_text()
    assert "known only as one of several classes" in report
    assert "Covid against normal among adults" in report
    card = (folder / "MODEL_CARD.md").read_text() + (folder / "DATA_CARD.md").read_text()
    rows = [line for line in card.splitlines() if SET.replace("|", "&#124;") in line]
    assert rows, "a set's bar must not end a cell of a Markdown table"


def test_validation_with_sets_fits_the_ensemble_without_them(root):
    where = trained(root, "three", "three")
    folder = root / "outputs" / "cxr4plus" / "three"
    validated = pd.read_csv(folder / "members" / "mobilenetv2" / "predictions.csv")
    sets = int((validated["label"] == SET).sum())
    assert sets
    fitted = json.loads((folder / "ensemble.json").read_text())["validation"]["images"]
    assert fitted == len(validated) - sets
    # One class alone: everything but its sensitivity is undefined, and nothing breaks.
    metrics = evaluate_stage(compose("evaluate", [*where, "resamples=50"]))
    assert np.isnan(metrics["models"]["ensemble"]["macro_auroc"]["value"])
    assert metrics["models"]["ensemble"]["per_class"]["covid"]["sensitivity"]["value"] >= 0
