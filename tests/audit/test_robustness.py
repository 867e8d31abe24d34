"""Changed images: each change does what it says, and a loss is found where there is one."""

import numpy as np
import pytest
import torch

from cxr.audit.perturbations import CHANGES, change_images
from cxr.audit.robustness import Level, _judge, _levels, audit_robustness, first_worse

NAMES = [change.name for change in CHANGES]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    rng = np.random.default_rng(0)
    ramp = np.linspace(60, 190, 64)[None, :, None] + np.linspace(-30, 30, 64)
    return np.rint(ramp + rng.normal(0, 8, (6, 64, 64))).clip(0, 255).astype(np.uint8)


def test_ten_kinds_of_change_at_four_levels():
    assert len(CHANGES) == 10
    assert all(len(change.levels) == 4 for change in CHANGES if change.name != "inverted gray")


@pytest.mark.parametrize("name", NAMES)
def test_a_stronger_level_is_further_from_the_image(images, name):
    levels = next(change.levels for change in CHANGES if change.name == name)
    distances = []
    for level in range(len(levels)):
        changed = change_images(images, name, level, seed=0)
        assert changed.shape == images.shape
        assert changed.dtype == np.uint8
        distances.append(np.abs(changed.astype(float) - images).mean())
    assert distances[0] > 0
    assert distances == sorted(distances)


def test_the_same_seed_gives_the_same_direction_at_every_level(images):
    weak, strong = (change_images(images, "brightness", level, seed=4) for level in (0, 3))
    signs = [
        np.sign(changed.mean(axis=(1, 2)) - images.mean(axis=(1, 2))) for changed in (weak, strong)
    ]
    assert (signs[0] == signs[1]).all()
    assert set(signs[0]) == {-1, 1}


def test_changes_match_what_they_are_called(images):
    assert (change_images(255 - images, "inverted gray", 0, seed=0) == images).all()
    shifted = change_images(images[:1], "shift", 3, seed=0)[0]
    pixels = round(0.2 * 64)
    rolled = [np.roll(images[0], step, axis) for axis in (0, 1) for step in (pixels, -pixels)]
    assert max((shifted == other).mean() for other in rolled) >= 1 - pixels / 64
    coarse = change_images(images, "resolution", 3, seed=0)
    assert len(np.unique(coarse[0])) < len(np.unique(images[0]))
    flat = change_images(images, "contrast", 3, seed=0)
    assert flat.std(axis=(1, 2)) == pytest.approx(0.2 * images.std(axis=(1, 2)), rel=0.1)
    noisy = change_images(images, "noise", 1, seed=0).astype(float) - images
    assert noisy.std() == pytest.approx(0.05 * 255, rel=0.05)


def flat(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.02, "high": value + 0.02}


def test_the_first_level_whose_loss_is_more_than_chance():
    levels = [
        Level("blur", word, flat(0.9 - loss), flat(loss), {}, False)
        for word, loss in (("a", 0.0), ("b", 0.01), ("c", 0.1), ("d", 0.05))
    ]
    assert first_worse(levels, "blur").severity == "c"
    assert first_worse(levels[:2], "blur") is None


def test_a_network_that_leans_on_exposure_is_found(patch_context, tmp_path):
    # A patch a tenth darker is no longer bright enough for it.
    result = audit_robustness(patch_context(folder=tmp_path, note="made up"), count=60)
    assert result.verdict in ("suspicious", "shortcut")
    (mildest,) = [part for part in result.sentence.split(". ") if part.startswith("Even the")]
    assert "brightness" in mildest
    assert "contrast" in mildest
    assert "blur" not in mildest
    assert result.statistic.low > 0
    assert result.values["accuracy"]["value"] == 1
    assert len(result.table("levels").rows) == 37
    assert (tmp_path / "robustness.png").stat().st_size > 10_000


def test_a_network_that_bears_mild_changes_is_clear(patch_context):
    context = patch_context()
    with torch.no_grad():
        context.members["patches"].head.weight[1] *= 5
    result = audit_robustness(context, count=60)
    assert result.verdict == "clear"
    assert "inverted gray" in result.sentence


def test_too_few_images_are_skipped_with_the_reason(patch_context):
    result = audit_robustness(patch_context(), count=20)
    assert result.verdict == "skipped"
    assert "20 test images are too few, 30 are needed" in result.reason


def test_a_loss_that_one_of_nine_changes_has_by_chance_is_no_alarm():
    # Six patients of sixty lose their image: p is 0.03, and nine changes were tried.
    first = np.ones(60, bool)
    changed = np.arange(60) >= 6
    models = {"ensemble": first}
    right = {("", 0): models}
    for change in CHANGES:
        for level in range(len(change.levels)):
            hurt = change.name == "blur" and level == 0
            right[change.name, level] = {"ensemble": changed if hurt else first}
    groups = np.arange(60).astype(str)
    clean, levels = _levels(right, groups, rng=np.random.default_rng(0), resamples=200)
    mildest = first_worse(levels, "blur")
    assert mildest.worse
    assert mildest.p == pytest.approx(2 / 2**6)
    assert _judge(clean, levels, 60, 0.25).verdict == "clear"
