"""What the adapters of public sources share: finding the tree, reading its rows."""

import csv
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxr.data.manifest import check_manifest, manifest_table
from cxr.data.sources.download import IGNORED, Archive
from cxr.errors import InputError, MissingInputError, command

log = logging.getLogger(__name__)

Row = dict[str, str]
"""A manifest's row, its ``image`` relative to the tree."""
DEPTH = 2
"""How many folders deep below its own folder a tree may lie, as archives unpack."""


@dataclass(frozen=True, kw_only=True)
class Source(Archive):
    """A public source of images."""

    marker: str  # file or folder by which its tree is known
    rows: Callable[[Path], Iterable[Row | str]]  # of a tree; a text says why one is left out


def read_source(source: Source, root: Path) -> pd.DataFrame:
    """List the images of a source, whose tree is ``root`` or lies in it.

    Returns:
        A manifest with paths relative to ``root`` in the source's order; ``source`` and, where
        a row names none, ``license`` are the source's. How many images were left out, and why,
        is logged.

    Raises:
        MissingInputError: no such tree, or none of its images.
        InputError: several trees, or one that cannot be read.
    """
    tree = _find_tree(root, source.marker, home_page=source.home_page)
    rows: dict[str, Row] = {}
    left_out = Counter[str]()
    for row in source.rows(tree):
        image = "" if isinstance(row, str) else (tree.relative_to(root) / row["image"]).as_posix()
        if isinstance(row, str):
            left_out[row] += 1
        elif image in rows:
            left_out["image named before"] += 1
        else:
            rows[image] = {"source": source.name, "license": source.license, **row, "image": image}
    log.info("%s: %d images; left out: %s", root, len(rows), dict(left_out))
    absent = [image for image in rows if not (root / image).is_file()]
    if absent and len(absent) == len(rows):
        raise MissingInputError(
            f"none of the {len(rows)} images under {root} is there, for one {absent[0]}: "
            f"unpack the files of {source.home_page} there"
        )
    if absent:
        text = "%s: %d of %d images left out, not there, the first %s"
        log.warning(text, root, len(absent), len(rows), absent[0])
    for image in absent:
        del rows[image]
    return check_manifest(manifest_table(rows.values()), root, name=f"the rows of {tree}")


def _find_tree(root: Path, marker: str, *, home_page: str) -> Path:
    """Return the folder nearest to ``root``, at most ``DEPTH`` below it, that holds ``marker``."""
    if not root.is_dir():
        raise MissingInputError(
            f"there is no folder {root}: unpack the files of {home_page} there, or run "
            f"{command('download')}"
        )
    level = [root]
    for _ in range(DEPTH + 1):
        trees = [folder for folder in level if (folder / marker).exists()]
        if trees:
            break
        below = (path for folder in level for path in sorted(folder.iterdir()))
        level = [path for path in below if path.is_dir() and path.name not in IGNORED]
    else:
        raise MissingInputError(
            f"no {marker} in {root}: it should hold the tree that {home_page} publishes; "
            "unpack it there"
        )
    if len(trees) > 1:
        names = " and in ".join(path.relative_to(root).as_posix() for path in trees)
        raise InputError(
            f"{root} holds {marker} in {names}: name one of them, or move the others away"
        )
    return trees[0]


def read_rows(path: Path, required: Sequence[str], *, home_page: str) -> list[Row]:
    """Read a published CSV as rows of text, blanks around names and values cut off.

    Raises:
        InputError: no CSV, no rows, or a required column missing.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            # What a row has beyond the header stands under None.
            rows = [
                {name.strip(): (value or "").strip() for name, value in row.items() if name}
                for row in csv.DictReader(file)
            ]
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a CSV file ({error}): get it from {home_page}") from None
    if not rows:
        raise InputError(f"{path} has no rows: get it from {home_page}")
    missing = [name for name in required if name not in rows[0]]
    if missing:
        raise InputError(
            f"{path} has no column {missing[0]!r}: it has {', '.join(rows[0])}; "
            f"get it from {home_page}"
        )
    return rows
