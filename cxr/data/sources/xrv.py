"""Datasets that torchxrayvision reads, as a manifest.

Source: torchxrayvision (Apache-2.0, extra ``xrv``), mlmed/torchxrayvision; its loaders know the
tables of many public sets, whose images the user fetches under each set's own terms. Columns and
paths as in ``datasets.py`` of version 1.5.7.
"""

import logging
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.data.manifest import check_manifest, manifest_table, write_manifest
from cxr.errors import InputError

log = logging.getLogger(__name__)

IMAGES = {
    "NIH_Dataset": "{Image Index}",
    "NIH_Google_Dataset": "{Image Index}",
    "RSNA_Pneumonia_Dataset": "{patientId}{extension}",
    "PC_Dataset": "{ImageID}",
    "CheX_Dataset": "{Path}",
    "CheXlocalize_Dataset": "{Path}",
    "MIMIC_Dataset": "p{subject_id:.2}/p{subject_id}/s{study_id}/{dicom_id}.jpg",
    "Openi_Dataset": "{imageid}.png",
    "COVID19_Dataset": "{filename}",
    "NLMTB_Dataset": "CXR_png/{fname}",
    "TBX11K_Dataset": "imgs/{file_name}",
    "VinDr_Dataset": "{image_id}.dicom",
}
"""Loader to the path of a row's image below its ``imgpath``, in terms of the row's columns."""
LABELS = {
    "COVID-19": "covid",
    "Bacterial": "bacterial",
    "Viral": "viral",
    "Fungal": "",
    "Pneumonia": "bacterial|viral",
    "No Finding": "normal",
}
"""Pathology to label, the first that an image has; an empty one leaves the image out."""


def write_xrv_manifest(
    dataset: Any, *, source: str, license: str, labels: Mapping[str, str] = LABELS, rest: str = ""
) -> Path:
    """Write ``manifest.csv`` into the folder of a loader's images and return its path.

    Patient, view, sex and age are filled in where the loader knows them. How many images were left
    out is logged.

    Args:
        dataset: a loader, such as ``torchxrayvision.datasets.NIH_Dataset(imgpath=FOLDER)``; its
            ``labels`` are 1 where an image has a pathology, 0 where not, NaN where unknown.
        source: name of the hospital or set, the same in all its manifests.
        license: terms of the images, which torchxrayvision does not say.
        labels: pathology to label, the first that an image has.
        rest: label of images that are known to have no pathology of the loader; "" leaves them
            out. Only right where the loader knows every pathology, as NIH_Dataset does and
            RSNA_Pneumonia_Dataset does not.

    Raises:
        InputError: another loader, or none of its images has a label.
    """
    kind = type(dataset).__name__
    if kind not in IMAGES:
        raise InputError(f"{kind} is not read: allowed are {', '.join(IMAGES)}")
    root = Path(dataset.imgpath)
    extension = getattr(dataset, "extension", "")
    left_out = Counter[str]()
    rows = []
    for values, marks in zip(dataset.csv.to_dict("records"), dataset.labels, strict=True):
        label = _label(dict(zip(dataset.pathologies, marks, strict=True)), labels, rest)
        text = {"extension": extension, **{name: _text(value) for name, value in values.items()}}
        image = re.sub("^CheXpert-v1.0(-small)?/", "", IMAGES[kind].format_map(text))
        if not label or not (root / image).is_file():
            left_out["no image there" if label else "no label"] += 1
            continue
        row = {"image": image, "label": label, "source": source, "license": license}
        row |= {"view": text.get("view", ""), "age": text.get("age_years", "")}
        row["patient_id"] = f"{source}-{text['patientid']}" if text.get("patientid") else ""
        row["sex"] = "M" if values.get("sex_male") else "F" if values.get("sex_female") else ""
        rows.append(row)
    log.info("%s: %d images; left out: %s", kind, len(rows), dict(left_out))
    if not rows:
        raise InputError(
            f"no image of {kind} in {root} becomes a row ({dict(left_out)}): check imgpath, and "
            f"labels among {', '.join(dataset.pathologies)}"
        )
    manifest = root / "manifest.csv"
    write_manifest(check_manifest(manifest_table(rows), root, name=kind), manifest)
    return manifest


def _label(marks: Mapping[str, float], labels: Mapping[str, str], rest: str) -> str:
    named = [label for pathology, label in labels.items() if marks.get(pathology) == 1]
    return named[0] if named else rest if all(mark == 0 for mark in marks.values()) else ""


def _text(value: Any) -> str:
    """Write a table's cell as text, "" for an unknown one and 36.0 as 36."""
    if pd.isna(value):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
