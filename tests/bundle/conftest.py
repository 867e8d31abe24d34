"""One exported bundle of the tiny run; exporting takes a while."""

import shutil
from pathlib import Path

import pytest

from cxr.pipeline.config import compose
from cxr.pipeline.export_stage import export_stage


@pytest.fixture(scope="session")
def exported_run(tiny_run, tmp_path_factory):
    """Return a copy of the tiny run with its bundle."""
    root = tmp_path_factory.mktemp("exported") / "outputs"
    shutil.copytree(tiny_run.output_root, root)
    run = type(tiny_run)(root)
    export_stage(compose("export", [*run.where(), "threads=1"]))
    return run


@pytest.fixture(scope="session")
def tiny_bundle(exported_run) -> Path:
    """Return the bundle of the tiny run; not to be changed."""
    return exported_run.folder / "bundle"


@pytest.fixture
def changeable(tiny_bundle, tmp_path: Path) -> Path:
    """Return a copy of the bundle that a test may spoil."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
