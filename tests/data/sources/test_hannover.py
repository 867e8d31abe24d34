"""Hannover's tree: which rows become images."""

import pytest

from cxr.data.sources.hannover import read_hannover
from cxr.errors import InputError, MissingInputError

ROWS = [
    {"image_id": "fff13f3a", "projection": "pa", "sex": "f"},
    {"image_id": "b343e657", "patient_id": "042f06a9", "sex": "m", "age": "40"},
    {"image_id": "d0000001", "modality": "DX", "projection": "pa"},
    {"image_id": "c0000001", "modality": "CT"},
    {"image_id": "e0000001", "projection": "ll"},
]


def test_reads_frontal_images(tmp_path, trees):
    table = read_hannover(trees.hannover(tmp_path, ROWS))
    columns = ["image", "patient_id", "view", "sex", "age"]
    assert table[columns].to_numpy().tolist() == [
        ["png/fff13f3a.png", "hannover-024e7871", "PA", "F", ""],
        ["png/b343e657.png", "hannover-042f06a9", "AP", "M", "40"],
        ["png/d0000001.png", "hannover-024e7871", "PA", "", ""],
    ]
    assert set(table["label"]) == {"covid"}
    assert set(table["license"]) == {"CC BY 3.0"}
    assert set(table["source"]) == {"hannover"}


def test_root_may_hold_the_unpacked_archive(tmp_path, trees):
    trees.hannover(tmp_path / "covid-19-image-repository-master", ROWS)
    image = read_hannover(tmp_path)["image"].iloc[0]
    assert image == "covid-19-image-repository-master/png/fff13f3a.png"


def test_missing_tree_says_where_to_get_it(tmp_path):
    with pytest.raises(MissingInputError, match=r"no data\.csv in .*ml-workgroup"):
        read_hannover(tmp_path)


def test_table_without_rows(tmp_path, trees):
    trees.write_csv(tmp_path / "data.csv", ("patient_id", "image_id"), [])
    with pytest.raises(InputError, match="has no rows"):
        read_hannover(tmp_path)
