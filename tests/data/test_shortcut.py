"""Planted shortcuts: nothing by default, and only what they say."""

import numpy as np
import pytest
from PIL import Image

from cxr.data.phantom.phantom_image import draw_pose
from cxr.data.phantom.render import render_patient
from cxr.data.phantom.writer import (
    FRAMES,
    GAMMAS,
    MARKED,
    PhantomSettings,
    frame,
    plant,
    write_phantom,
)
from cxr.errors import InputError
from cxr.labels import CANONICAL


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (96, 96), np.uint8)


@pytest.mark.parametrize("shortcut", ["none", "framing"])
def test_none_is_the_image(image, shortcut):
    for label in CANONICAL:
        assert plant(image, label, shortcut) is image


@pytest.mark.parametrize("shortcut", ["marker", "exposure"])
def test_strength_goes_from_nothing_to_all(image, shortcut):
    label = MARKED
    np.testing.assert_array_equal(plant(image, label, shortcut, strength=0), image)
    half, whole = (plant(image, label, shortcut, strength=s).astype(int) for s in (0.5, 1.0))
    np.testing.assert_array_equal(plant(image, label, shortcut), whole)
    part = np.abs(half - image).sum() / np.abs(whole - image).sum()
    assert 0.4 < part < 0.6


def test_marker_lies_in_the_corner_of_one_class(image):
    for label in CANONICAL:
        changed = plant(image, label, "marker") != image
        assert changed.any() == (label == MARKED)
        assert not changed[8:].any()
        assert not changed[:, 16:].any()


def test_exposure_is_monotone_and_differs_by_class(image):
    seen = set()
    for label in CANONICAL:
        changed = plant(image, label, "exposure")
        order = np.argsort(image.ravel(), kind="stable")
        assert (np.diff(changed.ravel()[order].astype(int)) >= 0).all()
        seen.add(float(changed.mean()))
    assert len(seen) == len(set(GAMMAS.values())) == len(CANONICAL)


def lung_box(shortcut, label, *, strength=1.0, number=0):
    """Return height, width and middle row of the lungs' box, in pixels, and the image."""
    image = render_patient(
        label,
        number,
        seed=3,
        size_px=128,
        images=(1, 1),
        place=lambda pose: frame(pose, label, shortcut, strength=strength),
    )[1][0]
    tall, wide = np.flatnonzero(image.lung.any(axis=1)), np.flatnonzero(image.lung.any(axis=0))
    return len(range(tall[0], tall[-1] + 1)), len(range(wide[0], wide[-1] + 1)), image


def test_framing_zooms_lungs_and_lesions_of_each_class_by_its_own_factor():
    for label, (zoom, _, aspect) in FRAMES.items():
        _, wide, before = lung_box("none", label, number=1)
        _, zoomed, after = lung_box("framing", label, number=1)
        # Cut at the image's edge where it grows.
        assert zoomed / wide == pytest.approx(zoom * aspect, abs=0.03), label
        if label != "normal" and zoom < 1:
            share = after.lesion.sum() / before.lesion.sum()
            assert share == pytest.approx(zoom**2 * aspect, abs=0.12), label
        assert (after.pixels != before.pixels).any() == (label != "normal")


def test_framing_strength_runs_from_none_to_all():
    rng = np.random.default_rng(0)
    pose = draw_pose(rng, "PA", 64)
    assert frame(pose, "covid", "framing", strength=0) == pose
    assert frame(pose, "covid", "marker") is pose
    half = frame(frame(pose, "covid", "framing", strength=0.5), "covid", "framing", strength=0.5)
    whole = frame(pose, "covid", "framing")
    assert half.scale == pytest.approx(whole.scale)
    assert half.shift == pytest.approx(whole.shift)
    _, wide, _ = lung_box("framing", "covid", strength=0.5, number=1)
    assert lung_box("framing", "covid", number=1)[1] < wide < lung_box("none", "covid", number=1)[1]


def test_all_else_is_the_phantom_without_one(tmp_path):
    for shortcut in ("none", "marker"):
        settings = PhantomSettings(1, [1, 1], size_px=64, seed=3, shortcut=shortcut)
        write_phantom(tmp_path / shortcut, settings)
    for path in sorted((tmp_path / "none").rglob("*.*")):
        other = tmp_path / "marker" / path.relative_to(tmp_path / "none")
        same = path.read_bytes() == other.read_bytes()
        assert same == (not path.name.startswith(MARKED) or "mask" in str(path.parent)), path
    with Image.open(next((tmp_path / "marker" / "images" / MARKED).iterdir())) as marked:
        assert np.asarray(marked)[2:5, 2:10].min() == 255


def test_the_folder_of_a_framed_phantom_holds_framed_images_and_masks(tmp_path):
    for shortcut in ("none", "framing"):
        settings = PhantomSettings(1, [1, 1], size_px=64, seed=3, shortcut=shortcut)
        write_phantom(tmp_path / shortcut, settings)
    for path in sorted((tmp_path / "none").rglob("*.png")):
        other = tmp_path / "framing" / path.relative_to(tmp_path / "none")
        # The normal ones are framed as without a shortcut.
        assert (path.read_bytes() == other.read_bytes()) == path.name.startswith("normal"), path


def test_unknown_shortcuts_are_refused():
    with pytest.raises(InputError, match=r"'flu': allowed are none, marker, exposure, framing"):
        PhantomSettings(shortcut="flu")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"shortcut_strength is 1.5: allowed are 0 to 1"):
        PhantomSettings(shortcut="marker", shortcut_strength=1.5)
