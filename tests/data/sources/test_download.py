"""The downloader against a local server: whole, cut, changed, wrong, absent."""

import hashlib
import json
import socket
from dataclasses import replace

import numpy as np
import pooch
import pytest

from cxr.data.sources.download import Archive, fetch
from cxr.data.sources.public_sets import SETS
from cxr.errors import InputError, MissingInputError

BODY = np.random.default_rng(0).bytes(1_000_000)
DIGEST = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def source(site):
    site.files["/set.zip"] = BODY
    return Archive(
        name="set",
        urls=(f"{site.url}/set.zip",),
        file_name="set.zip",
        home_page="https://home",
        license="CC0",
        sha256=DIGEST,
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_whole_download_is_recorded(source, tmp_path):
    seen = []
    path = fetch(source, tmp_path / "new", on_progress=lambda *step: seen.append(step))
    assert path.read_bytes() == BODY
    assert names(path.parent) == ["set.zip", "set.zip.sha256.json"]
    record = json.loads((path.parent / "set.zip.sha256.json").read_text())
    assert record["sha256"] == DIGEST
    assert record["bytes"] == len(BODY)
    assert record["url"] == source.urls[0]
    assert record["license"] == "CC0"
    assert record["time_utc"].endswith("+00:00")
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[-1] == ("set", len(BODY), len(BODY))
    assert len(seen) > 2


def test_interrupted_download_leaves_nothing_and_begins_anew(source, site, tmp_path):
    def stop(name, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(source, tmp_path, on_progress=stop)
    assert names(tmp_path) == []
    assert fetch(source, tmp_path).read_bytes() == BODY


def test_dropped_connection_is_said_and_leaves_nothing(source, site, tmp_path):
    site.drop_after = [300_000]
    with pytest.raises(MissingInputError, match=r"cannot download set .*the connection broke off"):
        fetch(source, tmp_path)
    assert names(tmp_path) == []
    assert fetch(source, tmp_path).read_bytes() == BODY


def test_server_that_names_no_length(source, site, tmp_path):
    site.names_length = False
    seen = []
    path = fetch(source, tmp_path, on_progress=lambda *step: seen.append(step[2]))
    assert path.read_bytes() == BODY
    assert set(seen) == {None}


def test_digest_that_was_seen_first_is_pinned(source, site, tmp_path):
    source = replace(source, sha256=None, pinned=True)
    fetch(source, tmp_path).unlink()
    site.files["/set.zip"] = BODY[::-1]
    with pytest.raises(InputError) as caught:
        fetch(source, tmp_path)
    message = str(caught.value)
    assert f"not {DIGEST}" in message
    assert f"remove {tmp_path / 'set.zip.sha256.json'} if the publisher changed it" in message
    assert "\n" not in message
    assert names(tmp_path) == ["set.zip.sha256.json", "set.zip.wrong-digest"]
    (tmp_path / "set.zip.sha256.json").unlink()
    assert fetch(source, tmp_path).read_bytes() == BODY[::-1]


def test_change_of_what_its_publisher_changes_is_said(source, site, tmp_path, caplog):
    source = replace(source, sha256=None)
    fetch(source, tmp_path).unlink()
    fetch(source, tmp_path).unlink()
    assert not caplog.messages
    site.files["/set.zip"] = BODY[::-1]
    assert fetch(source, tmp_path).read_bytes() == BODY[::-1]
    assert f"and was {DIGEST} when it was first seen" in caplog.text
    record = json.loads((tmp_path / "set.zip.sha256.json").read_text())
    assert record["sha256"] == hashlib.sha256(BODY[::-1]).hexdigest()


def test_wrong_digest_is_moved_aside_and_never_used(source, tmp_path):
    wrong = replace(source, sha256="0" * 64)
    with pytest.raises(InputError) as caught:
        fetch(wrong, tmp_path)
    assert DIGEST in str(caught.value)
    assert "0" * 64 in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["set.zip.wrong-digest"]
    assert fetch(source, tmp_path).read_bytes() == BODY


def test_absent_file_says_what_to_fetch_by_hand(source, site, tmp_path):
    source = replace(source, urls=(f"{site.url}/gone.zip",))
    with pytest.raises(MissingInputError) as caught:
        fetch(source, tmp_path)
    message = str(caught.value)
    assert "HTTP status 404" in message
    assert (
        f"fetch set.zip by hand from https://home and put it at {tmp_path / 'set.zip'}" in message
    )
    assert "\n" not in message


def test_refused_connection_is_one_line(source, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/set.zip"
    with pytest.raises(MissingInputError) as caught:
        fetch(replace(source, urls=(url,)), tmp_path)
    assert f"{url}: not reachable" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_second_address_is_tried(source, site, tmp_path):
    source = replace(source, urls=(f"{site.url}/gone.zip", *source.urls))
    assert fetch(source, tmp_path).read_bytes() == BODY


def test_file_put_there_by_hand_is_accepted_and_recorded(source, site, tmp_path):
    (tmp_path / "set.zip").write_bytes(BODY)
    assert fetch(source, tmp_path) == tmp_path / "set.zip"
    assert fetch(source, tmp_path) == tmp_path / "set.zip"
    assert not site.requests
    record = json.loads((tmp_path / "set.zip.sha256.json").read_text())
    assert record["url"] == "put there by hand"
    assert record["sha256"] == DIGEST


def test_file_put_there_by_hand_with_a_wrong_digest_is_refused(source, tmp_path):
    (tmp_path / "set.zip").write_bytes(b"something else")
    with pytest.raises(InputError, match="is not used"):
        fetch(source, tmp_path)
    assert names(tmp_path) == ["set.zip.wrong-digest"]


def test_download_is_not_repeated(source, site, tmp_path):
    fetch(source, tmp_path)
    fetch(source, tmp_path)
    assert len(site.requests) == 1
    assert json.loads((tmp_path / "set.zip.sha256.json").read_text())["url"] == source.urls[0]


def test_full_disk_is_one_line(source, tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pooch, "retrieve", full)
    with pytest.raises(InputError, match="the disk is full"):
        fetch(source, tmp_path)


def test_archive_of_a_release_is_looked_up(source, site, tmp_path):
    release = f"{site.url}/repos/a/b/releases/tags/1.0"
    assets = [f"{site.url}/severity.csv", f"{site.url}/set.zip"]
    answer = {"assets": [{"browser_download_url": asset} for asset in assets]}
    site.files["/repos/a/b/releases/tags/1.0"] = json.dumps(answer).encode()
    assert fetch(replace(source, urls=(release,)), tmp_path).read_bytes() == BODY
    assert json.loads((tmp_path / "set.zip.sha256.json").read_text())["url"] == release


@pytest.mark.parametrize("answer", [b'{"assets": []}', b"{}", b"<html>"])
def test_release_without_an_archive_is_one_line(source, site, tmp_path, answer):
    site.files["/releases/tags/1.0"] = answer
    with pytest.raises(MissingInputError) as caught:
        fetch(replace(source, urls=(f"{site.url}/releases/tags/1.0",)), tmp_path)
    assert "fetch set.zip by hand from https://home" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_public_sources_are_named_and_fetched_safely():
    assert list(SETS) == ["cxr4", "cxr4plus"]
    parts = SETS["cxr4plus"]
    assert SETS["cxr4"][""] == parts["cxr4"]
    assert [[one.name for one in part.archives()] for part in parts.values()] == [
        ["kermany", "hannover", "cohen", "lung_masks"],
        ["montgomery", "shenzhen", "covidgr", "cohen"],
    ]
    for archive in (one for part in parts.values() for one in part.archives()):
        assert archive.license
        assert archive.credit
        assert all(url.startswith("https://") for url in (*archive.urls, archive.home_page))
