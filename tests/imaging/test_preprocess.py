"""The numpy reference of what a network sees."""

import dataclasses
import json

import numpy as np
import pytest

from cxr.errors import InputError
from cxr.imaging.preprocess import MemberInput, PreprocessSpec, to_square


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(50, 200, (height, width), np.uint8)


@pytest.mark.parametrize("size", [31, 2049, 0])
def test_size_out_of_range_is_refused(size):
    with pytest.raises(InputError, match=f"data.size is {size}: allowed are 32 to 2048"):
        PreprocessSpec(size)


def test_unknown_fit_is_refused():
    with pytest.raises(InputError, match=r"data.fit is 'crop': allowed are stretch, letterbox"):
        PreprocessSpec(64, "crop")  # type: ignore[arg-type]


def test_stretch_leaves_an_image_of_the_right_size_alone():
    source = image(64, 64)
    assert np.array_equal(to_square(source, PreprocessSpec(64)), source)


@pytest.mark.parametrize("shape", [(100, 50), (40, 90), (64, 63)])
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_result_is_a_square_of_bytes(shape, fit):
    found = to_square(image(*shape), PreprocessSpec(64, fit))
    assert found.shape == (64, 64)
    assert found.dtype == np.uint8


def test_stretch_fills_the_square():
    assert to_square(image(100, 50), PreprocessSpec(64)).min() >= 50


def test_letterbox_keeps_the_ratio_and_pads_both_sides_with_black():
    tall = to_square(image(128, 64), PreprocessSpec(64, "letterbox"))
    assert (tall[:, :16] == 0).all()
    assert (tall[:, 48:] == 0).all()
    assert (tall[:, 16:48] >= 50).all()
    wide = to_square(image(64, 128), PreprocessSpec(64, "letterbox"))
    assert (wide[:16] == 0).all()
    assert (wide[16:48] >= 50).all()


def test_letterbox_of_a_line_keeps_one_pixel():
    thin = to_square(np.full((2000, 32), 100, np.uint8), PreprocessSpec(32, "letterbox"))
    assert (thin > 0).any(axis=0).sum() == 1


def test_shrinking_averages_what_it_merges():
    source = np.zeros((64, 64), np.uint8)
    source[:, ::2] = 200
    found = to_square(source, PreprocessSpec(32))
    assert abs(found[8:-8, 8:-8].astype(float).mean() - 100) < 2


def test_member_input_survives_json():
    member = MemberInput(299, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    text = json.dumps(dataclasses.asdict(member))
    assert MemberInput.from_dict(json.loads(text)) == member
