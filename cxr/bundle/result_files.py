"""The table of a prediction run: rows appended whole, gone on with after a stop, Parquet.

Every row says by which bundle and at which level it was made, so a table cannot mix two.
"""

import array
import contextlib
import csv
import io
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from cxr.errors import InputError
from cxr.files import atomic_write, raise_if_unwritable

KEY = "key"
"""Column that tells an image at its place, size and time of change from every other."""
SYNC_SECONDS = 2.0
"""Rows reach the file at once, and the disk at least this often."""


class Results:
    """A CSV that only grows, by whole rows, written by one process.

    ``columns`` are its head, ``KEY`` among them; ``constant`` are those whose value is the same in
    every row, with that value. Another head or other constants, another process that writes the
    file, or a folder that cannot be written, are an InputError.
    """

    def __init__(self, path: Path, columns: Sequence[str], constant: Mapping[str, str]) -> None:
        self.path, self.columns, self.constant = path, tuple(columns), dict(constant)
        self._synced = time.monotonic()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = path.open("a+b")
        except OSError as error:
            raise_if_unwritable(error, path)
            raise InputError(
                f"cannot write {path} ({error.strerror}): give another --out"
            ) from None
        try:
            _lock(self._file, path)
            _cut_half_row(self._file)
            self.done = self._read_keys()
            if not self._file.tell():
                self._write([self.columns])
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Results":
        return self

    def __exit__(self, *_error: object) -> None:
        with contextlib.suppress(OSError):
            os.fsync(self._file.fileno())
        self._file.close()

    def has(self, key: int) -> bool:
        """Tell whether an image was done before this run began."""
        place = int(np.searchsorted(self.done, np.uint64(key)))
        return place < len(self.done) and int(self.done[place]) == key

    def append(self, rows: Iterable[Mapping[str, str]]) -> None:
        """Add rows of column to text, whole; raise InputError where the disk is full."""
        self._write([row.get(name, "") for name in self.columns] for row in rows)

    def _write(self, rows: Iterable[Sequence[str]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*map(_one_line, row)] for row in rows)
        start = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(text.getvalue().encode("utf-8", "backslashreplace"))
            self._file.flush()
            if time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(start)
            raise_if_unwritable(error, self.path)
            raise

    def _read_keys(self) -> NDArray[np.uint64]:
        """Return the sorted keys of the rows that are there; leave the file at its end."""
        keys = array.array("Q")
        self._file.seek(0)
        text = io.TextIOWrapper(self._file, encoding="utf-8", newline="")
        try:
            rows = csv.reader(text)
            head = next(rows, None)
            if head is not None and tuple(head) != self.columns:
                raise InputError(
                    f"{self.path} was not written by the same command (its columns differ): "
                    "give another --out, or remove it"
                )
            place = self.columns.index(KEY)
            where = [(self.columns.index(name), name) for name in self.constant]
            for number, row in enumerate(rows, start=2):
                if len(row) != len(self.columns):
                    raise InputError(f"{self.path} is damaged in line {number}: remove that line")
                for column, name in where:
                    self._check(name, row[column])
                keys.append(int(row[place], 16))
        except (UnicodeDecodeError, csv.Error, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{self.path} is not a table of cxr predict ({error}): give another --out"
            ) from None
        finally:
            text.detach()
        self._file.seek(0, os.SEEK_END)
        return np.sort(np.frombuffer(keys, np.uint64)) if keys else np.empty(0, np.uint64)

    def _check(self, name: str, seen: str) -> None:
        if seen != self.constant[name]:
            raise InputError(
                f"{self.path} was begun with {name} {seen!r}, and now it is "
                f"{self.constant[name]!r}: give another --out, or the same {name}"
            )


def _one_line(cell: str) -> str:
    """Keep a row on one line, so that a half one is known by its missing end."""
    return cell.replace("\r", "\\r").replace("\n", "\\n")


def _cut_half_row(file: IO[bytes]) -> None:
    """Cut what follows the last line's end: a row that a stop left half written."""
    last, place = -1, file.seek(0, os.SEEK_END)
    while place and last < 0:
        start = max(0, place - 65536)
        file.seek(start)
        last = file.read(place - start).rfind(b"\n")
        place = start
    file.truncate(place + last + 1)


def _lock(file: IO[bytes], path: Path) -> None:
    """Keep a second process from the table; where the system has no such lock, do nothing."""
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"another process is writing {path}: wait, or give another --out"
        ) from None
    except OSError:
        # Some network file systems know no locks.
        return


def check_parquet() -> None:
    """Raise InputError where pyarrow is not installed, before hours of work."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise InputError(
            "a .parquet needs pyarrow, which is not installed: pip install 'cxr[parquet]', or "
            "give --out a .csv"
        ) from None


def write_parquet(table: Path, target: Path, types: Mapping[str, str]) -> None:
    """Write a CSV as Parquet by row groups, in constant memory, whole or not at all.

    ``types`` are those of ``column_types``; empty cells become null. pyarrow that is not installed,
    or a full disk, is an InputError.
    """
    check_parquet()
    import pyarrow
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

    kinds = {"number": pyarrow.float64(), "truth": pyarrow.bool_(), "text": pyarrow.string()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in types.items()])
    options = arrow_csv.ConvertOptions(
        column_types=schema,
        null_values=[""],
        strings_can_be_null=True,
        true_values=["true"],
        false_values=["false"],
    )
    reader = arrow_csv.open_csv(
        table, read_options=arrow_csv.ReadOptions(use_threads=False), convert_options=options
    )
    with (
        contextlib.closing(reader),
        atomic_write(target) as file,
        parquet.ParquetWriter(file, schema) as writer,
    ):
        for batch in reader:
            writer.write_batch(batch)
