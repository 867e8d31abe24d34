"""Tiny trees of the shape in which the sources publish theirs."""

import csv
from pathlib import Path

KERMANY = (
    "train/NORMAL/IM-0115-0001.jpeg",
    "train/NORMAL/NORMAL2-IM-0983-0001-0002.jpeg",
    "train/PNEUMONIA/person12_bacteria_46.jpeg",
    "train/PNEUMONIA/person12_bacteria_47.jpeg",
    "train/PNEUMONIA/person447_virus_921_1.jpeg",
    "val/NORMAL/NORMAL2-IM-1427-0001.jpeg",
    "val/PNEUMONIA/person7_virus_15.jpeg",
    "test/NORMAL/IM-0001-0001.jpeg",
    "test/PNEUMONIA/person12_virus_46.jpeg",
)

COHEN_COLUMNS = (
    "patientid", "offset", "sex", "age", "finding", "RT_PCR_positive", "view", "modality",
    "date", "location", "folder", "filename", "doi", "url", "license", "clinical_notes",
    "other_notes", "",
)  # fmt: skip
COVID = "Pneumonia/Viral/COVID-19"
COHEN_DEFAULTS = {
    "patientid": "2", "offset": "0", "sex": "M", "age": "65", "finding": COVID, "view": "PA",
    "modality": "X-ray", "folder": "images", "license": "CC BY-NC-SA", "url": "https://a.example",
}  # fmt: skip

HANNOVER_COLUMNS = (
    "patient_id", "image_id", "sex", "age", "size", "admission_offset", "modality", "projection",
)  # fmt: skip


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write_csv(path: Path, columns, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def make_kermany(root: Path) -> Path:
    touch(root / "chest_xray", *KERMANY)
    touch(root, "__MACOSX/chest_xray/train/NORMAL/._IM-0115-0001.jpeg")
    touch(root / "chest_xray", ".DS_Store", "train/.DS_Store", "train/NORMAL/.DS_Store")
    # Kaggle's archive holds the tree a second time inside itself.
    touch(root / "chest_xray" / "chest_xray", *KERMANY)
    touch(root / "chest_xray", "__MACOSX/._train")
    return root


def make_cohen(root: Path, rows) -> Path:
    rows = [COHEN_DEFAULTS | row for row in rows]
    write_csv(root / "metadata.csv", COHEN_COLUMNS, rows)
    touch(root, *(f"{row['folder']}/{row['filename']}" for row in rows))
    return root


def make_hannover(root: Path, rows) -> Path:
    rows = [{"patient_id": "024e7871", "modality": "CR", "projection": "ap"} | row for row in rows]
    write_csv(root / "data.csv", HANNOVER_COLUMNS, rows)
    touch(root, *(f"png/{row['image_id']}.png" for row in rows))
    return root
