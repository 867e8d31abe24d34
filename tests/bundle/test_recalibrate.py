"""A bundle recalibrated on local images answers with its new confidence, and says so."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr.bundle.format import describe, read_info
from cxr.bundle.predictor import Predictor
from cxr.errors import InputError, MissingInputError
from cxr.pipeline import recalibrate_stage as stage
from cxr.pipeline.config import compose
from cxr.reliability.conformal import tempered

pytestmark = pytest.mark.long


def overrides(run, *extra: str) -> list[str]:
    """Return those that recalibrate the tiny run on a phantom that it never saw."""
    return [
        "data=phantom",
        "data.name=clinic",
        "data.phantom.seed=7",
        "data.phantom.size_px=64",
        "data.phantom.patients_per_class=8",
        "data.phantom.images_per_patient=[2,2]",
        f"output_root={run.output_root}",
        f"run={run.data}/{run.run}",
        "dealings=20",
        "threads=1",
        *extra,
    ]


@pytest.fixture(scope="module")
def local(exported_run) -> Path:
    return stage.recalibrate_stage(compose("recalibrate", overrides(exported_run)))


def test_the_new_bundle_says_what_it_was_fitted_on(local, tiny_bundle):
    info, former = read_info(local), read_info(tiny_bundle)
    part = info["recalibration"]
    assert local.name == "bundle-clinic"
    assert (part["images"], part["patients"], part["data"]) == (64, 32, "clinic")
    assert part["parent"] == former["fingerprint"] != info["fingerprint"]
    assert info["format"] == 3
    assert info["uncertainty"]["fitted_on"] == "local images"
    assert "confidence fitted anew on clinic" in info["note"]
    card = (local / "MODEL_CARD.md").read_text()
    assert "64 images of 32 patients of clinic" in card
    assert "| 0.9 | after |" in card
    assert "recalibrated  on 64 images" in describe(local)
    json.dumps(part, allow_nan=False)
    for when in ("before", "after"):
        assert 0 <= part["coverage"]["0.9"][when]["coverage"]["value"] <= 1


def test_its_answers_have_the_new_temperature(local, tiny_bundle, exported_run):
    path = next(Path(exported_run.output_root, "phantom").glob("images-*/**/*.png"))
    before, after = Predictor(tiny_bundle).predict(path), Predictor(local).predict(path)
    heat = read_info(local)["recalibration"]["temperature"]
    expected = tempered([list(before.probs.values())], heat)[0]
    np.testing.assert_allclose(list(after.probs.values()), expected, rtol=1e-6)


def test_distances_and_drift_are_fitted_anew(local, tiny_bundle):
    info, former = read_info(local), read_info(tiny_bundle)
    assert info["ood"]["note"] == "distances fitted anew on 64 local images"
    assert info["ood"]["limits"]["turned"] == former["ood"]["limits"]["turned"]
    assert sum(info["drift"]["refused"]["counts"]) == 64
    assert sum(former["drift"]["score"]["counts"]) > 0


def test_a_bundle_is_recalibrated_from_its_folder_alone_and_only_once(
    local, tiny_bundle, exported_run, caplog
):
    given = overrides(exported_run, f"bundle={tiny_bundle}", "data.name=other")
    assert stage.recalibrate_stage(compose("recalibrate", given)).name == "bundle-other"
    assert "does not tell which images it learnt from" in caplog.text
    with pytest.raises(InputError, match="is recalibrated already"):
        stage.recalibrate_stage(compose("recalibrate", overrides(exported_run, f"bundle={local}")))


def test_what_no_class_is_known_of_is_left_out_and_said(exported_run, tmp_path, caplog):
    rng = np.random.default_rng(0)
    counts = dict.fromkeys(("normal", "covid", "bacterial", "viral"), 15)
    for label, count in (counts | {"flu": 3, "bacterial|viral": 4}).items():
        (tmp_path / label).mkdir()
        for n in range(count):
            pixels = Image.fromarray(rng.integers(0, 256, (64, 64), np.uint8))
            pixels.save(tmp_path / label / f"{n}.png")
    words = overrides(exported_run, "data.name=mixed", f"data.root={tmp_path}")
    words = [
        "data=folder",
        *(word for word in words if "data=" not in word and "phantom." not in word),
    ]
    part = read_info(stage.recalibrate_stage(compose("recalibrate", words)))["recalibration"]
    assert part["images"] == 60
    assert part["left_out"] == {"unknown_classes": {"flu": 3}, "partly_known": 4}
    assert "3 images of class flu are left out: the run does not know it" in caplog.text


def test_too_few_images_and_no_run_are_one_line(exported_run):
    few = overrides(exported_run, "data.name=few", "data.phantom.patients_per_class=5")
    with pytest.raises(InputError, match=r"has 40 labelled images .* at least 50 are needed"):
        stage.recalibrate_stage(compose("recalibrate", few))
    with pytest.raises(MissingInputError, match="there is no run phantom/nothing"):
        stage.recalibrate_stage(
            compose("recalibrate", overrides(exported_run, "run=phantom/nothing"))
        )
