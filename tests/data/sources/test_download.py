"""The downloader against a local server: whole, interrupted, changed, wrong, absent."""

import hashlib
import json
import socket
from dataclasses import replace

import numpy as np
import pytest

from cxr.data.sources import resume
from cxr.data.sources.download import SOURCES, Source, fetch
from cxr.data.sources.resume import CHUNK_BYTES
from cxr.errors import InputError, MissingInputError

BODY = np.random.default_rng(0).bytes(1_000_000)
DIGEST = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def source(site):
    site.files["/set.zip"] = BODY
    return Source("set", (f"{site.url}/set.zip",), "set.zip", "https://home", "CC0", DIGEST)


def interrupt(source, folder, *, after):
    """Download until at least ``after`` bytes are there, then be interrupted as by Ctrl-C."""

    def stop(name, done, total):
        if done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(source, folder, on_progress=stop)
    assert not (folder / "set.zip").exists()
    return (folder / "set.zip.part").stat().st_size


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
    assert seen[0] == ("set", 0, len(BODY))
    assert seen[-1] == ("set", len(BODY), len(BODY))
    assert len(seen) > 2


def test_interrupted_download_is_continued(source, site, tmp_path):
    kept = interrupt(source, tmp_path, after=300_000)
    assert kept >= 300_000
    assert fetch(source, tmp_path).read_bytes() == BODY
    assert site.requests == [("/set.zip", None, None), ("/set.zip", f"bytes={kept}-", '"one"')]
    assert names(tmp_path) == ["set.zip", "set.zip.sha256.json"]


def test_interrupted_download_of_a_server_without_ranges_starts_again(source, site, tmp_path):
    site.ranges = False
    interrupt(source, tmp_path, after=300_000)
    seen = []
    path = fetch(source, tmp_path, on_progress=lambda name, done, total: seen.append(done))
    assert path.read_bytes() == BODY
    assert seen[0] == 0


@pytest.mark.parametrize("obeys_if_range", [True, False])
def test_file_that_changed_meanwhile_starts_again(source, site, tmp_path, obeys_if_range):
    interrupt(source, tmp_path, after=300_000)
    changed = BODY[::-1]
    site.files["/set.zip"], site.etag = changed, '"two"'
    site.obeys_if_range = obeys_if_range
    source = replace(source, sha256=hashlib.sha256(changed).hexdigest())
    assert fetch(source, tmp_path).read_bytes() == changed


def test_file_of_another_size_starts_again_without_an_etag(source, site, tmp_path):
    site.etag = ""
    interrupt(source, tmp_path, after=300_000)
    site.files["/set.zip"] = BODY + b"more"
    source = replace(source, sha256=None)
    assert fetch(source, tmp_path).read_bytes() == BODY + b"more"


def test_weak_etag_is_compared_not_sent(source, site, tmp_path):
    site.etag = 'W/"one"'
    kept = interrupt(source, tmp_path, after=300_000)
    assert fetch(source, tmp_path).read_bytes() == BODY
    assert site.requests[-1] == ("/set.zip", f"bytes={kept}-", None)


def test_shrunken_file_starts_again(source, site, tmp_path):
    interrupt(source, tmp_path, after=600_000)
    site.files["/set.zip"] = BODY[:1000]
    source = replace(source, sha256=None)
    assert fetch(source, tmp_path).read_bytes() == BODY[:1000]


def test_dropped_connection_is_continued_in_the_same_call(source, site, tmp_path):
    site.drop_after = [6 * CHUNK_BYTES, 6 * CHUNK_BYTES + 1000]
    assert fetch(source, tmp_path).read_bytes() == BODY
    assert [asked for _, asked, _ in site.requests] == [
        None,
        f"bytes={6 * CHUNK_BYTES}-",
        f"bytes={12 * CHUNK_BYTES}-",
    ]


def test_connection_that_brings_nothing_more_keeps_what_came(source, site, tmp_path):
    site.drop_after = [2 * CHUNK_BYTES, 0]
    with pytest.raises(MissingInputError, match=r"cannot download set .*give the same command"):
        fetch(source, tmp_path)
    assert (tmp_path / "set.zip.part").stat().st_size == 2 * CHUNK_BYTES
    assert fetch(source, tmp_path).read_bytes() == BODY
    assert site.requests[-1][1] == f"bytes={2 * CHUNK_BYTES}-"


def test_server_that_names_no_length(source, site, tmp_path):
    site.names_length = False
    seen = []
    path = fetch(source, tmp_path, on_progress=lambda *step: seen.append(step[2]))
    assert path.read_bytes() == BODY
    assert set(seen) == {None}


def test_partial_file_that_is_whole_is_not_downloaded_again(source, site, tmp_path):
    interrupt(source, tmp_path, after=len(BODY))
    assert fetch(source, tmp_path).read_bytes() == BODY
    assert len(site.requests) == 1


def test_damaged_notes_on_a_partial_file_start_again(source, site, tmp_path):
    interrupt(source, tmp_path, after=300_000)
    (tmp_path / "set.zip.part.json").write_text("[")
    assert fetch(source, tmp_path).read_bytes() == BODY
    assert site.requests[-1][1] is None


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
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(resume, "write_json", full)
    with pytest.raises(InputError, match="the disk is full"):
        fetch(source, tmp_path)


def test_public_sources_are_named_once_and_fetched_safely():
    assert [source.name for source in SOURCES] == ["kermany", "cohen", "hannover"]
    for source in SOURCES:
        assert source.license
        assert all(url.startswith("https://") for url in (*source.urls, source.home_page))
