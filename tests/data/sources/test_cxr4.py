"""The four-class set from its three archives, end to end on a local server."""

import shutil
import zipfile
from dataclasses import replace

import pytest

from cxr.data.manifest import manifest_table, read_manifest, write_manifest
from cxr.data.sources.cxr4 import build_cxr4, get_cxr4
from cxr.data.sources.download import SOURCES
from cxr.errors import InputError, MissingInputError
from cxr.pipeline.config import compose
from cxr.pipeline.download_stage import download_stage


def make_trees(root, trees):
    trees.kermany(root / "kermany")
    trees.cohen(root / "cohen" / "covid-chestxray-dataset-master", [{"filename": "a.jpg"}])
    trees.hannover(root / "hannover" / "covid-19-image-repository-master", [{"image_id": "0a"}])
    return root


@pytest.fixture
def local_sources(site, tmp_path, trees):
    published = make_trees(tmp_path / "published", trees)
    for source in SOURCES:
        path = tmp_path / source.file_name
        with zipfile.ZipFile(path, "w") as file:
            for item in sorted((published / source.name).rglob("*")):
                file.write(item, item.relative_to(published / source.name))
        site.files[f"/{source.file_name}"] = path.read_bytes()
    return tuple(
        replace(source, urls=(f"{site.url}/{source.file_name}",), sha256=None) for source in SOURCES
    )


def test_joins_the_three_trees(tmp_path, trees):
    table = build_cxr4(make_trees(tmp_path, trees))
    assert table["source"].tolist() == ["kermany"] * 9 + ["hannover", "cohen"]
    assert all((tmp_path / image).is_file() for image in table["image"])
    assert table["label"].value_counts().to_dict() == {
        "normal": 4,
        "viral": 3,
        "bacterial": 2,
        "covid": 2,
    }


def test_downloads_unpacks_and_writes_the_manifest(local_sources, site, tmp_path):
    root, seen = tmp_path / "cxr4", []
    table = get_cxr4(root, on_progress=lambda *step: seen.append(step[0]), sources=local_sources)
    assert len(table) == 11
    assert read_manifest(root / "manifest.csv").equals(table)
    assert set(seen) == {"kermany", "cohen", "hannover"}
    assert len(list((root / "downloads").glob("*.sha256.json"))) == 3
    again = get_cxr4(root, sources=local_sources)
    assert again.equals(table)
    assert len(site.requests) == 3


def test_make_data_fetches_from_a_local_server(local_sources, site, tmp_path, caplog):
    caplog.set_level("INFO")
    root = tmp_path / "cxr4"
    config = compose("download", [f"data.root={root}"])
    manifest = download_stage(config, sources=local_sources)
    assert len(read_manifest(manifest)) == 11
    assert sorted(site.requests) == sorted(f"/{source.file_name}" for source in SOURCES)
    assert "kermany: 4 normal images" in caplog.text
    assert all(source.license in caplog.text for source in SOURCES)
    # Kermany's archive must stay the one that was seen first.
    (root / "downloads" / SOURCES[0].file_name).write_bytes(b"another")
    shutil.rmtree(root / "kermany")
    with pytest.raises(InputError, match=f"{SOURCES[0].file_name} of kermany has the SHA-256"):
        download_stage(config, sources=local_sources)


def test_unreachable_sources_are_named_in_one_line(local_sources, site, tmp_path):
    kermany, cohen, hannover = SOURCES
    del site.files[f"/{kermany.file_name}"], site.files[f"/{cohen.file_name}"]
    with pytest.raises(MissingInputError) as caught:
        get_cxr4(tmp_path / "cxr4", sources=local_sources)
    message = str(caught.value)
    assert "\n" not in message
    for source in (kermany, cohen):
        assert f"fetch {source.file_name} by hand from {source.home_page}" in message
        assert str(tmp_path / "cxr4" / "downloads" / source.file_name) in message
    assert hannover.file_name not in message
    assert (tmp_path / "cxr4" / "hannover").is_dir()


def test_archives_put_there_by_hand_are_used(local_sources, site, tmp_path):
    downloads = tmp_path / "cxr4" / "downloads"
    downloads.mkdir(parents=True)
    for source in SOURCES:
        (downloads / source.file_name).write_bytes(site.files[f"/{source.file_name}"])
    assert len(get_cxr4(tmp_path / "cxr4", sources=local_sources)) == 11
    assert not site.requests


def test_trees_put_there_by_hand_are_used(local_sources, site, tmp_path, trees):
    assert len(get_cxr4(make_trees(tmp_path / "cxr4", trees), sources=local_sources)) == 11
    assert not site.requests


def test_a_set_that_has_only_its_manifest_is_taken_as_it_is(local_sources, site, tmp_path):
    table = manifest_table([{"image": "a.png", "label": "covid"}])
    write_manifest(table, tmp_path / "set" / "manifest.csv")
    assert get_cxr4(tmp_path / "set", sources=local_sources).equals(table)
    assert not site.requests
