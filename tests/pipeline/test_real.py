"""The stages on real X-rays, where they lie beside the project."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.bundle.predictor import Predictor
from cxr.data.prepared import Prepared
from cxr.evaluation.evaluate import read_predictions
from cxr.labels import CANONICAL
from cxr.pipeline.config import compose
from cxr.pipeline.ensemble_stage import ensemble_stage
from cxr.pipeline.evaluate_stage import evaluate_stage
from cxr.pipeline.export_stage import export_stage
from cxr.pipeline.prepare_stage import prepare_stage
from cxr.pipeline.run_folder import RESEARCH
from cxr.pipeline.train_stage import train_stage

pytestmark = [pytest.mark.realdata, pytest.mark.long]

IMAGES_PER_CLASS = 15


def some_images(cxr4: Path, target: Path) -> None:
    """Copy a few images of each class, each of another patient, with their manifest rows."""
    table = pd.read_csv(cxr4 / "manifest.csv", dtype=str, keep_default_na=False)
    # A personN number may stand below two labels, which would join their patients.
    table["number"] = table["patient_id"].str.extract(r"(\d+)", expand=False)
    table = table.drop_duplicates(["source", "number"])
    chosen = table.groupby("label").head(IMAGES_PER_CLASS).drop(columns="number")
    for image in chosen["image"]:
        (target / image).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(cxr4 / image, target / image)
    chosen.assign(mask="").to_csv(target / "manifest.csv", index=False)


@pytest.mark.slow
def test_a_few_real_images_go_through_every_stage(shared, tmp_path):
    (tmp_path / "images").mkdir()
    some_images(shared / "data" / "cxr4", tmp_path / "images")
    where = [f"output_root={tmp_path / 'outputs'}", "run=small"]
    for model in ("mobilenetv2", "inceptionv3"):
        train_stage(
            compose(
                "train",
                [
                    *where,
                    "data=cxr4",
                    f"data.root={tmp_path / 'images'}",
                    "data.size=96",
                    f"model={model}",
                    f"model.pretrained={shared / 'weights'}",
                    "model.input_size=96",
                    "trainer.max_epochs=1",
                    "trainer.batch_size=8",
                    "trainer.progress=false",
                ],
            )
        )
    folder = tmp_path / "outputs" / "cxr4" / "small"
    for model in ("mobilenetv2", "inceptionv3"):
        card = json.loads((folder / "members" / model / "member.json").read_text())
        assert card["pretrained"]["source"].endswith(".imagenet1k.safetensors")
        assert card["note"] == RESEARCH
        assert card["data"]["synthetic"] is False
    ensemble_stage(compose("ensemble", [*where, "data=cxr4"]))
    metrics = evaluate_stage(compose("evaluate", [*where, "data=cxr4", "resamples=50"]))
    assert metrics["labels"] == list(CANONICAL)
    assert metrics["note"] == RESEARCH
    assert metrics["test_opened"] == 1
    assert metrics["n"] == pytest.approx(0.2 * 4 * IMAGES_PER_CLASS, abs=4)
    bundle = export_stage(compose("export", [*where, "data=cxr4"]))
    assert (bundle / "members" / "inceptionv3" / "weights.safetensors").is_file()
    table = read_predictions(folder / "evaluation" / "predictions.csv")
    predictor = Predictor(bundle, threads=2)
    found = predictor.predict([tmp_path / "images" / name for name in table["image"]])
    assert [one.label for one in found] == table["prediction"].tolist()
    for label in CANONICAL:
        probs = [one.probs[label] for one in found]
        assert np.abs(probs - table[f"prob_ensemble_{label}"]).max() < 1e-5


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole")


def prepare_whole(outputs: Path, *overrides: str) -> Prepared:
    return prepare_stage(compose("prepare", [f"output_root={outputs}", *overrides]))


def numbers(images: pd.Series) -> pd.Series:
    """Return N of ``personN`` in the names of images, missing where there is none."""
    return images.str.extract(r"/person(\d+)_", expand=False)


def check_rows(prepared: Prepared, root: Path) -> None:
    """Check that images lie where the table says."""
    from cxr.imaging.preprocess import PreprocessSpec, to_square
    from cxr.imaging.read import read_gray

    spec = PreprocessSpec(prepared.pixels.shape[1])
    for row in range(0, len(prepared.table), 500):
        image = to_square(read_gray(root / prepared.table["image"].iloc[row]), spec)
        assert np.array_equal(image, prepared.pixels[row])


@pytest.mark.slow
def test_whole_cxr4_by_patient(shared, outputs):
    root = shared / "data" / "cxr4"
    found = prepare_whole(outputs, "data=cxr4", f"data.root={root}")
    counts = found.info["counts"]
    assert counts["rows"] == 6220
    assert counts["dropped_identical"] == 32
    assert counts["dropped_conflicting"] == 0
    assert counts["dropped_unreadable"] == 0
    assert counts["kept"] == len(found.table) == 6184
    near = [copy for copy in found.info["dropped"]["copies"] if copy["kind"] == "near"]
    assert len(near) == counts["dropped_near"] == 4
    assert all({"image", "copy_of", "orientation", "correlation"} <= set(copy) for copy in near)
    assert found.info["disjoint"]["crossing_groups"] == 0
    check_rows(found, root)
    table = found.table.assign(number=numbers(found.table["image"]))
    sides = table.dropna(subset="number").groupby("number")["split"].nunique()
    assert len(sides) > 1500
    assert (sides == 1).all()
    patients = table[table["patient_id"] != ""].groupby("patient_id")["split"].nunique()
    assert (patients == 1).all()
    shares = pd.crosstab(table["label"], table["split"], normalize="index")
    for split, wanted in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        # The 360 covid images come from 141 patients, of whom some have 6 % of them.
        for label, share in shares[split].items():
            assert share == pytest.approx(wanted, abs=0.02 if label == "covid" else 0.01), label


@pytest.mark.slow
def test_whole_cxr4_without_the_search_for_near_copies(shared, outputs):
    root = shared / "data" / "cxr4"
    found = prepare_whole(outputs, "data=cxr4", f"data.root={root}", "data.near_duplicates=false")
    assert found.info["counts"]["kept"] == 6188
    assert found.info["counts"]["dropped_near"] == 0


@pytest.mark.slow
def test_whole_cxr4_as_published_counts_what_crosses(shared, outputs):
    root = shared / "data" / "cxr4"
    found = prepare_whole(
        outputs,
        "data=cxr4",
        f"data.root={root}",
        "data.split=published",
        "data.near_duplicates=false",
    )
    table = found.table
    kermany = table[(table["source"] == "kermany") & (table["split"] == "test")]
    assert len(kermany) == 618
    assert set(kermany["published_split"]) == {"test"}
    disjoint = found.info["disjoint"]
    assert disjoint["crossing_forced_by_published_split"] is True
    assert disjoint["crossing_groups"] == len(disjoint["crossing_group_names"]) > 100
    assert 0 < disjoint["test_images_in_crossing_groups"] <= 618
    inner = table[table["split"] != "test"].groupby("group")["split"].nunique()
    assert (inner == 1).all()


@pytest.mark.slow
def test_whole_seed_keeps_its_test_and_its_copies_leave_train(shared, outputs):
    root = shared / "data" / "seed"
    found = prepare_whole(outputs, "data=seed", f"data.root={root}")
    test = found.table[found.table["split"] == "test"]
    assert all(re.match(r"val/", image) for image in test["image"])
    assert not found.table.loc[found.table["split"] != "test", "image"].str.match("val/").any()
    assert found.info["disjoint"]["crossing_groups"] == 0
    across = [
        copy
        for copy in found.info["dropped"]["copies"]
        if copy["image"].split("/")[0] != copy["copy_of"].split("/")[0]
    ]
    assert len(across) >= 8
    assert all(copy["image"].startswith("train/") for copy in across)
    # The offline-rotated copies of the original application carry names of their own.
    counts = found.info["counts"]
    assert counts["rows"] + counts["excluded"] == 5013
    assert counts["excluded"] == len(found.info["dropped"]["excluded"]) > 2000
    assert all(Path(image).name.startswith("_") for image in found.info["dropped"]["excluded"])
