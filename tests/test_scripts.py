"""The scripts as a user runs them: each bad input gets one line and status 2, nothing lost.

Most run inside this process, as ``python scripts/x.py`` would, to spare each its imports.
"""

import dataclasses
import errno
import hashlib
import json
import os
import resource
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr.data.manifest import manifest_table, write_manifest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a script ended."""

    status: int
    out: str
    err: str

    def line(self) -> str:
        """Return the error, after checking that it is all that was said."""
        assert self.status == 2, self
        assert self.err.startswith("error: "), self.err
        assert self.err.count("\n") == 1, self.err
        return self.err


class Runner:
    """Run scripts in an empty working folder."""

    def __init__(self, folder: Path, monkeypatch, capfd) -> None:
        self.folder, self._monkeypatch, self._capfd = folder, monkeypatch, capfd
        monkeypatch.chdir(folder)
        # A script sets it for its own process.
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")

    def here(self, name: str, *overrides: str) -> Outcome:
        """Run a script in this process."""
        self._monkeypatch.setattr(sys, "argv", [f"scripts/{name}.py", *overrides])
        self._capfd.readouterr()
        status = 0
        try:
            runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        out, err = self._capfd.readouterr()
        return Outcome(status, out, err)

    def apart(self, name: str, *overrides: str, **options) -> Outcome:
        """Run a script in a process of its own."""
        done = subprocess.run(
            [sys.executable, str(SCRIPTS / f"{name}.py"), *overrides],
            capture_output=True,
            text=True,
            cwd=self.folder,
            timeout=300,
            check=False,
            **options,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def run(tmp_path, monkeypatch, capfd) -> Runner:
    folder = tmp_path / "work"
    folder.mkdir()
    return Runner(folder, monkeypatch, capfd)


def snapshot(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def save(path: Path, number: int, side: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 256, (side, side), np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture
def images(tmp_path) -> Path:
    """Return a folder of two labels with six images each and their manifest."""
    root = tmp_path / "images"
    rows = []
    for number in range(12):
        label = ("normal", "viral")[number % 2]
        image = f"{label}/{number:02d}.png"
        save(root / image, number)
        rows.append({"image": image, "label": label, "patient_id": f"p{number}"})
    write_manifest(manifest_table(rows), root / "manifest.csv")
    return root


def of_folder(root: Path) -> tuple[str, ...]:
    return ("data=folder", f"data.root={root}", "data.size=32")


def of_manifest(root: Path) -> tuple[str, ...]:
    return ("data=cxr4", f"data.root={root}", "data.size=32", "data.labels=[normal,viral]")


def test_prepare_needs_no_torch_and_ends_well(run, images):
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['prepare.py', 'data=folder', "
        f"{'data.root=' + str(images)!r}, 'data.size=32']\n"
        f"runpy.run_path({str(SCRIPTS / 'prepare.py')!r}, run_name='__main__')\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    (images / "manifest.csv").unlink()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=run.folder, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "12 images of 12 groups" in done.stderr
    assert len(list(run.folder.glob("outputs/folder/prepared/*/prepared.json"))) == 1


def test_missing_folder(run):
    line = run.here("prepare", *of_folder(Path("gone"))).line()
    assert "data.root gone is no folder: give data.root=PATH" in line
    line = run.here("prepare", *of_manifest(Path("gone"))).line()
    assert "python scripts/download.py data=cxr4 data.root=" in line
    assert snapshot(run.folder) == {}


def test_no_folder_at_all(run):
    assert "give data.root=PATH" in run.here("prepare", "data=folder").line()


def test_empty_folder(run, tmp_path):
    (tmp_path / "empty").mkdir()
    line = run.here("prepare", *of_folder(tmp_path / "empty")).line()
    assert "empty" in line
    assert "a folder per label" in line
    assert "there is no file" in run.here("prepare", *of_manifest(tmp_path / "empty")).line()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("image,label,", "image,class,", "has no column 'label'"),
        ("normal/00.png,normal", "normal/00.png,flu", "unknown label 'flu' in row 1"),
        ("normal/00.png", "../normal/00.png", "lies outside"),
        ("normal/00.png", "/etc/passwd", "an absolute path"),
    ],
)
def test_bad_manifest(run, images, old, new, said):
    path = images / "manifest.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    assert said in run.here("prepare", *of_manifest(images)).line()
    assert snapshot(run.folder) == {}


def test_an_unknown_label_of_a_folder_set_is_told_by_file_and_folder(run, images):
    save(images / "flu" / "99.png", 99)
    line = run.here("prepare", *of_folder(images), "data.labels=[normal,viral]").line()
    assert f"unknown label 'flu' of {images}/flu/99.png (images with it: 1)" in line
    assert "allowed are normal, viral; rename or move away the folder 'flu'" in line
    assert "or name the label in data.labels" in line
    assert snapshot(run.folder) == {}


def png_header(width: int, height: int) -> bytes:
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    return start + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:700]), "cannot be decoded"),
        (lambda path: path.write_text("no image"), "is no image"),
        (lambda path: path.unlink(), "no image at"),
        (lambda path: save(path, 1, side=31), "is 31 x 31 pixels: at least 32 x 32"),
        (lambda path: path.write_bytes(png_header(10_001, 10_000)), "at most 100 megapixels"),
        (lambda path: path.write_bytes(png_header(50_000, 50_000)), "100 megapixels"),
    ],
    ids=["truncated", "text", "missing", "small", "large", "bomb"],
)
def test_bad_image_is_named_or_skipped(run, images, spoil, said):
    spoil(images / "viral/07.png")
    line = run.here("prepare", *of_manifest(images)).line()
    assert "viral/07.png" in line
    assert said in line
    assert snapshot(run.folder) == {}
    done = run.here("prepare", *of_manifest(images), "data.on_error=skip")
    assert done.status == 0, done
    prepared = next(run.folder.glob("outputs/cxr4/prepared/*/prepared.json")).read_text()
    assert '"dropped_unreadable": 1' in prepared
    assert '"image": "viral/07.png"' in prepared


def test_images_left_out_on_purpose_are_listed(run, images):
    overrides = (*of_manifest(images), "data.exclude=['0[67].png']")
    assert run.here("prepare", *overrides).status == 0
    prepared = next(run.folder.glob("outputs/cxr4/prepared/*/prepared.json")).read_text()
    found = json.loads(prepared)
    assert found["dropped"]["excluded"] == ["normal/06.png", "viral/07.png"]
    assert found["counts"]["kept"] == 10
    line = run.here("prepare", *of_manifest(images), "data.exclude=['*']").line()
    assert "leaves out all 12 images" in line


def test_class_with_fewer_groups_than_splits(run, images):
    for path in sorted((images / "viral").iterdir())[2:]:
        path.unlink()
    (images / "manifest.csv").unlink()
    line = run.here("prepare", *of_folder(images)).line()
    assert "class 'viral' has 2 group(s)" in line
    assert "data.fractions" in line
    assert snapshot(run.folder) == {}


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("data.sise=64", "sise"),
        ("+data.sise=64", "data.sise"),
        ("++seed=1", "seed"),
        ("data.size=big", "big"),
        ("data=x-ray", "x-ray"),
        ("data.size", "data.size"),
        ("data.split=random", "random"),
        ("data.size=16", "32 to 2048"),
        ("data.fractions=[0.5,0.5]", "three shares"),
        ("data.fractions=[0.5,0.1,0.1]", "sum to 1"),
        ("data.phantom.patients_per_class=0", "at least one"),
        ("data.kind=video", "video"),
        ("data.name=../x", "no slash"),
    ],
)
def test_wrong_override(run, override, word):
    assert word in run.here("prepare", override).line()
    assert not list(run.folder.rglob("*.npy"))


def test_wrong_override_in_a_process_of_its_own(run):
    assert "sise" in run.apart("prepare", "data.sise=64").line()


def tiny(tiny_run, *extra: str) -> list[str]:
    return tiny_run.train("trainer.accelerator=cpu", *extra)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.architecture=mobilnetv2", "unknown model 'mobilnetv2'"),
        ("model=resnet", "resnet"),
        ("model.name=../x", "no slash"),
        ("model.pretrained=gone", "'gone', which does not exist"),
        ("model.freeze=[stem]", "model.freeze names 'stem'"),
        ("trainer.imbalance=both", "allowed are none, loss, sampler"),
        ("trainer.lr=0", "trainer.lr is 0"),
        ("+trainer.epochs=3", "trainer.epochs"),
        ("trainer.precision=16", "allowed are auto, 32, bf16"),
        ("trainer.accelerator=warp", "trainer.accelerator=warp"),
        ("run=../x", "no slash"),
    ],
)
def test_training_refuses_with_one_line_and_loses_nothing(run, tiny_run, override, said):
    before = snapshot(tiny_run.output_root / "phantom" / "tiny")
    outcome = run.here("train", *tiny(tiny_run, "run=scratch", override))
    errors = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert outcome.status == 2
    assert len(errors) == 1
    assert said in errors[0]
    assert "Traceback" not in outcome.err
    assert snapshot(tiny_run.output_root / "phantom" / "tiny") == before


def test_weights_of_another_architecture(run, tiny_run):
    weights = tiny_run.folder / "members" / "inceptionv3" / "weights.safetensors"
    outcome = run.here("train", *tiny(tiny_run, "run=scratch", f"model.pretrained={weights}"))
    assert outcome.status == 2
    last = outcome.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert "are not mobilenetv2_100's" in last


@pytest.mark.slow
def test_unreachable_hub_is_one_quick_line(run, tiny_run):
    environment = os.environ | {
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_ETAG_TIMEOUT": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        "HF_HOME": str(run.folder / "hub"),
    }
    began = time.monotonic()
    outcome = run.apart(
        "train", *tiny(tiny_run, "run=scratch", "model.pretrained=hub"), env=environment
    )
    assert outcome.status == 2, outcome
    last = outcome.err.splitlines()[-1]
    assert last.startswith("error: the pretrained weights of mobilenetv2_100 cannot be had")
    assert "Retry" not in outcome.err
    assert "model.pretrained=PATH" in last
    assert "model.pretrained=none" in last
    assert "Traceback" not in outcome.err
    # Most of this is the imports; the hub's own client would try for 45 seconds more.
    assert time.monotonic() - began < 120


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("folds=1", "folds is 1: at least 2 are needed"),
        ("folds=9", "too few for 9 folds"),
        ("data.fractions=[0.8,0,0.2]", "gives validation 0 of what is not test"),
        ("members=[inceptionv3]", "lacks 'mobilenetv2'"),
        ("trainer.lr=0", "trainer.lr is 0"),
    ],
)
def test_cross_validation_that_cannot_be(run, tiny_run, override, said):
    outcome = run.here("cv", *tiny(tiny_run, "run=folds", override))
    assert outcome.status == 2
    last = outcome.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert said in last
    assert not (tiny_run.output_root / "phantom" / "folds").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("copies=0", "copies is 0: allowed are 1 to 20"),
        ("test_share=0.6", "test_share is 0.6"),
        ("+copy=1", "copy"),
        ("model.name=../x", "no slash"),
    ],
)
def test_leak_experiment_that_cannot_be(run, override, said):
    assert said in run.here("leak", override).err.splitlines()[-1]
    assert snapshot(run.folder) == {}


@pytest.mark.parametrize("name", ["ensemble", "evaluate", "explain", "export"])
def test_stages_before_training(run, name):
    line = run.here(name, "run=first").line()
    assert "there is no run outputs/phantom/first: train first with " in line
    assert "python scripts/train.py data=phantom run=first" in line
    assert snapshot(run.folder) == {}


def test_measuring_a_run_that_is_not_there(run, images):
    line = run.here("evaluate_on", *of_folder(images), "run=cxr4/first").line()
    assert "there is no run cxr4/first under outputs: give run=DATA/RUN" in line
    assert "none is trained yet: python scripts/train.py" in line
    assert snapshot(run.folder) == {}


def test_measuring_on_data_that_are_not_there(run, tiny_run):
    where = (f"output_root={tiny_run.output_root}", "run=phantom/tiny")
    before = snapshot(tiny_run.folder)
    line = run.here("evaluate_on", "data=folder", "data.root=gone", *where).line()
    assert "data.root gone is no folder: give data.root=PATH" in line
    assert snapshot(tiny_run.folder) == before


def test_evaluating_a_run_without_a_finished_member(run, tiny_run):
    copy = run.folder / "outputs" / "phantom"
    shutil.copytree(tiny_run.output_root / "phantom", copy)
    shutil.rmtree(copy / "tiny" / "members")
    (copy / "tiny" / "ensemble.json").unlink()
    before = snapshot(copy)
    assert "has no trained member: train first" in run.here("evaluate", "run=tiny").line()
    assert snapshot(copy) == before


def small_files() -> None:
    """Let no file grow beyond 20 kB, as on a disk that is nearly full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


@pytest.mark.parametrize("data", ["folder", "phantom"])
def test_full_disk_while_preparing_in_a_process_of_its_own(run, images, data):
    (images / "manifest.csv").unlink()
    overrides = [*of_folder(images), "data.size=64"]
    if data == "phantom":
        overrides = ["data.phantom.patients_per_class=2", "data.phantom.size_px=160"]
    outcome = run.apart("prepare", *overrides, preexec_fn=small_files)
    assert "cannot write" in outcome.line()
    assert "allowed file size" in outcome.line()
    assert snapshot(run.folder) == {}
    assert not list(run.folder.rglob(".*"))


def test_full_disk_while_preparing_keeps_what_was_prepared(run, images, monkeypatch):
    assert run.here("prepare", *of_manifest(images)).status == 0
    before = snapshot(run.folder)

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    line = run.here("prepare", *of_manifest(images), "data.split_seed=2").line()
    assert "the disk is full: free some space, then give the same command again" in line
    assert snapshot(run.folder) == before


@pytest.mark.parametrize("what", ["weights.safetensors", "predictions.csv", "member.json"])
def test_full_disk_while_saving_a_member(run, tiny_run, monkeypatch, what):
    """The training is over; what it has learnt must still be there when there is space."""
    from cxr import files as runlog

    replace = os.replace

    def full(source, target):
        if Path(target).name == what:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(runlog.os, "replace", full)
    wanted = tiny(tiny_run, "run=full", "trainer.max_epochs=1", "trainer.checkpoint_minutes=0.0001")
    outcome = run.here("train", *wanted)
    monkeypatch.setattr(runlog.os, "replace", replace)
    assert outcome.status == 2
    last = outcome.err.splitlines()[-1]
    assert last.startswith("error: cannot write")
    assert "the disk is full" in last
    member = tiny_run.output_root / "phantom" / "full" / "members" / "mobilenetv2"
    assert not (member / "member.json").exists()
    if what == "member.json":
        again = run.here("train", *wanted)
        assert again.status == 0, again
        assert (member / "member.json").exists()
        steps = [row.split(",")[0] for row in (member / "logs/curves.csv").read_text().split()[1:]]
        assert steps == sorted(set(steps), key=int)
    shutil.rmtree(tiny_run.output_root / "phantom" / "full")


@pytest.mark.parametrize("name", ["ensemble", "evaluate", "export"])
def test_full_disk_while_writing_results_keeps_the_old_ones(run, tiny_run, monkeypatch, name):
    copy = run.folder / "outputs" / "phantom"
    shutil.copytree(tiny_run.output_root / "phantom", copy)
    before = snapshot(copy)

    def full(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(
        shutil if name == "export" else os, "copyfile" if name == "export" else "fsync", full
    )
    outcome = run.here(name, "run=tiny")
    monkeypatch.undo()
    last = outcome.err.splitlines()[-1]
    assert outcome.status == 2
    assert last.startswith("error: cannot write")
    assert snapshot(copy) == before


def test_training_on_two_processes(run, tiny_run):
    """Each takes half of every batch; the first alone writes, and the weights are common."""
    outcome = run.apart(
        "train",
        *tiny(tiny_run, "run=two", "trainer.devices=2", "trainer.threads=1"),
        *("trainer.batch_size=4", "trainer.max_epochs=1", "model.input_size=64"),
    )
    assert outcome.status == 0, outcome
    assert outcome.err.count("kept epoch 1 of 1") == 1
    member = tiny_run.output_root / "phantom" / "two" / "members" / "mobilenetv2"
    steps = (member / "logs" / "curves.csv").read_text().splitlines()[1:]
    images = json.loads((member / "member.json").read_text())["data"]["train_images"]
    assert len(steps) == images // 8
    shutil.rmtree(tiny_run.output_root / "phantom" / "two")


def test_multirun_goes_on_when_a_job_fails_and_leaves_no_folder(run, images):
    outcome = run.here(
        "prepare", "-m", *of_manifest(images), "data.size=16,32", f"output_root={run.folder}/out"
    )
    assert outcome.status == 2
    errors = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert "32 to 2048" in errors[0]
    assert "data.size=16" in errors[0]
    assert errors[1] == "error: 1 job(s) failed, see above"
    assert len(list(run.folder.glob("out/cxr4/prepared/*/prepared.json"))) == 1
    assert [path.name for path in run.folder.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("old", "new"), [("data", "scripts/download.py"), ("leak", "python -m experiments.leak")]
)
def test_former_scripts_name_the_new(run, caplog, old, new):
    outcome = run.here(old, "data.sise=3")
    assert outcome.status == 2
    assert f"scripts/{old}.py is now called {new}" in caplog.text
    assert "sise" in outcome.err


def test_only_the_public_sources_are_fetched(run):
    assert "data=cxr4 is" in run.here("download", "data=seed", "data.root=x").line()
    assert snapshot(run.folder) == {}
