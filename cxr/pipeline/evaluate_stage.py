"""Stage 4: open the test split, measure members and ensemble, draw the figures."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cxr.console import images_bar, log, print_table
from cxr.data.loader import rows_of
from cxr.data.manifest import patients_unknown
from cxr.data.prepared import Prepared
from cxr.errors import InputError
from cxr.evaluation.confidence import (
    certainty_table,
    measure_certainty,
    referral_sentences,
    sets_table,
)
from cxr.evaluation.confidence_plots import save_uncertainty_figures
from cxr.evaluation.evaluate import build_predictions, evaluate
from cxr.evaluation.metrics import PER_CLASS
from cxr.evaluation.plots import save_figures
from cxr.evaluation.tables import (
    INTERVALS,
    class_table,
    difference_sentences,
    difference_table,
    few_note,
    summary_table,
)
from cxr.files import atomic_write, environment, read_json, write_json
from cxr.models.build import load_member
from cxr.models.ensemble import Ensemble
from cxr.pipeline.config import EvaluateConfig
from cxr.pipeline.fit_uncertainty import read_uncertainty
from cxr.pipeline.report_stage import write_report
from cxr.pipeline.run_folder import command, find_run, load_ensemble, relative
from cxr.training.inference import predict_logits


def evaluate_stage(config: EvaluateConfig) -> dict[str, Any]:
    """Measure a run on its test split and write everything under ``evaluation/``.

    Returns:
        The content of ``metrics.json``.

    Raises:
        InputError: nothing trained, or nothing to test on.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    folder, info, prepared = find_run(config)
    fitted = load_ensemble(folder, config)
    ensemble = Ensemble.from_dict(fitted)
    rows = rows_of(prepared.table["split"].tolist(), "test")
    if not len(rows):
        raise InputError(
            "the prepared set has no test split (data.fractions gives it 0): prepare with a "
            "test share, or use a published one"
        )
    uncertainty = read_uncertainty(folder, ensemble, config)
    out = folder / "evaluation"
    opened = _count_opening(out / "test_openings.json", info["fingerprint"])
    logits = predict_rows(folder, ensemble, prepared, rows, config.batch_size)
    predictions = build_predictions(prepared.table.iloc[rows], logits, ensemble)
    with atomic_write(out / "predictions.csv") as file:
        file.write(predictions.to_csv(index=False, lineterminator="\n").encode())
    metrics = _measure(predictions, ensemble, fitted["best_member"], info["note"], config)
    if subset := _classes_with_published_test(prepared.table.iloc[rows], ensemble.labels):
        metrics["published_test"] = _measure(
            predictions[predictions["image"].isin(subset[1])],
            ensemble,
            fitted["best_member"],
            info["note"],
            config,
            classes=subset[0],
        )
    metrics |= {
        "test_opened": opened,
        "fingerprint": info["fingerprint"],
        "synthetic": info["synthetic"],
        "seed": config.seed,
        "split": prepared.info["settings"]["split"],
        "disjoint": prepared.info["disjoint"],
        "patients_unknown": patients_unknown(prepared.table),
        "environment": environment(),
    }
    write_json(out / "metrics.json", metrics)
    save_figures(predictions, metrics, out / "figures")
    certainty = write_certainty(
        predictions,
        ensemble,
        uncertainty,
        metrics,
        out,
        resamples=config.resamples,
        seed=config.seed,
    )
    _show(metrics)
    show_certainty(certainty)
    log.info("results: %s", relative(out))
    write_report(config)
    log.info("next: %s (Grad-CAM figures)", command("explain", config))
    return metrics


def _measure(
    predictions: pd.DataFrame,
    ensemble: Ensemble,
    best: str,
    note: str,
    config: EvaluateConfig,
    *,
    classes: list[str] | None = None,
) -> dict[str, Any]:
    return evaluate(
        predictions,
        labels=ensemble.labels,
        members=ensemble.members,
        best_member=best,
        seed=config.seed,
        note=note,
        classes=classes,
    )


def predict_rows(
    folder: Path, ensemble: Ensemble, prepared: Prepared, rows: NDArray[np.int64], batch_size: int
) -> dict[str, NDArray[np.float32]]:
    """Return the logits (N, K) of each member of a run for rows of a prepared set."""
    found = {}
    for name in ensemble.members:
        member = load_member(folder / "members" / name)
        with images_bar(f"test images, {name}", len(rows)) as done:
            found[name] = predict_logits(
                member, prepared.pixels, rows, batch_size=batch_size, on_image=done
            )
    return found


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
    whole = table[table["label"].isin(classes)]
    if len(whole) != len(published):
        return None
    return classes, published["image"].tolist()


def _count_opening(path: Path, fingerprint: str) -> int:
    """Record that the test split is opened, and return how often it was, this time included."""
    before = read_json(path, mend="restore it") if path.exists() else []
    now = environment()
    before.append(
        {key: now[key] for key in ("time_utc", "command", "git_commit")}
        | {"fingerprint": fingerprint}
    )
    write_json(path, before)
    return len(before)


def _show(metrics: dict[str, Any]) -> None:
    images = f"{metrics['n']} images of {metrics['n_groups']} patients or groups"
    print_table(f"Test, {images} · {metrics['note']}", summary_table(metrics))
    print_table("Paired differences on the same images", difference_table(metrics))
    for columns in (PER_CLASS[:4], PER_CLASS[4:]):
        print_table("Ensemble, each class against the rest", class_table(metrics, columns=columns))
    if few := few_note(metrics["patients"]):
        log.info("%s", few)
    if part := metrics.get("published_test"):
        title = f"{', '.join(part['labels'])} alone, {part['n']} images, renormalised"
        print_table(title, summary_table(part))
    for sentence in difference_sentences(metrics):
        log.info("%s", sentence)
    log.info(
        "%s. The test split was opened %d time(s) for this run.", INTERVALS, metrics["test_opened"]
    )
    if metrics["patients_unknown"]:
        log.warning("%s", metrics["patients_unknown"])
    if crossing := metrics["disjoint"]["crossing_groups"]:
        log.info(
            "%d groups lie on both sides of the published split (%d of its test images): these "
            "figures are not those of unseen patients.",
            crossing,
            metrics["disjoint"]["test_images_in_crossing_groups"],
        )


def write_certainty(
    predictions: pd.DataFrame,
    ensemble: Ensemble,
    uncertainty: dict[str, Any],
    metrics: dict[str, Any],
    out: Path,
    *,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Measure certainty, write ``calibration.json`` and its figures beside ``metrics.json``.

    Returns:
        The content of ``calibration.json``.
    """
    certainty = measure_certainty(
        predictions,
        ensemble=ensemble,
        uncertainty=uncertainty,
        note=metrics["note"],
        resamples=resamples,
        seed=seed,
    )
    head = ("fingerprint", "synthetic", "test_opened", "environment")
    certainty |= {key: metrics[key] for key in head if key in metrics}
    write_json(out / "calibration.json", certainty)
    save_uncertainty_figures(predictions, certainty, ensemble, out / "figures")
    return certainty


def show_certainty(certainty: dict[str, Any]) -> None:
    """Print calibration, prediction sets and referral."""
    print_table(f"Calibration · {certainty['note']}", certainty_table(certainty))
    print_table("Prediction sets of the ensemble, coverage and size", sets_table(certainty))
    for sentence in referral_sentences(certainty):
        log.info("%s", sentence)
