"""Cross-validation end to end on the tiny phantom: two folds of two small members."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cxr.pipeline.cv_stage as cv_module
import cxr.pipeline.train_stage as train_module
from cxr.errors import InputError
from cxr.evaluation.evaluate import read_predictions
from cxr.pipeline.config import compose
from cxr.pipeline.cv_stage import cv_stage, leave_folds_out
from cxr.pipeline.ensemble_stage import ensemble_stage
from cxr.pipeline.prepare_stage import prepare_stage
from cxr.pipeline.run_folder import RESEARCH, SYNTHETIC, open_run

pytestmark = pytest.mark.slow

NAMES = ("one", "two")


def overrides(output_root: Path, member: str, *extra: str) -> list[str]:
    return [
        "data=phantom",
        "data.size=64",
        "data.phantom.size_px=64",
        "data.phantom.patients_per_class=8",
        "data.phantom.images_per_patient=[2,2]",
        f"output_root={output_root}",
        "run=cv",
        f"model.name={member}",
        "folds=2",
        "members=[one,two]",
        "model.pretrained=none",
        "model.input_size=64",
        "trainer.max_epochs=1",
        "trainer.batch_size=8",
        "trainer.progress=false",
        *extra,
    ]


def run(output_root: Path, member: str, *extra: str):
    return cv_stage(compose("cv", overrides(output_root, member, *extra)))


@dataclass(frozen=True)
class Done:
    output_root: Path
    first: object
    found: dict

    @property
    def folder(self) -> Path:
        return self.output_root / "phantom" / "cv" / "cv-2"


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Done:
    root = tmp_path_factory.mktemp("cv")
    first = run(root, "one")
    return Done(root, first, run(root, "two"))


@pytest.fixture
def copied(done, tmp_path) -> Path:
    """Return a copy of the outputs that a test may change."""
    shutil.copytree(done.output_root, tmp_path / "outputs")
    return tmp_path / "outputs"


def table_of(done: Done) -> pd.DataFrame:
    return prepare_stage(compose("cv", overrides(done.output_root, "one"))).table


def test_pooling_waits_for_the_last_member(done):
    assert done.first is None
    assert done.found["members"] == list(NAMES)


def test_every_image_is_predicted_once_by_its_own_fold(done):
    table = table_of(done)
    pooled = read_predictions(done.folder / "predictions.csv")
    assert pooled["image"].tolist() == table["image"].tolist()
    assert set(pooled["fold"]) == {1, 2}
    assert pooled.groupby("group")["fold"].nunique().max() == 1
    assert pooled.groupby("fold")["label"].nunique().tolist() == [4, 4]
    for fold in (1, 2):
        part = read_predictions(done.folder / f"fold-{fold}" / "predictions.csv")
        mine = pooled[pooled["fold"] == fold]
        assert set(part["image"]) == set(mine["image"])
        for name in NAMES:
            path = done.folder / f"fold-{fold}" / "members" / name / "predictions.csv"
            validated = pd.read_csv(path)
            assert set(validated["split"]) == {"val"}
            groups = set(table.set_index("image").loc[validated["image"], "group"])
            assert not groups & set(mine["group"])


def test_figures_follow_from_the_pooled_predictions(done):
    found = json.loads((done.folder / "cv.json").read_text())
    pooled = read_predictions(done.folder / "predictions.csv")
    right = pooled["prediction"] == pooled["label"]
    accuracy = found["models"]["ensemble"]["accuracy"]
    assert accuracy["value"] == pytest.approx(right.mean())
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    each = right.groupby(pooled["fold"]).mean().tolist()
    assert [fold["models"]["ensemble"]["accuracy"] for fold in found["per_fold"]] == (
        pytest.approx(each)
    )
    spread = found["across_folds"]["ensemble"]["accuracy"]
    assert spread["mean"] == pytest.approx(np.mean(each))
    assert (spread["min"], spread["max"]) == pytest.approx((min(each), max(each)))
    assert sum(fold["n"] for fold in found["per_fold"]) == found["n"] == 64
    assert found["note"] == f"{SYNTHETIC} · {RESEARCH}"
    assert found["synthetic"] is True
    assert set(found["models"]) == {*NAMES, "equal", "ensemble"}


def test_pixels_are_shared(done):
    assert not list(done.folder.rglob("*.npy"))
    assert len(list(done.output_root.rglob("pixels.npy"))) == 1


def test_finished_folds_are_not_done_again(done, copied, monkeypatch):
    def never(*_args: object, **_options: object) -> None:
        raise AssertionError("done again")

    monkeypatch.setattr(train_module, "fit", never)
    monkeypatch.setattr(cv_module, "predict_rows", never)
    again = run(copied, "two")
    assert again is not None
    # As text, since undefined metrics are NaN.
    assert json.dumps(again["models"]) == json.dumps(done.found["models"])
    for name in ("predictions.csv", "fold-1/predictions.csv"):
        mine = copied / "phantom" / "cv" / "cv-2" / name
        assert mine.read_bytes() == (done.folder / name).read_bytes()


def test_only_what_is_missing_is_trained(copied, monkeypatch):
    folder = copied / "phantom" / "cv" / "cv-2"
    shutil.rmtree(folder / "fold-2" / "members" / "two")
    before = read_predictions(folder / "predictions.csv")
    trained, fit = [], train_module.fit

    def counted(*args, **options):
        trained.append(args[3].relative_to(folder).as_posix())
        return fit(*args, **options)

    monkeypatch.setattr(train_module, "fit", counted)
    assert run(copied, "two") is not None
    assert trained == ["fold-2/members/two"]
    pd.testing.assert_frame_equal(read_predictions(folder / "predictions.csv"), before)


def test_other_images_or_settings_are_refused(copied):
    with pytest.raises(InputError, match=r"on other images or another split.*another run=NAME"):
        run(copied, "one", "data.split_seed=1")
    with pytest.raises(InputError, match=r"with other settings.*trainer\.lr.*run=NAME"):
        run(copied, "one", "trainer.lr=0.01")


def test_members_must_hold_the_one_that_is_trained(tmp_path):
    with pytest.raises(InputError, match="members is two and lacks 'one'"):
        run(tmp_path, "one", "members=[two]")


def test_each_fold_has_its_own_fingerprint_and_every_split(done):
    prepared = prepare_stage(compose("cv", overrides(done.output_root, "one")))
    sets = leave_folds_out(prepared, 4, [0.7, 0.1, 0.2], 0)
    prints = {images.info["fingerprint"] for images in sets.values()} | {
        prepared.info["fingerprint"]
    }
    assert len(prints) == 5
    for images in sets.values():
        assert images.pixels is prepared.pixels
        assert images.table.groupby("split")["label"].nunique().to_dict() == {
            "test": 4,
            "train": 4,
            "val": 4,
        }
    tested = pd.concat([images.table[images.table["split"] == "test"] for images in sets.values()])
    assert sorted(tested["image"]) == sorted(prepared.table["image"])


@pytest.fixture
def fittable(copied) -> Path:
    """Return a run whose members are those of the first fold, as if trained on its own split."""
    config = compose("cv", overrides(copied, "one"))
    prepared = prepare_stage(config)
    folder = open_run(config, prepared)
    shutil.copytree(folder / "cv-2" / "fold-1" / "members", folder / "members")
    for name in NAMES:
        change(
            folder / "members" / name / "member.json",
            data={"fingerprint": prepared.info["fingerprint"]},
        )
    return copied


def change(path: Path, **parts: dict) -> None:
    """Change values one level down in a JSON file."""
    values = json.loads(path.read_text())
    for name, part in parts.items():
        values[name] |= part
    path.write_text(json.dumps(values))


def fitted_on_cv(root: Path, *extra: str) -> dict:
    return ensemble_stage(
        compose(
            "ensemble", ["data=phantom", "run=cv", f"output_root={root}", "fitted_on=cv", *extra]
        )
    )


def test_the_ensemble_is_fitted_on_out_of_fold_images_of_no_test_patient(done, fittable, caplog):
    table = table_of(done)
    tested = set(table.loc[table["split"] == "test", "group"])
    kept = table.loc[~table["group"].isin(tested)]
    with caplog.at_level("INFO"):
        found = fitted_on_cv(fittable)
    assert found["fitted_on"] == "cv"
    assert found["validation"]["images"] == len(kept) < len(table)
    assert f"{len(table) - len(kept)} of patients in this run's test split left out" in caplog.text
    folder = fittable / "phantom" / "cv"
    uncertainty = json.loads((folder / "uncertainty.json").read_text())
    assert (uncertainty["fitted_on"], uncertainty["n"]) == ("cv", len(kept))
    # Whatever the folds say of test patients changes nothing, and what they say of others does.
    path = folder / "cv-2" / "predictions.csv"
    pooled = read_predictions(path)
    columns = [name for name in pooled if name.startswith("logit_")]
    for rows, same in (
        (pooled["group"].isin(tested), True),
        (~pooled["group"].isin(tested), False),
    ):
        pooled.loc[rows, columns] = pooled.loc[rows, columns[::-1]].to_numpy()
        pooled.to_csv(path, index=False)
        again = fitted_on_cv(fittable)
        assert (again["temperatures"] == found["temperatures"]) == same


def test_another_cross_validation_is_refused_in_one_line(fittable):
    folder = fittable / "phantom" / "cv"
    change(
        folder / "members" / "two" / "settings.json", settings={"trainer": {"lr": 0.5}, "model": {}}
    )
    with pytest.raises(
        InputError, match=r"cv-2 trained two with trainer\.lr=\S+, the run with 0\.5"
    ):
        fitted_on_cv(fittable)
    assert fitted_on_cv(fittable, "members=[one]")["members"] == ["one"]
    path = folder / "cv-2" / "cv.json"
    values = json.loads(path.read_text())
    for changed, message in (
        ({"members": ["two"]}, r"lacks the member 'one'.*scripts/cv.py"),
        ({"fingerprint": "0" * 64}, "of another prepared set"),
    ):
        path.write_text(json.dumps(values | changed))
        with pytest.raises(InputError, match=message) as error:
            fitted_on_cv(fittable, "members=[one]")
        assert "\n" not in str(error.value)
    path.unlink()
    with pytest.raises(
        InputError, match=r"no finished cross-validation to fit on: first run .*scripts/cv\.py"
    ):
        fitted_on_cv(fittable)
    with pytest.raises(InputError, match="fitted_on is 'test': allowed are validation, cv"):
        fitted_on_cv(fittable, "fitted_on=test")
