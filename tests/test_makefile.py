"""The Makefile: every target has its line, and composes the right commands."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def venv(tmp_path) -> Path:
    """Return an environment, installed by its stamps, whose python writes down its arguments."""
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    for name in ("python", "ruff", "mypy", "jupytext", "flask"):
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>"{tmp_path}/calls"\nexit ${{FAIL:-0}}\n')
        program.chmod(0o755)
    for stamp in (".train", ".test", ".serve"):
        (folder / stamp).touch()
    return folder


def make(venv: Path, *words: str, fail: int = 0) -> tuple[int, list[str], str]:
    """Run make; return its status, the commands that it ran, and what it said."""
    given = ("MAKE", "MFLAGS", "DATA", "RUN", "ARGS", "PRETRAINED", "FOLDS")  # by an outer make
    kept = {key: value for key, value in os.environ.items() if not key.startswith(given)}
    done = subprocess.run(
        ["make", "-C", str(ROOT), *words, f"VENV={venv}"],
        capture_output=True,
        text=True,
        env=kept | {"FAIL": str(fail)},
        timeout=60,
        check=False,
    )
    calls = venv.parent / "calls"
    lines = calls.read_text().splitlines() if calls.exists() else []
    return done.returncode, lines, done.stdout + done.stderr


def targets() -> list[str]:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    return phony.group(1).split()


@pytest.mark.parametrize("words", [(), ("help",)])
def test_help_lists_every_target_with_a_line(venv, words):
    status, calls, said = make(venv, *words)
    assert status == 0
    assert calls == []
    for target in targets():
        assert re.search(rf"^  make {target} +\S", said, re.MULTILINE), target


def test_train_trains_both_members_then_fits_the_ensemble(venv):
    assert make(venv, "train")[:2] == (
        0,
        [
            "python scripts/train.py data=phantom run=default model=mobilenetv2",
            "python scripts/train.py data=phantom run=default model=inceptionv3",
            "python scripts/ensemble.py data=phantom run=default",
        ],
    )


def test_variables_become_overrides(venv):
    status, calls, _ = make(
        venv,
        "train",
        "DATA=cxr4",
        "DATA_ROOT=../x",
        "RUN=first",
        "PRETRAINED=w",
        "MEMBERS=mobilenetv2",
        "ARGS=trainer.max_epochs=3 seed=1",
        "ENSEMBLE=pool=linear",
    )
    assert status == 0
    assert calls == [
        "python scripts/train.py data=cxr4 run=first data.root=../x model=mobilenetv2 "
        "model.pretrained=w trainer.max_epochs=3 seed=1",
        "python scripts/ensemble.py data=cxr4 run=first pool=linear",
    ]


@pytest.mark.parametrize("stage", ["ensemble", "evaluate", "audit", "explain", "export"])
def test_later_stages_name_the_run(venv, stage):
    calls = make(venv, stage, "RUN=r", "ARGS=a=b")[1]
    assert calls == [f"python scripts/{stage}.py data=phantom run=r a=b"]


def test_evaluate_on_names_other_data_and_the_run(venv):
    assert make(venv, "evaluate_on", "DATA=seed", "DATA_ROOT=x", "RUN=cxr4/patient")[1] == [
        "python scripts/evaluate_on.py data=seed run=cxr4/patient data.root=x"
    ]


def test_the_lung_finder_is_trained_from_weights_of_its_own(venv):
    assert make(venv, "lungs", "DATA=cxr4", "PRETRAINED=w", "ARGS=seed=1")[1] == [
        "python scripts/lungs.py data=cxr4 run=default finder.pretrained=w seed=1"
    ]


def test_cross_validation_trains_each_member_and_names_all(venv):
    assert make(venv, "cv", "FOLDS=3", "DATA=cxr4", "DATA_ROOT=x", "PRETRAINED=w")[1] == [
        "python scripts/cv.py data=cxr4 run=default data.root=x folds=3 "
        f"members=[mobilenetv2,inceptionv3] model={member} model.pretrained=w"
        for member in ("mobilenetv2", "inceptionv3")
    ]
    calls = make(venv, "cv", "MEMBERS=mobilenetv2", "ARGS=seed=1")[1][2:]
    assert calls == [
        "python scripts/cv.py data=phantom run=default folds=5 members=[mobilenetv2] "
        "model=mobilenetv2 seed=1"
    ]


def test_an_experiment_has_its_data_and_run_unless_said_otherwise(venv):
    assert make(venv, "experiment", "NAME=leak", "DATA_ROOT=x", "PRETRAINED=w")[1] == [
        "python -m experiments.leak data=seed run=leak data.root=x model.pretrained=w"
    ]
    assert make(venv, "experiment", "NAME=leak", "DATA=folder", "RUN=r")[1][1:] == [
        "python -m experiments.leak data=folder run=r"
    ]
    assert make(venv, "experiment", "NAME=published")[1][2:] == [
        "python -m experiments.published data=cxr4 run=published"
    ]


@pytest.mark.parametrize("words", [(), ("NAME=lack",)])
def test_an_experiment_that_is_not_there(venv, words):
    status, calls, said = make(venv, "experiment", *words)
    assert (status, calls) == (2, [])
    assert "leak, published and mitigation are" in said


def test_prepare_and_download(venv):
    assert make(venv, "prepare", "DATA=folder", "DATA_ROOT=x")[1] == [
        "python scripts/prepare.py data=folder run=default data.root=x"
    ]
    assert make(venv, "download", "DATA=cxr4", "DATA_ROOT=x")[1][1:] == [
        "python scripts/download.py data=cxr4 data.root=x"
    ]


@pytest.mark.parametrize(
    ("old", "new", "call"),
    [
        ("data", "download", "scripts/download.py data=cxr4 data.root=x"),
        ("evaluate-on", "evaluate_on", "scripts/evaluate_on.py data=cxr4 run=default data.root=x"),
    ],
)
def test_former_names_do_the_same_and_name_the_new(venv, old, new, call):
    status, calls, said = make(venv, old, "DATA=cxr4", "DATA_ROOT=x")
    assert (status, calls) == (0, [f"python {call}"])
    assert f"make {old} is now called make {new}" in said


def test_the_application_exports_its_bundle_first_where_there_is_none(venv, tmp_path):
    serve = f"python scripts/app.py {tmp_path}/bundle --data outputs/app --port 5000"
    export = "python scripts/export.py data=phantom run=r"
    assert make(venv, "app", "RUN=r", f"BUNDLE={tmp_path}/bundle")[1] == [export, serve]
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bundle.json").touch()
    assert make(venv, "app", "RUN=r", f"BUNDLE={tmp_path}/bundle")[1][2:] == [serve]


def test_an_account_needs_a_name(venv):
    assert make(venv, "account")[0] == 2
    assert make(venv, "account", "NAME=ann")[1] == ["flask --app cxr.serve users add ann"]


def test_tests_and_lint(venv):
    assert make(venv, "test", "ARGS=-x")[1] == ["python -m pytest -m not long -x"]
    assert make(venv, "test-long")[1][-1] == "python -m pytest -m long"
    assert make(venv, "lint")[1][-3:] == ["ruff check .", "ruff format --check .", "mypy "]


def test_a_member_that_fails_stops_the_rest(venv):
    status, calls, _ = make(venv, "train", fail=2)
    assert status == 2
    assert len(calls) == 1


def test_nothing_is_installed_again(venv):
    assert "installing" not in make(venv, "install")[2]


def test_changed_requirements_are_installed(venv):
    os.utime(venv / ".train", (1, 1))
    status, calls, said = make(venv, "-n", "install")
    assert status == 0
    assert calls == []
    assert "pip install" in said
