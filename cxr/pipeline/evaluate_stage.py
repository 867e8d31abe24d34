"""Stage 4: open the test split, measure members and ensemble, draw the plots."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr.console import log, print_table
from cxr.data.loader import rows_of
from cxr.data.manifest import patients_unknown
from cxr.errors import InputError
from cxr.evaluation import tables
from cxr.evaluation.adults import adult_rows, measure_adults
from cxr.evaluation.confidence import (
    calibration_table,
    measure_confidence,
    referral_sentences,
    sets_table,
)
from cxr.evaluation.confidence_plots import save_plots
from cxr.evaluation.evaluate import columns_of, evaluate, fully_known, read_predictions
from cxr.evaluation.summary import compare
from cxr.files import digest, digest_of, environment, read_json, write_csv, write_json
from cxr.labels import label_indices
from cxr.models.ensemble import WEIGHTED
from cxr.pipeline.config import EvaluateConfig, EvaluateOnConfig
from cxr.pipeline.report_stage import write_report
from cxr.pipeline.run_folder import relative
from cxr.pipeline.trained_run import PREDICTIONS, TrainedRun
from cxr.training.thread_count import THREADS


def evaluate_stage(config: EvaluateConfig) -> dict[str, Any]:
    """Measure a run on its test split and write everything under ``evaluation/``.

    Returns:
        The content of ``metrics.json``.

    Raises:
        InputError: nothing trained, nothing to test on, or data settings that are not the run's.
    """
    THREADS.fix(config.threads)
    run = TrainedRun(config)
    rows = rows_of(run.prepared.table["split"].tolist(), "test")
    if not len(rows):
        raise InputError(
            "the prepared set has no test split (data.fractions gives it 0): prepare with a "
            "test share, or use a published one"
        )
    _ = run.ensemble, run.uncertainty  # refused, where they are, before the test split is opened
    out = run.folder / "evaluation"
    opened = _count_opening(out / "test_openings.json", run.info["fingerprint"])
    predictions = run.open_test(rows, batch_size=config.batch_size)
    given: dict[str, Any] = {"note": run.note, "seed": config.seed}
    metrics = measure_run(run, predictions, **given)
    table, info = run.prepared.table, run.prepared.info
    if subset := _classes_with_published_test(table.iloc[rows], run.labels):
        classes, images = subset
        part = predictions[predictions["image"].isin(images)]
        metrics["published_test"] = measure_run(run, part, classes=classes, **given)
    metrics |= measure_adults(predictions, table, synthetic=run.info["synthetic"])
    metrics |= {
        "test_opened": opened,
        "fingerprint": run.info["fingerprint"],
        "synthetic": run.info["synthetic"],
        "seed": config.seed,
        "split": info["settings"]["split"],
        "disjoint": info["disjoint"],
        "patients_unknown": patients_unknown(table),
    }
    if compared := against_teacher(run, predictions, seed=config.seed):
        metrics["less_teacher"] = compared
    write_evaluation(run, predictions, metrics, out, config)
    log.info("%s. The test split was opened %d time(s) for this run.", tables.INTERVALS, opened)
    if metrics["patients_unknown"]:
        log.warning("%s", metrics["patients_unknown"])
    if crossing := metrics["disjoint"]["crossing_groups"]:
        log.info(
            "%d groups lie on both sides of the published split (%d of its test images): these "
            "statistics are not those of unseen patients.",
            crossing,
            metrics["disjoint"]["test_images_in_crossing_groups"],
        )
    write_report(run)
    log.info("next: %s (Grad-CAM)", run.command("explain"))
    return metrics


def against_teacher(
    run: TrainedRun, predictions: pd.DataFrame, *, seed: int
) -> dict[str, Any] | None:
    """Set a student against its teacher on the same test images, and say it.

    Returns:
        Student less teacher, see ``compare``; None for what has no teacher, or one that was not
        evaluated on these images with the weights that taught.
    """
    if not (teacher := run.info.get("teacher")):
        return None
    path = run.folder.with_name(teacher["run"]) / PREDICTIONS
    of, hint = path.with_name("metrics.json"), f"evaluate {teacher['run']} again"
    if (
        not of.exists()
        or read_json(of, hint=hint).get("state", teacher["state"]) != teacher["state"]
    ):
        log.info("the teacher, run %s, was not evaluated as it taught: %s", teacher["run"], hint)
        return None
    table, known = read_predictions(path).set_index("image"), fully_known(predictions)
    if not set(known["image"]) <= set(table.index):
        log.info("its teacher %s was not evaluated on these images, so nothing is compared", path)
        return None
    student, other = (
        columns_of(part, "prob", WEIGHTED, run.labels)
        for part in (known, table.loc[known["image"]])
    )
    targets, groups = label_indices(known["label"], run.labels), known["group"].to_numpy(str)
    found = compare(targets, student, other, groups, rng=np.random.default_rng(seed))
    log.info(
        "student less teacher (%s), paired by patient: accuracy %s, macro AUROC %s",
        teacher["run"],
        *(tables.show_interval(found[key]) for key in ("accuracy", "macro_auroc")),
    )
    return found


def measure_run(
    run: TrainedRun,
    predictions: pd.DataFrame,
    *,
    note: str,
    seed: int,
    classes: list[str] | None = None,
) -> dict[str, Any]:
    """Measure members and ensemble of a run on a predictions table; see ``evaluate``."""
    return evaluate(
        predictions,
        labels=run.labels,
        members=run.ensemble.members,
        best_member=run.fitted["best_member"],
        seed=seed,
        note=note,
        classes=classes,
    )


def write_evaluation(
    run: TrainedRun,
    predictions: pd.DataFrame,
    metrics: dict[str, Any],
    out: Path,
    config: EvaluateConfig | EvaluateOnConfig,
) -> None:
    """Write predictions, metrics, calibration and plots of one set of images, and show tables.

    ``metrics``, what ``measure_run`` gave and what else is known, gets what it speaks of.
    """
    path = out / "predictions.csv"
    write_csv(path, predictions)
    metrics |= {
        "state": run.state,
        "predictions": digest(path.read_bytes()),
        "environment": environment(),
    }
    write_json(out / "metrics.json", metrics)
    known = fully_known(predictions)
    confidence = measure_confidence(
        known,
        ensemble=run.ensemble,
        uncertainty=run.uncertainty,
        note=metrics["note"],
        resamples=config.resamples,
        seed=config.seed,
    )
    head = ("fingerprint", "synthetic", "test_opened", "state", "predictions", "environment")
    confidence |= {key: metrics[key] for key in head if key in metrics}
    confidence["uncertainty"] = digest_of(run.uncertainty)
    write_json(out / "calibration.json", confidence)
    save_plots(known, metrics, confidence, out / "figures")
    _show(metrics, confidence)
    log.info("results: %s", relative(out))


def _show(metrics: dict[str, Any], confidence: dict[str, Any]) -> None:
    """Print metrics, differences, calibration, prediction sets and referral."""
    images = f"{metrics['n']} images of {metrics['n_groups']} patients or groups"
    print_table(f"Test, {images} · {metrics['note']}", tables.summary_table(metrics))
    print_table("Paired differences on the same images", tables.difference_table(metrics))
    for rows in tables.class_tables(metrics):
        rows = [row for row in rows if metrics["counts"][row["class"]]]
        print_table("Ensemble, each class against the rest", rows)
    if own := metrics.get("published_test"):
        title = f"{', '.join(own['labels'])} alone, {own['n']} images, renormalised"
        print_table(title, tables.summary_table(own))
    for text in (tables.few_note(metrics["patients"]), tables.partly_known_note(metrics)):
        if text:
            log.info("%s", text)
    if adults := metrics.get("adults"):
        print_table("Covid against normal among adults", adult_rows(adults, "model"))
    for stage in ("before", "after"):
        title = f"Calibration {stage} temperature · {confidence['note']}"
        print_table(title, calibration_table(confidence, stage))
    print_table("Prediction sets of the ensemble, coverage and size", sets_table(confidence))
    for sentence in (*tables.difference_sentences(metrics), *referral_sentences(confidence)):
        log.info("%s", sentence)


def _classes_with_published_test(
    table: pd.DataFrame, labels: tuple[str, ...]
) -> tuple[list[str], list[str]] | None:
    """Return classes and images of a published test split that lacks some of the classes.

    Only its own images can be set beside what others published on it.
    """
    published = table[table["published_split"] == "test"]
    classes = [label for label in labels if (published["label"] == label).any()]
    if not 1 < len(classes) < len(labels):
        return None
    if len(published) != table["label"].isin(classes).sum():
        return None
    return classes, published["image"].tolist()


def _count_opening(path: Path, fingerprint: str) -> int:
    """Record that the test split is opened, and return how often it was, this time included."""
    openings = read_json(path, hint="restore it") if path.exists() else []
    now = environment()
    opening = {key: now[key] for key in ("time_utc", "command", "git_commit")}
    openings.append(opening | {"fingerprint": fingerprint})
    write_json(path, openings)
    return len(openings)
