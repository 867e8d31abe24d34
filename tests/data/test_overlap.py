"""Images of one set found in another."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from cxr.data.groups import find_overlap


def image(seed, side=128):
    """Draw a thorax-like picture with detail of its own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    thorax = 120 - 90 * np.exp(-(((np.abs(x) - 0.22) / 0.13) ** 2) - (y / 0.3) ** 2)
    own = sum(
        weight * ndimage.gaussian_filter(rng.standard_normal((side, side)), width) * width
        for width, weight in ((2, 20), (6, 40), (16, 60))
    )
    return np.clip(thorax + 20 * y + own, 0, 255).astype(np.uint8)


def encoded_again(square):
    stream = io.BytesIO()
    Image.fromarray(square).save(stream, "JPEG", quality=60)
    return np.asarray(Image.open(stream))


@pytest.fixture(scope="module")
def known():
    return np.stack([image(seed) for seed in range(10)])


def names(prefix, count):
    return [f"{prefix}{index}" for index in range(count)]


def test_identical_near_and_mirrored_images_are_found(known):
    mine = np.stack([image(100), known[3], encoded_again(known[5]), known[7][:, ::-1], image(101)])
    digests = names("new", 5)
    digests[1] = "old3"
    counted = []
    found = find_overlap(
        mine, digests, known, names("old", 10), on_progress=lambda: counted.append(1)
    )
    assert found.pairs.tolist() == [[1, 3], [2, 5], [3, 7]]
    assert found.identical.tolist() == [True, False, False]
    assert (found.correlation > 0.85).all()
    assert len(counted) == 15


def test_copies_inside_either_set_are_not_told(known):
    mine = np.stack([image(100), encoded_again(image(100))])
    twice = np.concatenate([known, known[:1]])
    found = find_overlap(mine, names("new", 2), twice, names("old", 11))
    assert len(found.pairs) == 0


@pytest.mark.parametrize("count", [0, 1])
def test_empty_sets_have_none(known, count):
    found = find_overlap(known[:count], names("new", count), known[:0], [])
    assert len(found.pairs) == 0
