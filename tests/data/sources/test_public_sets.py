"""The sets of public sources from their archives, end to end on a local server."""

import json
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cxr.data.manifest import manifest_table, read_manifest, write_manifest
from cxr.data.sources.public_sets import SETS, build_part, get_set
from cxr.errors import InputError, MissingInputError
from cxr.pipeline.config import compose
from cxr.pipeline.download_stage import download_stage

CXR4 = SETS["cxr4"][""]
ADULTS = SETS["cxr4plus"]["adults"]
ARCHIVES = {one.file_name: one for part in (CXR4, ADULTS) for one in part.archives()}
OTHERS = {"a.jpg": "No Finding", "b.jpg": "Pneumonia/Bacterial", "c.jpg": "Pneumonia/Viral/SARS"}


def annotate(folder, name):
    square = [{"x": 0, "y": 0}, {"x": 5, "y": 0}, {"x": 5, "y": 3}, {"x": 0, "y": 3}]
    folder.mkdir(exist_ok=True, parents=True)
    content = {
        "image": {"original_filename": name, "width": 20, "height": 10},
        "annotations": [{"name": "Lung", "polygon": {"path": square}}],
    }
    (folder / f"{name}.json").write_text(json.dumps(content))


def make_trees(root, trees):
    """Make the trees of all parts below one folder, as their archives unpack."""
    trees.kermany(root / "kermany")
    rows = [{"filename": "z.jpg"}, {"filename": "y.jpg", "finding": "No Finding", "age": "12"}]
    rows += [{"filename": name, "finding": finding} for name, finding in OTHERS.items()]
    trees.cohen(root / "cohen" / "covid-chestxray-dataset-master", rows)
    trees.hannover(root / "hannover" / "covid-19-image-repository-master", [{"image_id": "0a"}])
    trees.granada(root / "covidgr" / "COVIDGR_1.0")
    child = {"CHNCXR_0001_0": "male 45yrs\nnormal", "CHNCXR_0002_0": "male 16month\nnormal"}
    trees.nlm(root / "shenzhen" / "ChinaSet_AllFiles", child)
    trees.nlm(root / "montgomery" / "MontgomerySet", {"MCUCXR_0001_0": "", "MCUCXR_0104_1": ""})
    annotate(root / "lung_masks", "person12_bacteria_46.jpeg")
    pixels = Image.fromarray(np.zeros((10, 20), np.uint8))
    pixels.save(root / "kermany/chest_xray/train/PNEUMONIA/person12_bacteria_46.jpeg")
    return root


@pytest.fixture
def local(site, tmp_path, trees):
    """The sets with every archive on a local server."""
    published = make_trees(tmp_path / "published", trees)
    for archive in ARCHIVES.values():
        path = tmp_path / archive.file_name
        with zipfile.ZipFile(path, "w") as file:
            for item in sorted((published / archive.name).rglob("*")):
                file.write(item, item.relative_to(published / archive.name))
        site.files[f"/{archive.file_name}"] = path.read_bytes()

    def here(one):
        return replace(one, urls=(f"{site.url}/{one.file_name}",))

    def moved(part):
        masks = here(part.masks) if part.masks else None
        return replace(part, sources=tuple(map(here, part.sources)), masks=masks)

    return {
        name: {folder: moved(part) for folder, part in parts.items()}
        for name, parts in SETS.items()
    }


def counts(table):
    return table.groupby(["source", "label"]).size().to_dict()


IN_CXR4 = {
    ("kermany", "normal"): 4,
    ("kermany", "viral"): 3,
    ("kermany", "bacterial"): 2,
    ("hannover", "covid"): 1,
    ("cohen", "covid"): 1,
}
IN_ADULTS = {
    ("montgomery", "normal"): 1,
    ("shenzhen", "normal"): 1,
    ("covidgr", "covid"): 2,
    ("covidgr", "normal"): 2,
    ("cohen", "normal"): 1,
    ("cohen", "bacterial"): 1,
    ("cohen", "viral"): 1,
}


def test_joins_the_trees_of_a_part(tmp_path, trees):
    table = build_part(CXR4, make_trees(tmp_path, trees))
    assert table["source"].tolist() == ["kermany"] * 9 + ["hannover", "cohen"]
    assert all((tmp_path / image).is_file() for image in table["image"])
    assert counts(table) == IN_CXR4


def test_downloads_unpacks_and_writes_the_manifest(local, site, tmp_path):
    root, seen = tmp_path / "cxr4", []
    tables = get_set("cxr4", root, on_progress=lambda *step: seen.append(step[0]), sets=local)
    assert list(tables) == [root / "manifest.csv"]
    table = tables[root / "manifest.csv"]
    assert counts(table) == IN_CXR4
    assert read_manifest(root / "manifest.csv").equals(table)
    assert set(seen) == {"kermany", "cohen", "hannover", "lung_masks"}
    assert len(list((root / "downloads").glob("*.sha256.json"))) == 4
    masked = table[table["mask"] != ""]
    assert masked["mask"].tolist() == ["masks/kermany/person12_bacteria_46.png"]
    with Image.open(root / masked["mask"].iloc[0]) as mask:
        assert (mask.size, mask.mode) == ((20, 10), "1")
        assert np.asarray(mask).sum() == 6 * 4
    again = get_set("cxr4", root, sets=local)
    assert again[root / "manifest.csv"].equals(table)
    assert len(site.requests) == 4


def test_adults_of_other_hospitals_come_beside_cxr4(local, site, tmp_path, caplog):
    caplog.set_level("INFO")
    tables = get_set("cxr4plus", tmp_path, sets=local)
    assert [path.relative_to(tmp_path).as_posix() for path in tables] == [
        "cxr4/manifest.csv",
        "adults/manifest.csv",
    ]
    cxr4, adults = tables.values()
    assert counts(cxr4) == IN_CXR4
    assert counts(adults) == IN_ADULTS
    assert all((tmp_path / "adults" / image).is_file() for image in adults["image"])
    # A child of Shenzhen and one of Cohen's.
    assert "2 images left out, under 18 years" in caplog.text
    # Cohen's archive serves both parts.
    assert sorted(site.requests) == sorted(f"/{name}" for name in ARCHIVES)
    assert set(cxr4["patient_id"]) & set(adults["patient_id"]) == {"cohen-2"}


def test_make_data_fetches_from_a_local_server(local, site, tmp_path, caplog):
    caplog.set_level("INFO")
    root = tmp_path / "cxr4"
    config = compose("download", [f"data.root={root}"])
    (manifest,) = download_stage(config, sets=local)
    assert len(read_manifest(manifest)) == 11
    assert sorted(site.requests) == sorted(f"/{one.file_name}" for one in CXR4.archives())
    assert "kermany: 4 normal images" in caplog.text
    assert all(one.license in caplog.text for one in CXR4.archives())
    # Kermany's archive must stay the one that was seen first.
    name = CXR4.sources[0].file_name
    (root / "downloads" / name).write_bytes(b"another")
    shutil.rmtree(root / "kermany")
    with pytest.raises(InputError, match=f"{name} of kermany has the SHA-256"):
        download_stage(config, sets=local)


def test_a_source_may_be_left_out(local, site, tmp_path):
    config = compose("download", [f"data.root={tmp_path}", "without=[cohen,lung_masks]"])
    (manifest,) = download_stage(config, sets=local)
    assert set(read_manifest(manifest)["source"]) == {"kermany", "hannover"}


@pytest.mark.parametrize("without", ["shenzen", "kermany,hannover,cohen"])
def test_what_cannot_be_left_out_is_said(local, site, tmp_path, without):
    config = compose("download", [f"data.root={tmp_path}", f"without=[{without}]"])
    with pytest.raises(InputError, match=r"cannot be left out of cxr4: it has kermany, hannover"):
        download_stage(config, sets=local)
    assert not site.requests


def test_a_part_without_sources_is_passed_over(local, tmp_path):
    tables = get_set(
        "cxr4plus", tmp_path, sets=local, without=["montgomery", "shenzhen", "covidgr", "cohen"]
    )
    assert list(tables) == [tmp_path / "cxr4" / "manifest.csv"]


def test_unreachable_sources_are_named_in_one_line(local, site, tmp_path, caplog):
    kermany, hannover, cohen = CXR4.sources
    for gone in (kermany, cohen, CXR4.masks):
        del site.files[f"/{gone.file_name}"]
    with pytest.raises(MissingInputError) as caught:
        get_set("cxr4", tmp_path / "cxr4", sets=local)
    message = str(caught.value)
    assert "\n" not in message
    for source in (kermany, cohen):
        assert f"fetch {source.file_name} by hand from {source.home_page}" in message
        assert str(tmp_path / "cxr4" / "downloads" / source.file_name) in message
    assert hannover.file_name not in message
    assert CXR4.masks.file_name not in message
    assert "going on without lung masks: cannot download lung_masks" in caplog.text
    assert (tmp_path / "cxr4" / "hannover").is_dir()


def test_archives_put_there_by_hand_are_used(local, site, tmp_path):
    downloads = tmp_path / "cxr4" / "downloads"
    downloads.mkdir(parents=True)
    for name in ARCHIVES:
        (downloads / name).write_bytes(site.files[f"/{name}"])
    assert [len(table) for table in get_set("cxr4plus", tmp_path, sets=local).values()] == [11, 9]
    assert not site.requests


def test_trees_put_there_by_hand_are_used(local, site, tmp_path, trees):
    root = make_trees(tmp_path / "cxr4", trees)
    assert len(get_set("cxr4", root, sets=local)[root / "manifest.csv"]) == 11
    assert not site.requests


def test_a_set_that_has_only_its_manifest_is_taken_as_it_is(local, site, tmp_path):
    table = manifest_table([{"image": "a.png", "label": "covid"}])
    for part in ("cxr4", "adults"):
        write_manifest(table, tmp_path / part / "manifest.csv")
    tables = get_set("cxr4plus", tmp_path, sets=local)
    assert all(one.equals(table) for one in tables.values())
    assert not site.requests


@pytest.mark.realdata
def test_the_shared_sets_are_taken_as_they_are(shared):
    tables = get_set("cxr4plus", shared / "data")
    assert [len(table) for table in tables.values()] == [6220, 3004]
