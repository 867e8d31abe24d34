"""Heat maps in numpy against torch's enlargement and matplotlib's colours."""

import matplotlib
import numpy as np
import pytest
import torch
from torch.nn import functional

from cxr.bundle.maps import (
    DARKEST,
    HeatMaps,
    captioned,
    enlarge,
    heat_colours,
    outline_layer,
    overlay,
)
from cxr.errors import InputError
from cxr.explain.gradcam import ensemble_cam
from cxr.imaging.preprocess import Placement, PreprocessSpec, place, to_square

STRETCH = PreprocessSpec(64)
LETTERBOX = PreprocessSpec(64, "letterbox")


def random_maps(shape: tuple[int, int] = (64, 64), spec: PreprocessSpec = STRETCH) -> HeatMaps:
    rng = np.random.default_rng(0)
    members = {"a": rng.random((2, 5, 5), np.float32), "b": rng.random((2, 7, 7), np.float32)}
    image = rng.integers(0, 256, shape, np.uint8)
    return HeatMaps(("one", "two"), members, {"a": 0.25, "b": 0.75}, image, place(shape, spec))


@pytest.mark.parametrize("shape", [(64, 64), (100, 37), (5, 5), (3, 200)])
@pytest.mark.parametrize("cells", [(1, 1), (2, 2), (5, 5), (7, 7)])
def test_enlarging_is_torchs_bilinear_interpolation(shape, cells):
    values = np.random.default_rng(0).random(cells, np.float32)
    if shape[0] < cells[0]:
        pytest.skip("torch shrinks by another rule than it enlarges")
    wanted = functional.interpolate(torch.from_numpy(values)[None, None], shape, mode="bilinear")
    found = enlarge(values, shape, Placement())
    assert np.allclose(found, wanted[0, 0].numpy(), atol=1e-5)


def test_the_ensembles_map_is_that_of_the_explain_stage():
    maps = random_maps()
    for number, label in enumerate(maps.classes):
        raw = {name: values[number][None] for name, values in maps.members.items()}
        wanted = ensemble_cam(raw, maps.weights, 64)[0]
        assert np.allclose(maps.of(label), wanted, atol=1e-5)
        assert np.array_equal(maps.of(label), maps.of(label, "ensemble"))
        assert maps.of(label, "a").max() <= 1 + 1e-6


@pytest.mark.parametrize("spec", [STRETCH, LETTERBOX])
@pytest.mark.parametrize("shape", [(300, 120), (120, 300)])
def test_a_map_lies_where_the_image_is_bright(spec, shape):
    image = np.zeros(shape, np.uint8)
    rows, columns = slice(shape[0] // 4, shape[0] // 2), slice(0, shape[1] // 3)
    image[rows, columns] = 255
    square = to_square(image, spec).astype(np.float32) / 255
    cells = functional.avg_pool2d(torch.from_numpy(square)[None, None], 4)[0, 0].numpy()
    values = enlarge(cells, shape, place(shape, spec))
    inside = np.zeros(shape, bool)
    inside[rows, columns] = True
    assert (values[inside] > 0.5).mean() > 0.8
    assert (values[~inside] < 0.5).mean() > 0.95


def test_a_map_without_activation_stays_zero():
    maps = random_maps()
    maps.members["a"][:] = 0
    assert not maps.of("one", "a").any()
    assert maps.of("one").max() <= 0.75 + 1e-6


def test_unknown_names_say_what_is_allowed():
    maps = random_maps()
    with pytest.raises(InputError, match="allowed are one, two"):
        maps.of("three")
    with pytest.raises(InputError, match="allowed are a, b, ensemble"):
        maps.of("one", "c")
    with pytest.raises(InputError, match="allowed are 0 to 1"):
        maps.overlay("one", opacity=1.5)


def test_the_overlay_shows_the_image_where_nothing_is_active():
    image = np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)
    values = np.zeros(image.shape, np.float32)
    values[:20] = 1
    found = overlay(image, values, 0.5)
    assert found.shape == (40, 50, 3)
    assert np.array_equal(found[20:], np.repeat(image[20:, :, None], 3, axis=2))
    blend = 0.5 * image[:20, :, None] + 0.5 * heat_colours()[-1]
    assert np.abs(found[:20] - blend).max() <= 1
    untouched = overlay(image, values, 0)
    assert np.array_equal(untouched, np.repeat(image[:, :, None], 3, axis=2))


def test_the_colours_are_those_of_the_figures():
    wanted = matplotlib.colormaps["inferno"](np.linspace(DARKEST, 1, 256))[:, :3] * 255
    assert np.abs(heat_colours() - wanted).max() < 6


@pytest.mark.parametrize("side", [40, 900])
def test_the_strip_of_words_is_as_wide_as_its_longest_line(side):
    sheet = captioned(np.full((side, side), 77, np.uint8), ["short", "a line that is longer " * 3])
    left = (sheet.shape[1] - side) // 2
    assert sheet.shape[1] >= side
    assert (sheet[:side, left : left + side] == 77).all()
    strip = sheet[side:]
    assert (strip[:, -3:] == strip[-1, -1]).all(), "no word is cut"
    assert strip.max() > 200


def test_the_outline_surrounds_the_mask_at_the_image_s_own_size():
    mask = np.zeros((128, 128), bool)
    mask[32:96, 32:96] = True

    layer = outline_layer(mask, (600, 300))

    assert layer.shape == (600, 300, 4)
    alpha = layer[..., 3]
    assert not alpha[170:430, 85:215].any(), "nothing inside"
    assert not alpha[:140].any(), "nothing outside"
    assert not alpha[:, :65].any(), "nothing outside"
    white = np.argwhere((layer[..., :3] == 255).all(axis=2))
    assert np.allclose(white.min(axis=0), (150, 75), atol=3)
    assert np.allclose(white.max(axis=0), (449, 224), atol=3)
    assert not outline_layer(np.zeros((128, 128), bool), (50, 40)).any()
