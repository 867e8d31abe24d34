"""The metrics as plain rows for a terminal, a README or a report.

``metrics`` is the content of metrics.json, ``patients`` each class's number of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cxr.evaluation.intervals import FEW_PATIENTS
from cxr.evaluation.metrics import PER_CLASS
from cxr.models.ensemble import WEIGHTED

FEW_MARK = "†"
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

INTERVALS = (
    "95 % intervals by patient: Wilson's with a design effect for shares, on the logit scale for "
    "AUROC and the like"
)
"""What stands under a table of metrics; metrics.json says more."""

Cell = str | int | float | None
"""What stands in a table; None is shown as a dash."""
Row = dict[str, str]
"""Column head to cell; every row of a table has the same heads."""


def show_interval(found: Mapping[str, float | None], *, digits: int = 3) -> str:
    """Write ``0.841 [0.820, 0.861]``; undefined is ``n/a``, be it NaN or JSON's null."""
    value, low, high = (show_number(found[key], digits) for key in ("value", "low", "high"))
    return value if value == "n/a" else f"{value} [{low}, {high}]"


def show_number(value: float | None, digits: int = 3) -> str:
    """Write ``0.841``; undefined is ``n/a``, be it NaN or JSON's null."""
    return "n/a" if value is None or value != value else f"{value:.{digits}f}"


def summary_table(metrics: Mapping[str, Any], columns: Sequence[str] = OVERALL_SHOWN) -> list[Row]:
    """Return a row per model with the overall metrics and their intervals."""
    return [
        {"model": name} | {NAMES.get(key, key): show_interval(scores[key]) for key in columns}
        for name, scores in metrics["models"].items()
    ]


def class_table(
    metrics: Mapping[str, Any], model: str = WEIGHTED, columns: Sequence[str] = PER_CLASS
) -> list[Row]:
    """Return a row per class with one model's metrics and their intervals."""
    return [
        {
            "class": label,
            "images": str(metrics["counts"][label]),
            "patients": show_patients(metrics["patients"][label]),
        }
        | {NAMES.get(key, key): show_interval(scores[key]) for key in columns}
        for label, scores in metrics["models"][model]["per_class"].items()
    ]


def show_patients(count: int) -> str:
    """Write a class's number of patients, with a dagger where they are few."""
    return f"{count:,}{FEW_MARK if count < FEW_PATIENTS else ''}"


def few_note(patients: Mapping[str, int]) -> str:
    """Say what the dagger means; empty where no class bears it."""
    few = [label for label, count in patients.items() if count < FEW_PATIENTS]
    if not few:
        return ""
    return (
        f"{FEW_MARK} fewer than {FEW_PATIENTS} patients ({', '.join(few)}): a single patient moves "
        "such a value by 2 points or more, so read its interval first."
    )


def partly_known_note(metrics: Mapping[str, Any]) -> str:
    """Say how many images have a label set and what counts them; empty where there are none."""
    sets = metrics.get("partly_known")
    if not sets:
        return ""
    kinds = ", ".join(f"{count:,} {label}" for label, count in sets["labels"].items())
    return (
        f"{sets['images']:,} images more are known only as one of several classes ({kinds}): right "
        f"where the class named is one of them ({show_interval(sets['right'][WEIGHTED])} of them), "
        "which counts in accuracy alone; every other figure leaves them out."
    )


def difference_table(metrics: Mapping[str, Any]) -> list[Row]:
    """Return the ensemble less its best member, and less equal weights, with p of the accuracy."""
    return [
        {"ensemble less": name}
        | {NAMES.get(key, key): show_interval(found[key]) for key in OVERALL_SHOWN}
        | {"p of accuracy": _show_p(found["accuracy"]["p"]).removeprefix("= ")}
        for name, found in metrics["ensemble_minus"].items()
    ]


def difference_sentences(metrics: Mapping[str, Any]) -> list[str]:
    """Say how the ensemble stands against its best member and against equal weights."""
    return [
        f"the ensemble alone is right on {found['only_first']} images, {name} alone on "
        f"{found['only_second']} (paired permutation test by patient, "
        f"p {_show_p(found['accuracy']['p'])})"
        for name, found in metrics["ensemble_minus"].items()
    ]


def _show_p(p_value: float) -> str:
    """Write ``= 0.043`` or ``< 0.001``."""
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.3f}"
