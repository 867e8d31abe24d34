"""The leak experiment end to end on a tiny folder of synthetic images, without patient ids."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cxr.pipeline.train_stage as train_module
from cxr.data.phantom.writer import PhantomSettings, write_phantom
from cxr.errors import InputError
from cxr.pipeline.config import compose
from experiments.leak.__main__ import LeakConfig, run_leak

pytestmark = pytest.mark.slow

EACH = 4
"""An image and its three copies."""


@dataclass(frozen=True)
class Done:
    root: Path
    found: dict

    @property
    def folder(self) -> Path:
        return self.root / "outputs" / "folder" / "leak"


def overrides(root: Path, *extra: str) -> list[str]:
    return [
        "data=folder",
        f"data.root={root / 'images'}",
        f"output_root={root / 'outputs'}",
        "data.size=64",
        "data.near_duplicates=false",
        "model.input_size=64",
        "model.pretrained=none",
        "trainer.max_epochs=1",
        "trainer.batch_size=8",
        "trainer.progress=false",
        *extra,
    ]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Done:
    root = tmp_path_factory.mktemp("leak")
    settings = PhantomSettings(
        patients_per_class=12, images_per_patient=[1, 1], size_px=64, seed=2020
    )
    write_phantom(root / "phantom", settings)
    manifest = pd.read_csv(root / "phantom" / "manifest.csv")
    for number, row in manifest.iterrows():
        target = root / "images" / row["label"] / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / "phantom" / row["image"], target)
    return Done(root, run_leak(compose("leak", overrides(root), LeakConfig)))


def test_both_learn_as_long_from_images_that_the_other_test_does_not_hold(done):
    counts, predictions = done.found["images"], pd.read_csv(done.folder / "predictions.csv")
    kept = sum(counts["split_first"].values())
    aside = counts["split_first"]["other"]
    assert sum(counts["copies_first"].values()) == EACH * (kept - aside)
    steps = []
    for name in ("copies_first", "split_first"):
        curves = pd.read_csv(done.folder / name / "members" / "mobilenetv2" / "logs/curves.csv")
        steps.append(curves["step"].max())
    assert steps[0] == steps[1]
    others = predictions[predictions["tested_on"] == "other_images"]
    halves = [
        others[others["model"] == name]["image"].tolist()
        for name in ("copies_first", "split_first")
    ]
    assert halves[0] == halves[1]
    assert len(halves[0]) == aside
    own = predictions[predictions["tested_on"] == "own_test"]
    assert not set(own["group"]) & set(others["group"])
    # Split first tests whole images, copies first also copies.
    assert not own[own["model"] == "split_first"]["image"].str.contains("#").any()
    assert own[own["model"] == "copies_first"]["image"].str.contains("#").any()


def test_results_follow_from_the_predictions(done):
    found = json.loads((done.folder / "leak.json").read_text())
    predictions = pd.read_csv(done.folder / "predictions.csv")
    columns = [f"prob_{label}" for label in found["labels"]]
    best = np.array(found["labels"])[predictions[columns].to_numpy().argmax(axis=1)]
    right = (
        (best == predictions["label"])
        .groupby([predictions["model"], predictions["tested_on"]])
        .mean()
    )
    for (name, test), value in right.items():
        assert found["models"][name][test]["accuracy"]["value"] == pytest.approx(value)
    worth = found["differences"]["worth_of_the_leak"]["value"]
    claimed, honest = right["copies_first", "own_test"], right["split_first", "own_test"]
    assert worth == pytest.approx(claimed - honest)
    assert found["leaks"]["test_images"] == found["models"]["copies_first"]["own_test"]["n"]
    assert 0 < found["leaks"]["with_a_copy_in_train"] <= found["leaks"]["test_images"]
    assert found["recipe"]["copies"] == 3
    assert "not a medical device" in found["use"]


def test_figure_is_there(done):
    with Image.open(done.folder / "leak.png") as figure:
        assert figure.format == "PNG"
        assert figure.width > 1000
        figure.verify()


def test_what_is_trained_is_not_trained_again(done, monkeypatch):
    def never(*_args: object, **_options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(train_module, "fit", never)
    again = run_leak(compose("leak", overrides(done.root), LeakConfig))
    assert json.dumps(again["models"]) == json.dumps(done.found["models"])
    with pytest.raises(InputError, match="with other settings"):
        run_leak(compose("leak", overrides(done.root, "copies=2"), LeakConfig))


def test_images_that_neither_sees_are_needed(done):
    with pytest.raises(InputError, match="images that neither model sees"):
        run_leak(compose("leak", overrides(done.root, "data.fractions=[0.9,0.1,0]"), LeakConfig))
