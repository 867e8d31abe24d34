"""A local HTTP server that misbehaves on request, and tiny trees as the sources publish theirs."""

import csv
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest


@dataclass
class Site:
    """What the server serves and how; every request's path is kept."""

    files: dict[str, bytes] = field(default_factory=dict)
    names_length: bool = True
    drop_after: list[int] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    url: str = ""


def handler_of(site: Site) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

        def do_GET(self):
            site.requests.append(self.path)
            body = site.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            if site.names_length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut = site.drop_after.pop(0) if site.drop_after else len(body)
            self.wfile.write(body[:cut])

    return Handler


@pytest.fixture
def site(monkeypatch) -> Iterator[Site]:
    # A proxy of the machine must not stand between the test and its server.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    site = Site()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler_of(site)) as server:
        site.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield site
        server.shutdown()
        thread.join()


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
    "patientid",
    "offset",
    "sex",
    "age",
    "finding",
    "RT_PCR_positive",
    "view",
    "modality",
    "date",
    "location",
    "folder",
    "filename",
    "doi",
    "url",
    "license",
    "clinical_notes",
    "other_notes",
    "",
)
COVID = "Pneumonia/Viral/COVID-19"
COHEN_DEFAULTS = {
    "patientid": "2",
    "offset": "0",
    "sex": "M",
    "age": "65",
    "finding": COVID,
    "view": "PA",
    "modality": "X-ray",
    "folder": "images",
    "license": "CC BY-NC-SA",
    "url": "https://a.example",
}

HANNOVER_COLUMNS = (
    "patient_id",
    "image_id",
    "sex",
    "age",
    "size",
    "admission_offset",
    "modality",
    "projection",
)


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


def make_granada(root: Path) -> Path:
    touch(root, "P/a.jpg", "P/b.jpg", "N/a.jpg", "N/c.jpg", "N/notes.txt", "severity.csv")
    return root


def make_nlm(root: Path, readings: dict[str, str]) -> Path:
    """Make MontgomerySet or ChinaSet_AllFiles: an image for each reading."""
    touch(root, *(f"CXR_png/{name}.png" for name in readings), "CXR_png/Thumbs.db")
    for name, reading in readings.items():
        path = root / "ClinicalReadings" / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(reading)
    return root


@pytest.fixture
def trees() -> SimpleNamespace:
    """The functions above, since test modules cannot import from here."""
    return SimpleNamespace(
        touch=touch,
        write_csv=write_csv,
        kermany=make_kermany,
        cohen=make_cohen,
        hannover=make_hannover,
        granada=make_granada,
        nlm=make_nlm,
    )
