"""A bundle being written, run over validation and test: gates that need whole splits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.bundle.compare import check_classes, check_metrics, tie_slack
from cxr.bundle.format import MODEL_FILE
from cxr.bundle.runtimes import Arrays, Runtime, open_runtime, run_images
from cxr.console import images_bar, log
from cxr.data.prepared import Prepared
from cxr.evaluation.evaluate import evaluate, fully_known, read_predictions
from cxr.evaluation.metrics import OVERALL
from cxr.files import read_json
from cxr.labels import label_indices
from cxr.lungs.find import Lungs, find_lungs
from cxr.models.ensemble import EQUAL, MIN_PROB, WEIGHTED, Ensemble, all_probs, pool_probs
from cxr.pipeline.fit_uncertainty import validation_predictions
from cxr.reliability.ood import OodReference

PROBS = ("probs", "member_probs")
NOT_EVALUATED = "not evaluated (scripts/evaluate.py)"


@dataclass(frozen=True)
class Exported:
    """A bundle that is being written.

    Attributes:
        folder: of the run.
        fresh: of the bundle.
        prepared: the run's prepared set.
        ensemble: pool, temperatures, weights, labels.
        threads: processor threads; 0 takes every processor.
    """

    folder: Path
    fresh: Path
    prepared: Prepared
    ensemble: Ensemble
    threads: int

    def runtime(self) -> Runtime:
        """Load its graph."""
        return open_runtime(self.fresh / MODEL_FILE, threads=self.threads)

    def features_of(self, image_batch: NDArray[np.uint8], runtime: Runtime) -> Arrays:
        """Return each member's features (n, C) of (n, S, S) images."""
        names = {f"features_{name}": name for name in self.ensemble.members}
        arrays = runtime.run(image_batch[:, None], list(names))
        return {names[key]: values for key, values in arrays.items()}

    def run(self, images: Sequence[str], title: str) -> Arrays:
        """Return ``PROBS`` of images through the graph, with a bar."""
        position = pd.Series(np.arange(len(self.prepared.table)), self.prepared.table["image"])
        rows = np.asarray(position.loc[list(images)], np.int64)
        with images_bar(title, len(rows)) as done:
            return run_images(self.runtime(), self.prepared.pixels, rows, PROBS, on_image=done)


def lungs_of(prepared: Prepared, rows: NDArray[np.int64]) -> list[Lungs]:
    """Return the lungs of rows (N,) of a prepared set, as its preparation found them or anew."""
    known = ((row, prepared.lungs(row)) for row in rows.tolist())
    return [found or find_lungs(np.asarray(prepared.pixels[row])) for row, found in known]


def seen_by(
    reference: OodReference, pixels: NDArray[np.uint8], arrays: Arrays, lungs: Sequence[Lungs]
) -> dict[str, NDArray[np.float64]]:
    """Return the quantities that are watched for drift, (N,) each, of images of a prepared set.

    Args:
        reference: tests for strange images.
        pixels: (N, S, S) uint8.
        arrays: ``probs`` and each member's features.
        lungs: of each image.
    """
    features = {name: arrays[f"features_{name}"] for name in reference.subspaces}
    checks = reference.check(pixels, features, lungs=lungs)
    refused = np.array([bool(refusals) for _, refusals in checks])
    return {
        "score": np.array([score for score, _ in checks]),
        "confidence": np.where(refused, np.nan, arrays["probs"].max(axis=1)),
        "refused": refused.astype(np.float64),
    }


def read_metrics(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """Return a run's test metrics; None where it was not evaluated on its present data."""
    path = folder / "evaluation" / "metrics.json"
    if not path.exists():
        return None
    metrics: dict[str, Any] = read_json(path, hint="evaluate again (scripts/evaluate.py)")
    return metrics if metrics.get("fingerprint", fingerprint) == fingerprint else None


def read_set_coverage(folder: Path, uncertainty: dict[str, Any]) -> dict[str, Any] | str:
    """Return what the sets per class, which the bundle serves, cover on test.

    Args:
        folder: of a run that was evaluated.
        uncertainty: content of uncertainty.json.

    Returns:
        Per level ``coverage``, ``size`` and ``per_class`` with intervals; or why there is none.
    """
    path = folder / "evaluation" / "calibration.json"
    if not path.exists():
        return NOT_EVALUATED
    levels = read_json(path, hint="evaluate again (scripts/evaluate.py)")["prediction_sets"]
    served = {
        name: level["per_class"] for name, level in uncertainty["conformal"]["levels"].items()
    }
    measured = {name: kinds["per_class"] for name, kinds in levels.items()}
    if served != {name: kinds["thresholds"] for name, kinds in measured.items()}:
        return "evaluated with other thresholds (scripts/evaluate.py)"
    return {
        name: {key: kinds[key] for key in ("coverage", "size", "per_class")}
        for name, kinds in measured.items()
    }


def check_splits(exported: Exported, metrics: dict[str, Any] | None) -> dict[str, Any]:
    """Run the graph over validation, and test where that was opened, and compare.

    Args:
        exported: with its graph written.
        metrics: of ``read_metrics``; without them the test split stays shut.

    Returns:
        What to keep of the comparisons in ``bundle.json``.

    Raises:
        GateError: another class on an image, or another metric.
    """
    ensemble = exported.ensemble
    aligned = validation_predictions(exported.folder, ensemble.members, ensemble.labels)
    images = list(aligned.images)
    trained = all_probs(aligned.logits, ensemble)[WEIGHTED]
    val = exported.run(images, "validation images, exported")["probs"]
    gates: dict[str, Any] = {"val": check_classes(val, trained, images, "validation")}
    if metrics is None:
        log.info("the run is not evaluated: the graph was checked on validation alone")
        return gates | {"test": NOT_EVALUATED}
    table = read_predictions(exported.folder / "evaluation" / "predictions.csv")
    test = exported.run(table["image"].tolist(), "test images, exported")
    trained = table[[f"prob_{WEIGHTED}_{label}" for label in ensemble.labels]].to_numpy(np.float64)
    gates["test"] = check_classes(test["probs"], trained, table["image"].tolist(), "test")
    gates["test"]["metrics"] = check_metrics(
        values_of(evaluate_arrays(exported, table, test, metrics)),
        values_of(metrics),
        _slack(table, ensemble),
    )
    log.info(
        "the graph gives the same class on all %d validation and %d test images, and the same "
        "metrics as scripts/evaluate.py",
        len(images),
        len(table),
    )
    return gates


def evaluate_arrays(
    exported: Exported, predictions: pd.DataFrame, arrays: Arrays, metrics: dict[str, Any]
) -> dict[str, Any]:
    """Evaluate a graph's probabilities in place of those of the predictions table."""
    ensemble = exported.ensemble
    each = np.asarray(arrays["member_probs"], np.float64)
    tables = {name: each[:, place] for place, name in enumerate(ensemble.members)}
    log_probs = np.log(np.maximum(each, MIN_PROB)).swapaxes(0, 1)
    tables |= {
        EQUAL: pool_probs(log_probs, ensemble, EQUAL),
        WEIGHTED: np.asarray(arrays["probs"], np.float64),
    }
    columns = {
        f"prob_{name}_{label}": values[:, place] / values.sum(axis=1)
        for name, values in tables.items()
        for place, label in enumerate(ensemble.labels)
    }
    return evaluate(
        predictions.assign(**columns),
        labels=ensemble.labels,
        members=ensemble.members,
        best_member=metrics["best_member"],
        note=metrics["note"],
    )


def _slack(table: pd.DataFrame, ensemble: Ensemble) -> dict[str, dict[str, float]]:
    """Return per model what ties among PyTorch's probabilities explain."""
    table = fully_known(table)
    targets = np.asarray(label_indices(table["label"], ensemble.labels), np.int64)
    slack = {
        model: tie_slack(
            table[[f"prob_{model}_{label}" for label in ensemble.labels]].to_numpy(np.float64),
            targets,
            ensemble.labels,
        )
        for model in (*ensemble.members, EQUAL, WEIGHTED)
    }
    # "equal" is made of the members' probabilities, of which float32 may hold none.
    if any("nll" in slack[name] for name in ensemble.members):
        slack[EQUAL]["nll"] = np.inf
    return slack


def values_of(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return per model every overall and per-class metric's value, under one name each."""
    values: dict[str, dict[str, Any]] = {}
    for model, scores in metrics["models"].items():
        values[model] = {key: scores[key]["value"] for key in OVERALL}
        values[model] |= {
            f"{metric} for {label}": entry["value"]
            for label, metrics_of in scores["per_class"].items()
            for metric, entry in metrics_of.items()
        }
    return values
