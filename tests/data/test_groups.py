"""Grouping by patient and copy, and the search for near copies."""

import io
import subprocess
import sys

import imagehash
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy import ndimage

from cxr.data import near_duplicates
from cxr.data.groups import find_copies, group_images
from cxr.data.near_duplicates import ORIENTATIONS, near_pairs, orient, perceptual_hashes
from cxr.data.registration import alike_pairs, describe, without_bars
from cxr.data.superposition import confirm_pairs
from cxr.errors import InputError

SEED_COPIES = {
    # Seen side by side: the same image resized by another program, cropped, and mirrored.
    ("train/normal/2.jpeg", "val/normal/442.jpeg"): "upright",
    ("train/normal/9.jpeg", "val/normal/449.jpeg"): "upright",
    ("train/covid/45.jpeg", "train/covid/46.jpeg"): "upright",
    ("train/viral/225.jpeg", "train/viral/_225_6349486.jpeg"): "mirrored",
}
SEED_DIFFERENT = [
    # The same posture, another exposure: the most alike of all other images.
    ("train/bacterial/321.jpeg", "train/bacterial/419.jpeg"),
    ("train/normal/317.jpeg", "val/normal/267.jpeg"),
    ("train/normal/337.jpeg", "val/normal/274.jpeg"),
]

REAL = (
    # Second exposures of one child, the first two under two ids: the most alike of cxr4.
    *("person401_bacteria_1808", "person405_bacteria_1817"),
    *("person1730_bacteria_4558", "person1730_bacteria_4559"),
    *("person1408_bacteria_3579", "person1408_bacteria_3581"),
)


def image(seed, side=160):
    """Draw a thorax-like picture: the same coarse shape for all, own detail for each."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    thorax = 120 - 90 * np.exp(-(((np.abs(x) - 0.22) / 0.13) ** 2) - (y / 0.3) ** 2)
    ribs = 12 * np.sin(45 * (y + 0.3 * x**2) + rng.uniform(0, 6))
    own = sum(
        weight * ndimage.gaussian_filter(rng.standard_normal((side, side)), width) * width
        for width, weight in ((2, 20), (6, 40), (16, 60))
    )
    return np.clip(thorax + ribs + 20 * y + own, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def images():
    return np.stack([image(seed) for seed in range(12)])


def through_jpeg(square, quality):
    stream = io.BytesIO()
    Image.fromarray(square).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def changed(square, how):
    side = len(square)
    image = Image.fromarray(square)
    if how == "encoded again":
        return through_jpeg(square, 30)
    if how == "resized":
        return np.asarray(image.resize((100, 75)).resize((side, side)))
    if how == "brighter":
        return np.asarray(ImageEnhance.Brightness(image).enhance(1.15))
    if how == "darker gamma":
        return (255 * (square / 255) ** 1.3).astype(np.uint8)
    box = (2, 1, side - 1, side - 3)
    return np.asarray(image.crop(box).resize((side, side), Image.Resampling.BILINEAR))


def altered(square, how):
    """Alter as ``changed`` does not: by a larger crop, a rotation, bars, ink or a negative."""
    side = len(square)
    image = Image.fromarray(square)
    if how.startswith("inverted"):
        return 255 - (square if how == "inverted" else altered(square, how.split(", ")[1]))
    if how.startswith("rotated"):
        return np.asarray(image.rotate(float(how.split()[1]), Image.Resampling.BILINEAR))
    if how.startswith("cropped"):
        cut = side * int(how.split()[1]) // 100
        box = (cut, cut, side - cut, side - cut)
        return np.asarray(image.crop(box).resize((side, side), Image.Resampling.BILINEAR))
    if how == "letterboxed":
        high = np.zeros_like(square)
        high[side // 8 : side // 8 + side * 3 // 4] = image.resize((side, side * 3 // 4))
        return high
    drawn = square.copy()
    if how == "framed":
        drawn[: side // 20] = drawn[-side // 20 :] = 255
        drawn[:, : side // 20] = drawn[:, -side // 20 :] = 255
    else:
        drawn[side // 30 : side // 5, side // 30 : side * 3 // 8] = 0
    return drawn


ALTERED = [
    *("inverted", "letterboxed", "framed", "boxed", "cropped 5", "cropped 10", "rotated 5"),
    *("rotated -10", "inverted, cropped 10", "inverted, letterboxed", "inverted, rotated 5"),
]


def table_of(count, **columns):
    base = {
        "image": [f"f{row:02d}.png" for row in range(count)],
        "label": ["normal"] * count,
        "patient_id": [""] * count,
        "sha256": [f"d{row}" for row in range(count)],
    }
    return pd.DataFrame(base | columns, dtype=str)


def slow_pairs(hashes, max_distance):
    pairs = []
    for one in range(len(hashes)):
        for other in range(one + 1, len(hashes)):
            ways = [(hashes[one, 0], way) for way in hashes[other]]
            ways += [(hashes[other, 0], way) for way in hashes[one]]
            if min((int(a) ^ int(b)).bit_count() for a, b in ways) <= max_distance:
                pairs.append((one, other))
    return pairs


def hashes_with_neighbours(rng, count):
    hashes = rng.integers(0, 2**63, (count, 8), dtype=np.uint64) * np.uint64(2)
    for row in range(0, count - 1, 3):
        flips = rng.choice(64, rng.integers(0, 13), replace=False)
        mask = np.bitwise_or.reduce(np.uint64(1) << flips.astype(np.uint64), initial=np.uint64(0))
        hashes[row + 1, rng.integers(8)] = hashes[row, 0] ^ mask
    return hashes


def test_hash_equals_imagehash_in_every_orientation(images):
    hashes = perceptual_hashes(images)
    assert hashes.shape == (12, 8)
    assert hashes.dtype == np.uint64
    for row, square in enumerate(images):
        small = np.asarray(Image.fromarray(square).resize((32, 32), Image.Resampling.LANCZOS))
        for column in range(8):
            turned = Image.fromarray(np.ascontiguousarray(orient(small, column)))
            assert f"{hashes[row, column]:016x}" == str(imagehash.phash(turned))


@pytest.mark.parametrize("max_distance", [0, 1, 4, 8, 10, 12])
def test_near_pairs_equals_brute_force(max_distance):
    hashes = hashes_with_neighbours(np.random.default_rng(max_distance), 90)
    found = near_pairs(hashes, max_distance=max_distance)
    assert found.dtype == np.int64
    expected = slow_pairs(hashes, max_distance)
    assert len(expected) > 0
    assert [tuple(pair) for pair in found.tolist()] == expected


def test_near_pairs_of_alike_hashes_equals_brute_force():
    rng = np.random.default_rng(1)
    template = rng.integers(0, 2**63, 8, dtype=np.uint64)
    noise = np.uint64(1) << rng.integers(0, 20, (60, 8, 5)).astype(np.uint64)
    hashes = template ^ np.bitwise_xor.reduce(noise, axis=2)
    found = near_pairs(hashes, max_distance=6)
    assert [tuple(pair) for pair in found.tolist()] == slow_pairs(hashes, 6)


@pytest.mark.parametrize("images_of_numpy", [0, 4_000])
def test_near_pairs_are_the_same_by_either_library_and_those_of_all_pairs(
    images_of_numpy, monkeypatch
):
    monkeypatch.setattr(near_duplicates, "MAX_NUMPY_IMAGES", images_of_numpy)
    monkeypatch.setattr(near_duplicates, "_FAISS_RESULTS", 40_000)
    for seed, count in ((0, 300), (1, 301), (2, 2)):
        hashes = hashes_with_neighbours(np.random.default_rng(seed), count)
        hashes[:, 0] |= np.uint64(0xFFFF_FFFF_F000_0000)
        pairs = near_pairs(hashes, max_distance=8)
        assert pairs.tolist() == [list(pair) for pair in slow_pairs(hashes, 8)]
        assert pairs.dtype == np.int64


@pytest.mark.parametrize("images_of_numpy", [0, 4_000])
def test_near_pairs_of_blank_images_are_refused(images_of_numpy, monkeypatch):
    monkeypatch.setattr(near_duplicates, "MAX_NUMPY_IMAGES", images_of_numpy)
    monkeypatch.setattr(near_duplicates, "MAX_PAIRS", 1000)
    with pytest.raises(InputError, match="most images look the same"):
        near_pairs(np.zeros((100, 8), np.uint64), max_distance=8)


def test_the_search_leaves_torchs_threads_and_is_imported_only_where_needed(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(near_duplicates, "MAX_NUMPY_IMAGES", 0)
    near_pairs(np.zeros((3, 8), np.uint64), max_distance=8)
    assert torch.get_num_threads() == before
    command = "import sys, cxr.data.groups; sys.exit('faiss' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


@pytest.mark.parametrize("count", [0, 1])
def test_near_pairs_of_too_few_images_is_empty(count):
    assert near_pairs(np.zeros((count, 8), np.uint64), max_distance=8).shape == (0, 2)


def test_near_pairs_refuses_a_distance_out_of_range():
    with pytest.raises(InputError, match="max_distance is 13: allowed are 0 to 12"):
        near_pairs(np.zeros((2, 8), np.uint64), max_distance=13)


@pytest.mark.parametrize("index", range(8))
def test_every_orientation_of_an_image_is_found(images, index):
    squares = np.concatenate([images, orient(images[3], index)[None]])
    found = find_copies(table_of(13)["sha256"].to_numpy(object), squares)
    assert found.pairs.tolist() == [[3, 12]]
    back = orient(squares[12], int(found.orientation[0]))
    np.testing.assert_array_equal(back, images[3])
    assert found.correlation[0] > 0.9999


@pytest.mark.parametrize("how", ["encoded again", "resized", "brighter", "darker gamma", "cropped"])
def test_a_changed_copy_is_found(images, how):
    squares = np.concatenate([images, changed(images[5], how)[None]])
    found = find_copies(table_of(13)["sha256"].to_numpy(object), squares)
    assert found.pairs.tolist() == [[5, 12]]
    assert not found.identical[0]


def test_a_changed_and_mirrored_copy_is_found(images):
    copy = changed(changed(images[5], "cropped"), "brighter")[:, ::-1]
    found = find_copies(table_of(13)["sha256"].to_numpy(object), np.stack([*images, copy]))
    assert found.pairs.tolist() == [[5, 12]]
    assert ORIENTATIONS[found.orientation[0]] == "mirrored"


@pytest.mark.parametrize("how", ALTERED)
def test_an_altered_copy_is_found(images, how):
    squares = np.concatenate([images, altered(images[5], how)[None]])
    found = find_copies(table_of(13)["sha256"].to_numpy(object), squares)
    assert found.pairs.tolist() == [[5, 12]]
    assert ORIENTATIONS[found.orientation[0]] == "upright"


def test_bars_are_cut_off_and_images_are_not(images):
    square = np.pad(images[0][10:-10], ((10, 10), (0, 0)))
    assert np.array_equal(without_bars(square), images[0][10:-10])
    assert without_bars(images[0]).shape == images[0].shape
    blank = np.full((32, 32), 7, np.uint8)
    assert without_bars(blank).shape == blank.shape


def test_only_images_that_lie_apart_are_paired(images):
    apart = np.repeat(["one", "other"], 6)
    pairs = alike_pairs(describe(images), apart=apart)
    assert (pairs[:, 0] < 6).all()
    assert (pairs[:, 1] >= 6).all()
    assert set(pairs.ravel()) == set(range(12))


def test_different_images_are_no_copies_though_their_hashes_were_equal(images):
    every = np.stack(np.triu_indices(len(images), 1), axis=1)
    pairs, turns, values = confirm_pairs(images, every, min_correlation=0.85)
    assert len(pairs) == len(turns) == len(values) == 0


def test_flat_images_are_no_copies_of_others(images):
    flat = np.stack([np.zeros_like(images[0]), np.full_like(images[0], 200), images[0]])
    pairs, _, _ = confirm_pairs(flat, np.array([[0, 1], [0, 2]]), min_correlation=0.85)
    assert len(pairs) == 0


def test_groups_join_patients_and_copies_across_patients(images):
    squares = np.stack([images[0], images[1], images[1][:, ::-1], images[2], images[3]])
    table = table_of(5, patient_id=["a", "a", "b", "b", ""])
    result = group_images(table, squares)
    assert result.group.tolist() == ["f00.png"] * 4 + ["f04.png"]
    assert result.keep.tolist() == [True, True, False, True, True]
    (copy,) = result.copies
    assert copy.pop("correlation") > 0.9999
    assert copy == {
        "image": "f02.png",
        "copy_of": "f01.png",
        "kind": "near",
        "orientation": "mirrored",
    }


def test_images_without_patient_id_stay_alone(images):
    result = group_images(table_of(12), images)
    assert len(set(result.group)) == 12
    assert result.keep.all()


def test_identical_images_are_dropped_without_the_search_for_near_copies(images):
    squares = np.stack([images[0], images[0], images[0][::-1]])
    result = group_images(table_of(3, sha256=["d0", "d0", "d1"]), squares, near=False)
    assert result.keep.tolist() == [True, False, True]
    assert result.copies == [
        {
            "image": "f01.png",
            "copy_of": "f00.png",
            "kind": "identical",
            "orientation": "upright",
            "correlation": 1.0,
        }
    ]
    assert result.group.tolist() == ["f00.png", "f00.png", "f02.png"]


def test_keep_order_chooses_the_copy_that_stays(images):
    squares = np.stack([images[0], images[0], changed(images[0], "encoded again")])
    table = table_of(3, sha256=["d0", "d0", "d2"])
    result = group_images(table, squares, keep_order=np.array([1, 1, 0]))
    assert result.keep.tolist() == [False, False, True]
    assert {record["copy_of"] for record in result.copies} == {"f02.png"}
    assert set(result.group) == {"f00.png"}


def test_copies_with_different_labels_are_dropped_whole(images):
    squares = np.stack([images[0], changed(images[0], "brighter"), images[1], images[2]])
    table = table_of(4, label=["normal", "viral", "viral", "normal"], patient_id=["", "", "p", "p"])
    result = group_images(table, squares)
    assert result.keep.tolist() == [False, False, True, True]
    assert result.copies == []
    assert result.conflicts == [{"images": ["f00.png", "f01.png"], "labels": ["normal", "viral"]}]


def test_group_does_not_depend_on_the_order_of_rows(images):
    squares = np.stack([images[0], images[0][::-1], images[1], images[2]])
    table = table_of(4, patient_id=["", "p", "p", ""])
    order = np.array([3, 1, 0, 2])
    result = group_images(table, squares)
    again = group_images(table.iloc[order].reset_index(drop=True), squares[order])
    assert again.group.tolist() == result.group[order].tolist()
    assert again.keep.tolist() == result.keep[order].tolist()
    assert [record["image"] for record in again.copies] == ["f01.png"]


@pytest.mark.realdata
def test_known_copies_of_the_original_data_are_found_and_lookalikes_are_not(shared):
    names = sorted({name for pair in [*SEED_COPIES, *SEED_DIFFERENT] for name in pair})
    root = shared / "data" / "seed"
    squares = np.stack(
        [np.asarray(Image.open(root / name).convert("L").resize((224, 224), 2)) for name in names]
    )
    digests = np.array(names, object)
    found = find_copies(digests, squares)
    shown = {
        (names[one], names[other]): ORIENTATIONS[turn]
        for (one, other), turn in zip(found.pairs, found.orientation, strict=True)
    }
    assert shown == {tuple(sorted(pair)): turn for pair, turn in SEED_COPIES.items()}
    every = np.array([[names.index(one), names.index(other)] for one, other in SEED_DIFFERENT])
    _, _, values = confirm_pairs(squares, every, min_correlation=-2)
    assert found.correlation.min() > 0.95
    assert values.max() < 0.75


@pytest.mark.realdata
@pytest.mark.parametrize("how", ALTERED)
def test_altered_images_are_found_and_second_exposures_are_not(shared, how):
    names = [f"images/bacterial/{name}.jpeg" for name in REAL]
    root = shared / "data" / "cxr4"
    squares = np.stack([np.asarray(Image.open(root / name).convert("L")) for name in names])
    copies = np.stack([altered(square, how) for square in squares])
    found = find_copies(np.arange(2 * len(names)).astype(object), np.concatenate([squares, copies]))
    assert found.pairs.tolist() == [[row, row + len(names)] for row in range(len(names))]
