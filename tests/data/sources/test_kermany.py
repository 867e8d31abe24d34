"""Kermany's tree: label and patient from the names."""

import shutil

import pytest

from cxr.data.manifest import read_manifest
from cxr.data.sources.adapters import KERMANY
from cxr.data.sources.tree import read_source
from cxr.errors import InputError, MissingInputError


def test_reads_labels_patients_and_splits(tmp_path, trees):
    table = read_source(KERMANY, trees.kermany(tmp_path))
    columns = ["image", "label", "patient_id", "published_split"]
    assert table[columns].to_numpy().tolist() == [
        ["chest_xray/train/NORMAL/IM-0115-0001.jpeg", "normal", "IM-115", "train"],
        [
            "chest_xray/train/NORMAL/NORMAL2-IM-0983-0001-0002.jpeg",
            "normal",
            "NORMAL2-IM-983",
            "train",
        ],
        ["chest_xray/train/PNEUMONIA/person12_bacteria_46.jpeg", "bacterial", "person12", "train"],
        ["chest_xray/train/PNEUMONIA/person12_bacteria_47.jpeg", "bacterial", "person12", "train"],
        ["chest_xray/train/PNEUMONIA/person447_virus_921_1.jpeg", "viral", "person447", "train"],
        ["chest_xray/val/NORMAL/NORMAL2-IM-1427-0001.jpeg", "normal", "NORMAL2-IM-1427", "val"],
        ["chest_xray/val/PNEUMONIA/person7_virus_15.jpeg", "viral", "person7", "val"],
        ["chest_xray/test/NORMAL/IM-0001-0001.jpeg", "normal", "IM-1", "test"],
        ["chest_xray/test/PNEUMONIA/person12_virus_46.jpeg", "viral", "person12", "test"],
    ]
    assert set(table["source"]) == {"kermany"}
    assert set(table["license"]) == {"CC BY 4.0"}


def test_root_may_be_the_tree_itself(tmp_path, trees):
    trees.kermany(tmp_path)
    table = read_source(KERMANY, tmp_path / "chest_xray")
    assert len(table) == 9
    assert table["image"].iloc[0] == "train/NORMAL/IM-0115-0001.jpeg"


def test_root_may_hold_an_unpacked_archive(tmp_path, trees):
    trees.kermany(tmp_path / "ChestXRay2017")
    table = read_source(KERMANY, tmp_path)
    assert table["image"].iloc[0].startswith("ChestXRay2017/chest_xray/train/")


def test_edition_without_val(tmp_path, trees):
    trees.kermany(tmp_path)
    shutil.rmtree(tmp_path / "chest_xray" / "val")
    assert set(read_source(KERMANY, tmp_path)["published_split"]) == {"train", "test"}


@pytest.mark.parametrize(
    "name",
    [
        "train/PNEUMONIA/BACTERIA-7422-0001.jpeg",
        "train/PNEUMONIA/person1_fungus_1.jpeg",
        "train/PNEUMONIA/IM-0115-0001.jpeg",
        "train/NORMAL/person3_virus_15.jpeg",
    ],
)
def test_name_that_cannot_be_read(tmp_path, name, trees):
    trees.touch(trees.kermany(tmp_path) / "chest_xray", name)
    with pytest.raises(InputError, match=f"no label and patient in the name {name.split('/')[-1]}"):
        read_source(KERMANY, tmp_path)


@pytest.mark.parametrize("part", ["train/PNEUMONIA", "test"])
def test_missing_part_of_the_tree(tmp_path, part, trees):
    trees.kermany(tmp_path)
    shutil.rmtree(tmp_path / "chest_xray" / part)
    with pytest.raises(MissingInputError, match=f"no images in .*{part}"):
        read_source(KERMANY, tmp_path)


def test_missing_tree(tmp_path):
    with pytest.raises(MissingInputError, match=r"no train in .*mendeley"):
        read_source(KERMANY, tmp_path)
    with pytest.raises(MissingInputError, match="no folder"):
        read_source(KERMANY, tmp_path / "gone")


@pytest.mark.realdata
def test_agrees_with_the_real_manifest_on_every_image(shared, tmp_path, trees):
    known = read_manifest(shared / "data" / "cxr4" / "manifest.csv")
    known = known[known["source"] == "kermany"].set_index("image")
    known.index = known.index.str.split("/").str[-1]
    assert len(known) == 5856
    for name, row in known.iterrows():
        folder = "NORMAL" if row["label"] == "normal" else "PNEUMONIA"
        trees.touch(tmp_path, f"chest_xray/{row['published_split']}/{folder}/{name}")
    read = read_source(KERMANY, tmp_path)
    read.index = read["image"].str.split("/").str[-1]
    columns = ["label", "patient_id", "source", "published_split", "license"]
    assert read[columns].sort_index().equals(known[columns].sort_index())
