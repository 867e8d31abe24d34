"""The command: its exit status, its one line of error, what it writes."""

import csv
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cxr.bundle.format
import cxr.bundle.predictor
from cxr import cli

_path = Path(__file__).parent / "bundle" / "fakes.py"
_spec = importlib.util.spec_from_file_location("fakes_of_cli", _path)
assert _spec is not None
assert _spec.loader is not None
fakes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fakes)


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Put a fake in the predictor's place; return what it was opened with."""
    calls: list[dict] = []

    def open_fake(bundle, **options):
        calls.append({"bundle": bundle, **options})
        return fakes.FakePredictor()

    monkeypatch.setattr(cxr.bundle.predictor, "Predictor", open_fake)
    monkeypatch.delenv(cli.BUNDLE_VARIABLE, raising=False)
    return calls


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for index, value in enumerate((20, 90, 250)):
        Image.fromarray(np.full((40, 40), value, np.uint8)).save(folder / f"{index}.png")
    (folder / "bad.png").write_bytes(b"x")
    return folder


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def test_bad_and_refused_images_do_not_make_the_run_a_failure(images, tmp_path, caplog, opened):
    out = tmp_path / "out.csv"
    with caplog.at_level("INFO"):
        status = run("predict", images, "--out", out, "--bundle", "b", "--threads", "2")
    assert status == 0
    assert len(rows(out)) == 4
    assert "4 images" in caplog.text
    assert "2 predicted, 1 refused as not like the training images, 1 could not be read" in (
        caplog.text
    )
    assert fakes.NOTE in caplog.text
    assert opened == [{"bundle": Path("b"), "runtime": "onnxruntime", "threads": 2}]


def test_the_bundle_may_be_named_by_the_environment(images, tmp_path, monkeypatch, opened):
    monkeypatch.setenv(cli.BUNDLE_VARIABLE, "from-environment")
    assert run("predict", images, "--out", tmp_path / "out.csv") == 0
    assert opened[0]["bundle"] == Path("from-environment")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["images"], "no bundle is named"),
        (["images", "--bundle", "b", "--out", "out.xlsx"], "must end in .csv or .parquet"),
        (["gone", "--bundle", "b"], "there is no gone"),
        (["images/*.dcm", "--bundle", "b"], "nothing matches"),
        (["empty", "--bundle", "b"], "holds no image"),
        (["images", "--bundle", "b", "--workers", "0"], "--workers is 0: at least 1"),
        (["images", "--bundle", "b", "--threads", "-1"], "--threads is -1: at least 0"),
        (["images", "--bundle", "b", "--maps", "images/0.png"], "is a file: give a folder"),
        (["images", "--bundle", "b", "--variant", "int8"], "are gone; leave it out"),
        (["images", "--bundle", "b", "--level", "0.5"], "level 0.5 is not in the bundle"),
    ],
)
def test_a_wrong_call_is_one_line_and_status_2(images, tmp_path, monkeypatch, capsys, words, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    out = [] if "--out" in words else ["--out", "out.csv"]
    assert run("predict", *words, *out) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert line in error
    assert not (tmp_path / "out.csv").exists()


def test_a_stopped_run_says_so_and_the_same_command_goes_on(images, tmp_path, monkeypatch, capsys):
    words = ("predict", images, "--out", tmp_path / "out.csv", "--bundle", "b")
    broken = fakes.FakePredictor(stop_after=1)
    monkeypatch.setattr(cxr.bundle.predictor, "Predictor", lambda *_a, **_o: broken)
    assert run(*words) == 130
    assert "the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(cxr.bundle.predictor, "Predictor", lambda *_a, **_o: fakes.FakePredictor())
    assert run(*words) == 0
    assert len(rows(tmp_path / "out.csv")) == 4


def test_parquet_is_written_beside_its_csv(images, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert run("predict", images, "--out", tmp_path / "out.parquet", "--bundle", "b") == 0
    assert parquet.read_table(tmp_path / "out.parquet").num_rows == 4
    assert (tmp_path / "out.csv").exists()


def test_show_prints_what_a_bundle_is(monkeypatch, capsys):
    monkeypatch.setattr(cxr.bundle.format, "describe", lambda path: f"bundle {path}")
    assert run("bundle", "show", "there") == 0
    assert capsys.readouterr().out == "bundle there\n"


def test_the_command_starts_without_torch_or_pandas():
    code = (
        "import sys, cxr.cli, cxr.bundle.batch, cxr.bundle.predictor, cxr.reliability.ood\n"
        "print(sorted({'torch', 'pandas', 'hydra', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
