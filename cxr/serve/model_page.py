"""The model's page: what answers here, what it was measured on, what it is not for."""

from typing import Any

from flask import Blueprint, render_template
from flask.typing import ResponseReturnValue

from cxr.bundle.format import promise_words, set_coverage
from cxr.reliability.conformal import thresholds_of
from cxr.serve.phrases import coverage_words
from cxr.serve.queue import Busy, current_predictor
from cxr.serve.serving import serving

blueprint = Blueprint("model", __name__)

FIGURES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "F1, mean of the classes",
    "macro_auroc": "AUROC, mean of the classes",
}
"""Key in the bundle's test figures to what it is called."""


@blueprint.get("/model")
def model() -> ResponseReturnValue:
    """Show the model."""
    try:
        predictor = current_predictor()
    except Busy as error:
        return render_template("model.html", fault=str(error), info=None), 503
    test = predictor.info.get("test")
    figures = test.get("ensemble", {}) if isinstance(test, dict) else {}
    return render_template(
        "model.html",
        info=predictor.info,
        predictor=predictor,
        test=test,
        rows=_rows(figures),
        classes=_classes(figures, predictor.labels, test),
        sets=_sets(predictor.info, serving().settings.level),
        level=serving().settings.level,
    )


def _rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    return [(words, _interval(figures[key])) for key, words in FIGURES.items() if key in figures]


def _classes(
    figures: dict[str, Any], labels: tuple[str, ...], test: Any
) -> list[tuple[str, str, str, str]]:
    found = figures.get("per_class", {})
    patients = test.get("patients", {}) if isinstance(test, dict) else {}
    return [
        (
            label,
            str(patients.get(label, "not counted")),
            _interval(found[label]["sensitivity"]),
            _interval(found[label]["specificity"]),
        )
        for label in labels
        if label in found
    ]


def _sets(info: dict[str, Any], level: float) -> list[tuple[str, str, str]]:
    """Return each class, what its sets cover on test, and whether that is what is promised."""
    limits = thresholds_of(info["uncertainty"], level) if "uncertainty" in info else ()
    found = set_coverage(info, level)
    return [
        (
            label,
            coverage_words(found[label]) if label in found else "not measured",
            "in every set: too few patients"
            if limit is None
            else promise_words(found[label], level)
            if label in found
            else "",
        )
        for label, limit in zip(info["labels"], limits, strict=False)
    ]


def _interval(entry: Any) -> str:
    """Return a figure with its interval; what is undefined is said to be."""
    values = [entry.get(key) for key in ("value", "low", "high")]
    if any(value is None or value != value for value in values):
        return "undefined"
    return "{:.3f} ({:.3f} to {:.3f})".format(*values)
