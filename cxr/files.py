"""The run folder: where results lie, how they are written, what made them."""

import contextlib
import errno
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path, PureWindowsPath
from typing import IO, TYPE_CHECKING, Any

from cxr.errors import InputError, MissingInputError

if TYPE_CHECKING:
    import pandas as pd

RECORDED_PACKAGES = (
    *("cxr", "torch", "torchvision", "timm", "lightning", "torchmetrics", "grad-cam"),
    *("numpy", "pandas", "scikit-learn", "scipy", "pillow", "imagehash"),
)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Write a file whole or not at all; InputError: a full disk, a folder that is not written.

    The bytes go to a neighbour that replaces ``path`` once they are on disk; on an error
    the neighbour goes and what was at ``path`` stays.
    """
    handle, name = -1, ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(name)
        if isinstance(error, OSError):
            raise_if_unwritable(error, path)
        raise


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of ``folder`` once it is complete.

    On an error, such as InputError for a full disk, the new one goes and what was there stays.
    """
    fresh: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        former, inside = fresh / "former", fresh / "new"
        inside.mkdir()
        yield inside
        if folder.exists():
            folder.rename(former)
        try:
            inside.rename(folder)
        except OSError:
            if former.exists():
                former.rename(folder)
            raise
    except OSError as error:
        raise_if_unwritable(error, folder)
        raise
    finally:
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)


def raise_if_unwritable(error: OSError, path: Path) -> None:
    """Raise InputError, one clear line, where an error means that ``path`` cannot be written."""
    reasons = {
        errno.ENOSPC: "the disk is full: free some space",
        errno.EDQUOT: "the disk quota is used up: free some space",
        errno.EFBIG: "the file would exceed the allowed file size: raise the limit",
        errno.EACCES: "the folder may not be written: change its permissions",
        errno.EROFS: "the disk is read-only: choose another output_root",
    }
    if error.errno in reasons:
        raise InputError(
            f"cannot write {path}: {reasons[error.errno]}, then give the same command again; "
            "nothing written before is lost"
        ) from error


def write_json(path: Path, values: Any) -> None:
    """Write values as indented JSON, whole or not at all. NaN becomes null."""
    text = json.dumps(_plain(values), indent=2, allow_nan=False) + "\n"
    with atomic_write(path) as file:
        file.write(text.encode())


def write_csv(path: Path, table: "pd.DataFrame", *, float_format: str | None = None) -> None:
    """Write a table as CSV without its index, whole or not at all.

    Numbers are in the shortest exact form, or in ``float_format``, such as ``%.9g``.
    """
    text = table.to_csv(index=False, float_format=float_format, lineterminator="\n")
    with atomic_write(path) as file:
        file.write(text.encode())


_RENAMED = {
    "films": "images",
    "train_films": "train_images",
    "published_films": "published_images",
    "films_per_patient": "images_per_patient",
    "test_films_in_crossing_groups": "test_images_in_crossing_groups",
}
"""Keys of version 0.1's results, and what they are called since."""


def current_keys(values: Any) -> Any:
    """Return JSON values that version 0.1 wrote under today's keys; others as they are."""
    if isinstance(values, dict):
        return {_RENAMED.get(key, key): current_keys(value) for key, value in values.items()}
    return [current_keys(value) for value in values] if isinstance(values, list) else values


def read_json(path: Path, *, hint: str) -> Any:
    """Read a JSON file that an earlier stage wrote.

    Raises:
        MissingInputError: it is not there; ``hint`` says what to do.
        InputError: it is not JSON.
    """
    try:
        return current_keys(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise MissingInputError(f"{path} is missing: {hint}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is damaged ({error}): {hint}") from None


def digest(*parts: bytes | str) -> str:
    """Return the SHA-256 of the parts, hexadecimal; each part's length is hashed too."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def digest_of(values: Any) -> str:
    """Return the SHA-256 of plain values, independent of the order of keys."""
    return digest(json.dumps(_plain(values), sort_keys=True))


def leaves_folder(name: str) -> bool:
    """Tell whether a relative path, as text, is absolute or climbs, by the rules of any system."""
    windows = PureWindowsPath(name)
    return bool(windows.anchor) or ".." in windows.parts or name.startswith("/")


def run_folder(output_root: Path, data: str, run: str) -> Path:
    """Return the folder of a run, or raise InputError: a name would leave ``output_root``."""
    for key, name in (("data.name", data), ("run", run)):
        if not name or name != Path(name).name or name.startswith("."):
            raise InputError(
                f"{key} is {name!r}: it names a folder, so no slash and no leading dot"
            )
    return output_root / data / run


def environment() -> dict[str, Any]:
    """Return what a result depends on beside data and configuration."""
    versions: dict[str, str] = {}
    for name in RECORDED_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "versions": versions,
    }


def _git_commit() -> str | None:
    root = Path(__file__).parent.parent
    try:
        commit, changed = (
            subprocess.run(
                ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}+changes" if changed else commit


def _plain(value: Any) -> Any:
    """Turn numpy scalars, paths and non-finite numbers into what JSON knows."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    to_plain: Callable[[], Any] | None = getattr(value, "tolist", None)
    if to_plain is not None:
        return _plain(to_plain())
    if isinstance(value, float) and not (abs(value) < float("inf")):
        return None
    return value
