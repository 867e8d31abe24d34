"""Hannover Medical School's covid-19-image-repository: ``data.csv`` and ``png/``.

Source: Winther, Laser, Gerbel et al. 2020, figshare, doi:10.6084/m9.figshare.12275009
(CC BY 3.0). Every patient had COVID-19.
"""

from pathlib import Path

import pandas as pd

from cxr.data.manifest import check_manifest, manifest_table
from cxr.data.sources.published_split import find_tree, keep_present, read_rows

HOME_PAGE = "https://github.com/ml-workgroup/covid-19-image-repository"
LICENSE = "CC BY 3.0"
REQUIRED = ("patient_id", "image_id", "sex", "age", "modality", "projection")
X_RAY = ("CR", "DX")
"""DICOM modalities of projection radiography: computed and digital."""
VIEWS = ("PA", "AP")


def read_hannover(root: Path) -> pd.DataFrame:
    """List the repository's frontal images.

    Args:
        root: the repository's tree, or the folder that holds it.

    Returns:
        A manifest with paths relative to ``root`` in the order of ``data.csv``.

    Raises:
        MissingInputError: no such tree, or none of its images.
        InputError: ``data.csv`` cannot be used.
    """
    tree = find_tree(root, "data.csv", home_page=HOME_PAGE)
    rows = [
        {
            "image": (tree.relative_to(root) / "png" / f"{row['image_id']}.png").as_posix(),
            "label": "covid",
            "patient_id": f"hannover-{row['patient_id']}",
            "source": "hannover",
            "view": row["projection"].upper(),
            "sex": row["sex"].upper(),
            "age": row["age"],
            "license": LICENSE,
        }
        for row in read_rows(tree / "data.csv", REQUIRED, home_page=HOME_PAGE)
        if row["modality"].upper() in X_RAY and row["projection"].upper() in VIEWS
    ]
    rows = keep_present(rows, root, home_page=HOME_PAGE)
    return check_manifest(manifest_table(rows), root, name=str(tree / "data.csv"))
