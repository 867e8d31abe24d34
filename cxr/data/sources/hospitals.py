"""Public sources of one hospital each: Hannover, Granada, Montgomery County and Shenzhen."""

import re
from collections.abc import Iterator
from pathlib import Path

from cxr.data.sources.tree import Row, Source, read_rows
from cxr.imaging.read import is_image_file

HANNOVER_PAGE = "https://github.com/ml-workgroup/covid-19-image-repository"
GRANADA_PAGE = "https://github.com/ari-dasci/OD-covidgr"
NLM_PAGE = "https://lhncbc.nlm.nih.gov/LHC-downloads/downloads.html#tuberculosis-image-data-sets"
X_RAY = ("CR", "DX")
"""DICOM modalities of projection radiography: computed and digital."""

_NLM_NAME = re.compile(r"(?P<patient>(MCU|CHN)CXR_\d+)_(?P<tuberculosis>[01])")
_SEX = re.compile(r"\b(?P<female>fe)?mal|sex:\s*(?P<letter>[fm])")
_AGE = re.compile(r"(?P<number>\d+)\s*(?P<unit>[ymd])")
_A_YEAR = {"y": 1, "m": 12, "d": 365}


def _hannover(tree: Path) -> Iterator[Row | str]:
    """List the frontal images of ``data.csv``; every patient had COVID-19."""
    required = ("patient_id", "image_id", "sex", "age", "modality", "projection")
    for row in read_rows(tree / "data.csv", required, home_page=HANNOVER_PAGE):
        view = row["projection"].upper()
        if row["modality"].upper() not in X_RAY or view not in ("PA", "AP"):
            yield "no frontal image"
            continue
        yield {
            "image": f"png/{row['image_id']}.png",
            "label": "covid",
            "patient_id": f"hannover-{row['patient_id']}",
            "view": view,
            "sex": row["sex"].upper(),
            "age": row["age"],
        }


def _granada(tree: Path) -> Iterator[Row]:
    """List the folders ``P`` and ``N``: PCR positive, some with a normal chest, and negative.

    All are PA. Who is who is not published: patients, sexes and ages stay unknown.
    """
    for folder, label in {"P": "covid", "N": "normal"}.items():
        for path in sorted((tree / folder).glob("*")):
            if is_image_file(path):
                yield {"image": f"{folder}/{path.name}", "label": label, "view": "PA"}


def _nlm(tree: Path) -> Iterator[Row | str]:
    """List the images whose names end in 0, without tuberculosis, PA, one of each patient."""
    for path in sorted(filter(is_image_file, (tree / "CXR_png").iterdir())):
        name = _NLM_NAME.fullmatch(path.stem)
        if name is None or name["tuberculosis"] == "1":
            yield "tuberculosis" if name else "name not understood"
            continue
        reading = tree / "ClinicalReadings" / f"{path.stem}.txt"
        sex, age = _sex_and_age(reading.read_text(errors="replace") if reading.is_file() else "")
        yield {
            "image": f"CXR_png/{path.name}",
            "label": "normal",
            "patient_id": name["patient"],
            "view": "PA",
            "sex": sex,
            "age": age,
        }


def _sex_and_age(reading: str) -> tuple[str, str]:
    """Read ``Patient's Sex: F``, ``Patient's Age: 027Y``, or ``femal 32yrs``, ``male 16month``."""
    first = " ".join(reading.lower().splitlines()[:2])
    sex, age = _SEX.search(first), _AGE.search(first)
    letter = (sex["letter"] or ("f" if sex["female"] else "m")) if sex else ""
    return letter.upper(), str(int(age["number"]) // _A_YEAR[age["unit"]]) if age else ""


HANNOVER = Source(
    name="hannover",
    urls=(f"{HANNOVER_PAGE}/archive/refs/heads/master.zip",),
    file_name="covid-19-image-repository-master.zip",
    home_page=HANNOVER_PAGE,
    license="CC BY 3.0",
    credit="Hannover Medical School, Winther et al. 2020, doi:10.6084/m9.figshare.12275009: "
    "name the authors",
    marker="data.csv",
    rows=_hannover,
)
GRANADA = Source(
    name="covidgr",
    urls=("https://api.github.com/repos/ari-dasci/OD-covidgr/releases/tags/1.0",),
    file_name="covidgr-1.0.zip",
    home_page=f"{GRANADA_PAGE}/releases/tag/1.0",
    license="none named: research, name the authors",
    credit="COVIDGR 1.0, Hospital San Cecilio, Granada, Tabik et al. 2020, arXiv:2006.01409",
    pinned=True,
    marker="P",
    rows=_granada,
)
"""Folders as its users' code reads them; its README has counts, view and citation."""


def _nlm_source(name: str, file_name: str) -> Source:
    """Tree, file names and readings as torchxrayvision 1.5 and others who read them show them."""
    return Source(
        name=name,
        urls=(f"https://openi.nlm.nih.gov/imgs/collections/{file_name}",),
        file_name=file_name,
        home_page=NLM_PAGE,
        license="U.S. National Library of Medicine: research and teaching, name the authors",
        credit="Jaeger et al. 2014, doi:10.3978/j.issn.2223-4292.2014.11.20",
        pinned=True,
        marker="CXR_png",
        rows=_nlm,
    )


MONTGOMERY = _nlm_source("montgomery", "NLM-MontgomeryCXRSet.zip")
SHENZHEN = _nlm_source("shenzhen", "ChinaSet_AllFiles.zip")
