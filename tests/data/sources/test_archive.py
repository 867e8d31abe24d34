"""Unpacking: whole or not at all, and nothing outside the folder."""

import zipfile
from collections import namedtuple

import pytest

from cxr.data.sources import download
from cxr.data.sources.download import unpack
from cxr.errors import InputError


def make_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def test_unpacks_and_passes_over_what_macs_add(tmp_path):
    path = make_zip(
        tmp_path / "set.zip",
        {"top/a.txt": "abc", "top/.DS_Store": "x", "__MACOSX/top/._a.txt": "x", "top/d/b.txt": "b"},
    )
    seen = []
    folder = unpack(path, tmp_path / "new" / "set", on_progress=lambda *step: seen.append(step))
    found = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.*"))
    assert found == ["top/a.txt", "top/d/b.txt"]
    assert seen == [("set", 3, 4), ("set", 4, 4)]
    assert [file.name for file in folder.parent.iterdir()] == ["set"]


def test_leaves_an_unpacked_folder_as_it_is(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").touch()
    unpack(tmp_path / "no archive needed.zip", tmp_path / "set")
    assert [file.name for file in (tmp_path / "set").iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt", "/out.txt", "..\\out.txt"])
def test_refuses_a_name_that_leaves_the_folder(tmp_path, name):
    path = make_zip(tmp_path / "bad.zip", {"a.txt": "a", name: "x"})
    with pytest.raises(InputError, match="would land outside"):
        unpack(path, tmp_path / "deep" / "set")
    assert sorted(file.name for file in tmp_path.rglob("*.txt")) == []
    assert not (tmp_path / "deep" / "set").exists()


def test_refuses_what_is_no_archive(tmp_path):
    (tmp_path / "page.zip").write_text("<html>log in first</html>")
    with pytest.raises(InputError, match="no whole ZIP archive"):
        unpack(tmp_path / "page.zip", tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_refuses_a_damaged_archive_and_leaves_nothing(tmp_path):
    path = make_zip(tmp_path / "set.zip", {"a.txt": "a" * 1000, "b.txt": "b" * 1000})
    data = bytearray(path.read_bytes())
    data[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    with pytest.raises(InputError, match="no whole ZIP archive"):
        unpack(path, tmp_path / "set")
    assert [file.name for file in tmp_path.iterdir()] == ["set.zip"]


def test_says_how_much_room_is_missing(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage(10, 9, 1))
    path = make_zip(tmp_path / "set.zip", {"a.txt": "abc"})
    with pytest.raises(InputError, match="free some space"):
        unpack(path, tmp_path / "set")
