"""Planted shortcuts: nothing by default, and only what they say."""

import numpy as np
import pytest
from PIL import Image

from cxr.data.phantom import PhantomSettings, write_phantom
from cxr.data.phantom.shortcut import GAMMAS, MARKED, plant
from cxr.errors import InputError
from cxr.labels import CANONICAL


@pytest.fixture
def film() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (96, 96), np.uint8)


def test_none_is_the_film(film):
    for label in CANONICAL:
        assert plant(film, label, "none") is film


def test_marker_lies_in_the_corner_of_one_class(film):
    for label in CANONICAL:
        changed = plant(film, label, "marker") != film
        assert changed.any() == (label == MARKED)
        assert not changed[8:].any()
        assert not changed[:, 16:].any()


def test_exposure_is_monotone_and_differs_by_class(film):
    seen = set()
    for label in CANONICAL:
        changed = plant(film, label, "exposure")
        order = np.argsort(film.ravel(), kind="stable")
        assert (np.diff(changed.ravel()[order].astype(int)) >= 0).all()
        seen.add(float(changed.mean()))
    assert len(seen) == len(set(GAMMAS.values())) == len(CANONICAL)


def test_all_else_is_the_phantom_without_one(tmp_path):
    for shortcut in ("none", "marker"):
        settings = PhantomSettings(1, (1, 1), size_px=64, seed=3, shortcut=shortcut)
        write_phantom(tmp_path / shortcut, settings)
    for path in sorted((tmp_path / "none").rglob("*.*")):
        other = tmp_path / "marker" / path.relative_to(tmp_path / "none")
        same = path.read_bytes() == other.read_bytes()
        assert same == (not path.name.startswith(MARKED) or "mask" in str(path.parent)), path
    with Image.open(next((tmp_path / "marker" / "images" / MARKED).iterdir())) as marked:
        assert np.asarray(marked)[2:5, 2:10].min() == 255


def test_unknown_shortcuts_are_refused():
    with pytest.raises(InputError, match=r"'flu': allowed are none, marker, exposure"):
        PhantomSettings(shortcut="flu")  # type: ignore[arg-type]
