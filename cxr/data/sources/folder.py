"""A folder per label, optionally below train, val and test, as a manifest."""

import logging
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from cxr.data.manifest import SPLITS, check_manifest, manifest_table
from cxr.errors import InputError, MissingInputError
from cxr.imaging.read import SUFFIXES, is_image_file

log = logging.getLogger(__name__)

LAYOUT = "a folder per label with the images directly in it, or such folders in train, val and test"
"""What is allowed, in the words of the errors."""


def read_folder(root: Path, *, split_names: Mapping[str, str] | None = None) -> pd.DataFrame:
    """List the images of a folder that holds a folder per label, or split folders that hold those.

    Hidden files, ``__MACOSX`` and files that do not end like an image are passed over.
    ``split_names`` says which split folder is train, val or test.

    Returns:
        A manifest with image, label and, below split folders, ``published_split``, by path.

    Raises:
        MissingInputError: no such folder.
        InputError: empty, both layouts mixed, a label folder without an image, an unknown
            split, or a link that leads out of ``root``.
    """
    splits = dict(zip(SPLITS, SPLITS, strict=True)) if split_names is None else dict(split_names)
    if unknown := sorted(set(splits.values()) - set(SPLITS)):
        raise InputError(f"split_names leads to {unknown[0]!r}: allowed are {', '.join(SPLITS)}")
    if not root.is_dir():
        raise MissingInputError(f"there is no folder {root}: it should hold {LAYOUT}")
    folders = _label_parents(root)
    named = [folder for folder in folders if folder.name in splits]
    if named and len(named) != len(folders):
        other = next(folder for folder in folders if folder.name not in splits)
        raise InputError(
            f"{root} mixes split folders ({named[0].name}) with others ({other.name}): "
            f"it should hold {LAYOUT}; move one of them away"
        )
    rows: list[dict[str, str]] = []
    for folder in folders:
        split = splits[folder.name] if named else ""
        for label_folder in _label_parents(folder) if named else [folder]:
            for path in _images(label_folder):
                image = path.relative_to(root).as_posix()
                rows.append({"image": image, "label": label_folder.name, "published_split": split})
    return check_manifest(manifest_table(rows), root, name=str(root))


def _label_parents(folder: Path) -> list[Path]:
    """Return the subfolders of a folder that may not hold images itself."""
    folders = _subfolders(folder)
    loose = next((path for path in sorted(folder.iterdir()) if is_image_file(path)), None)
    if loose is not None:
        raise InputError(
            f"{loose} lies beside the label folders: {folder} should hold {LAYOUT}; "
            "move the image into the folder of its label"
        )
    if not folders:
        raise InputError(f"{folder} is empty: it should hold {LAYOUT}")
    return folders


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".") and path.name != "__MACOSX"
    )


def _images(folder: Path) -> list[Path]:
    below = _subfolders(folder)
    if below:
        raise InputError(
            f"{folder} was taken for a label and holds a folder ({below[0].name}): allowed is "
            f"{LAYOUT}; name the folder right above the labels, or move the images up"
        )
    files = sorted(path for path in folder.iterdir() if path.is_file())
    images = [path for path in files if is_image_file(path)]
    if not images:
        raise InputError(
            f"no image in {folder}: images end in {', '.join(SUFFIXES)}; "
            "add some or remove the folder"
        )
    others = sum(not path.name.startswith(".") for path in files) - len(images)
    if others:
        log.warning("%s: %d files passed over, not named like images", folder, others)
    return images
