"""Cohen's tree: which rows become images."""

import pytest

from cxr.data.sources.adapters import COHEN, COHEN_OTHERS
from cxr.data.sources.tree import read_source
from cxr.errors import InputError, MissingInputError

KEPT = [
    {"filename": "a.jpg", "patientid": "331a"},
    {"filename": "b.png", "view": "AP Supine", "license": "CC BY 4.0", "age": "54"},
    {"filename": "c.jpg", "view": "AP Erect", "license": "listed as authorized for everyone"},
    {"filename": "d.jpg", "view": "AP", "license": "CC BY-NC-SA 4.0 "},
]
LEFT_OUT = [
    {"filename": "l.jpg", "view": "L"},
    {"filename": "ct.jpg", "view": "Axial", "modality": "CT"},
    {"filename": "nii.nii.gz", "folder": "volumes", "modality": "CT"},
    {"filename": "sars.jpg", "finding": "Pneumonia/Viral/SARS"},
    {"filename": "strep.jpg", "finding": "Pneumonia/Bacterial/Streptococcus"},
    {"filename": "none.jpg", "finding": "No Finding"},
    {"filename": "open.jpg", "license": ""},
    {"filename": "blank.jpg", "license": " "},
    {"filename": "nd.jpg", "license": "CC BY-NC-ND"},
    {
        "filename": "b343e657.jpg",
        "license": "CC BY 3.0",
        "url": "https://github.com/ml-workgroup/covid-19-image-repository",
        "doi": "10.6084/m9.figshare.12275009",
    },
    {"filename": "h.jpg", "location": "Hannover Medical School, Hannover, Germany"},
]


def test_keeps_frontal_covid_images_that_may_be_shared(tmp_path, trees):
    table = read_source(COHEN, trees.cohen(tmp_path, KEPT + LEFT_OUT))
    assert table["image"].tolist() == [f"images/{row['filename']}" for row in KEPT]
    assert table["patient_id"].tolist() == ["cohen-331a", "cohen-2", "cohen-2", "cohen-2"]
    assert table["view"].tolist() == ["PA", "AP Supine", "AP Erect", "AP"]
    assert table["license"].iloc[3] == "CC BY-NC-SA 4.0"
    assert table["age"].tolist() == ["65", "54", "65", "65"]
    assert set(table["label"]) == {"covid"}
    assert set(table["published_split"]) == {""}


OTHERS = {
    "Pneumonia/Bacterial/Klebsiella": "bacterial",
    "Pneumonia/Bacterial": "bacterial",
    "Pneumonia/Viral/Influenza/H1N1": "viral",
    "Pneumonia/Viral/Herpes ": "viral",
    "Pneumonia/Viral/SARS": "viral",
    "No Finding": "normal",
    "Pneumonia/Viral/COVID-19": "",
    "Pneumonia": "",
    "Pneumonia/Fungal/Pneumocystis": "",
    "Pneumonia/Aspiration": "",
    "Tuberculosis": "",
    "todo": "",
}


def test_other_findings_of_the_same_tree(tmp_path, trees):
    rows = [{"filename": f"{i}.jpg", "finding": name} for i, name in enumerate(OTHERS)]
    table = read_source(COHEN_OTHERS, trees.cohen(tmp_path, rows + LEFT_OUT[-3:]))
    assert table["label"].tolist() == [label for label in OTHERS.values() if label]
    assert table["image"].tolist() == [f"images/{i}.jpg" for i in range(6)]
    assert set(table["source"]) == {"cohen"}
    assert set(table["license"]) == {"CC BY-NC-SA"}


def test_says_how_many_rows_are_left_out_and_why(tmp_path, caplog, trees):
    caplog.set_level("INFO")
    read_source(COHEN, trees.cohen(tmp_path, [*KEPT, *LEFT_OUT, KEPT[0]]))
    for reason in (
        "'no frontal image': 3",
        "'other finding': 3",
        "'no licence that allows sharing': 3",
        "'from Hannover': 2",
        "'image named before': 1",
    ):
        assert reason in caplog.text


def test_root_may_hold_the_unpacked_archive(tmp_path, trees):
    trees.cohen(tmp_path / "covid-chestxray-dataset-master", KEPT)
    table = read_source(COHEN, tmp_path)
    assert table["image"].iloc[0] == "covid-chestxray-dataset-master/images/a.jpg"


def test_two_trees_are_not_guessed_between(tmp_path, trees):
    trees.cohen(tmp_path / "one", KEPT)
    trees.cohen(tmp_path / "two", KEPT)
    with pytest.raises(InputError, match="in one and in two"):
        read_source(COHEN, tmp_path)


def test_older_edition_names_findings_and_columns_otherwise(tmp_path, trees):
    columns = (
        "patientid",
        "sex",
        "age",
        "finding",
        "view",
        "modality",
        "location",
        "folder",
        "filename",
        "doi",
        " url",
        "license",
    )
    row = dict.fromkeys(columns, "") | {
        "patientid": "7",
        "finding": "COVID-19, ARDS",
        "view": "PA",
        "modality": "X-ray",
        "folder": "images",
        "filename": "a.jpg",
        "license": "CC BY",
    }
    trees.cohen(tmp_path, [{"filename": "a.jpg"}])
    trees.write_csv(tmp_path / "metadata.csv", columns, [row])
    assert read_source(COHEN, tmp_path)["label"].tolist() == ["covid"]


def test_missing_images_are_named(tmp_path, caplog, trees):
    trees.cohen(tmp_path, KEPT)
    (tmp_path / "images" / "b.png").unlink()
    assert len(read_source(COHEN, tmp_path)) == 3
    assert "1 of 4 images left out, not there, the first images/b.png" in caplog.text
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    with pytest.raises(MissingInputError, match="none of the 4 images"):
        read_source(COHEN, tmp_path)


def test_metadata_without_a_column(tmp_path, trees):
    trees.write_csv(tmp_path / "metadata.csv", ("patientid", "finding"), [{"finding": "COVID-19"}])
    with pytest.raises(InputError, match="no column 'sex': it has patientid, finding"):
        read_source(COHEN, tmp_path)


def test_path_out_of_the_tree_is_refused(tmp_path, trees):
    (tmp_path / "tree").mkdir()
    trees.cohen(tmp_path / "tree", [{"filename": "../../a.jpg"}])
    with pytest.raises(InputError, match="lies outside"):
        read_source(COHEN, tmp_path / "tree")
