"""A bundle in which anything was changed is refused, with one line."""

import json
import re
import shutil
from pathlib import Path

import pytest

from cxr.bundle.format import (
    FORMAT,
    BundleError,
    check_files,
    fingerprint_of,
    read_info,
    write_info,
)
from cxr.errors import InputError, MissingInputError

pytestmark = pytest.mark.long


def refused(folder: Path, kind: type[InputError] = BundleError) -> str:
    with pytest.raises(kind) as caught:
        check_files(folder, read_info(folder))
    message = str(caught.value)
    assert "\n" not in message
    return message


def rewrite(folder: Path, **changes) -> None:
    """Change bundle.json as someone would who keeps its fingerprint right."""
    info = json.loads((folder / "bundle.json").read_text()) | changes
    info["fingerprint"] = fingerprint_of(info)
    (folder / "bundle.json").write_text(json.dumps(info))


def test_a_whole_bundle_passes(tiny_bundle):
    info = read_info(tiny_bundle)
    check_files(tiny_bundle, info)
    on_disk = {p.relative_to(tiny_bundle).as_posix() for p in tiny_bundle.rglob("*") if p.is_file()}
    assert on_disk == {*info["files"], "bundle.json"}


def test_every_changed_file_is_named(changeable):
    for name in read_info(changeable)["files"]:
        path = changeable / name
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        assert name in refused(changeable)
        path.write_bytes(before)


def test_every_missing_file_is_named(changeable):
    for name in read_info(changeable)["files"]:
        path = changeable / name
        before = path.read_bytes()
        path.unlink()
        assert name in refused(changeable, MissingInputError)
        path.write_bytes(before)


def test_a_changed_threshold_is_refused(changeable):
    path = changeable / "bundle.json"
    text = path.read_text()
    changed = re.sub(r'("mobilenetv2": )\d+\.', r"\g<1>77.", text, count=1)
    assert changed != text
    path.write_text(changed)
    assert "was changed after the export" in refused(changeable)


def test_a_newer_format_asks_for_a_newer_version(changeable):
    rewrite(changeable, format=FORMAT + 1)
    assert "install a newer cxr" in refused(changeable)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": "1"}', "\x00"])
def test_a_damaged_list_is_refused(changeable, text):
    (changeable / "bundle.json").write_text(text)
    assert "bundle.json" in refused(changeable)


def test_a_lacking_key_is_named(changeable):
    info = json.loads((changeable / "bundle.json").read_text())
    del info["weights"]
    (changeable / "bundle.json").write_text(json.dumps(info))
    assert "lacks weights" in refused(changeable)


def test_what_is_no_bundle_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(MissingInputError, match="is no bundle"):
            read_info(path)


def test_a_list_may_not_name_files_outside(changeable):
    files = read_info(changeable)["files"]
    shutil.copy(changeable / "MODEL_CARD.md", changeable.parent / "outside")
    rewrite(changeable, files=files | {"../outside": files["MODEL_CARD.md"]})
    assert "../outside" in refused(changeable)


def test_writing_again_gives_the_same_fingerprint(changeable):
    info = read_info(changeable)
    values = {key: info[key] for key in info if key not in ("format", "files", "fingerprint")}
    assert write_info(changeable, values) == info
