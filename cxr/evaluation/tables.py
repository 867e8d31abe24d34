"""The metrics as plain rows for a terminal, a README or a report."""

from collections.abc import Mapping, Sequence
from typing import Any

from cxr.evaluation.metrics import PER_CLASS
from cxr.training.ensemble import WEIGHTED

OVERALL_SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "nll")
NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "macro_auroc": "macro AUROC",
    "nll": "NLL",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
    "auroc": "AUROC",
    "average_precision": "average precision",
}
"""How metrics are written out; the others as they are."""

Row = dict[str, str]
"""Column head to cell; every row of a table has the same heads."""


def show_interval(found: Mapping[str, float | None], *, digits: int = 3) -> str:
    """Write ``0.841 [0.820, 0.861]``; undefined is ``n/a``, be it NaN or JSON's null."""
    numbers = [found[key] for key in ("value", "low", "high")]
    shown = ["n/a" if x is None or x != x else f"{x:.{digits}f}" for x in numbers]
    return shown[0] if shown[0] == "n/a" else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def summary_table(metrics: Mapping[str, Any], columns: Sequence[str] = OVERALL_SHOWN) -> list[Row]:
    """Return a row per model with the overall metrics and their intervals.

    Args:
        metrics: the content of metrics.json.
        columns: overall metrics in the order shown.
    """
    return [
        {"model": name} | {NAMES.get(key, key): show_interval(scores[key]) for key in columns}
        for name, scores in metrics["models"].items()
    ]


def class_table(
    metrics: Mapping[str, Any], model: str = WEIGHTED, columns: Sequence[str] = PER_CLASS
) -> list[Row]:
    """Return a row per class with one model's metrics and their intervals.

    Args:
        metrics: the content of metrics.json.
        model: a member, "equal" or "ensemble".
        columns: per-class metrics in the order shown.
    """
    return [
        {"class": label, "films": str(metrics["counts"][label])}
        | {NAMES.get(key, key): show_interval(scores[key]) for key in columns}
        for label, scores in metrics["models"][model]["per_class"].items()
    ]


def mcnemar_sentence(metrics: Mapping[str, Any]) -> str:
    """Say in a sentence how the ensemble stands against its best member."""
    found = metrics["mcnemar"]
    p_value = found["p_value"]
    p_text = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
    return (
        f"{found['first']} alone is right on {found['only_first']} films, {found['second']} "
        f"alone on {found['only_second']} (exact McNemar test, {p_text})"
    )
