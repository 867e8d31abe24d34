"""Batch prediction: every image a row, stops and resumes, bad files, constant memory."""

import csv
import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr.bundle import batch
from cxr.bundle.batch import overlay_path, predict_images
from cxr.bundle.inputs import ImageFile, find_images
from cxr.bundle.result_files import Results, write_parquet
from cxr.errors import InputError, MissingInputError

_spec = importlib.util.spec_from_file_location("fakes", Path(__file__).with_name("fakes.py"))
assert _spec is not None
assert _spec.loader is not None
fakes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fakes)
FakePredictor = fakes.FakePredictor


def save(path: Path, value: int = 90, side: int = 40) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side), value, np.uint8)).save(path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for index in range(20):
        save(folder / f"{index % 3}" / f"{index:02d}.png", value=10 * index)
    (folder / "1" / "broken.png").write_bytes(b"no image")
    return folder


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def run(predictor, folder: Path, table: Path, **options):
    return predict_images(predictor, find_images([str(folder)]), table, **options)


def test_each_image_is_a_row_and_a_bad_file_one_with_its_error(images: Path, tmp_path: Path):
    summary = run(FakePredictor(), images, tmp_path / "out.csv")
    found = rows(tmp_path / "out.csv")
    assert summary.predicted + summary.refused + summary.failed == len(found) == 21
    assert [row["image"] for row in found] == [
        image.name for image in find_images([str(images)])
    ], "rows come in the order of the images"
    bad = [row for row in found if row["error"]]
    assert [Path(row["image"]).name for row in bad] == ["broken.png"]
    assert "is no image" in bad[0]["error"]
    assert bad[0]["label"] == bad[0]["prob_covid"] == ""
    good = found[0]
    assert good["label"] == "covid"
    assert good["prob_covid"] == good["prob_first_covid"] == "0.75"
    assert good["set"] == "normal|covid"
    assert good["refer"] == "true"
    assert good["level"] == "0.9"
    assert good["note"] == fakes.NOTE
    assert summary.failed == 1


def test_a_refused_image_has_no_prediction_and_says_why(tmp_path: Path):
    summary = run(
        FakePredictor(), save(tmp_path / "a.png", 250), tmp_path / "out.csv", maps=tmp_path / "maps"
    )
    (row,) = rows(tmp_path / "out.csv")
    assert row["refused"] == "true"
    assert row["reason"] == "Too bright."
    assert row["ood_score"] == "0.5"
    for name in ("label", "prob_covid", "prob_first_covid", "set", "refer", "map"):
        assert row[name] == "", name
    assert summary.refused == 1


@pytest.mark.parametrize("cut", [0, 1, 7])
def test_a_stopped_run_goes_on_where_it_was(images: Path, tmp_path: Path, cut: int):
    whole = tmp_path / "whole.csv"
    run(FakePredictor(), images, whole)
    table = tmp_path / "out.csv"
    with pytest.raises(KeyboardInterrupt):
        run(FakePredictor(stop_after=18), images, table, workers=1)
    before = rows(table)
    assert 0 < len(before) < 21
    if cut:
        table.write_bytes(table.read_bytes()[:-cut])
    predictor = FakePredictor()
    summary = run(predictor, images, table)
    kept = len(before) - bool(cut)
    assert summary.skipped == kept
    assert len(predictor.seen) == 21 - kept
    assert table.read_bytes() == whole.read_bytes()


def test_a_finished_run_has_nothing_left_and_a_changed_image_is_predicted_again(
    images: Path, tmp_path: Path
):
    table = tmp_path / "out.csv"
    run(FakePredictor(), images, table)
    again = run(FakePredictor(), images, table)
    assert again.predicted + again.refused + again.failed == 0
    os.utime(save(images / "1" / "broken.png"), (1, 1))
    assert run(FakePredictor(), images, table).predicted == 1
    assert rows(table)[-1]["image"].endswith("broken.png")
    assert rows(table)[-1]["error"] == ""


@pytest.mark.parametrize(
    ("options", "fingerprint", "line"),
    [
        ({"level": 0.8}, "abc", "begun with level '0.9'"),
        ({}, "other", "begun with bundle 'abc'"),
        ({"runtime": "openvino"}, "abc", "begun with runtime"),
        ({"maps": Path("m")}, "abc", "columns"),
        ({"level": 0.5}, "abc", "level 0.5 is not in the bundle"),
    ],
)
def test_a_table_of_another_run_is_refused(images, tmp_path, options, fingerprint, line):
    table = tmp_path / "out.csv"
    run(FakePredictor(), images, table)
    before = table.read_bytes()
    with pytest.raises(InputError, match=line):
        run(FakePredictor(fingerprint), images, table, **options)
    assert table.read_bytes() == before


def test_a_foreign_table_is_refused_and_left_as_it_was(images: Path, tmp_path: Path):
    table = tmp_path / "out.csv"
    table.write_text("name,age\na,3\n")
    with pytest.raises(InputError, match="columns differ"):
        run(FakePredictor(), images, table)
    assert table.read_text() == "name,age\na,3\n"


def test_a_second_process_is_kept_from_the_table(tmp_path: Path):
    columns, constant = ["image", "key"], {}
    with (
        Results(tmp_path / "out.csv", columns, constant),
        pytest.raises(InputError, match="another process is writing"),
    ):
        Results(tmp_path / "out.csv", columns, constant)


def test_a_defect_that_one_image_brings_out_costs_only_its_row(images: Path, tmp_path: Path):
    summary = run(FakePredictor(breaks_on="/07.png"), images, tmp_path / "out.csv")
    bad = [row for row in rows(tmp_path / "out.csv") if row["error"]]
    assert summary.predicted + summary.refused == 19
    assert [Path(row["image"]).name for row in bad] == ["07.png", "broken.png"]
    assert "by a defect of cxr" in bad[0]["error"]


def test_overlays_carry_the_class_and_the_note(tmp_path: Path):
    image = save(tmp_path / "a" / "x.png", 90, side=120)
    run(FakePredictor(), image, tmp_path / "out.csv", maps=tmp_path / "maps")
    (row,) = rows(tmp_path / "out.csv")
    with Image.open(row["map"]) as shown:
        assert shown.width >= 120
        assert shown.height > 120
        assert np.asarray(shown)[120:].max() > 200, "words stand below the image"


def test_overlays_stay_below_their_folder(tmp_path: Path):
    for name in ("/etc/x.png", "../../x.png", "C:/x.png", "a/../x.png"):
        assert overlay_path(tmp_path, name).resolve().is_relative_to(tmp_path)
    assert overlay_path(tmp_path, "a/x.png") != overlay_path(tmp_path, "a/x.jpg")


def test_names_with_line_breaks_and_commas_stay_one_row(tmp_path: Path):
    image = save(tmp_path / 'a,\n"b".png')
    run(FakePredictor(), image, tmp_path / "out.csv")
    (row,) = rows(tmp_path / "out.csv")
    assert row["image"].endswith('a,\\n"b".png')
    assert run(FakePredictor(), image, tmp_path / "out.csv").skipped == 1


def resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to ask for memory")
def test_ten_thousand_images_take_constant_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ImageFile, "key", lambda self: hash(self.name) & (2**64 - 1))
    pixels = np.full((320, 320), 90, np.uint8)

    class Quick(FakePredictor):
        def predict_each(self, images, *, level, maps, names, originals=()):
            for _ in names:
                # 100 kB each: ten thousand of them kept would be a gigabyte.
                yield fakes.FakePrediction(pixels.copy(), None)

    used = []
    named = (ImageFile(tmp_path, f"image-{index}.png") for index in range(10_000))
    summary = predict_images(
        Quick(), named, tmp_path / "out.csv", on_image=lambda: used.append(resident_bytes())
    )
    assert summary.predicted == 10_000
    assert max(used) < used[999] + 10_000_000


def test_folders_patterns_manifests_and_dicom_trees_are_found(images: Path, tmp_path: Path):
    tree = tmp_path / "tree"
    (tree / "1.2.840").mkdir(parents=True)
    (tree / "1.2.840" / "1.2.3").write_bytes(bytes(128) + b"DICM")
    (tree / "IM0001").write_bytes(bytes(128) + b"DICM")
    (tree / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tree / "notes.txt").write_text("no image")
    (tree / ".hidden.png").write_bytes(b"")
    save(tree / "b.PNG")
    names = [image.path.relative_to(tree).as_posix() for image in find_images([str(tree)])]
    assert names == ["IM0001", "b.PNG", "1.2.840/1.2.3"]
    assert len(list(find_images([str(images / "**" / "*.png")]))) == 21
    assert len(list(find_images([str(images), str(images / "1"), str(images)]))) == 21
    manifest = images / "manifest.csv"
    manifest.write_text("label,image\nnormal,0/00.png\nnormal,../../etc/passwd\nnormal,gone.png\n")
    found = list(find_images([str(manifest)]))
    assert [bool(image.error) for image in found] == [False, True, False]
    run(FakePredictor(), manifest, tmp_path / "out.csv")
    assert [bool(row["error"]) for row in rows(tmp_path / "out.csv")] == [False, True, True]


def test_manifest_rows_outside_its_folder_are_a_row_each(tmp_path: Path):
    manifest = tmp_path / "in" / "manifest.csv"
    manifest.parent.mkdir()
    manifest.write_text("image\n" + "".join(f"../{n}.png\n" for n in range(20)))
    table = tmp_path / "out.csv"
    for failed, skipped in ((20, 0), (0, 20)):
        summary = predict_images(FakePredictor(), find_images([str(manifest)]), table, level=0.9)
        assert (summary.failed, summary.skipped) == (failed, skipped)
    errors = [row["error"] for row in rows(table)]
    assert [error.split("'")[1] for error in errors] == [f"../{n}.png" for n in range(20)]


def test_sources_that_are_not_there_are_named(images: Path):
    with pytest.raises(MissingInputError, match=r"there is no .*gone"):
        list(find_images([str(images / "gone")]))
    with pytest.raises(MissingInputError, match="nothing matches"):
        list(find_images([str(images / "*.dcm")]))
    (images / "x.csv").write_text("path\na.png\n")
    with pytest.raises(InputError, match="no column 'image'"):
        list(find_images([str(images / "x.csv")]))


def test_parquet_holds_the_same_values(images: Path, tmp_path: Path):
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    run(FakePredictor(), images, tmp_path / "out.csv")
    types = batch.column_types(FakePredictor.labels, FakePredictor.members, maps=False)
    write_parquet(tmp_path / "out.csv", tmp_path / "out.parquet", types)
    found = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    text = rows(tmp_path / "out.csv")
    assert len(found) == len(text)
    assert list(found[0]) == list(text[0])
    for row, cells in zip(found, text, strict=True):
        assert (row["prob_covid"] is None) == (cells["prob_covid"] == "")
        assert row["refused"] in (None, cells["refused"] == "true")
    assert found[0]["prob_covid"] == 0.75


def test_without_pyarrow_parquet_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"pip install 'cxr\[parquet\]'"):
        write_parquet(tmp_path / "out.csv", tmp_path / "out.parquet", {})


@pytest.mark.long
def test_a_real_bundle_gives_the_predictors_own_answers(tiny_bundle, exported_run, tmp_path: Path):
    from cxr.bundle.predictor import Predictor

    shown = sorted((exported_run.folder.parent / "prepared").rglob("pixels.npy"))[0]
    pixels = np.load(shown, mmap_mode="r")[:3]
    paths = [tmp_path / "images" / f"{index}.png" for index in range(3)]
    (tmp_path / "images").mkdir()
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    predictor = Predictor(tiny_bundle, threads=1)
    run(predictor, tmp_path / "images", tmp_path / "out.csv", maps=tmp_path / "maps")
    for row, answer in zip(rows(tmp_path / "out.csv"), predictor.predict(paths), strict=True):
        assert row["note"] == predictor.note
        assert "synthetic phantom" in row["note"]
        assert row["refused"] == str(answer.refused).lower()
        assert float(row["ood_score"]) == pytest.approx(answer.ood_score, rel=1e-5)
        if not answer.refused:
            assert row["label"] == answer.label
            assert float(row[f"prob_{answer.label}"]) == pytest.approx(answer.probs[answer.label])
            assert Path(row["map"]).exists()
