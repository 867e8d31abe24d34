"""The model's page: what answers here, what it was measured on, what it is not for."""

from typing import Any

from flask import Blueprint, render_template
from flask.typing import ResponseReturnValue

from cxr.bundle.format import promise_words, set_coverage
from cxr.reliability.conformal import thresholds_of
from cxr.serve.phrases import coverage_words
from cxr.serve.serving import serving
from cxr.serve.watched_bundle import Busy

blueprint = Blueprint("model", __name__)

METRICS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "F1, mean of the classes",
    "macro_auroc": "AUROC, mean of the classes",
}
"""Metric of the bundle's test part to what it is called."""


@blueprint.get("/model")
def model() -> ResponseReturnValue:
    """Show the model."""
    try:
        predictor = serving().queue.loaded_predictor()
    except Busy as error:
        return render_template("model.html", fault=str(error), info=None), 503
    test = predictor.info.get("test")
    metrics = test.get("ensemble", {}) if isinstance(test, dict) else {}
    return render_template(
        "model.html",
        info=predictor.info,
        predictor=predictor,
        test=test,
        rows=_rows(metrics),
        classes=_classes(metrics, predictor.labels, test),
        sets=_sets(predictor.info, serving().settings.level),
        level=serving().settings.level,
    )


def _rows(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    return [(words, _interval(metrics[key])) for key, words in METRICS.items() if key in metrics]


def _classes(
    metrics: dict[str, Any], labels: tuple[str, ...], test: Any
) -> list[tuple[str, str, str, str]]:
    per_class = metrics.get("per_class", {})
    patients = test.get("patients", {}) if isinstance(test, dict) else {}
    return [
        (
            label,
            str(patients.get(label, "not counted")),
            _interval(per_class[label]["sensitivity"]),
            _interval(per_class[label]["specificity"]),
        )
        for label in labels
        if label in per_class
    ]


def _sets(info: dict[str, Any], level: float) -> list[tuple[str, str, str]]:
    """Return each class, what its sets cover on test, and whether that is what is promised."""
    limits = thresholds_of(info["uncertainty"], level) if "uncertainty" in info else ()
    shares = set_coverage(info, level)
    return [
        (
            label,
            coverage_words(shares[label]) if label in shares else "not measured",
            "in every set: too few patients"
            if limit is None
            else promise_words(shares[label], level)
            if label in shares
            else "",
        )
        for label, limit in zip(info["labels"], limits, strict=False)
    ]


def _interval(entry: Any) -> str:
    """Return a metric with its interval; what is undefined is said to be."""
    values = [entry.get(key) for key in ("value", "low", "high")]
    if any(value is None or value != value for value in values):
        return "undefined"
    return "{:.3f} ({:.3f} to {:.3f})".format(*values)
