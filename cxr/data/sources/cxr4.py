"""The four-class set: Kermany's children, COVID-19 images of Cohen's and Hannover's sets.

One source per class is the worst case for shortcut learning: normal, bacterial and viral are
children of one hospital, covid is mostly adults from others.
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from cxr.data.manifest import check_manifest, read_manifest, write_manifest
from cxr.data.sources.archive import Progress, unpack
from cxr.data.sources.cohen import read_cohen
from cxr.data.sources.download import SOURCES, Source, fetch
from cxr.data.sources.hannover import read_hannover
from cxr.data.sources.kermany import read_kermany
from cxr.errors import MissingInputError
from cxr.labels import CANONICAL

READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    "kermany": read_kermany,
    "hannover": read_hannover,
    "cohen": read_cohen,
}
"""Source name to the function that lists its images, in the order of the manifest."""
DOWNLOADS = "downloads"
"""Folder of the archives, beside the sources' trees."""


def build_cxr4(root: Path) -> pd.DataFrame:
    """List the images of the three trees in ``root/kermany``, ``cohen`` and ``hannover``.

    Returns:
        One manifest with paths relative to ``root``. Width and height stay empty: the images
        are the originals.

    Raises:
        MissingInputError: a tree is not there.
        InputError: a tree cannot be read.
    """
    tables = []
    for name, read in READERS.items():
        table = read(root / name)
        table["image"] = f"{name}/" + table["image"]
        tables.append(table)
    joined = pd.concat(tables, ignore_index=True)
    return check_manifest(joined, root, labels=CANONICAL, name=str(root))


def get_cxr4(
    root: Path, *, on_progress: Progress | None = None, sources: tuple[Source, ...] = SOURCES
) -> pd.DataFrame:
    """Download what is missing, unpack it, and write ``root/manifest.csv``.

    A folder that has a manifest and none of the trees is taken as it is. An archive put into
    ``root/downloads``, or a tree unpacked into the folder of its source, is not downloaded.

    Args:
        root: folder of the set; it is made.
        on_progress: called while archives arrive and are unpacked.
        sources: where the archives come from.

    Returns:
        The manifest.

    Raises:
        MissingInputError: a source cannot be reached; the line names, for each of them, what
            to fetch by hand and where to put it.
        InputError: an archive or a tree cannot be used.
    """
    manifest = root / "manifest.csv"
    if manifest.is_file() and not any((root / name).is_dir() for name in READERS):
        return read_manifest(manifest, labels=CANONICAL)
    unreachable = []
    for source in sources:
        folder = root / source.name
        if folder.is_dir() and any(folder.iterdir()):
            continue
        try:
            archive = fetch(source, root / DOWNLOADS, on_progress=on_progress)
        except MissingInputError as error:
            # The others are fetched all the same, so that one line can name all that is left.
            unreachable.append(error)
            continue
        unpack(archive, folder, on_progress=on_progress)
    if unreachable:
        raise MissingInputError(" | ".join(map(str, unreachable)))
    table = build_cxr4(root)
    write_manifest(table, manifest)
    return table
