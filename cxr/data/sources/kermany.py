"""Kermany's chest images of children: label and patient are in the file names.

Source: Kermany, Zhang, Goldbaum 2018, Mendeley Data, doi:10.17632/rscbjbr9sj (CC BY 4.0).
"""

import re
from pathlib import Path

import pandas as pd

from cxr.data.manifest import SPLITS, check_manifest, manifest_table
from cxr.data.sources.published_split import find_tree
from cxr.errors import InputError, MissingInputError
from cxr.imaging.read import is_image_file

HOME_PAGE = "https://data.mendeley.com/datasets/rscbjbr9sj/2"
LICENSE = "CC BY 4.0"
TREE = "chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}"
LABELS = {"bacteria": "bacterial", "virus": "viral"}
"""How the names write the labels of pneumonia."""

_PNEUMONIA = re.compile(r"(?P<patient>person\d+)_(?P<cause>bacteria|virus)_\d+(_\d+)*")
_NORMAL = re.compile(r"(?P<series>(NORMAL\d+-)?IM)-(?P<number>\d+)(-\d+)+")


def read_kermany(root: Path) -> pd.DataFrame:
    """List the images of Kermany's set, Mendeley's edition or Kaggle's.

    Mendeley's has no ``val``; Kaggle's takes 16 of the train images for it. The copy of the
    tree inside itself that Kaggle's archive holds is passed over.

    Args:
        root: ``chest_xray``, or the folder that holds it.

    Returns:
        A manifest with paths relative to ``root``, rows by path. A ``personN`` is one
        patient, whatever the label beside the number.

    Raises:
        MissingInputError: no such tree.
        InputError: a file name from which label and patient cannot be read.
    """
    holder = root if (root / "train").is_dir() else root / "chest_xray"
    if not holder.is_dir():
        holder = find_tree(root, "chest_xray", home_page=HOME_PAGE) / "chest_xray"
    rows = []
    for split in SPLITS:
        if split == "val" and not (holder / split).exists():
            continue
        for folder in ("NORMAL", "PNEUMONIA"):
            for path in _images(holder / split / folder):
                label, patient = parse_name(path.name, normal=folder == "NORMAL", where=path.parent)
                image = path.relative_to(root).as_posix()
                rows.append(
                    {
                        "image": image,
                        "label": label,
                        "patient_id": patient,
                        "source": "kermany",
                        "published_split": split,
                        "license": LICENSE,
                    }
                )
    return check_manifest(manifest_table(rows), root, name=str(root))


def parse_name(name: str, *, normal: bool, where: Path) -> tuple[str, str]:
    """Read label and patient from a file name.

    Args:
        name: such as ``person12_bacteria_46.jpeg`` or ``NORMAL2-IM-1427-0001.jpeg``.
        normal: whether it lies in ``NORMAL``.
        where: its folder, for the error.

    Returns:
        Label, and patient id such as ``person12``, ``IM-115`` or ``NORMAL2-IM-1427``.

    Raises:
        InputError: the name has another form.
    """
    stem = name.rsplit(".", 1)[0]
    match = (_NORMAL if normal else _PNEUMONIA).fullmatch(stem)
    if match is None:
        example = "IM-0115-0001.jpeg" if normal else "person12_bacteria_46.jpeg"
        raise InputError(
            f"no label and patient in the name {name} in {where}: names are like {example}; "
            f"restore the name of {HOME_PAGE}, or read the images as a folder per label"
        )
    if normal:
        return "normal", f"{match['series']}-{int(match['number'])}"
    return LABELS[match["cause"]], match["patient"]


def _images(folder: Path) -> list[Path]:
    """Return the images directly in a folder."""
    images = sorted(filter(is_image_file, folder.iterdir())) if folder.is_dir() else []
    if not images:
        raise MissingInputError(
            f"no images in {folder}: the tree is {TREE}, val optional; unpack {HOME_PAGE} there"
        )
    return images
