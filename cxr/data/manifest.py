"""The manifest: one row per image, and what a row may not say.

In memory a manifest is a table whose columns are all strings, with "" for what is unknown.
"""

import csv
import functools
import io
import logging
import os
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath

import pandas as pd

from cxr.errors import InputError, MissingInputError
from cxr.files import write_csv
from cxr.labels import SET_MARK, label_fault, order_labels

log = logging.getLogger(__name__)

REQUIRED = ("image", "label")
"""Columns without which a manifest is refused."""
COLUMNS = (
    *REQUIRED,
    "patient_id",
    "source",
    "published_split",
    "view",
    "sex",
    "age",
    "license",
    "width",
    "height",
    "mask",
    "lesion_mask",
)
"""Every column, in the order of the file; ``lesion_mask`` only where lesions are known."""
PATH_COLUMNS = ("image", "mask", "lesion_mask")
"""Columns that hold paths, relative to the manifest's folder."""
SPLITS = ("train", "val", "test")
"""What ``published_split`` may say, besides nothing."""
SPLIT_FAULT = f"allowed are (empty), {', '.join(SPLITS)}"


def read_manifest(path: Path, *, labels: Sequence[str] | None = None) -> pd.DataFrame:
    """Read and check a manifest, a UTF-8 CSV file whose folder its paths are relative to.

    Rows are counted from 1, the first below the header. Columns that are not in ``COLUMNS``
    are left out with a logged warning. ``labels`` are the class names that are allowed; any
    non-empty name by default.

    Returns:
        A row per image with the columns of ``COLUMNS``, all strings, "" where unknown.

    Raises:
        MissingInputError: no such file or folder.
        InputError: not a CSV, empty, a required column missing, an unknown label or one in a
            label set (``bacterial|viral``), an image named twice, a path that is absolute or
            leaves the folder (by ``..`` or a link), or an unknown ``published_split``.
    """
    header, rows = _read_rows(path)
    for name in REQUIRED:
        if name not in header:
            raise InputError(
                f"{path} has no column {name!r}: it has {', '.join(header)}; "
                f"{' and '.join(REQUIRED)} are needed"
            )
    if not rows:
        raise InputError(f"{path} is empty: below its header a row per image is needed")
    unknown = [name for name in header if name not in COLUMNS]
    if unknown:
        log.warning("%s: columns left out, unknown here: %s", path, ", ".join(unknown))
    table = manifest_table(dict(zip(header, row, strict=True)) for row in rows)
    return check_manifest(table, path.parent, labels=labels, name=str(path))


def join_manifests(
    root: Path, parts: Sequence[str], *, labels: Sequence[str] | None = None
) -> pd.DataFrame:
    """Read the manifests of several folders below ``root`` as one.

    Patient ids are put behind their source, so that equal ids of two sources are two patients; a
    row that names no source has its part's name.

    Raises:
        MissingInputError: a part without a manifest.
        InputError: see ``read_manifest``, or a part named twice.
    """
    tables = []
    for part in parts:
        if not (root / part / "manifest.csv").is_file():
            raise MissingInputError(
                f"data.parts names {part!r}, but {root / part} holds no manifest.csv: correct "
                "data.root, fetch the part, or leave it out of data.parts"
            )
        table = read_manifest(root / part / "manifest.csv", labels=labels)
        for column in PATH_COLUMNS:
            table[column] = [value and posixpath.join(part, value) for value in table[column]]
        table["source"] = table["source"].where(table["source"] != "", part)
        known = table["patient_id"] != ""
        named = table["source"] + ":" + table["patient_id"]
        table["patient_id"] = table["patient_id"].where(~known, named)
        tables.append(table)
    joined = pd.concat(tables, ignore_index=True)
    return check_manifest(joined, root, labels=labels, name=f"data.parts {list(parts)}")


def write_manifest(table: pd.DataFrame, path: Path) -> None:
    """Write a manifest whole or not at all, columns in the order of ``COLUMNS``.

    Columns that are empty throughout are written too, except ``lesion_mask``.
    """
    full = table.reindex(columns=list(COLUMNS), fill_value="")
    if full["lesion_mask"].eq("").all():
        full = full.drop(columns="lesion_mask")
    write_csv(path, full)


def manifest_table(rows: Iterable[Mapping[str, str]]) -> pd.DataFrame:
    """Make a manifest table of rows, with "" for the columns that a row leaves out."""
    values = [[row.get(name, "") for name in COLUMNS] for row in rows]
    return pd.DataFrame(values, columns=list(COLUMNS), dtype="str")


def check_manifest(
    table: pd.DataFrame,
    folder: Path,
    *,
    labels: Sequence[str] | None = None,
    name: str = "the manifest",
) -> pd.DataFrame:
    """Check a manifest table, called ``name`` in errors; see ``read_manifest`` for what is refused.

    Returns:
        The table with its paths in their shortest form (``a/./b`` becomes ``a/b``) and the classes
        of a label set in the project's order.
    """
    faults: dict[str, Callable[[str], str]] = {
        "label": lambda value: label_fault(value, labels),
        "published_split": lambda value: SPLIT_FAULT if value not in ("", *SPLITS) else "",
    }
    for column, fault_of in faults.items():
        for row, value in enumerate(table[column], start=1):
            if fault := fault_of(value):
                raise InputError(
                    f"unknown {column} {value!r} in row {row} of {name}: {fault}; correct the row"
                )
    checked = table.copy()
    checked["label"] = [SET_MARK.join(order_labels([label])) for label in table["label"]]
    inside = _path_check(folder)
    for column in PATH_COLUMNS:
        checked[column] = [
            inside(value, f"{column} in row {row} of {name}") if value or column in REQUIRED else ""
            for row, value in enumerate(table[column], start=1)
        ]
    repeated = checked["image"].duplicated()
    if repeated.any():
        second = int(repeated.to_numpy().argmax())
        image = str(checked["image"].iloc[second])
        first = int(checked["image"].eq(image).to_numpy().argmax())
        raise InputError(
            f"{name} names image {image!r} in row {first + 1} and again in row {second + 1}: "
            "each image has one row; remove one"
        )
    return checked


def patients_unknown(table: pd.DataFrame) -> str:
    """Return what images without a patient id mean for splits and intervals; "" if all have one."""
    ids = table.get("patient_id", pd.Series("", index=table.index)).fillna("")
    missing = int((ids == "").sum())
    if not missing:
        return ""
    which = (
        "no image has" if missing == len(table) else f"{missing:,} of {len(table):,} images lack"
    )
    return (
        f"{which} a patient id: such an image counts as a patient of its own, so images of one "
        "patient may lie on both sides of a split, and intervals may be too narrow"
    )


def _read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    if not path.parent.is_dir():
        raise MissingInputError(
            f"there is no folder {path.parent}, where {path.name} should be: check the path"
        )
    if not path.is_file():
        raise MissingInputError(f"there is no file {path}: check the path, or write a manifest")
    try:
        reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
        header, *rows = (row for row in reader if row)
    except ValueError as error:
        if isinstance(error, UnicodeDecodeError):
            raise InputError(f"{path} is not UTF-8 text ({error.reason}): save it so") from None
        raise InputError(
            f"{path} is empty: a header with {' and '.join(REQUIRED)} is needed"
        ) from None
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV file ({error}): correct it") from None
    if len(set(header)) != len(header):
        raise InputError(f"{path} names a column twice: {', '.join(header)}; rename one")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise InputError(
                f"row {number} of {path} has {len(row)} values, the header {len(header)}: "
                "correct the row; a value with a comma needs quotes"
            )
    return header, rows


def _path_check(folder: Path) -> Callable[[str, str], str]:
    """Return what gives a path in its shortest form, or refuses one that leaves the folder."""
    root = os.path.realpath(folder)

    @functools.cache  # each parent folder is resolved once
    def holds(path: str) -> bool:
        real = os.path.realpath(path)
        return real == root or real.startswith(root.rstrip(os.sep) + os.sep)

    def check(value: str, where: str) -> str:
        path = posixpath.normpath(value) if value else "."
        if path == "." or "\0" in path:
            raise InputError(f"{where} is {value!r}: a path of a file is needed; correct the row")
        if path.startswith("/") or PureWindowsPath(path).is_absolute():
            raise InputError(
                f"{where} is {value!r}, an absolute path: write it relative to {folder}"
            )
        # The text as given is followed, not its shortest form: link/.. is not where it looks.
        full = os.path.join(root, value)
        inside = holds(os.path.dirname(full)) and path.split("/")[0] != ".."
        if not inside or (os.path.islink(full) and not holds(full)):
            raise InputError(
                f"{where} is {value!r}, which lies outside {folder}: "
                "move or copy the file into that folder"
            )
        return path

    return check
