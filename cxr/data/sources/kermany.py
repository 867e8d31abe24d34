"""Kermany's chest images of children: label and patient are in the file names.

Source: Kermany, Zhang, Goldbaum 2018, Mendeley Data, doi:10.17632/rscbjbr9sj (CC BY 4.0).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from cxr.data.manifest import SPLITS
from cxr.data.sources.tree import Row, Source
from cxr.errors import InputError, MissingInputError
from cxr.imaging.read import is_image_file

HOME_PAGE = "https://data.mendeley.com/datasets/rscbjbr9sj/2"
TREE = "chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}"
LABELS = {"bacteria": "bacterial", "virus": "viral"}
"""How the names write the labels of pneumonia."""

_PNEUMONIA = re.compile(r"(?P<patient>person\d+)_(?P<cause>bacteria|virus)_\d+(_\d+)*")
_NORMAL = re.compile(r"(?P<series>(NORMAL\d+-)?IM)-(?P<number>\d+)(-\d+)+")


def _parse(path: Path, *, normal: bool) -> tuple[str, str]:
    """Read label and patient from a name; a ``personN`` is one, whatever label is beside it."""
    match = (_NORMAL if normal else _PNEUMONIA).fullmatch(path.stem)
    if match is None:
        example = "IM-0115-0001.jpeg" if normal else "person12_bacteria_46.jpeg"
        raise InputError(
            f"no label and patient in the name {path.name} in {path.parent}: names are like "
            f"{example}; restore the name of {HOME_PAGE}, or read the images as a folder per label"
        )
    if normal:
        return "normal", f"{match['series']}-{int(match['number'])}"
    return LABELS[match["cause"]], match["patient"]


def _rows(tree: Path) -> Iterator[Row]:
    """List the images by path, Mendeley's edition or Kaggle's.

    Mendeley's has no ``val``; Kaggle's takes 16 of the train images for it, and holds the tree
    a second time inside itself.
    """
    for split in SPLITS:
        if split == "val" and not (tree / split).exists():
            continue
        for name in ("NORMAL", "PNEUMONIA"):
            folder = tree / split / name
            images = sorted(filter(is_image_file, folder.iterdir())) if folder.is_dir() else []
            if not images:
                raise MissingInputError(
                    f"no images in {folder}: the tree is {TREE}, val optional; "
                    f"unpack {HOME_PAGE} there"
                )
            for path in images:
                label, patient = _parse(path, normal=name == "NORMAL")
                yield {
                    "image": f"{split}/{name}/{path.name}",
                    "label": label,
                    "patient_id": patient,
                    "published_split": split,
                }


KERMANY = Source(
    name="kermany",
    urls=(
        "https://data.mendeley.com/public-files/datasets/rscbjbr9sj/files/"
        "f12eaf6d-6023-432f-acc9-80c9d7393433/file_downloaded",
    ),
    file_name="ChestXRay2017.zip",
    home_page=HOME_PAGE,
    license="CC BY 4.0",
    credit="Kermany, Zhang, Goldbaum 2018: name the authors",
    pinned=True,
    marker="train",
    rows=_rows,
)
