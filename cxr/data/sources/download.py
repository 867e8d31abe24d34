"""Fetch the archives of public sources through pooch and unpack them; what cannot be is said."""

import logging
import shutil
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import pooch
import requests

from cxr.errors import InputError, MissingInputError
from cxr.files import leaves_folder, raise_if_unwritable, read_json, replacing_folder, write_json

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 16
TIMEOUT_S = (15, 60)
"""To connect, and between two pieces."""
IGNORED = ("__MACOSX", ".DS_Store")
"""What archives made on a Mac hold beside the tree."""
Progress = Callable[[str, int, int | None], None]
"""Called with what is worked on, the bytes done and all bytes (None while unknown)."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A ZIP archive that anyone may fetch."""

    name: str  # of the folder into which it is unpacked, too
    urls: tuple[str, ...]  # tried in order; a release of GitHub's service: its first ZIP archive
    file_name: str  # on disk
    home_page: str  # where a person finds it
    license: str
    credit: str = ""  # whose it is
    sha256: str | None = None  # where the publisher names it
    pinned: bool = False  # never changes: another digest than the first is refused, else said


def fetch(source: Archive, folder: Path, *, on_progress: Progress | None = None) -> Path:
    """Download an archive into a folder, or accept the one that lies there; return its path.

    Beside it ``<file>.sha256.json`` records address, digest, size and time. A download that is
    interrupted begins anew.

    Raises:
        MissingInputError: no address can be reached; the line says what to fetch by hand
            and where to put it.
        InputError: the archive has another digest than ``source.sha256``, or than a pinned
            one had (it is moved aside), the disk is full or the folder cannot be written.
    """
    target = folder / source.file_name
    if target.is_file():
        _check_and_record(source, target, None)
        return target
    reasons = []
    for url in source.urls:
        try:
            _download(source, url, target, on_progress)
        except OSError as error:
            raise_if_unwritable(error, target)
            # What requests raises is an OSError; errors of this machine have a number.
            if error.errno is not None:
                raise
            reasons.append(f"{url}: {_reason(error)}")
            continue
        _check_and_record(source, target, url)
        return target
    raise MissingInputError(
        f"cannot download {source.name} ({'; '.join(reasons)}): give the same command again, "
        f"or fetch {source.file_name} by hand from {source.home_page} and put it at {target}"
    )


def unpack(archive: Path, folder: Path, *, on_progress: Progress | None = None) -> Path:
    """Unpack a ZIP archive into a folder, whole or not at all, without what ``IGNORED`` names.

    A folder that is there already is left as it is.

    Raises:
        InputError: no ZIP archive, damaged, a name in it that leaves the folder, or too
            little room on the disk.
    """
    if folder.is_dir() and any(folder.iterdir()):
        return folder
    try:
        with zipfile.ZipFile(archive) as file, replacing_folder(folder) as partial:
            members = [member for member in file.infolist() if _is_needed(member, archive)]
            total = sum(member.file_size for member in members)
            free = shutil.disk_usage(partial).free
            if total > free:
                raise InputError(
                    f"unpacking {archive} needs {total / 1e9:.1f} GB, {free / 1e9:.1f} GB are "
                    f"free on the disk of {folder.parent}: free some space"
                )
            done = 0
            for member in members:
                file.extract(member, partial)
                done += member.file_size
                if on_progress:
                    on_progress(folder.name, done, total)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise InputError(
            f"{archive} is no whole ZIP archive ({error}): remove it and give the same command "
            "again, or fetch it by hand once more"
        ) from None
    return folder


def _is_needed(member: zipfile.ZipInfo, archive: Path) -> bool:
    """Tell whether to unpack a member; refuse one that would land elsewhere."""
    if leaves_folder(member.filename):
        raise InputError(
            f"{archive} holds {member.filename!r}, which would land outside its folder: it is not "
            "unpacked; fetch the archive from its publisher"
        )
    return not any(part in IGNORED for part in PurePosixPath(member.filename).parts)


class _Progress:
    """What pooch takes for a progress bar."""

    def __init__(self, name: str, show: Progress) -> None:
        self._name, self._show, self._done = name, show, 0
        self.total = 0

    def update(self, count: int) -> None:
        # pooch counts the last piece as a whole one, and an unnamed size as 0.
        self._done = min(self._done + count, self.total) if self.total else self._done + count
        self._show(self._name, self._done, self.total or None)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        pass


def _download(source: Archive, url: str, target: Path, on_progress: Progress | None) -> None:
    # pooch writes to the screen at level INFO; the caller shows progress and the record.
    pooch.get_logger().setLevel(logging.WARNING)
    target.parent.mkdir(parents=True, exist_ok=True)
    downloader = pooch.HTTPDownloader(
        progressbar=_Progress(source.name, on_progress) if on_progress else False,
        chunk_size=CHUNK_BYTES,
        timeout=TIMEOUT_S,
    )
    pooch.retrieve(_asset(url), None, fname=target.name, path=target.parent, downloader=downloader)


def _asset(url: str) -> str:
    """Look up a release's ZIP archive, whose name the release's address does not tell."""
    if "/releases/tags/" not in url:
        return url
    answer = requests.get(url, timeout=TIMEOUT_S)
    answer.raise_for_status()
    assets = [asset["browser_download_url"] for asset in answer.json().get("assets", [])]
    archives = [asset for asset in assets if asset.endswith(".zip")]
    if not archives:
        raise requests.RequestException("the release has no ZIP archive")
    return str(archives[0])


def _check_and_record(source: Archive, target: Path, url: str | None) -> None:
    """Compare the digest with the publisher's or the first one seen, and write it down."""
    sha256 = pooch.file_hash(str(target))
    record = target.with_name(f"{target.name}.sha256.json")
    hint = "remove it and give the same command again"
    first = read_json(record, hint=hint) if record.is_file() else {}
    seen_first = first.get("sha256", sha256)
    expected = source.sha256 or (seen_first if source.pinned else sha256)
    if sha256 != expected:
        aside = target.with_name(f"{target.name}.wrong-digest")
        target.replace(aside)
        hint = "" if source.sha256 else f", or remove {record} if the publisher changed it"
        raise InputError(
            f"{source.file_name} of {source.name} has the SHA-256 {sha256}, not {expected}: it "
            f"was moved to {aside.name} and is not used; give the same command again, or fetch it "
            f"by hand from {source.home_page} and put it at {target}{hint}"
        )
    if seen_first != sha256:
        log.warning(
            "%s changed: its SHA-256 is %s, and was %s when it was first seen (%s); recorded anew",
            *(target, sha256, seen_first, first.get("time_utc", "time unknown")),
        )
    elif first:
        return
    facts = {"source": source.name, "url": url or "put there by hand", "sha256": sha256}
    facts |= {"bytes": target.stat().st_size}
    time_utc = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(record, facts | {"time_utc": time_utc, "license": source.license})


def _reason(error: OSError) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP status {response.status_code}"
    if isinstance(error, requests.ConnectTimeout):
        return "no answer"
    if isinstance(error, requests.Timeout | requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    text = " ".join(str(error).split())
    return "not reachable" if "Max retries exceeded" in text else text
