"""Download the archives of public sources, and say what to fetch by hand.

pooch (BSD-3-Clause, release 1.9, kept by the Fatiando project, used by scipy and scikit-image)
puts a file in place whole or not at all; it does not resume, so it is given the downloader of
``cxr.data.sources.resume``, on requests (Apache-2.0). pypdl resumes, but has one maintainer and
does not pin what it continues with If-Range; curl is not on every machine.
"""

import hashlib
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pooch
import requests

from cxr.data.sources import cohen, hannover, kermany
from cxr.data.sources.archive import Progress
from cxr.data.sources.resume import ResumingDownloader
from cxr.errors import InputError, MissingInputError
from cxr.files import raise_if_unwritable, read_json, write_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A public source of images.

    Attributes:
        name: short name; the folder into which its tree goes has the same.
        urls: addresses of the archive, tried in this order.
        file_name: what the archive is called on disk.
        home_page: where a person finds it.
        license: what the user accepts by using it, one line.
        sha256: digest of the archive, None where the publisher changes or names none.
    """

    name: str
    urls: tuple[str, ...]
    file_name: str
    home_page: str
    license: str
    sha256: str | None = None


SOURCES = (
    Source(
        "kermany",
        (
            "https://data.mendeley.com/public-files/datasets/rscbjbr9sj/files/"
            "f12eaf6d-6023-432f-acc9-80c9d7393433/file_downloaded",
        ),
        "ChestXRay2017.zip",
        kermany.HOME_PAGE,
        "CC BY 4.0 (Kermany, Zhang, Goldbaum 2018): name the authors",
    ),
    Source(
        "cohen",
        (f"{cohen.HOME_PAGE}/archive/refs/heads/master.zip",),
        "covid-chestxray-dataset-master.zip",
        cohen.HOME_PAGE,
        "per image, in the manifest: CC BY, CC BY-NC-SA and others, many non-commercial; "
        "the metadata CC BY-NC-SA 4.0 (Cohen et al. 2020)",
    ),
    Source(
        "hannover",
        (f"{hannover.HOME_PAGE}/archive/refs/heads/master.zip",),
        "covid-19-image-repository-master.zip",
        hannover.HOME_PAGE,
        "CC BY 3.0 (Hannover Medical School, Winther et al. 2020): name the authors",
    ),
)
"""What ``cxr4`` is made of."""


def fetch(source: Source, folder: Path, *, on_progress: Progress | None = None) -> Path:
    """Download a source's archive, or accept the one that lies there.

    Beside the archive ``<file>.sha256.json`` records address, digest, size and time. An
    interrupted download leaves ``<file>.part``, with which the next call goes on.

    Args:
        source: what to fetch.
        folder: where the archive goes, or has been put by hand.
        on_progress: called while bytes arrive.

    Returns:
        The archive.

    Raises:
        MissingInputError: no address can be reached; the line says what to fetch by hand
            and where to put it.
        InputError: the archive has another digest than ``source.sha256`` (it is moved
            aside), the disk is full or the folder cannot be written.
    """
    target = folder / source.file_name
    if target.is_file():
        _check_and_record(source, target, None)
        return target
    reasons = []
    for url in source.urls:
        try:
            _download(source, url, target, on_progress)
        except requests.RequestException as error:
            reasons.append(f"{url}: {_reason(error)}")
            continue
        _check_and_record(source, target, url)
        return target
    raise MissingInputError(
        f"cannot download {source.name} ({'; '.join(reasons)}): give the same command again to go "
        f"on, or fetch {source.file_name} by hand from {source.home_page} and put it at {target}"
    )


def _download(source: Source, url: str, target: Path, on_progress: Progress | None) -> None:
    """Let pooch put the archive in place."""

    def report(done: int, total: int | None) -> None:
        if on_progress:
            on_progress(source.name, done, total)

    # pooch writes to the screen at level INFO; the caller shows progress and the record.
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.part")
        pooch.retrieve(
            url,
            known_hash=None,
            fname=target.name,
            path=target.parent,
            downloader=ResumingDownloader(partial, report),
        )
    except OSError as error:
        raise_if_unwritable(error, target)
        raise


def _check_and_record(source: Source, target: Path, url: str | None) -> None:
    """Compare the digest, and write it down beside the archive."""
    with target.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if source.sha256 is not None and found != source.sha256:
        aside = target.with_name(f"{target.name}.wrong-digest")
        target.replace(aside)
        raise InputError(
            f"{source.file_name} of {source.name} has the SHA-256 {found}, not {source.sha256}: it "
            f"was moved to {aside.name} and is not used; give the same command again, or fetch it "
            f"by hand from {source.home_page} and put it at {target}"
        )
    record = target.with_name(f"{target.name}.sha256.json")
    if url is None and record.is_file():
        known = read_json(record, mend="remove it and give the same command again")
        if known.get("sha256") == found:
            return
        log.warning("%s is not the file that was recorded; recorded anew", target)
    write_json(
        record,
        {
            "source": source.name,
            "url": url or "put there by hand",
            "sha256": found,
            "bytes": target.stat().st_size,
            "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "license": source.license,
        },
    )


def _reason(error: requests.RequestException) -> str:
    """Say in a few words why a download failed."""
    if error.response is not None:
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return "no answer"
    if isinstance(error, requests.Timeout | requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    text = " ".join(str(error).split())
    return "not reachable" if "Max retries exceeded" in text else text
