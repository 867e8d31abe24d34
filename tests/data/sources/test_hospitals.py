"""Sources of one hospital each: which files and rows become images."""

import pytest

from cxr.data.sources.adapters import GRANADA, HANNOVER, MONTGOMERY, SHENZHEN
from cxr.data.sources.tree import read_source
from cxr.errors import InputError, MissingInputError

ROWS = [
    {"image_id": "fff13f3a", "projection": "pa", "sex": "f"},
    {"image_id": "b343e657", "patient_id": "042f06a9", "sex": "m", "age": "40"},
    {"image_id": "d0000001", "modality": "DX", "projection": "pa"},
    {"image_id": "c0000001", "modality": "CT"},
    {"image_id": "e0000001", "projection": "ll"},
]


def test_reads_frontal_images(tmp_path, trees):
    table = read_source(HANNOVER, trees.hannover(tmp_path, ROWS))
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
    image = read_source(HANNOVER, tmp_path)["image"].iloc[0]
    assert image == "covid-19-image-repository-master/png/fff13f3a.png"


def test_missing_tree_says_where_to_get_it(tmp_path):
    with pytest.raises(MissingInputError, match=r"no data\.csv in .*ml-workgroup"):
        read_source(HANNOVER, tmp_path)


def test_table_without_rows(tmp_path, trees):
    trees.write_csv(tmp_path / "data.csv", ("patient_id", "image_id"), [])
    with pytest.raises(InputError, match="has no rows"):
        read_source(HANNOVER, tmp_path)


def test_granada_has_both_labels(tmp_path, trees):
    trees.granada(tmp_path / "COVIDGR_1.0")
    table = read_source(GRANADA, tmp_path)
    columns = ["image", "label", "patient_id", "view"]
    assert table[columns].to_numpy().tolist() == [
        ["COVIDGR_1.0/P/a.jpg", "covid", "", "PA"],
        ["COVIDGR_1.0/P/b.jpg", "covid", "", "PA"],
        ["COVIDGR_1.0/N/a.jpg", "normal", "", "PA"],
        ["COVIDGR_1.0/N/c.jpg", "normal", "", "PA"],
    ]
    assert set(table["source"]) == {"covidgr"}
    assert set(table["license"]) == {"none named: research, name the authors"}


def test_montgomery_and_shenzhen_without_tuberculosis(tmp_path, caplog, trees):
    caplog.set_level("INFO")
    tree = trees.nlm(
        tmp_path / "one" / "MontgomerySet",
        {
            "MCUCXR_0001_0": "Patient's Sex: F \nPatient's Age: 027Y\nnormal\n",
            "MCUCXR_0002_0": "Patient's Sex: M\nPatient's Age: 040Y\nnormal; 2 mm nodule\n",
            "MCUCXR_0104_1": "Patient's Sex: M\nPatient's Age: 039Y\nimproved infiltrate\n",
        },
    )
    table = read_source(MONTGOMERY, tmp_path / "one")
    columns = ["image", "label", "patient_id", "view", "sex", "age"]
    assert table[columns].to_numpy().tolist() == [
        ["MontgomerySet/CXR_png/MCUCXR_0001_0.png", "normal", "MCUCXR_0001", "PA", "F", "27"],
        ["MontgomerySet/CXR_png/MCUCXR_0002_0.png", "normal", "MCUCXR_0002", "PA", "M", "40"],
    ]
    assert set(table["source"]) == {"montgomery"}
    assert "'tuberculosis': 1" in caplog.text
    (tree / "ClinicalReadings" / "MCUCXR_0001_0.txt").unlink()
    assert read_source(MONTGOMERY, tree)[["sex", "age"]].iloc[0].tolist() == ["", ""]


@pytest.mark.parametrize(
    ("reading", "sex", "age"),
    [
        ("male 45yrs\nnormal\n", "M", "45"),
        ("female, 28 yrs\nnormal", "F", "28"),
        ("femal 32yrs\nnormal", "F", "32"),
        ("male 16month\nnormal", "M", "1"),
        ("female 64days\nnormal", "F", "0"),
        ("", "", ""),
        ("normal\n\nmale 3 m", "", ""),
    ],
)
def test_readings_of_shenzhen(tmp_path, trees, reading, sex, age):
    table = read_source(SHENZHEN, trees.nlm(tmp_path, {"CHNCXR_0115_0": reading}))
    assert table[["sex", "age", "source"]].iloc[0].tolist() == [sex, age, "shenzhen"]
