"""Planted copies are found in every orientation, and clean splits are clear."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from cxr.audit.context import AuditContext
from cxr.audit.copy_search import find_leaks, read_files
from cxr.audit.leakage import audit_leak
from cxr.data.groups import describe_limits, find_copies
from cxr.data.near_duplicates import ORIENTATIONS, orient
from cxr.data.phantom.render import render_patient
from cxr.imaging.preprocess import PreprocessSpec, to_square

SIDE = 96


def image(number: int) -> np.ndarray:
    """Return an image with structure of its own at every scale."""
    rng = np.random.default_rng(number)
    layers = [gaussian_filter(rng.normal(size=(SIDE, SIDE)), sigma) * sigma for sigma in (1, 3, 9)]
    gray = sum(layers)
    return np.asarray(255 * (gray - gray.min()) / np.ptp(gray), np.uint8)


@pytest.fixture
def clean() -> tuple[np.ndarray, np.ndarray]:
    """Return forty images and their splits."""
    images = np.stack([image(number) for number in range(40)])
    return images, np.array(["train"] * 24 + ["val"] * 4 + ["test"] * 12)


def audit(images, split, patients=None, **options):
    names = [f"{row}.png" for row in range(len(images))]
    columns = {"image": names, "group": names, "split": split, "label": "x"}
    table = pd.DataFrame(columns | ({"patient_id": patients} if patients else {}))
    parts = {"members": {}, "ensemble": None, "probs": {}, "labels": ("x",)}
    rows = np.flatnonzero(table["split"] == "test")
    return audit_leak(AuditContext(table=table, pixels=images, test_rows=rows, **parts, **options))


def count(found, what: str) -> int:
    (row,) = [row for row in found.table("counts").records() if row["what"] == what]
    return row["count"]


def test_clean_split_is_clear(clean):
    found = audit(*clean)
    assert found.verdict == "clear"
    assert found.statistic.value == 0
    assert found.statistic.high > 0
    assert "as far as this search sees, no image of one split is a copy" in found.sentence
    assert describe_limits(40) in found.sentence
    assert "no image names its patient" in found.reason
    assert "original files are not at hand" in found.reason


@pytest.mark.parametrize("turn", range(len(ORIENTATIONS)))
def test_copies_are_found_in_every_orientation(clean, turn):
    images, split = clean
    darker = np.asarray(images[3] * 0.8 + 10, np.uint8)
    images[30] = orient(darker, turn)
    found = find_leaks(images, split)
    assert found.pairs.tolist() == [[3, 30]]
    assert not found.identical.any()
    # The turn that lays the second image on the first is the inverse of the planted one.
    np.testing.assert_array_equal(orient(images[30], int(found.orientations[0])), darker)


@pytest.mark.parametrize("how", ["inverted", "cropped", "letterboxed", "framed"])
def test_altered_copies_are_found(clean, how):
    images, split = clean
    image = Image.fromarray(images[3])
    small = image.crop((9, 9, 87, 87))
    images[30] = {
        "inverted": 255 - images[3],
        "cropped": np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BILINEAR)),
        "letterboxed": np.pad(np.asarray(image.resize((SIDE, 72))), ((12, 12), (0, 0))),
        "framed": np.pad(images[3][5:-5, 5:-5], 5, constant_values=255),
    }[how]
    assert find_leaks(images, split).pairs.tolist() == [[3, 30]]


@pytest.fixture(
    scope="module", params=["phantom", pytest.param("cxr4", marks=pytest.mark.realdata)]
)
def chests(request) -> tuple[np.ndarray, np.ndarray]:
    """Return thirty chest radiographs, patients' second ones among them, and their splits."""
    if request.param == "phantom":
        patients = [
            render_patient(label, number, seed=0, size_px=128, images=(2, 2))[1]
            for label in ("normal", "covid", "viral")
            for number in range(5)
        ]
        radiographs = [radiograph.pixels for patient in patients for radiograph in patient]
    else:
        root = request.getfixturevalue("shared") / "data" / "cxr4" / "images" / "bacterial"
        taken = sorted(root.glob("person10*"))[:30]
        radiographs = [
            np.asarray(Image.open(path).convert("L").resize((128, 128))) for path in taken
        ]
    return np.stack(radiographs), np.repeat(["train", "test"], 15)


def test_images_of_one_patient_are_no_copies(chests):
    images, _ = chests
    found = audit(images, np.tile(["train", "test"], 15))
    assert found.verdict == "clear"
    assert count(found, "near-identical pairs across splits") == 0


@pytest.mark.parametrize("how", ["rotated", "inverted", "cropped", "rotated and inverted"])
def test_an_altered_copy_of_a_chest_is_found(chests, how):
    images, split = chests[0].copy(), chests[1]
    image = Image.fromarray(images[3])
    rotated = np.asarray(image.rotate(5, Image.Resampling.BILINEAR))
    images[20] = {
        "rotated": rotated,
        "inverted": 255 - images[3],
        "cropped": np.asarray(image.crop((13, 13, 115, 115)).resize((128, 128))),
        "rotated and inverted": 255 - rotated,
    }[how]
    assert find_leaks(images, split).pairs.tolist() == [[3, 20]]
    found = audit(images, split)
    assert found.verdict == "shortcut"
    assert count(found, "test images with a copy outside test") == 1


def test_the_audit_sees_what_prepare_sees(chests):
    images, split = chests[0].copy(), chests[1]
    for row, angle in enumerate((-15, -10, -5, 5, 10, 15)):
        copy = Image.fromarray(images[row]).rotate(angle, Image.Resampling.BILINEAR)
        images[row + 20] = np.asarray(copy)
    known = {*map(tuple, find_copies(np.arange(30).astype(object), images).pairs.tolist())}
    assert len(known) >= 4
    assert known <= {*map(tuple, find_leaks(images, split).pairs.tolist())}


def test_the_limits_of_the_search_are_named():
    assert "rotated by 10 degrees" in describe_limits(1000)
    assert "hashes alone" in describe_limits(100_000)


def test_identical_images_are_counted_and_listed(clean):
    images, split = clean
    images[30] = images[3]
    found = audit(images, split)
    assert found.verdict == "shortcut"
    assert found.statistic.value == pytest.approx(1 / 12)
    assert count(found, "identical pairs across splits") == 1
    assert found.table("pairs").rows[0][:6] == (
        "3.png",
        "train",
        "30.png",
        "test",
        "identical",
        "upright",
    )


def test_copies_inside_a_split_are_no_leak(clean):
    images, split = clean
    images[3], images[31] = images[4], images[30]
    assert audit(images, split).verdict == "clear"


def test_copy_between_train_and_val_is_suspicious(clean):
    images, split = clean
    images[25] = images[3]
    found = audit(images, split)
    assert found.verdict == "suspicious"
    assert found.statistic.value == 0


def test_patient_on_both_sides(clean):
    images, split = clean
    patients = [f"p{row}" for row in range(40)]
    patients[30] = patients[3]
    found = audit(images, split, patients)
    assert found.verdict == "shortcut"
    assert "1 (0.083" in found.sentence
    assert count(found, "groups on both sides of a split, counted again") == 1


def test_copies_of_a_patients_image_join_the_groups(clean):
    images, split = clean
    images[30] = images[3]
    patients = [f"p{row}" for row in range(40)]
    patients[31] = patients[30]
    found = audit(images, split, patients)
    # Image 31 shows the patient of 30, which is a copy of 3 in train.
    assert count(found, "test images whose patient is outside test") == 2


def square_of(_row: int, image: np.ndarray) -> np.ndarray:
    return to_square(image, PreprocessSpec(SIDE))


def test_files_are_read_again(clean, tmp_path):
    images, split = clean
    names = [f"{row}.png" for row in range(len(images))]
    for name, pixels in zip(names, images, strict=True):
        Image.fromarray(pixels).save(tmp_path / name)
    files = read_files(tmp_path, names, images, square_of)
    assert files is not None
    assert files.differing == []
    Image.fromarray(images[0]).save(tmp_path / names[5])
    (tmp_path / names[6]).unlink()
    files = read_files(tmp_path, names, images, square_of)
    assert files is not None
    assert files.differing == [5, 6]
    assert files.digests[0] == files.digests[5]
    found = audit(images, split, root=tmp_path, square_of=square_of)
    assert "2 files no longer give the prepared pixels, such as 5.png" in found.reason


def test_no_file_at_all(clean, tmp_path):
    assert read_files(tmp_path, ["a.png"], clean[0][:1], square_of) is None
