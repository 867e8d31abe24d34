"""Fixtures that many tests share: the real data, and one tiny run on the phantom."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from cxr.pipeline.config import compose

# Figures and training need no more than this, and tests run beside each other.
os.environ.setdefault("OMP_NUM_THREADS", "2")

SHARED = Path(__file__).resolve().parents[2] / "shared"

TINY = (
    "data=phantom",
    "data.size=64",
    "data.phantom.size_px=64",
    "data.phantom.patients_per_class=8",
    "data.phantom.images_per_patient=[2,2]",
)
"""Overrides that make a phantom of 64 images; the rest is the real configuration."""


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder with the real X-rays and weights, or skip."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real X-rays (../shared/data) are not beside the project")
    return SHARED


@dataclass(frozen=True)
class TinyRun:
    """A run on the phantom with two members, trained for two epochs, and evaluated."""

    output_root: Path
    data: str = "phantom"
    run: str = "tiny"

    @property
    def folder(self) -> Path:
        return self.output_root / self.data / self.run

    def where(self) -> list[str]:
        """Overrides that name this run."""
        return [f"data={self.data}", f"run={self.run}", f"output_root={self.output_root}"]

    def train(self, *extra: str) -> list[str]:
        """Overrides that train a member of this run."""
        return train_overrides(self.output_root, *extra)


def train_overrides(output_root: Path, *extra: str) -> list[str]:
    """Overrides that train a member on the tiny phantom within seconds."""
    return [
        *TINY,
        f"output_root={output_root}",
        "run=tiny",
        "model.input_size=96",
        "trainer.max_epochs=2",
        "trainer.batch_size=8",
        "trainer.progress=false",
        "trainer.precision=32",  # bits are compared, and auto is decided by the clock
        *extra,
    ]


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """Drive prepare, train, ensemble and evaluate once, as the scripts do."""
    from cxr.pipeline.ensemble_stage import ensemble_stage
    from cxr.pipeline.evaluate_stage import evaluate_stage
    from cxr.pipeline.train_stage import train_stage

    run = TinyRun(tmp_path_factory.mktemp("outputs"))
    for model in ("mobilenetv2", "inceptionv3"):
        train_stage(compose("train", train_overrides(run.output_root, f"model={model}")))
    ensemble_stage(compose("ensemble", run.where()))
    evaluate_stage(compose("evaluate", [*run.where(), "resamples=50"]))
    return run


@pytest.fixture
def own_run(tiny_run: TinyRun, tmp_path: Path) -> TinyRun:
    """Return a copy of the run that a test may change; what it was made of is shared."""
    data = tmp_path / "outputs" / tiny_run.data
    data.mkdir(parents=True)
    for folder in (tiny_run.output_root / tiny_run.data).iterdir():
        if folder.name != tiny_run.run:
            (data / folder.name).symlink_to(folder.resolve())
    shutil.copytree(tiny_run.folder, data / tiny_run.run)
    return TinyRun(tmp_path / "outputs")
