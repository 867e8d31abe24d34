"""A trained run measured on another data set, also one that has only some of the classes."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from cxr.console import log, print_table
from cxr.data.prepared import Prepared
from cxr.errors import InputError
from cxr.evaluation.adults import measure_adults
from cxr.evaluation.tables import show_interval, summary_table
from cxr.models.ensemble import WEIGHTED
from cxr.pipeline.config import EvaluateOnConfig
from cxr.pipeline.evaluate_stage import measure_run, write_evaluation
from cxr.pipeline.prepare_stage import overlap_of, prepare_whole
from cxr.pipeline.report_stage import write_report
from cxr.pipeline.run_folder import RESEARCH, SYNTHETIC, named_run
from cxr.pipeline.trained_run import TrainedRun
from cxr.training.thread_count import THREADS

FITTED = ("train", "val")
"""Splits of the run that its weights or its thresholds come from."""


def evaluate_on_stage(config: EvaluateOnConfig) -> dict[str, Any]:
    """Measure a run on all images of another data set that it was not trained on.

    Everything goes to ``outputs/<run's data>/<run>/evaluated_on/<data>/``; its ``metrics.json`` is
    returned.

    Raises:
        InputError: no such run, no image of a class that it knows, or none that it was not
            trained on.
    """
    THREADS.fix(config.threads)
    run = TrainedRun(named_run(config))
    _ = run.ensemble, run.uncertainty  # refused, where they are, before anything is decoded
    spec = run.prepared.spec
    measured, unknown = prepare_whole(config, spec, run.labels)
    seen, tested = _matches(measured, run.prepared)
    rows = np.setdiff1d(np.arange(len(measured.table)), [image["row"] for image in seen])
    if not len(rows):
        raise InputError(
            f"all {len(measured.table)} images of data={config.data.name} are images that the run "
            "was trained on: measure it on other data"
        )
    out = run.folder / "evaluated_on" / config.data.name
    before = run.read(f"evaluated_on/{config.data.name}/metrics.json")
    if before and before["measured_on"]["fingerprint"] != measured.info["fingerprint"]:
        log.warning(
            "the results on other images called %s are replaced; data.name=NAME keeps both",
            config.data.name,
        )
    predictions = run.predict(measured, rows, batch_size=config.batch_size)
    synthetic = bool(run.info["synthetic"] or measured.info.get("synthetic"))
    note = f"{run.info['data']}/{run.info['run']} on {config.data.name} · {RESEARCH}"
    note = f"{SYNTHETIC} · {note}" if synthetic else note
    metrics, own = _measure(run, predictions, note=note, seed=config.seed), None
    if run.metrics is not None:
        scores = run.metrics["models"][WEIGHTED]
        own = {"n": run.metrics["n"]} | {key: scores[key] for key in ("accuracy", "macro_auroc")}
    metrics |= measure_adults(predictions, measured.table, synthetic=synthetic)
    metrics |= {
        "run": {key: run.info[key] for key in ("data", "run", "fingerprint")},
        "measured_on": {
            "data": config.data.name,
            "fingerprint": measured.info["fingerprint"],
            "counts": measured.info["counts"],
        },
        "left_out": {"unknown_classes": unknown, "trained_on": _count(seen), "images": seen},
        "in_own_test": _count(tested),
        "own_test": own,
        "synthetic": synthetic,
    }
    write_evaluation(run, predictions, metrics, out, config)
    _show(metrics)
    write_report(run)
    return metrics


def _matches(
    measured: Prepared, trained: Prepared
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the measured images that the run learnt from, and those that it was tested on.

    Each is named with its closest match; an image of both kinds is of the first.
    """
    table, found = trained.table, overlap_of(measured, trained)
    images: dict[int, dict[str, Any]] = {}
    for row, known, identical, value in zip(
        *found.pairs.T, found.identical, found.correlation, strict=True
    ):
        mine, there = measured.table.iloc[row], table.iloc[known]
        image = {
            "row": int(row),
            "image": mine["image"],
            "label": mine["label"],
            "copy_of": there["image"],
            "label_there": there["label"],
            "split": there["split"],
            "kind": "identical" if identical else "near",
            "correlation": round(float(value), 4),
        }
        best = images.setdefault(int(row), image)
        ways = [(one["split"] in FITTED, one["correlation"]) for one in (image, best)]
        if ways[0] > ways[1]:
            images[int(row)] = image
    learnt = [image for image in images.values() if image["split"] in FITTED]
    return learnt, [image for image in images.values() if image["split"] not in FITTED]


def _count(seen: list[dict[str, Any]]) -> dict[str, int]:
    kinds = Counter(image["kind"] for image in seen)
    other = sum(image["label"] != image["label_there"] for image in seen)
    counts = {"images": len(seen), "identical": kinds["identical"], "near": kinds["near"]}
    return counts | {"with_another_label": other}


def _measure(run: TrainedRun, predictions: pd.DataFrame, *, note: str, seed: int) -> dict[str, Any]:
    """Measure with every class in the running, and where some are absent among the present."""
    present = [name for name in run.labels if (predictions["label"] == name).any()]
    metrics = measure_run(run, predictions, note=note, seed=seed)
    metrics["absent"] = [name for name in run.labels if name not in present]
    if metrics["absent"] and len(present) > 1:
        metrics["present_alone"] = measure_run(
            run, predictions, note=note, seed=seed, classes=present
        )
    return metrics


def _show(metrics: dict[str, Any]) -> None:
    if absent := metrics["absent"]:
        log.info("%s: no image, so skipped; above, the run may still name it", ", ".join(absent))
    if part := metrics.get("present_alone"):
        print_table(f"{', '.join(part['labels'])} alone, renormalised", summary_table(part))
    left = metrics["left_out"]
    seen = left["trained_on"]
    log.info(
        "%d images are left out, since the run learnt from them: %d identical, %d near copies",
        *(seen[key] for key in ("images", "identical", "near")),
    )
    log.info(
        "%d of the images measured are of the run's own test split; that others show patients "
        "whom the run knows under another name cannot be seen from here",
        metrics["in_own_test"]["images"],
    )
    if own := metrics["own_test"]:
        log.info(
            "on its own test split (%d images) the ensemble has accuracy %s and macro AUROC %s",
            *(own["n"], show_interval(own["accuracy"]), show_interval(own["macro_auroc"])),
        )
