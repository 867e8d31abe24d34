"""Cohen's covid-chestxray-dataset: images from publications, described in ``metadata.csv``.

Source: Cohen, Morrison, Dao et al. 2020, arXiv:2006.11988; licence per image. The findings and
views were seen in the repository's metadata and in the loader of torchxrayvision 1.5.
"""

from collections.abc import Container, Iterator
from functools import partial
from pathlib import Path

from cxr.data.sources.tree import Row, Source, read_rows

HOME_PAGE = "https://github.com/ieee8023/covid-chestxray-dataset"
REQUIRED = (
    *("patientid", "sex", "age", "finding", "view", "modality", "location", "folder"),
    *("filename", "doi", "url", "license"),
)
FINDINGS = {"COVID-19": "covid", "Bacterial": "bacterial", "Viral": "viral", "No Finding": "normal"}
"""Findings that become a label, the first that a row names.

SARS, MERS, influenza, varicella and herpes are viral. Left out are fungal, lipoid and aspiration
pneumonia, tuberculosis, and pneumonia of unknown agent, which in this set may be COVID-19.
"""
HANNOVER_MARKS = (
    "ml-workgroup/covid-19-image-repository",
    "figshare.12275009",
    "hannover medical school",
)
"""Marks, in url, doi or location, of rows that the Hannover repository publishes itself."""
SHARING = ("CC BY", "CC0", "APACHE", "LISTED AS AUTHORIZED FOR EVERYONE")
"""How licences begin that let an image be shared and altered; one with "ND" does not."""


def _rows(tree: Path, labels: Container[str]) -> Iterator[Row | str]:
    """List the frontal images with these labels whose row names a licence that allows sharing."""
    for row in read_rows(tree / "metadata.csv", REQUIRED, home_page=HOME_PAGE):
        label = _label(row["finding"])
        reason = _why_not(row) or ("" if label in labels else "other finding")
        yield reason or {
            "image": f"{row['folder']}/{row['filename']}",
            "label": label,
            # A row without a patient is nobody else's image: an id of its own.
            "patient_id": f"cohen-{row['patientid'] or row['filename']}",
            "view": row["view"],
            "sex": row["sex"],
            "age": row["age"],
            "license": row["license"],
        }


def _why_not(row: Row) -> str:
    marks = " ".join((row["url"], row["doi"], row["location"])).lower()
    if any(mark in marks for mark in HANNOVER_MARKS):
        return "from Hannover"
    # PA, AP, "AP Supine" and "AP Erect", not lateral views and slices.
    if row["modality"] != "X-ray" or row["view"].upper().split(" ")[0] not in ("PA", "AP"):
        return "no frontal image"
    licence = row["license"].upper()
    if not licence.startswith(SHARING) or "ND" in licence.replace("-", " ").split():
        return "no licence that allows sharing"
    return ""


def _label(finding: str) -> str:
    """Read ``Pneumonia/Viral/COVID-19``, or ``COVID-19, ARDS`` as older editions write it."""
    names = {part.strip() for part in finding.replace("/", ",").split(",")}
    return next((label for name, label in FINDINGS.items() if name in names), "")


def _source(*labels: str) -> Source:
    return Source(
        name="cohen",
        urls=(f"{HOME_PAGE}/archive/refs/heads/master.zip",),
        file_name="covid-chestxray-dataset-master.zip",
        home_page=HOME_PAGE,
        license="per image, in the manifest: CC BY, CC BY-NC-SA and others, many non-commercial",
        credit="Cohen et al. 2020; the metadata CC BY-NC-SA 4.0",
        marker="metadata.csv",
        rows=partial(_rows, labels=labels),
    )


COHEN = _source("covid")
COHEN_OTHERS = _source("bacterial", "viral", "normal")
"""The same archive: what it holds beside COVID-19, a few dozen images, nearly all of adults."""
