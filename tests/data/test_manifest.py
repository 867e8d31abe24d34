"""Manifests: what is read, and the one line that each mistake gets."""

from pathlib import Path

import pandas as pd
import pytest

from cxr.data.manifest import (
    COLUMNS,
    check_manifest,
    join_manifests,
    manifest_table,
    patients_unknown,
    read_manifest,
    write_manifest,
)
from cxr.errors import InputError, MissingInputError
from cxr.labels import CANONICAL


def write(folder: Path, text: str) -> Path:
    path = folder / "manifest.csv"
    path.write_text(text, encoding="utf-8")
    return path


def error_of(path: Path, **options: tuple[str, ...]) -> str:
    with pytest.raises(InputError) as caught:
        read_manifest(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_reads_text_and_adds_missing_columns_empty(tmp_path):
    path = write(tmp_path, "label,image,age\nnormal,a.png,07\ncovid,b/c.png,\n\n")
    table = read_manifest(path, labels=CANONICAL)
    assert list(table.columns) == list(COLUMNS)
    assert table["image"].tolist() == ["a.png", "b/c.png"]
    assert table["age"].tolist() == ["07", ""]
    assert table["mask"].tolist() == ["", ""]
    assert all(isinstance(value, str) for value in table.to_numpy().ravel())


def test_keeps_words_that_look_like_missing_values(tmp_path):
    table = read_manifest(write(tmp_path, "image,label,patient_id\na.png,NA,null\n"))
    assert table.loc[0, ["label", "patient_id"]].tolist() == ["NA", "null"]


def test_reads_a_byte_order_mark_and_quoted_commas(tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_bytes(b'\xef\xbb\xbfimage,label\n"a,1.png",normal\n')
    assert read_manifest(path)["image"].tolist() == ["a,1.png"]


def test_write_and_read_give_the_same_table(tmp_path):
    rows = [
        {"image": "a, b.png", "label": "normal", "patient_id": '"p"', "age": "7"},
        {"image": "ä/c.png", "label": "covid", "published_split": "val", "lesion_mask": "m.png"},
    ]
    table = manifest_table(rows)
    write_manifest(table, tmp_path / "new" / "manifest.csv")
    pd.testing.assert_frame_equal(read_manifest(tmp_path / "new" / "manifest.csv"), table)


def test_write_leaves_out_lesion_masks_that_nobody_has(tmp_path):
    write_manifest(manifest_table([{"image": "a.png", "label": "x"}]), tmp_path / "m.csv")
    header, row = (tmp_path / "m.csv").read_text().splitlines()
    assert header == ",".join(COLUMNS[:-1])
    assert row == "a.png,x" + "," * 10


def test_missing_folder_and_file(tmp_path):
    with pytest.raises(MissingInputError, match=r"no folder .*gone"):
        read_manifest(tmp_path / "gone" / "manifest.csv")
    with pytest.raises(MissingInputError, match=r"no file .*manifest\.csv"):
        read_manifest(tmp_path / "manifest.csv")


@pytest.mark.parametrize("text", ["", "\n", "image,label\n"])
def test_empty_file(tmp_path, text):
    assert "is empty" in error_of(write(tmp_path, text))


def test_missing_column_names_what_is_there(tmp_path):
    message = error_of(write(tmp_path, "image,class\na.png,normal\n"))
    assert "no column 'label': it has image, class" in message


def test_column_named_twice(tmp_path):
    assert "names a column twice" in error_of(write(tmp_path, "image,label,label\na,b,c\n"))


def test_row_of_another_length(tmp_path):
    message = error_of(write(tmp_path, "image,label\na.png,x\nb.png,x,extra\n"))
    assert "row 2" in message
    assert "has 3 values, the header 2" in message


def test_file_that_is_no_text(tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_bytes(b"\xff\xfe\x00\x01")
    assert "not UTF-8" in error_of(path)


def test_unknown_label_names_row_value_and_what_is_allowed(tmp_path):
    path = write(tmp_path, "image,label\na.png,normal\nb.png,Covid\n")
    message = error_of(path, labels=CANONICAL)
    assert "unknown label 'Covid' in row 2" in message
    assert "normal, covid, bacterial, viral" in message


def test_empty_label_is_refused_without_a_list_of_labels(tmp_path):
    assert "unknown label '' in row 1" in error_of(write(tmp_path, "image,label\na.png,\n"))


def test_unknown_published_split(tmp_path):
    message = error_of(write(tmp_path, "image,label,published_split\na.png,x,dev\n"))
    assert "unknown published_split 'dev' in row 1" in message
    assert "(empty), train, val, test" in message


def test_image_named_twice_even_in_another_spelling(tmp_path):
    message = error_of(write(tmp_path, "image,label\nf/a.png,x\nb.png,x\nf/./a.png,x\n"))
    assert "'f/a.png' in row 1 and again in row 3" in message


@pytest.mark.parametrize("image", ["/etc/a.png", "C:\\images\\a.png"])
def test_absolute_path(tmp_path, image):
    assert "an absolute path" in error_of(write(tmp_path, f"image,label\n{image},x\n"))


@pytest.mark.parametrize("image", ["../a.png", "f/../../a.png"])
def test_path_that_climbs_out(tmp_path, image):
    (tmp_path / "f").mkdir()
    assert "lies outside" in error_of(write(tmp_path, f"image,label\n{image},x\n"))


def test_path_that_climbs_and_stays_is_shortened(tmp_path):
    (tmp_path / "f").mkdir()
    table = read_manifest(write(tmp_path, "image,label\nf/../a.png,x\n"))
    assert table["image"].tolist() == ["a.png"]


@pytest.mark.parametrize("image", ["link/a.png", "image.png", "link/../a.png"])
def test_link_that_leads_out(tmp_path, image):
    outside, folder = tmp_path / "outside" / "deep", tmp_path / "set"
    outside.mkdir(parents=True)
    folder.mkdir()
    (outside / "a.png").touch()
    (folder / "link").symlink_to(outside)
    (folder / "image.png").symlink_to(outside / "a.png")
    assert "lies outside" in error_of(write(folder, f"image,label\n{image},x\n"))


def test_link_inside_and_linked_folder_are_fine(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.png").touch()
    (folder / "b.png").symlink_to(folder / "a.png")
    (tmp_path / "again").symlink_to(folder)
    write(folder, "image,label\nb.png,x\n")
    assert len(read_manifest(tmp_path / "again" / "manifest.csv")) == 1


def test_masks_may_not_leave_either(tmp_path):
    path = write(tmp_path, "image,label,mask\na.png,x,\nb.png,x,../m.png\n")
    assert "mask in row 2" in error_of(path)


def test_unknown_columns_are_left_out_and_named(tmp_path, caplog):
    table = read_manifest(write(tmp_path, "image,label,patientid\na.png,x,7\n"))
    assert list(table.columns) == list(COLUMNS)
    assert "patientid" in caplog.text


def test_check_does_not_change_its_table(tmp_path):
    table = manifest_table([{"image": "./a.png", "label": "x"}])
    assert check_manifest(table, tmp_path)["image"].tolist() == ["a.png"]
    assert table["image"].tolist() == ["./a.png"]


@pytest.mark.realdata
def test_reads_the_real_manifest(shared):
    table = read_manifest(shared / "data" / "cxr4" / "manifest.csv", labels=CANONICAL)
    assert table["label"].value_counts().to_dict() == {
        "bacterial": 2780,
        "normal": 1583,
        "viral": 1493,
        "covid": 364,
    }
    assert table["mask"].ne("").sum() == 5968


def test_missing_patient_ids_are_said_with_what_they_mean():
    table = pd.DataFrame({"patient_id": ["a", "b"]})
    assert patients_unknown(table) == ""
    assert patients_unknown(table.assign(patient_id=["", None])).startswith(
        "no image has a patient"
    )
    found = patients_unknown(table.assign(patient_id=["a", ""]))
    assert found.startswith("1 of 2 images lack a patient id")
    assert "both sides of a split" in found
    assert patients_unknown(table.drop(columns="patient_id")).startswith("no image")


def test_a_label_set_is_read_in_the_projects_order(tmp_path):
    path = write(tmp_path, "image,label\na.png,viral|bacterial\nb.png,normal\n")
    table = read_manifest(path, labels=CANONICAL)
    assert table["label"].tolist() == ["bacterial|viral", "normal"]


@pytest.mark.parametrize(
    ("label", "fault"),
    [("viral|viral", "a set names each class once"), ("viral|flu", "allowed are normal, covid")],
)
def test_a_bad_label_set_is_refused_in_one_line(tmp_path, label, fault):
    message = error_of(write(tmp_path, f"image,label\na.png,{label}\n"), labels=CANONICAL)
    assert f"unknown label {label!r} in row 1" in message
    assert fault in message
    assert "\n" not in message


def parts(tmp_path: Path) -> list[str]:
    """Write two parts whose images and patients have the same names."""
    for part, source in (("one", "nih"), ("two", "")):
        (tmp_path / part).mkdir()
        header = "image,label,patient_id,source,license,mask\n"
        rows = f"a.png,normal,7,{source},CC,m.png\nb.png,covid,,{source},CC,\n"
        write(tmp_path / part, header + rows)
    return ["one", "two"]


def test_joined_manifests_keep_images_and_patients_of_sources_apart(tmp_path):
    table = join_manifests(tmp_path, parts(tmp_path), labels=CANONICAL)
    assert table["image"].tolist() == ["one/a.png", "one/b.png", "two/a.png", "two/b.png"]
    assert table["mask"].tolist() == ["one/m.png", "", "two/m.png", ""]
    assert table["source"].tolist() == ["nih", "nih", "two", "two"]
    assert table["patient_id"].tolist() == ["nih:7", "", "two:7", ""]
    assert table["license"].tolist() == ["CC"] * 4


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("three", r"names 'three', but .*three holds no manifest\.csv"),
        ("one", "names image 'one/a"),
    ],
)
def test_a_part_that_is_missing_or_named_twice_is_refused(tmp_path, more, message):
    with pytest.raises(InputError, match=message):
        join_manifests(tmp_path, [*parts(tmp_path), more])
