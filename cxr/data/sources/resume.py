"""A downloader for pooch that goes on where an interrupted download stopped.

Beside the partial file ``<name>.part`` lies ``<name>.part.json`` with the address, the
validator (ETag or date) and the whole size that the server named. They decide whether the
partial file may be continued: RFC 9110, sections 13.1.5 (If-Range) and 14.2 (Range).
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import requests

from cxr.files import raise_if_unwritable, write_json

CHUNK_BYTES = 1 << 16
"""A dropped connection costs at most this much of what has come."""
CONNECT_TIMEOUT_S = 15
READ_TIMEOUT_S = 60
RESUMES = 5
"""How often a download that moves on is continued after a dropped connection, in one call."""
DROPPED = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


@dataclass(frozen=True)
class ResumingDownloader:
    """Download over HTTP in the way that ``pooch.retrieve`` calls its downloaders.

    Attributes:
        partial: where the bytes gather until they are complete.
        on_progress: called with the bytes there and the whole size, None if unknown.
    """

    partial: Path
    on_progress: Callable[[int, int | None], None]

    @property
    def state(self) -> Path:
        """Return the file that says what the partial file is a part of."""
        return self.partial.with_name(f"{self.partial.name}.json")

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Download ``url``, then move it to ``output_file``.

        Raises:
            requests.RequestException: unreachable, refused, or dropped too often; what has
                come stays for the next call.
            InputError: the disk is full or the folder cannot be written.
        """
        try:
            for attempt in range(RESUMES + 1):
                before = self._size()
                try:
                    if self._download(url):
                        break
                except DROPPED:
                    if attempt == RESUMES or self._size() <= before:
                        raise
            else:
                raise requests.ConnectionError("the file changes while it is downloaded")
            self.partial.replace(output_file)
            self.state.unlink(missing_ok=True)
        except OSError as error:
            raise_if_unwritable(error, self.partial)
            raise

    def _download(self, url: str) -> bool:
        """Receive what is missing; False if the partial file was of no use and is gone."""
        state = self._read_state(url)
        start = self._size() if state else 0
        if start and start == state["size"]:
            return True
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            # A weak ETag may not be sent in If-Range; it is compared in the answer instead.
            if state["validator"] and not state["validator"].startswith("W/"):
                headers["If-Range"] = state["validator"]
        timeout = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
        with requests.get(url, headers=headers, stream=True, timeout=timeout) as answer:
            refused = answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            if not refused:
                answer.raise_for_status()
            new = _state_of(answer, url)
            partial = answer.status_code == HTTPStatus.PARTIAL_CONTENT
            if refused or (partial and not _continues(answer, state, new, start)):
                self.partial.unlink(missing_ok=True)
                self.state.unlink(missing_ok=True)
                return False
            # A whole answer (200) begins at byte 0: Range was ignored, or the file changed.
            self._receive(answer, new, start if partial else 0)
        return True

    def _receive(self, answer: requests.Response, state: dict[str, Any], start: int) -> None:
        """Append the body from ``start`` on, and check that it came whole."""
        write_json(self.state, state)
        done, total = start, state["size"]
        with self.partial.open("r+b" if start else "wb") as file:
            file.truncate(start)
            file.seek(start)
            self.on_progress(done, total)
            for chunk in answer.iter_content(CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                self.on_progress(done, total)
        if total is not None and done != total:
            raise requests.ConnectionError(f"{done} of {total} bytes came")

    def _read_state(self, url: str) -> dict[str, Any]:
        """Return what is known of the partial file, nothing if it may not be continued."""
        try:
            state = json.loads(self.state.read_text(encoding="utf-8"))
            usable = state["url"] == url and (state["validator"] or state["size"])
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return dict(state) if usable else {}

    def _size(self) -> int:
        return self.partial.stat().st_size if self.partial.exists() else 0


def _state_of(answer: requests.Response, url: str) -> dict[str, Any]:
    """Return address, validator and whole size of what the server sends."""
    headers = answer.headers
    size: int | None = None
    if answer.status_code == HTTPStatus.PARTIAL_CONTENT:
        match = re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("Content-Range", ""))
        size = int(match[1]) if match else None
    elif headers.get("Content-Length", "").isdigit():
        size = int(headers["Content-Length"])
    validator = headers.get("ETag") or headers.get("Last-Modified") or ""
    return {"url": url, "validator": validator, "size": size}


def _continues(
    answer: requests.Response, old: dict[str, Any], new: dict[str, Any], start: int
) -> bool:
    """Tell whether a partial answer continues the same file at the right byte."""
    begins = answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    same_size = old.get("size") in (None, new["size"])
    same_validator = not new["validator"] or old.get("validator") == new["validator"]
    return begins and same_size and same_validator
