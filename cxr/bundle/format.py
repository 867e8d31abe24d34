"""The folder that is the model: which files it has, and when it is refused.

``bundle.json`` names every file with its SHA-256 and carries the digest of its own content, so
a bundle in which anything was changed, lost or left half-copied is refused.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cxr.errors import InputError, MissingInputError
from cxr.files import current_keys, digest_of, leaves_folder, write_json

FORMAT = 2
"""Number of this layout; raised when a reader of an older number would misread it: one of 1
serves one threshold of prediction sets for all classes, where the cards speak of those per
class. Layouts 1 and 2 are read, and served per class."""
INFO_FILE = "bundle.json"
OOD_FILE = "ood.npz"
CARD_FILE = "MODEL_CARD.md"
MODEL_FILES = {"float32": "model.onnx", "int8": "model-int8.onnx"}
"""Graph of each variant; bfloat16 is computed from the float32 one."""
REQUIRED = (
    "labels",
    "members",
    "weights",
    "preprocess",
    "data",
    "synthetic",
    "note",
    "uncertainty",
    "models",
    "files",
    "fingerprint",
)
MEND = "export the run again (make export), or copy the whole folder again"


class BundleError(InputError):
    """A folder that is no usable bundle; the message names it."""


def read_info(folder: Path) -> dict[str, Any]:
    """Read a bundle's ``bundle.json`` and check it against itself.

    Args:
        folder: the bundle.

    Raises:
        MissingInputError: no such folder, or no ``bundle.json`` in it.
        BundleError: it is damaged, of a newer format, lacks a key, or was changed.
    """
    path = folder / INFO_FILE
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise MissingInputError(
            f"{folder} is no bundle: {INFO_FILE} is missing; name the folder that make export wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read ({_line(error)}): {MEND}") from None
    if not isinstance(info, dict) or not isinstance(info.get("format"), int):
        raise BundleError(f"{path} names no format: {MEND}")
    if info["format"] > FORMAT:
        raise BundleError(
            f"{folder} has bundle format {info['format']}, this version of cxr reads up to "
            f"{FORMAT}: install a newer cxr"
        )
    if missing := [key for key in REQUIRED if key not in info]:
        raise BundleError(f"{path} lacks {', '.join(missing)}: {MEND}")
    if fingerprint_of(info) != info["fingerprint"]:
        raise BundleError(f"{path} was changed after the export: {MEND}")
    return dict(current_keys(info))


def check_files(folder: Path, info: Mapping[str, Any], names: Iterable[str] | None = None) -> None:
    """Check that files of a bundle are there and have the bytes that were exported.

    Args:
        folder: the bundle.
        info: of ``read_info``.
        names: which files; all by default.

    Raises:
        MissingInputError: a file is missing.
        BundleError: a file has other bytes, or lies outside the folder.
    """
    for name in info["files"] if names is None else names:
        wanted = info["files"].get(name)
        if wanted is None or leaves_folder(name):
            raise BundleError(f"{folder / INFO_FILE} does not list a file {name!r}: {MEND}")
        try:
            found = file_digest(folder / name)
        except FileNotFoundError:
            raise MissingInputError(f"the bundle {folder} lacks {name}: {MEND}") from None
        except OSError as error:
            raise BundleError(f"{folder / name} cannot be read ({_line(error)}): {MEND}") from None
        if found != wanted["sha256"]:
            raise BundleError(f"{folder / name} was changed after the export: {MEND}")


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_info(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Complete ``bundle.json`` with format, digests and fingerprint, and write it last.

    Args:
        folder: holds every other file of the bundle.
        values: everything else that ``bundle.json`` carries.

    Returns:
        What was written.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {
        path.relative_to(folder).as_posix(): {
            "sha256": file_digest(path),
            "bytes": path.stat().st_size,
        }
        for path in paths
        if path.name != INFO_FILE
    }
    info: dict[str, Any] = {"format": FORMAT, **values, "files": files}
    info["fingerprint"] = fingerprint_of(info)
    write_json(folder / INFO_FILE, info)
    return read_info(folder)


def fingerprint_of(info: Mapping[str, Any]) -> str:
    """Return the digest of ``bundle.json``'s content, and so of every file's digest."""
    return digest_of({key: value for key, value in info.items() if key != "fingerprint"})


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
