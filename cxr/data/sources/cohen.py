"""Cohen's covid-chestxray-dataset: images from publications, described in ``metadata.csv``.

Source: Cohen, Morrison, Dao et al. 2020, arXiv:2006.11988; licence per image.
"""

import logging
from collections import Counter
from pathlib import Path

import pandas as pd

from cxr.data.manifest import check_manifest, manifest_table
from cxr.data.sources.published_split import find_tree, keep_present, read_rows

log = logging.getLogger(__name__)

HOME_PAGE = "https://github.com/ieee8023/covid-chestxray-dataset"
REQUIRED = (
    "patientid",
    "sex",
    "age",
    "finding",
    "view",
    "modality",
    "location",
    "folder",
    "filename",
    "doi",
    "url",
    "license",
)
FINDINGS = {"COVID-19": "covid"}
"""Findings that become a label.

The set also names bacterial, other viral and no findings. They are left out: they are adults
out of publications, a few dozen images, where the project's other classes are children of one
hospital; SARS and influenza beside COVID-19 would also make "viral" mean two things.
"""
HANNOVER_MARKS = (
    "ml-workgroup/covid-19-image-repository",
    "figshare.12275009",
    "hannover medical school",
)
"""Marks, in url, doi or location, of rows that the Hannover repository publishes itself."""
SHARING = ("CC BY", "CC0", "APACHE", "LISTED AS AUTHORIZED FOR EVERYONE")
"""How licences begin that let an image be shared and altered; one with "ND" does not."""


def read_cohen(root: Path) -> pd.DataFrame:
    """List the frontal images with COVID-19 whose row names a licence that allows sharing.

    Rows that come from the Hannover repository are left to ``read_hannover``.

    Args:
        root: the repository's tree, or the folder that holds it.

    Returns:
        A manifest with paths relative to ``root`` in the order of the metadata. How many
        rows were left out, and why, is logged.

    Raises:
        MissingInputError: no such tree, or none of its images.
        InputError: ``metadata.csv`` cannot be used.
    """
    tree = find_tree(root, "metadata.csv", home_page=HOME_PAGE)
    rows: dict[str, dict[str, str]] = {}
    left_out = Counter[str]()
    for row in read_rows(tree / "metadata.csv", REQUIRED, home_page=HOME_PAGE):
        reason = _why_not(row)
        image = _image(row, tree.relative_to(root))
        if not reason and image["image"] in rows:
            reason = "image named before"
        if reason:
            left_out[reason] += 1
        else:
            rows[image["image"]] = image
    log.info("%s: %d images; rows left out: %s", root, len(rows), dict(left_out))
    images = keep_present(list(rows.values()), root, home_page=HOME_PAGE)
    return check_manifest(manifest_table(images), root, name=str(tree / "metadata.csv"))


def _why_not(row: dict[str, str]) -> str:
    """Return why a row is left out, "" if it is not."""
    marks = " ".join((row["url"], row["doi"], row["location"])).lower()
    if any(mark in marks for mark in HANNOVER_MARKS):
        return "from Hannover"
    if row["modality"] != "X-ray" or not _is_frontal(row["view"]):
        return "no frontal image"
    if not _label(row["finding"]):
        return "other finding"
    if not _may_be_shared(row["license"]):
        return "no licence that allows sharing"
    return ""


def _is_frontal(view: str) -> bool:
    """Tell PA, AP, "AP Supine" and "AP Erect" from lateral views and slices."""
    return view.upper().split(" ")[0] in ("PA", "AP")


def _label(finding: str) -> str:
    """Read ``Pneumonia/Viral/COVID-19``, or ``COVID-19, ARDS`` as older editions write it."""
    names = {part.strip() for part in finding.replace("/", ",").split(",")}
    return next((label for name, label in FINDINGS.items() if name in names), "")


def _may_be_shared(license_text: str) -> bool:
    licence = license_text.upper()
    return licence.startswith(SHARING) and "ND" not in licence.replace("-", " ").split()


def _image(row: dict[str, str], tree: Path) -> dict[str, str]:
    return {
        "image": (tree / row["folder"] / row["filename"]).as_posix(),
        "label": _label(row["finding"]),
        # A row without a patient is nobody else's image: an id of its own.
        "patient_id": f"cohen-{row['patientid'] or row['filename']}",
        "source": "cohen",
        "view": row["view"],
        "sex": row["sex"],
        "age": row["age"],
        "license": row["license"],
    }
