import numpy as np
import pytest
from PIL import Image

from cxr.errors import InputError
from cxr.explain.gradcam import resize_maps
from cxr.explain.pointing import find_peaks, pointing_game, read_masks, wilson
from cxr.preprocess import PreprocessSpec


def spot(side: int, row: int, column: int) -> np.ndarray:
    values = np.zeros((side, side), np.float32)
    values[row, column] = 1
    return values


def test_hits_and_chance_match_a_case_worked_by_hand():
    lesions = np.zeros((3, 10, 10), bool)
    lesions[:2, :, :2] = True
    maps = {"one": np.stack([spot(10, 5, 1), spot(10, 5, 4), spot(10, 0, 0)])}
    lungs = np.zeros_like(lesions)
    lungs[:, :, :4] = True
    found = pointing_game(maps, lesions, ["covid", "viral", "normal"], cell_px=6.0, lungs=lungs)
    whole = found["all"]
    assert whole["films"] == 2
    assert whole["models"]["one"]["inside"]["hits"] == 1
    # Column 4 is 3 pixels from column 1, which is half a cell.
    assert whole["models"]["one"]["half_cell"]["hits"] == 2
    assert whole["chance"]["film"] == pytest.approx({"inside": 0.2, "half_cell": 0.5})
    assert whole["chance"]["lungs"] == pytest.approx({"inside": 0.5, "half_cell": 1.0})
    assert list(found["per_class"]) == ["covid", "viral"]
    assert found["per_class"]["viral"]["models"]["one"]["inside"]["rate"] == 0


def test_random_points_score_the_chance_level():
    rng = np.random.default_rng(0)
    lesions = np.zeros((400, 16, 16), bool)
    lesions[:, 2:9, 3:8] = True
    maps = {"random": rng.random((400, 16, 16)).astype(np.float32)}
    found = pointing_game(maps, lesions, ["covid"] * 400, cell_px=4.0)["all"]
    for key, share in found["models"]["random"].items():
        assert share["low"] < found["chance"]["film"][key] < share["high"]
    assert "lungs" not in found["chance"]


def test_a_map_without_activation_misses():
    lesions = np.ones((1, 8, 8), bool)
    found = pointing_game({"silent": np.zeros((1, 8, 8), np.float32)}, lesions, ["a"], cell_px=8.0)
    assert found["all"]["models"]["silent"]["half_cell"]["hits"] == 0


def test_films_without_lesions_leave_an_empty_game():
    empty = np.zeros((2, 8, 8), bool)
    found = pointing_game({"m": np.ones((2, 8, 8), np.float32)}, empty, ["a", "b"], cell_px=2.0)
    assert found["all"]["films"] == 0
    assert np.isnan(found["all"]["models"]["m"]["inside"]["rate"])
    assert found["per_class"] == {}


def test_maps_of_other_films_are_refused():
    with pytest.raises(InputError, match="use the same films"):
        pointing_game(
            {"m": np.ones((1, 8, 8), np.float32)}, np.ones((2, 8, 8), bool), ["a", "b"], cell_px=2
        )


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 3), (3, 1), (2, 2)])
def test_peak_of_an_enlarged_map_lies_at_the_centre_of_its_cell(row, column):
    large = resize_maps(spot(4, row, column)[None], 128)
    peak = find_peaks(large)[0]
    centre = np.array([row, column]) * 32 + 15.5
    assert np.abs(peak - centre).max() <= 1


@pytest.mark.parametrize(
    ("hits", "films", "low", "high"),
    # By statsmodels.stats.proportion.proportion_confint(hits, films, method="wilson").
    [(7, 10, 0.396778, 0.892209), (0, 20, 0.0, 0.161125), (20, 20, 0.838875, 1.0)],
)
def test_wilson_interval_matches_published_values(hits, films, low, high):
    found = wilson(hits, films)
    assert found["rate"] == hits / films
    assert found["low"] == pytest.approx(low, abs=1e-5)
    assert found["high"] == pytest.approx(high, abs=1e-5)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_masks_follow_the_geometry_of_the_films(tmp_path, fit):
    mask = np.zeros((200, 400), bool)
    mask[:, :200] = True
    Image.fromarray(mask).save(tmp_path / "mask.png")
    found = read_masks(tmp_path, ["mask.png", ""], PreprocessSpec(64, fit))
    expected = np.zeros((64, 64), bool)
    expected[slice(16, 48) if fit == "letterbox" else slice(None), :32] = True
    np.testing.assert_array_equal(found[0], expected)
    assert not found[1].any()


def test_a_missing_mask_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no image at lost\.png"):
        read_masks(tmp_path, ["lost.png"], PreprocessSpec(64))
