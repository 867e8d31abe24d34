import numpy as np
import pytest
from PIL import Image

from cxr.errors import InputError
from cxr.evaluation.intervals import share_interval
from cxr.explain.gradcam import resize_maps
from cxr.explain.pointing import find_peaks, pointing_game, read_masks
from cxr.imaging.preprocess import PreprocessSpec


def play(maps, lesions, labels, groups=None, **options):
    """Play the game, a patient an image where none is given."""
    patients = np.arange(len(labels)) if groups is None else groups
    return pointing_game(maps, lesions, labels, patients, interval=share_interval, **options)


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
    found = play(maps, lesions, ["covid", "viral", "normal"], cell_px=6.0, lungs=lungs)
    whole = found["all"]
    assert whole["images"] == 2
    assert whole["models"]["one"]["inside"]["hits"] == 1
    # Column 4 is 3 pixels from column 1, which is half a cell.
    assert whole["models"]["one"]["half_cell"]["hits"] == 2
    assert whole["chance"]["image"] == pytest.approx({"inside": 0.2, "half_cell": 0.5})
    assert whole["chance"]["lungs"] == pytest.approx({"inside": 0.5, "half_cell": 1.0})
    assert list(found["per_class"]) == ["covid", "viral"]
    assert found["per_class"]["viral"]["models"]["one"]["inside"]["rate"] == 0


def test_random_points_score_the_chance_level():
    rng = np.random.default_rng(0)
    lesions = np.zeros((400, 16, 16), bool)
    lesions[:, 2:9, 3:8] = True
    maps = {"random": rng.random((400, 16, 16)).astype(np.float32)}
    found = play(maps, lesions, ["covid"] * 400, cell_px=4.0)["all"]
    for key, share in found["models"]["random"].items():
        assert share["low"] < found["chance"]["image"][key] < share["high"]
    assert "lungs" not in found["chance"]


def test_a_map_without_activation_misses():
    lesions = np.ones((1, 8, 8), bool)
    found = play({"silent": np.zeros((1, 8, 8), np.float32)}, lesions, ["a"], cell_px=8.0)
    assert found["all"]["models"]["silent"]["half_cell"]["hits"] == 0


def test_images_without_lesions_leave_an_empty_game():
    empty = np.zeros((2, 8, 8), bool)
    found = play({"m": np.ones((2, 8, 8), np.float32)}, empty, ["a", "b"], cell_px=2.0)
    assert found["all"]["images"] == 0
    assert np.isnan(found["all"]["models"]["m"]["inside"]["rate"])
    assert found["per_class"] == {}


def test_maps_of_other_images_are_refused():
    with pytest.raises(InputError, match="use the same images"):
        play(
            {"m": np.ones((1, 8, 8), np.float32)},
            np.ones((2, 8, 8), bool),
            ["a", "b"],
            list("pq"),
            cell_px=2,
        )


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 3), (3, 1), (2, 2)])
def test_peak_of_an_enlarged_map_lies_at_the_centre_of_its_cell(row, column):
    large = resize_maps(spot(4, row, column)[None], 128)
    peak = find_peaks(large)[0]
    centre = np.array([row, column]) * 32 + 15.5
    assert np.abs(peak - centre).max() <= 1


def test_intervals_count_patients_not_images():
    """Five images a patient that hit or miss together are worth one image a patient."""
    lesions = np.zeros((200, 8, 8), bool)
    lesions[:, :, :4] = True
    hit = np.repeat(np.arange(40) < 30, 5)
    maps = {"m": np.stack([spot(8, 4, 1 if right else 6) for right in hit])}
    patients = np.repeat([f"p{n}" for n in range(40)], 5)
    many = play(maps, lesions, ["a"] * 200, patients, cell_px=1.0)["all"]
    once = play({"m": maps["m"][::5]}, lesions[::5], ["a"] * 40, patients[::5], cell_px=1.0)["all"]
    assert (many["images"], many["patients"]) == (200, 40)
    found, expected = (game["models"]["m"]["inside"] for game in (many, once))
    assert found["hits"] == 5 * expected["hits"] == 150
    for key in ("rate", "low", "high"):
        assert found[key] == pytest.approx(expected[key])


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_masks_follow_the_geometry_of_the_images(tmp_path, fit):
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
