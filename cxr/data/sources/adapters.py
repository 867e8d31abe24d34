"""How each public source's tree becomes rows: Kermany, Cohen, Hannover, Granada, and the NLM's two.

Sources: Kermany, Zhang, Goldbaum 2018, Mendeley Data, doi:10.17632/rscbjbr9sj (label and patient
are in the names); Cohen, Morrison, Dao et al. 2020, arXiv:2006.11988 (findings and views as seen in
the repository's metadata and in torchxrayvision 1.5's loader); COVIDGR as its users' code reads it;
the NLM's names and readings as torchxrayvision 1.5 and others who read them show them.
"""

import re
from collections.abc import Container, Iterator
from functools import partial
from pathlib import Path

from cxr.data.manifest import SPLITS
from cxr.data.sources.tree import Row, Source, read_rows
from cxr.errors import InputError, MissingInputError
from cxr.imaging.read import is_image_file

KERMANY_PAGE = "https://data.mendeley.com/datasets/rscbjbr9sj/2"
COHEN_PAGE = "https://github.com/ieee8023/covid-chestxray-dataset"
HANNOVER_PAGE = "https://github.com/ml-workgroup/covid-19-image-repository"
GRANADA_PAGE = "https://github.com/ari-dasci/OD-covidgr"
NLM_PAGE = "https://lhncbc.nlm.nih.gov/LHC-downloads/downloads.html#tuberculosis-image-data-sets"

KERMANY_TREE = "chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}"
CAUSES = {"bacteria": "bacterial", "virus": "viral"}
"""How Kermany's names write the labels of pneumonia."""
COHEN_COLUMNS = (
    *("patientid", "sex", "age", "finding", "view", "modality", "location", "folder"),
    *("filename", "doi", "url", "license"),
)
FINDINGS = {"COVID-19": "covid", "Bacterial": "bacterial", "Viral": "viral", "No Finding": "normal"}
"""Cohen's findings that become a label, the first that a row names.

SARS, MERS, influenza, varicella and herpes are viral. Left out are fungal, lipoid and aspiration
pneumonia, tuberculosis, and pneumonia of unknown agent, which in this set may be COVID-19.
"""
HANNOVER_MARKS = (
    "ml-workgroup/covid-19-image-repository",
    "figshare.12275009",
    "hannover medical school",
)
"""Marks, in url, doi or location, of Cohen's rows that the Hannover repository publishes itself."""
SHARING = ("CC BY", "CC0", "APACHE", "LISTED AS AUTHORIZED FOR EVERYONE")
"""How licences begin that let an image be shared and altered; one with "ND" does not."""
X_RAY = ("CR", "DX")
"""DICOM modalities of projection radiography: computed and digital."""

_PNEUMONIA = re.compile(r"(?P<patient>person\d+)_(?P<cause>bacteria|virus)_\d+(_\d+)*")
_NORMAL = re.compile(r"(?P<series>(NORMAL\d+-)?IM)-(?P<number>\d+)(-\d+)+")
_NLM_NAME = re.compile(r"(?P<patient>(MCU|CHN)CXR_\d+)_(?P<tuberculosis>[01])")
_SEX = re.compile(r"\b(?P<female>fe)?mal|sex:\s*(?P<letter>[fm])")
_AGE = re.compile(r"(?P<number>\d+)\s*(?P<unit>[ymd])")
_A_YEAR = {"y": 1, "m": 12, "d": 365}


def _kermany(tree: Path) -> Iterator[Row]:
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
                    f"no images in {folder}: the tree is {KERMANY_TREE}, val optional; "
                    f"unpack {KERMANY_PAGE} there"
                )
            for path in images:
                label, patient = _label_and_patient(path, normal=name == "NORMAL")
                image = f"{split}/{name}/{path.name}"
                row = {"image": image, "label": label, "patient_id": patient}
                yield row | {"published_split": split}


def _label_and_patient(path: Path, *, normal: bool) -> tuple[str, str]:
    """Read both from a name; a ``personN`` is one patient, whatever label is beside it."""
    match = (_NORMAL if normal else _PNEUMONIA).fullmatch(path.stem)
    if match is None:
        example = "IM-0115-0001.jpeg" if normal else "person12_bacteria_46.jpeg"
        raise InputError(
            f"no label and patient in the name {path.name} in {path.parent}: names are like "
            f"{example}; restore the name of {KERMANY_PAGE}, or read the images as a folder per "
            "label"
        )
    if normal:
        return "normal", f"{match['series']}-{int(match['number'])}"
    return CAUSES[match["cause"]], match["patient"]


def _cohen(tree: Path, labels: Container[str]) -> Iterator[Row | str]:
    """List the frontal images with these labels whose row names a licence that allows sharing."""
    for row in read_rows(tree / "metadata.csv", COHEN_COLUMNS, home_page=COHEN_PAGE):
        # ``Pneumonia/Viral/COVID-19``, or ``COVID-19, ARDS`` as older editions write it.
        names = {part.strip() for part in row["finding"].replace("/", ",").split(",")}
        label = next((label for name, label in FINDINGS.items() if name in names), "")
        yield (
            _why_not(row)
            or ("" if label in labels else "other finding")
            or {
                "image": f"{row['folder']}/{row['filename']}",
                "label": label,
                # A row without a patient is nobody else's image: an id of its own.
                "patient_id": f"cohen-{row['patientid'] or row['filename']}",
                **{column: row[column] for column in ("view", "sex", "age", "license")},
            }
        )


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


def _hannover(tree: Path) -> Iterator[Row | str]:
    """List the frontal images of ``data.csv``; every patient had COVID-19."""
    required = ("patient_id", "image_id", "sex", "age", "modality", "projection")
    for row in read_rows(tree / "data.csv", required, home_page=HANNOVER_PAGE):
        view = row["projection"].upper()
        if row["modality"].upper() not in X_RAY or view not in ("PA", "AP"):
            yield "no frontal image"
            continue
        patient = f"hannover-{row['patient_id']}"
        yield {"image": f"png/{row['image_id']}.png", "label": "covid", "patient_id": patient} | {
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
        row = {"image": f"CXR_png/{path.name}", "label": "normal", "patient_id": name["patient"]}
        yield row | {"view": "PA", "sex": sex, "age": age}


def _sex_and_age(reading: str) -> tuple[str, str]:
    """Read ``Patient's Sex: F``, ``Patient's Age: 027Y``, or ``femal 32yrs``, ``male 16month``."""
    first = " ".join(reading.lower().splitlines()[:2])
    sex, age = _SEX.search(first), _AGE.search(first)
    letter = (sex["letter"] or ("f" if sex["female"] else "m")) if sex else ""
    return letter.upper(), str(int(age["number"]) // _A_YEAR[age["unit"]]) if age else ""


KERMANY = Source(
    name="kermany",
    urls=(
        "https://data.mendeley.com/public-files/datasets/rscbjbr9sj/files/"
        "f12eaf6d-6023-432f-acc9-80c9d7393433/file_downloaded",
    ),
    file_name="ChestXRay2017.zip",
    home_page=KERMANY_PAGE,
    license="CC BY 4.0",
    credit="Kermany, Zhang, Goldbaum 2018: name the authors",
    pinned=True,
    marker="train",
    rows=_kermany,
)
COHEN, COHEN_OTHERS = (
    Source(
        name="cohen",
        urls=(f"{COHEN_PAGE}/archive/refs/heads/master.zip",),
        file_name="covid-chestxray-dataset-master.zip",
        home_page=COHEN_PAGE,
        license="per image, in the manifest: CC BY, CC BY-NC-SA and others, many non-commercial",
        credit="Cohen et al. 2020; the metadata CC BY-NC-SA 4.0",
        marker="metadata.csv",
        rows=partial(_cohen, labels=labels),
    )
    for labels in (("covid",), ("bacterial", "viral", "normal"))
)
"""One archive: COVID-19, and a few dozen other images, nearly all of adults."""
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
MONTGOMERY, SHENZHEN = (
    Source(
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
    for name, file_name in (
        ("montgomery", "NLM-MontgomeryCXRSet.zip"),
        ("shenzhen", "ChinaSet_AllFiles.zip"),
    )
)
CXR4_SOURCES = (KERMANY, HANNOVER, COHEN)
ADULT_SOURCES = (MONTGOMERY, SHENZHEN, GRANADA, COHEN_OTHERS)
