"""The prepared set: what is kept, what is dropped and why, and that nothing is half-written."""

import errno
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage

from cxr.data.manifest import manifest_table
from cxr.data.prepared import Prepared, PrepareSettings, open_prepared, prepare
from cxr.errors import InputError, MissingInputError
from cxr.imaging.preprocess import PreprocessSpec, to_square
from cxr.imaging.read import read_gray

SETTINGS = PrepareSettings(labels=("normal", "viral"), spec=PreprocessSpec(48))


def draw(number: int, shape: tuple[int, int] = (60, 52)) -> np.ndarray:
    """Return an image of smooth blots that no other number resembles."""
    noise = np.random.default_rng(number).normal(size=shape)
    blots = ndimage.gaussian_filter(noise, 3) + 0.15 * ndimage.gaussian_filter(noise, 1)
    scaled = (blots - blots.min()) / (blots.max() - blots.min())
    return np.asarray(scaled * 255, np.uint8)


def save(root: Path, image: str, radiograph: np.ndarray) -> None:
    path = root / image
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(radiograph).save(path)


def images(root: Path, *, per_label: int = 10) -> pd.DataFrame:
    """Write images, two of each patient, and return their manifest."""
    rows = []
    for label in ("normal", "viral"):
        for number in range(per_label):
            image = f"{label}/{number:02d}.png"
            save(root, image, draw(number + 1000 * (label == "viral")))
            patient = f"{label}-{number // 2}"
            rows.append({"image": image, "label": label, "patient_id": patient})
    return manifest_table(rows)


@pytest.fixture
def source(tmp_path: Path) -> tuple[pd.DataFrame, Path, Path]:
    """Return manifest, folder of the images and where prepared sets go."""
    return images(tmp_path / "images"), tmp_path / "images", tmp_path / "prepared"


def add(manifest: pd.DataFrame, root: Path, pixels: np.ndarray, **row: str) -> pd.DataFrame:
    save(root, row["image"], pixels)
    return pd.concat([manifest, manifest_table([row])], ignore_index=True)


def with_settings(**changes: object) -> PrepareSettings:
    return PrepareSettings(**(vars(SETTINGS) | changes))


def leftovers(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir()) if parent.exists() else []


def test_row_i_of_the_table_is_image_i(source):
    manifest, root, parent = source
    found = prepare(manifest, root, parent, SETTINGS)
    assert not found.reused
    assert found.pixels.shape == (20, 48, 48)
    assert isinstance(found.pixels, np.memmap)
    for image, square in zip(found.table["image"], found.pixels, strict=True):
        assert np.array_equal(square, to_square(read_gray(root / image), SETTINGS.spec))
    assert found.labels == ("normal", "viral")
    assert found.targets.tolist() == [0] * 10 + [1] * 10
    assert set(found.table["width"]) == {"52"}
    assert set(found.table["height"]) == {"60"}
    assert {path.name for path in found.folder.iterdir()} == {
        "table.csv",
        "pixels.npy",
        "prepared.json",
    }


def test_sizes_that_the_manifest_states_are_kept(source):
    manifest, root, parent = source
    manifest.loc[0, ["width", "height"]] = ["3000", "2500"]
    found = prepare(manifest, root, parent, SETTINGS).table
    assert found.loc[0, ["width", "height"]].tolist() == ["3000", "2500"]
    assert found.loc[1, ["width", "height"]].tolist() == ["52", "60"]


def test_no_patient_crosses_a_split_and_the_proof_says_so(source):
    found = prepare(*source, SETTINGS)
    assert (found.table.groupby("patient_id")["split"].nunique() == 1).all()
    assert found.info["disjoint"]["crossing_groups"] == 0
    assert found.info["disjoint"]["groups"] == found.info["counts"]["patients_or_groups"] == 10
    counted = found.table.groupby(["label", "split"]).size()
    for label, parts in found.info["counts"]["images"].items():
        assert all(counted[label][split] == images for split, images in parts.items())


def test_the_same_preparation_is_reused(source):
    first = prepare(*source, SETTINGS)
    stamp = (first.folder / "pixels.npy").stat().st_mtime_ns
    again = prepare(*source, SETTINGS)
    assert again.reused
    assert again.info == first.info
    assert (again.folder / "pixels.npy").stat().st_mtime_ns == stamp
    assert len(leftovers(source[2])) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"spec": PreprocessSpec(48, "letterbox")},
        {"spec": PreprocessSpec(32)},
        {"fractions": (0.6, 0.2, 0.2)},
        {"near_duplicates": False},
        {"synthetic": True},
    ],
)
def test_other_settings_make_another_set_beside_it(source, change):
    first = prepare(*source, SETTINGS)
    other = prepare(*source, with_settings(**change))
    assert not other.reused
    assert other.folder != first.folder
    assert other.info["fingerprint"] != first.info["fingerprint"]
    assert prepare(*source, SETTINGS).reused


def test_a_changed_image_is_prepared_anew(source):
    manifest, root, _ = source
    first = prepare(*source, SETTINGS)
    save(root, manifest["image"][0], draw(77))
    other = prepare(*source, SETTINGS)
    assert not other.reused
    assert other.info["fingerprint"] != first.info["fingerprint"]


def test_fingerprint_depends_on_contents_not_on_order_place_or_threads(source, tmp_path):
    manifest, root, parent = source
    first = prepare(manifest, root, parent, SETTINGS, workers=1)
    root.rename(tmp_path / "moved")
    backwards = manifest.iloc[::-1].reset_index(drop=True)
    other = prepare(backwards, tmp_path / "moved", parent, SETTINGS, workers=4)
    assert not other.reused
    assert other.info["fingerprint"] == first.info["fingerprint"]
    assert other.table["image"].tolist() == backwards["image"].tolist()


def test_progress_counts_every_image(source):
    import contextlib

    counted: dict[str, int] = {}

    @contextlib.contextmanager
    def show(text: str, total: int):
        assert total == 20

        def one() -> None:
            counted[text] = counted.get(text, 0) + 1

        yield one

    prepare(*source, SETTINGS, progress=show)
    assert counted == {"prepare": 20, "look for copies": 20}


def test_identical_copies_are_dropped_and_listed(source):
    manifest, root, parent = source
    manifest = add(manifest, root, draw(3), image="normal/copy.png", label="normal")
    found = prepare(manifest, root, parent, SETTINGS)
    assert "normal/copy.png" not in set(found.table["image"])
    assert found.info["counts"]["dropped_identical"] == 1
    assert found.info["counts"]["kept"] == 20
    dropped = found.info["dropped"]["copies"]
    assert [(c["image"], c["copy_of"], c["kind"]) for c in dropped] == [
        ("normal/copy.png", "normal/03.png", "identical")
    ]


@pytest.mark.parametrize("near", [True, False])
def test_turned_copies_are_near_copies(source, near):
    manifest, root, parent = source
    turned = np.rot90(draw(3))
    manifest = add(manifest, root, turned, image="normal/turned.png", label="normal")
    found = prepare(manifest, root, parent, with_settings(near_duplicates=near))
    assert found.info["counts"]["dropped_near"] == near
    assert ("normal/turned.png" in set(found.table["image"])) != near


def test_copies_with_conflicting_labels_are_dropped_whole(source):
    manifest, root, parent = source
    manifest = add(manifest, root, draw(3), image="viral/copy.png", label="viral")
    found = prepare(manifest, root, parent, SETTINGS)
    assert not {"viral/copy.png", "normal/03.png"} & set(found.table["image"])
    assert found.info["counts"]["dropped_conflicting"] == 2
    conflict = found.info["dropped"]["conflicts"][0]
    assert dict(zip(conflict["images"], conflict["labels"], strict=True)) == {
        "viral/copy.png": "viral",
        "normal/03.png": "normal",
    }


def test_a_copy_joins_the_groups_of_two_patients(source):
    manifest, root, parent = source
    row = {"image": "normal/copy.png", "label": "normal", "patient_id": "normal-4"}
    found = prepare(add(manifest, root, draw(0), **row), root, parent, SETTINGS)
    groups = found.table.set_index("patient_id")["group"]
    assert set(groups["normal-0"]) == set(groups["normal-4"])


def test_published_test_keeps_its_image_and_train_loses_the_copy(source):
    manifest, root, parent = source
    number = manifest["image"].str[-6:-4].astype(int)
    manifest["published_split"] = np.where(number >= 8, "test", "train")
    manifest = add(
        manifest,
        root,
        draw(9),
        image="normal/00-copy.png",
        label="normal",
        patient_id="normal-9",
        published_split="train",
    )
    found = prepare(manifest, root, parent, with_settings(split="published"))
    assert "normal/00-copy.png" not in set(found.table["image"])
    test = found.table[found.table["split"] == "test"]
    assert sorted(test["image"]) == [f"{k}/0{i}.png" for k in ("normal", "viral") for i in (8, 9)]


def test_forced_crossings_are_reported(source):
    manifest, root, parent = source
    number = manifest["image"].str[-6:-4].astype(int)
    # Images 8 and 9 are of one patient, on two sides of this published split.
    manifest["published_split"] = np.where(number >= 9, "test", "train")
    found = prepare(manifest, root, parent, with_settings(split="published"))
    assert found.info["disjoint"]["crossing_groups"] == 2
    assert found.info["disjoint"]["test_images_in_crossing_groups"] == 2


def test_an_unreadable_image_stops_and_is_named(source):
    manifest, root, parent = source
    (root / "viral/04.png").write_text("no image")
    with pytest.raises(InputError, match=r"viral/04\.png is no image"):
        prepare(manifest, root, parent, SETTINGS)
    assert leftovers(parent) == []


def test_skipping_goes_on_and_lists_the_images(source):
    manifest, root, parent = source
    (root / "viral/04.png").write_text("no image")
    (root / "normal/01.png").unlink()
    found = prepare(manifest, root, parent, with_settings(on_error="skip"))
    assert found.info["counts"]["dropped_unreadable"] == 2
    assert found.info["counts"]["kept"] == len(found.pixels) == 18
    listed = {item["image"]: item["reason"] for item in found.info["dropped"]["unreadable"]}
    assert set(listed) == {"viral/04.png", "normal/01.png"}
    assert "is no image" in listed["viral/04.png"]
    assert "no image at normal/01.png" in listed["normal/01.png"]
    for image, square in zip(found.table["image"], found.pixels, strict=True):
        assert np.array_equal(square, to_square(read_gray(root / image), SETTINGS.spec))


def test_no_readable_image_at_all_is_said(source):
    manifest, root, parent = source
    for image in manifest["image"]:
        (root / image).write_text("no image")
    with pytest.raises(InputError, match="none of the 20 images under"):
        prepare(manifest, root, parent, with_settings(on_error="skip"))


def test_unknown_label_is_refused_before_anything_is_read(source):
    manifest, root, parent = source
    with pytest.raises(InputError) as caught:
        prepare(manifest, root, parent, with_settings(labels=("normal", "covid")))
    first = manifest.loc[manifest["label"] == "viral", "image"].iloc[0]
    count = (manifest["label"] == "viral").sum()
    assert str(caught.value).startswith(
        f"unknown label 'viral' of {root / first} (images with it: {count}): "
        "allowed are normal, covid; "
    )
    assert leftovers(parent) == []


def test_a_class_without_images_is_named(source):
    with pytest.raises(InputError, match="no image of class covid is left"):
        prepare(*source, with_settings(labels=("normal", "covid", "viral")))


def test_too_few_groups_leave_nothing_behind(source):
    manifest, root, parent = source
    few = manifest[(manifest["label"] == "normal") | (manifest["patient_id"] == "viral-0")]
    with pytest.raises(InputError, match=r"class 'viral' has 1 group"):
        prepare(few.reset_index(drop=True), root, parent, SETTINGS)
    assert leftovers(parent) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("killed")])
def test_interrupted_preparation_leaves_nothing_half_written(source, monkeypatch, error):
    def stop(*_args: object) -> None:
        raise error

    monkeypatch.setattr("cxr.data.prepared.write_json", stop)
    with pytest.raises(type(error)):
        prepare(*source, SETTINGS)
    assert leftovers(source[2]) == []


def test_full_disk_is_one_line_and_other_sets_stay(source, monkeypatch):
    before = prepare(*source, SETTINGS)

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match="the disk is full: free some space") as caught:
        prepare(*source, with_settings(seed=5))
    monkeypatch.undo()
    assert "\n" not in str(caught.value)
    assert leftovers(source[2]) == [before.folder.name]
    assert prepare(*source, SETTINGS).reused


@pytest.fixture
def opened(source) -> Prepared:
    return prepare(*source, SETTINGS)


@pytest.mark.parametrize("name", ["prepared.json", "table.csv", "pixels.npy"])
def test_a_missing_part_is_named(opened, name):
    (opened.folder / name).unlink()
    with pytest.raises(MissingInputError, match=rf"{name} is missing: prepare the data again"):
        open_prepared(opened.folder)


def test_parts_that_do_not_belong_together_are_refused(opened):
    lines = (opened.folder / "table.csv").read_text().splitlines(keepends=True)
    (opened.folder / "table.csv").write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match="19 rows, 20 images, 20 stated"):
        open_prepared(opened.folder)


def test_cut_pixels_are_refused(opened):
    path = opened.folder / "pixels.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="is damaged"):
        open_prepared(opened.folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "random"}, "data.split is 'random': allowed are patient, published"),
        ({"on_error": "ignore"}, "data.on_error is 'ignore': allowed are stop, skip"),
        ({"fractions": (0.5, 0.5)}, "three shares are needed"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        with_settings(**change)
