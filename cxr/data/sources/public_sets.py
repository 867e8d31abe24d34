"""The sets made of public sources: ``cxr4``, and ``cxr4plus`` with adults of other hospitals.

One source per class is the worst case for shortcut learning: in cxr4 normal, bacterial and viral
are children of one hospital, covid is mostly adults from others. The part ``adults`` brings
normal adults, and one hospital (covidgr) that has both normal and covid.
"""

import logging
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from cxr.data.manifest import check_manifest, read_manifest, write_manifest
from cxr.data.sources.adapters import ADULT_SOURCES, CXR4_SOURCES
from cxr.data.sources.download import Archive, Progress, fetch, unpack
from cxr.data.sources.lung_masks import LUNG_MASKS, draw_masks
from cxr.data.sources.tree import Source, read_source
from cxr.errors import MissingInputError
from cxr.labels import CANONICAL

log = logging.getLogger(__name__)

DOWNLOADS = "downloads"
"""Folder of the archives, beside the trees of the first part."""
ADULT_YEARS = 18


@dataclass(frozen=True)
class Part:
    """A folder with a manifest."""

    sources: tuple[Source, ...]  # in the order of the manifest
    masks: Archive | None = None  # outlines of its images' lungs; the part is whole without them
    adults: bool = False  # leave out who is known to be younger

    def archives(self) -> tuple[Archive, ...]:
        """Return all that is fetched for it."""
        return (*self.sources, *([self.masks] if self.masks else []))

    def without(self, names: Container[str]) -> "Part":
        """Return it without the sources of these names."""
        masks = None if self.masks and self.masks.name in names else self.masks
        sources = tuple(source for source in self.sources if source.name not in names)
        return replace(self, sources=sources, masks=masks)


_CXR4 = Part(CXR4_SOURCES, masks=LUNG_MASKS)
_ADULTS = Part(ADULT_SOURCES, adults=True)
Sets = Mapping[str, Mapping[str, Part]]
SETS: Sets = {"cxr4": {"": _CXR4}, "cxr4plus": {"cxr4": _CXR4, "adults": _ADULTS}}
"""Name of a set to its parts by their folders."""


def build_part(part: Part, root: Path) -> pd.DataFrame:
    """List the images of the trees in ``root/<source>``, with paths relative to ``root``.

    Width and height stay empty: the images are the originals. See ``read_source`` for what is
    refused.
    """
    tables = []
    for source in part.sources:
        table = read_source(source, root / source.name)
        table["image"] = f"{source.name}/" + table["image"]
        tables.append(table)
    joined = pd.concat(tables, ignore_index=True)
    if part.adults:
        young = pd.to_numeric(joined["age"], errors="coerce") < ADULT_YEARS
        log.info("%s: %d images left out, under %d years", root, young.sum(), ADULT_YEARS)
        joined = joined[~young].reset_index(drop=True)
    if part.masks and (root / part.masks.name).is_dir():
        joined = draw_masks(joined, root, root / part.masks.name)
    return check_manifest(joined, root, labels=CANONICAL, name=str(root))


def get_set(
    name: str,
    root: Path,
    *,
    on_progress: Progress | None = None,
    sets: Sets = SETS,
    without: Container[str] = (),
) -> dict[Path, pd.DataFrame]:
    """Download what is missing of a set, unpack it, and write a ``manifest.csv`` for each part.

    A part that has a manifest and none of its trees is taken as it is. An archive put into
    the first part's ``downloads``, or a tree unpacked into the folder of its source, is not
    downloaded. Sources named in ``without`` are left out. Lung masks that cannot be fetched are
    done without, with a warning.

    Returns:
        Path of each part's manifest to the manifest.

    Raises:
        MissingInputError: a source cannot be reached; the line names, for each of them, what
            to fetch by hand and where to put it.
        InputError: an archive or a tree cannot be used.
    """
    parts = {root / folder: part.without(without) for folder, part in sets[name].items()}
    downloads = next(iter(parts)) / DOWNLOADS
    given = {
        folder: (folder / "manifest.csv").is_file()
        and not any((folder / source.name).is_dir() for source in part.sources)
        for folder, part in parts.items()
    }
    # The others are fetched all the same, so that one line can name all that is left.
    unreachable: list[str] = []
    for folder, part in parts.items():
        if not given[folder]:
            unreachable += _fetch_part(part, folder, downloads, on_progress)
    if unreachable:
        raise MissingInputError(" | ".join(unreachable))
    tables = {}
    for folder, part in parts.items():
        manifest = folder / "manifest.csv"
        if given[folder]:
            tables[manifest] = read_manifest(manifest, labels=None if part.adults else CANONICAL)
        elif part.sources:
            tables[manifest] = build_part(part, folder)
            write_manifest(tables[manifest], manifest)
    return tables


def _fetch_part(
    part: Part, folder: Path, downloads: Path, on_progress: Progress | None
) -> list[str]:
    """Fetch and unpack what is not there; return what could not be fetched."""
    unreachable = []
    for archive in part.archives() if part.sources else ():
        tree = folder / archive.name
        if tree.is_dir() and any(tree.iterdir()):
            continue
        try:
            file = fetch(archive, downloads, on_progress=on_progress)
        except MissingInputError as error:
            if archive is part.masks:
                log.warning("going on without lung masks: %s", error)
            else:
                unreachable.append(str(error))
        else:
            unpack(file, tree, on_progress=on_progress)
    return unreachable
