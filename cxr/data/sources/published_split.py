"""What the adapters of published trees share: finding the tree, reading its table."""

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from cxr.errors import InputError, MissingInputError, command

log = logging.getLogger(__name__)

IGNORED = ("__MACOSX", ".DS_Store")
"""What archives made on a Mac hold beside the tree."""


def find_tree(root: Path, marker: str, *, home_page: str) -> Path:
    """Find the folder of a published tree.

    Args:
        root: the tree's own folder, or one that holds it as an archive unpacks it.
        marker: file or folder by which the tree is known.
        home_page: where the tree is published, for the error.

    Returns:
        ``root`` or the one of its subfolders that holds ``marker``.

    Raises:
        MissingInputError: no such folder, or none with the marker.
        InputError: several subfolders with the marker.
    """
    if not root.is_dir():
        raise MissingInputError(
            f"there is no folder {root}: unpack the files of {home_page} there, or run "
            f"{command('download')}"
        )
    if (root / marker).exists():
        return root
    below = [
        path
        for path in sorted(root.iterdir())
        if path.name not in IGNORED and (path / marker).exists()
    ]
    if not below:
        raise MissingInputError(
            f"no {marker} in {root}: it should hold the tree that {home_page} publishes; "
            "unpack it there"
        )
    if len(below) > 1:
        raise InputError(
            f"{root} holds {marker} in {' and in '.join(path.name for path in below)}: "
            "name one of them, or move the others away"
        )
    return below[0]


def read_rows(path: Path, required: Sequence[str], *, home_page: str) -> list[dict[str, str]]:
    """Read a published CSV as rows of text, blanks around names and values cut off.

    Raises:
        InputError: no CSV, no rows, or a required column missing.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [_clean(row) for row in csv.DictReader(file)]
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a CSV file ({error}): get it from {home_page}") from None
    if not rows:
        raise InputError(f"{path} has no rows: get it from {home_page}")
    missing = [name for name in required if name not in rows[0]]
    if missing:
        raise InputError(
            f"{path} has no column {missing[0]!r}: it has {', '.join(filter(None, rows[0]))}; "
            f"get it from {home_page}"
        )
    return rows


def keep_present(rows: list[dict[str, str]], root: Path, *, home_page: str) -> list[dict[str, str]]:
    """Leave out rows whose image is not there, with a logged warning.

    Raises:
        MissingInputError: none is there.
    """
    present = [row for row in rows if (root / row["image"]).is_file()]
    if rows and not present:
        raise MissingInputError(
            f"none of the {len(rows)} images under {root} is there, for one {rows[0]['image']}: "
            f"unpack the files of {home_page} there"
        )
    if len(present) < len(rows):
        names = {row["image"] for row in present}
        first = next(row["image"] for row in rows if row["image"] not in names)
        log.warning(
            "%s: %d of %d images left out, not there, the first %s",
            root,
            len(rows) - len(present),
            len(rows),
            first,
        )
    return present


def _clean(row: Mapping[str | None, str | list[str] | None]) -> dict[str, str]:
    """Drop what a row has beyond the header and the blanks around names and values."""
    return {
        key.strip(): value.strip() if isinstance(value, str) else ""
        for key, value in row.items()
        if key is not None
    }
