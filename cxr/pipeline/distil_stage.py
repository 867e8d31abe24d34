"""One member that learns from a run's ensemble, as a run of its own: the student."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from cxr.console import log
from cxr.errors import InputError
from cxr.models.ensemble import WEIGHTED
from cxr.pipeline.config import DistilConfig, EnsembleConfig, RunConfig
from cxr.pipeline.ensemble_stage import ensemble_stage
from cxr.pipeline.run_folder import open_run
from cxr.pipeline.train_stage import Teaching, check_name, train_member
from cxr.pipeline.trained_run import TrainedRun
from cxr.training.teacher import teacher_of

SUFFIX = "-student"
"""Of the student's run, behind its teacher's name."""


def distil_stage(config: DistilConfig) -> Path:
    """Train a student on its teacher's images and splits, and fit its temperature and sets.

    Evaluation, audit, explanation and export take the student's run as any other.

    Raises:
        InputError: there is no such run, its ensemble is not fitted, it is a student itself, or
            the command line asks for other data than it was trained on.
    """
    check_name(config)
    if config.run.endswith(SUFFIX):
        raise InputError(
            f"run is {config.run!r}, a student itself: give the run whose ensemble it learned from"
        )
    teacher = TrainedRun(
        RunConfig(config.data, config.run, config.output_root, overrides=config.overrides)
    )
    teaching = Teaching(
        teacher_of(teacher.members, teacher.ensemble), config.teacher, config.run, teacher.state
    )
    student = replace(config, run=config.run + SUFFIX)
    known = {"data_config": teacher.info["data_config"], "teacher": teaching.to_dict()}
    folder = open_run(student, teacher.prepared, known=known)
    train_member(student, teacher.prepared, folder, teaching=teaching)
    own = EnsembleConfig(config.data, student.run, config.output_root, members=[config.model.name])
    _compare(teacher.fitted["validation"], ensemble_stage(own)["validation"])
    return folder


def _compare(teacher: dict[str, Any], student: dict[str, Any]) -> None:
    """Say what both are worth on validation, where both were fitted."""
    parts = [
        f"{key} {student[WEIGHTED][key]:.3f}, its teacher's {teacher[WEIGHTED][key]:.3f}"
        for key in ("accuracy", "macro_auroc")
    ]
    log.info("the student's validation %s", "; ".join(parts))
