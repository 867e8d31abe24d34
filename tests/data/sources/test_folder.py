"""A folder per label as a manifest."""

import pytest

from cxr.data.sources.folder import read_folder
from cxr.errors import InputError, MissingInputError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_folder_per_label(tmp_path):
    touch(tmp_path, "normal/b.JPG", "normal/a.png", "covid/c.tiff", "normal/.hidden.png")
    touch(tmp_path, "__MACOSX/normal/a.png", ".cache/x.png")
    table = read_folder(tmp_path)
    assert table["image"].tolist() == ["covid/c.tiff", "normal/a.png", "normal/b.JPG"]
    assert table["label"].tolist() == ["covid", "normal", "normal"]
    assert set(table["published_split"]) == set(table["patient_id"]) == {""}


def test_split_folders(tmp_path):
    touch(tmp_path, "train/x/1.png", "train/y/2.png", "val/x/3.png", "test/y/4.png")
    table = read_folder(tmp_path)
    assert list(zip(table["published_split"], table["label"], strict=True)) == [
        ("test", "y"),
        ("train", "x"),
        ("train", "y"),
        ("val", "x"),
    ]


def test_split_names_are_translated(tmp_path):
    touch(tmp_path, "training/x/1.png", "val/x/2.png")
    table = read_folder(tmp_path, split_names={"training": "train", "val": "test"})
    assert table["published_split"].tolist() == ["train", "test"]


def test_unknown_split_name(tmp_path):
    with pytest.raises(InputError, match="'dev': allowed are train, val, test"):
        read_folder(tmp_path, split_names={"a": "dev"})


def test_missing_folder(tmp_path):
    with pytest.raises(MissingInputError, match="no folder"):
        read_folder(tmp_path / "gone")


def test_empty_folder(tmp_path):
    with pytest.raises(InputError, match="is empty"):
        read_folder(tmp_path)


def test_empty_split_folder(tmp_path):
    touch(tmp_path, "train/x/1.png")
    (tmp_path / "test").mkdir()
    with pytest.raises(InputError, match="test is empty"):
        read_folder(tmp_path)


def test_label_folder_without_images(tmp_path):
    touch(tmp_path, "x/1.png", "y/notes.txt")
    with pytest.raises(InputError, match=r"no image in .*y"):
        read_folder(tmp_path)


def test_splits_beside_labels(tmp_path):
    touch(tmp_path, "train/x/1.png", "normal/2.png")
    with pytest.raises(InputError, match=r"mixes split folders \(train\) with others \(normal\)"):
        read_folder(tmp_path)


@pytest.mark.parametrize("name", ["loose.png", "train/loose.png"])
def test_image_beside_label_folders(tmp_path, name):
    touch(tmp_path, "train/x/1.png", name)
    with pytest.raises(InputError, match=r"loose\.png lies beside"):
        read_folder(tmp_path)


def test_folder_one_level_too_high(tmp_path):
    touch(tmp_path, "set/x/1.png", "set/y/2.png")
    with pytest.raises(InputError, match=r"was taken for a label and holds a folder \(x\)"):
        read_folder(tmp_path)


def test_other_files_are_passed_over_and_counted(tmp_path, caplog):
    touch(tmp_path, "x/1.png", "x/Thumbs.db", "x/image.bmp")
    assert len(read_folder(tmp_path)) == 1
    assert "2 files passed over" in caplog.text


def test_link_out_of_the_folder(tmp_path):
    touch(tmp_path, "set/x/1.png", "outside.png")
    (tmp_path / "set" / "x" / "2.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(InputError, match="lies outside"):
        read_folder(tmp_path / "set")


@pytest.mark.realdata
def test_reads_the_seed_folder(shared):
    root = shared / "data" / "seed"
    table = read_folder(root, split_names={"train": "train", "val": "test"})
    assert table["published_split"].value_counts().to_dict() == {"train": 4025, "test": 988}
    assert set(table["label"]) == {"normal", "covid", "bacterial", "viral"}


def test_dicom_is_found_with_and_without_an_ending(tmp_path):
    touch(tmp_path, "normal/a.dcm", "normal/b.png", "normal/notes.txt", "normal/README")
    for name in ("IM000001", "1.2.840.55"):
        (tmp_path / "normal" / name).write_bytes(b"\0" * 128 + b"DICM")
    table = read_folder(tmp_path)
    assert [image.removeprefix("normal/") for image in table["image"]] == [
        "1.2.840.55",
        "IM000001",
        "a.dcm",
        "b.png",
    ]
