"""Copies made before a split: what they are, and how many of them leak."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.data.prepared import Prepared
from cxr.errors import InputError
from experiments.leak.copies import CopySettings, copy_then_split, count_leaks, rotated

SIDE = 32


def prepared_set(folder: Path, images: int = 30) -> Prepared:
    """Return a set of noise, each image a group of its own."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (images, SIDE, SIDE), np.uint8)
    table = pd.DataFrame(
        {
            "image": [f"{n:02d}.png" for n in range(images)],
            "label": [("normal", "viral")[n % 2] for n in range(images)],
            "sha256": [str(n) for n in range(images)],
            "group": [f"{n:02d}.png" for n in range(images)],
            "split": "train",
        }
    )
    info = {
        "fingerprint": "f",
        "labels": ["normal", "viral"],
        "synthetic": True,
        "preprocess": {"size_px": SIDE, "fit": "stretch"},
        "settings": {"split": "patient"},
    }
    return Prepared(folder, table, pixels, info)


@pytest.fixture
def copied(tmp_path: Path) -> tuple[Prepared, Prepared]:
    prepared = prepared_set(tmp_path)
    found = copy_then_split(prepared, np.arange(20), tmp_path / "copied", CopySettings())
    return prepared, found


def test_each_image_is_followed_by_its_copies(copied):
    prepared, found = copied
    assert len(found.table) == len(found.pixels) == 20 * 4
    assert found.table["image"].is_unique
    assert found.table["image"][4:8].tolist() == ["01.png", "01.png#1", "01.png#2", "01.png#3"]
    assert found.table["copy_of"][4:8].tolist() == ["", "01.png", "01.png", "01.png"]
    assert found.table["group"][4:8].tolist() == ["01.png"] * 4
    assert found.table["label"][4:8].tolist() == ["viral"] * 4
    np.testing.assert_array_equal(found.pixels[::4], prepared.pixels[:20])
    assert not (found.pixels[1::4] == prepared.pixels[:20]).all(axis=(1, 2)).any()
    assert found.info["synthetic"] is True
    assert "on purpose" in found.info["leaky"]


def test_the_random_split_has_the_shares_asked_for_and_leaks(copied):
    table = copied[1].table
    assert table["split"].value_counts().to_dict() == {"train": 64, "test": 8, "val": 8}
    assert count_leaks(table) >= 6


def test_leaks_are_counted_by_hand():
    table = pd.DataFrame(
        {
            "group": ["a", "a", "b", "b", "c", "d"],
            "split": ["test", "train", "test", "val", "test", "train"],
        }
    )
    assert count_leaks(table) == 1
    assert count_leaks(table, ["val", "test"]) == 1
    assert count_leaks(table.assign(group="a"), ["val", "test"]) == 4


def test_the_same_copies_are_reused_and_others_replace_them(copied, tmp_path):
    prepared, found = copied
    written = (tmp_path / "copied" / "pixels.npy").stat().st_mtime_ns
    again = copy_then_split(prepared, np.arange(20), tmp_path / "copied", CopySettings())
    assert again.info == found.info
    assert (tmp_path / "copied" / "pixels.npy").stat().st_mtime_ns == written
    other = copy_then_split(prepared, np.arange(20), tmp_path / "copied", CopySettings(copies=1))
    assert len(other.table) == 40
    assert other.info["fingerprint"] != found.info["fingerprint"]
    assert json.loads((tmp_path / "copied" / "prepared.json").read_text())["copies"]["copies"] == 1


def test_copies_that_were_broken_off_are_made_again(tmp_path, monkeypatch):
    prepared, settings = prepared_set(tmp_path), CopySettings()
    copy_then_split(prepared, np.arange(4), tmp_path / "copied", settings)
    with monkeypatch.context() as patch:
        patch.setattr("experiments.leak.copies.rotated", interrupted)
        with pytest.raises(KeyboardInterrupt):
            copy_then_split(prepared, np.arange(5), tmp_path / "copied", settings)
    found = copy_then_split(prepared, np.arange(4), tmp_path / "copied", settings)
    np.testing.assert_array_equal(found.pixels[::4], prepared.pixels[:4])
    assert found.pixels[1::4].any(axis=(1, 2)).all()


def interrupted(*_args: object, **_options: object) -> None:
    raise KeyboardInterrupt


def test_turning_and_mirroring():
    image = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE), np.uint8)
    np.testing.assert_array_equal(rotated(image, 0, mirror=False), image)
    np.testing.assert_array_equal(rotated(image, 0, mirror=True), image[:, ::-1])
    np.testing.assert_array_equal(rotated(image, 90, mirror=False), np.rot90(image))
    np.testing.assert_array_equal(rotated(image, 90, mirror=True), np.rot90(image[:, ::-1]))
    corner = rotated(np.full((SIDE, SIDE), 255, np.uint8), 15, mirror=False)
    assert corner[0, 0] == 0
    assert corner[SIDE // 2, SIDE // 2] == 255


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"copies": 0}, "copies is 0: allowed are 1 to 20"),
        ({"rotation_deg": -1.0}, "rotation_deg is -1.0: allowed are 0 to 180"),
        ({"test_share": 0.5}, "test_share is 0.5: allowed are 0.01 to 0.4"),
    ],
)
def test_settings_out_of_range(values, said):
    with pytest.raises(InputError, match=said):
        CopySettings(**values)


def test_another_split_shares_the_pixels_and_has_its_own_fingerprint(tmp_path):
    prepared = prepared_set(tmp_path)
    split = np.array(["test"] * 10 + ["train"] * 20, dtype=object)
    found = prepared.with_split(split)
    assert found.pixels is prepared.pixels
    assert found.table["split"].tolist() == split.tolist()
    assert set(prepared.table["split"]) == {"train"}
    other = prepared.with_split(split[::-1].copy())
    assert (
        len({prepared.info["fingerprint"], found.info["fingerprint"], other.info["fingerprint"]})
        == 3
    )
    assert found.info["fingerprint"] == prepared.with_split(split).info["fingerprint"]
