"""Files written whole or not at all, digests, and where a run lies."""

import errno
import json
import os
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.errors import InputError, MissingInputError
from cxr.files import (
    atomic_write,
    digest,
    digest_of,
    environment,
    raise_if_unwritable,
    read_json,
    replacing_folder,
    run_folder,
    write_csv,
    write_json,
)


def test_writes_in_new_folders_with_the_users_permissions(tmp_path):
    path = tmp_path / "a" / "b.bin"
    before = os.umask(0o027)
    try:
        with atomic_write(path) as file:
            file.write(b"whole")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"whole"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("error", [RuntimeError("half-way"), KeyboardInterrupt()])
def test_an_error_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "kept.txt"
    path.write_text("before")

    def break_off() -> None:
        with atomic_write(path) as file:
            file.write(b"after")
            raise error

    with pytest.raises(type(error)):
        break_off()
    assert path.read_text() == "before"
    assert [item.name for item in tmp_path.iterdir()] == ["kept.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_is_one_line_and_loses_nothing(tmp_path, monkeypatch, call):
    path = tmp_path / "kept.txt"
    path.write_text("before")

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(InputError, match="the disk is full: free some space") as caught:
        write_json(path, {})
    monkeypatch.undo()
    assert "\n" not in str(caught.value)
    assert path.read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_in_the_folders_place_keeps_its_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_json(tmp_path / "file" / "x.json", {})


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "file size"),
        (errno.EACCES, "permissions"),
        (errno.EROFS, "output_root"),
    ],
)
def test_storage_errors_say_what_to_do(number, words):
    with pytest.raises(InputError, match=words):
        raise_if_unwritable(OSError(number, "system words"), Path("x"))


def test_other_system_errors_are_left_alone():
    raise_if_unwritable(OSError(errno.EIO, "broken"), Path("x"))


def test_json_takes_numpy_paths_and_undefined_numbers(tmp_path):
    values = {
        "nan": float("nan"),
        "inf": np.float32("inf"),
        "array": np.arange(2),
        "path": Path("a/b"),
        "tuple": (np.int64(3), np.bool_(True)),
        7: "seven",
    }
    write_json(tmp_path / "x.json", values)
    assert read_json(tmp_path / "x.json", hint="") == {
        "nan": None,
        "inf": None,
        "array": [0, 1],
        "path": "a/b",
        "tuple": [3, True],
        "7": "seven",
    }


def test_json_array_with_nan_becomes_null(tmp_path):
    write_json(tmp_path / "x.json", np.array([[1.5, np.nan]]))
    assert json.loads((tmp_path / "x.json").read_text()) == [[1.5, None]]


def test_missing_and_damaged_json_say_the_mend(tmp_path):
    path = tmp_path / "x.json"
    with pytest.raises(MissingInputError, match="is missing: cook it"):
        read_json(path, hint="cook it")
    path.write_text('{"half": ')
    with pytest.raises(InputError, match=r"is damaged .*: cook it"):
        read_json(path, hint="cook it")


def test_digest_tells_parts_apart():
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("ab") == digest(b"ab")
    assert len(digest()) == 64


def test_digest_of_values_does_not_depend_on_key_order():
    assert digest_of({"a": 1, "b": (2, 3)}) == digest_of({"b": [2, 3], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})


def test_run_folder_is_output_root_data_run():
    assert run_folder(Path("out"), "cxr4", "first") == Path("out/cxr4/first")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/tmp", ".hidden"])
def test_names_that_leave_the_output_root_are_refused(name):
    with pytest.raises(InputError, match=r"run is .*no slash and no leading dot"):
        run_folder(Path("out"), "cxr4", name)
    with pytest.raises(InputError, match=r"data.name is "):
        run_folder(Path("out"), name, "run")


def test_environment_states_what_a_result_depends_on():
    found = environment()
    assert {"time_utc", "command", "git_commit", "python", "platform", "cpu_count"} <= set(found)
    assert {"cxr", "numpy", "pillow"} <= set(found["versions"])
    json.dumps(found)


def test_a_table_is_written_without_its_index_and_whole(tmp_path):
    path = tmp_path / "new" / "table.csv"
    table = pd.DataFrame({"image": ["a, b"], "share": [1 / 3]}, index=[7])
    write_csv(path, table)
    assert path.read_bytes() == b'image,share\n"a, b",0.3333333333333333\n'
    write_csv(path, table, float_format="%.3g")
    assert path.read_text().endswith("0.333\n")
    assert [item.name for item in path.parent.iterdir()] == ["table.csv"]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "bundle"
    with replacing_folder(folder) as fresh:
        (fresh / "a").write_text("first")
    with pytest.raises(FileNotFoundError), replacing_folder(folder) as fresh:
        (fresh / "a").write_bytes((tmp_path / "gone").read_bytes())
    assert (folder / "a").read_text() == "first"
    with replacing_folder(folder) as fresh:
        (fresh / "b").write_text("second")
    assert [path.name for path in folder.iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
