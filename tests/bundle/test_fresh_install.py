"""``pip install .`` without extras, in an environment of its own, predicts without torch."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr.bundle.predictor import Predictor
from cxr.pipeline.config import compose
from cxr.pipeline.run_folder import find_run

ROOT = Path(__file__).resolve().parents[2]
NO_INDEX = ("No matching distribution", "Could not find a version", "Could not install packages")

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bin folder of a new environment with the project's default dependencies."""
    folder = tmp_path_factory.mktemp("fresh")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "constraints.txt"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "cxr", source / "cxr", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True, timeout=120)
    binaries = folder / "venv" / "bin"
    done = subprocess.run(
        [binaries / "pip", "install", "--quiet", "--constraint", "constraints.txt", "."],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    if done.returncode and any(words in done.stderr for words in NO_INDEX):
        pytest.skip(f"no package index answers: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return binaries


def test_it_predicts_without_torch(fresh, exported_run, tiny_bundle, tmp_path):
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    listed = subprocess.run(
        [fresh / "pip", "list", "--format=freeze"],
        capture_output=True,
        text=True,
        check=True,
        env=clean,
    )
    installed = {line.split("==")[0].lower() for line in listed.stdout.splitlines()}
    assert "onnxruntime" in installed
    assert not installed & {"torch", "timm", "pandas", "scipy", "hydra-core", "flask"}

    pixels = find_run(compose("evaluate", exported_run.where()))[2].pixels
    for place in range(3):
        Image.fromarray(np.asarray(pixels[place])).save(tmp_path / f"image{place}.png")
    done = subprocess.run(
        [
            fresh / "cxr",
            "predict",
            "image*.png",
            "--bundle",
            tiny_bundle,
            "--out",
            "results.csv",
            "--maps",
            "maps",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=clean,
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [f"image{place}.png" for place in range(3)]
    predictor = Predictor(tiny_bundle, threads=1)
    for row in rows:
        here = predictor.predict(tmp_path / row["image"])
        assert row["refused"] == str(here.refused).lower()
        assert float(row["ood_score"]) == pytest.approx(here.ood_score, rel=1e-3)
        for label, prob in here.probs.items() if not here.refused else ():
            assert float(row[f"prob_{label}"]) == pytest.approx(prob, abs=1e-4)


def test_it_brings_the_lung_finder_and_the_templates(fresh):
    script = """
from importlib.resources import files
import numpy as np
from cxr.lungs.find import find_lungs
print(find_lungs(np.zeros((64, 64), np.uint8)).count)
names = [file.name for room in ("report", "lungs") for file in files(f"cxr.{room}").iterdir()]
print(*sorted(name for name in names if not name.endswith(".py")))
"""
    done = subprocess.run(
        [fresh / "python", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=fresh,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    count, names = done.stdout.splitlines()
    assert count == "0"
    wanted = {"lungs.onnx", "lungs.json", "CARD.md", "report.html.j2", "MODEL_CARD.md.j2"}
    assert wanted <= set(names.split())
