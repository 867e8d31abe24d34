"""What a configuration is worth at home and at hospitals that it never saw; the table of all.

N images, K classes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from cxr.audit.result import SEVERITY
from cxr.evaluation.adults import adult_covid
from cxr.evaluation.evaluate import columns_of
from cxr.evaluation.intervals import share_interval
from cxr.evaluation.tables import show_interval
from cxr.labels import label_memberships
from cxr.models.ensemble import WEIGHTED

ADULTS = {
    "balanced_accuracy": "balanced accuracy, adults",
    "auroc": "AUROC, adults",
    "normal_called_covid": "normal called covid",
    "covid_found": "covid found",
    "pneumonia_called_covid": "pneumonia called covid",
    "pneumonia_called_normal": "pneumonia called normal",
}
"""Figures of ``adult_covid`` that the table shows, and their heads."""
CHOOSES = "balanced_accuracy"
"""Of covid against normal among adults, each source left out: what picks the winner."""


def accuracy(predictions: pd.DataFrame, labels: tuple[str, ...]) -> dict[str, Any]:
    """Return the ensemble's share of images named rightly, ``value, low, high`` and ``n``.

    Args:
        predictions: of ``build_predictions``; a label set is right with any of its classes.
        labels: K class names.
    """
    named = columns_of(predictions, "prob", WEIGHTED, list(labels)).argmax(axis=1)
    members = label_memberships(predictions["label"].tolist(), labels)
    hits = members[np.arange(len(members)), named]
    return share_interval(hits, predictions["group"].to_numpy(str)) | {"n": len(hits)}


def left_out(
    predictions: pd.DataFrame, table: pd.DataFrame, labels: tuple[str, ...]
) -> dict[str, Any]:
    """Measure predictions by models that never saw the image's source.

    Args:
        predictions: N rows of ``build_predictions``.
        table: of the prepared sets: ``image``, ``source``, ``age``.
        labels: K class names.

    Returns:
        ``accuracy``; ``adults``, see ``adult_covid``; ``sources``, the accuracy of each.
    """
    sources = predictions.groupby(predictions["source"].to_numpy(str))
    return {
        "accuracy": accuracy(predictions, labels),
        "adults": adult_covid(predictions, table),
        "sources": {name: accuracy(part, labels) for name, part in sources},
    }


def audit_summary(audit: Mapping[str, Any]) -> dict[str, Any]:
    """Return each test's verdict and deciding statistic, of the content of audit.json."""
    return {
        result["id"]: {"verdict": result["verdict"], "statistic": result["statistic"]}
        for result in audit["results"]
    }


def winner(found: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the configuration that is best by leave-one-source-out; None where none is measured.

    Args:
        found: per configuration what was measured, or its ``error``.
    """
    worth = {
        name: part["left_out"]["adults"][CHOOSES]["value"]
        for name, part in found.items()
        if "left_out" in part
    }
    # Undefined: NaN, or null once it was written.
    known = {name: value for name, value in worth.items() if value is not None and value == value}
    return max(known, key=lambda name: known[name]) if known else None


def mitigation_table(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return title, columns and rows of all configurations, as they are shown.

    Args:
        found: per configuration what was measured; those with an ``error`` have no row.
    """
    columns = ["configuration", "patient split, validation", "left-out sources", *ADULTS.values()]
    done = {name: part for name, part in found.items() if "left_out" in part}
    audited = any("audit" in part for part in done.values())
    rows = []
    for name, part in done.items():
        adults = part["left_out"]["adults"]
        shown = [show_interval(adults[key]) for key in ADULTS]
        home, away = (part[key]["accuracy"] for key in ("patient", "left_out"))
        row = [name, show_interval(home), show_interval(away), *shown]
        rows.append([*row, _verdicts(part.get("audit", {}))] if audited else row)
    title = "Accuracy at home and where no image of the source was learned from"
    return {"title": title, "columns": columns + ["audit"] * audited, "rows": rows}


def _verdicts(audit: Mapping[str, Mapping[str, Any]]) -> str:
    """Write ``shortcut: framing 0.92, sources 1.00; suspicious: attention 0.38; 5 clear``."""
    parts = []
    for verdict in reversed(SEVERITY):
        tests = {name: part for name, part in audit.items() if part["verdict"] == verdict}
        if tests and verdict in ("shortcut", "suspicious"):
            named = [f"{name} {part['statistic']['value']:.2f}" for name, part in tests.items()]
            parts.append(f"{verdict}: {', '.join(named)}")
        elif tests:
            parts.append(f"{len(tests)} {verdict}")
    return "; ".join(parts)


def mitigation_sentences(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say which configuration wins, what it costs at home, and which failed.

    Args:
        found: per configuration what was measured, or its ``error``.
    """
    sentences = [
        f"{name} failed: {part['error']}" for name, part in found.items() if "error" in part
    ]
    best = winner(found)
    if best is None:
        return sentences
    adults = found[best]["left_out"]["adults"]
    homes = {name: part["patient"]["accuracy"] for name, part in found.items() if "patient" in part}
    at_home = max(homes, key=lambda name: homes[name]["value"])
    cost = 100 * (homes[at_home]["value"] - homes[best]["value"])
    price = f"; {best} has {show_interval(homes[best])} there, {cost:.1f} points less"
    return [
        f"By leave-one-source-out {best} wins: covid against normal among {adults['normal']} and "
        f"{adults['covid']} adults has balanced accuracy {show_interval(adults[CHOOSES])} and "
        f"AUROC {show_interval(adults['auroc'])}.",
        f"On validation images of the patient split {at_home} is best with "
        f"{show_interval(homes[at_home])}{price if at_home != best else ''}.",
        *sentences,
    ]


def markdown(table: Mapping[str, Any], sentences: list[str]) -> str:
    """Return table and sentences as docs/experiments.md shows them."""
    lines = [table["columns"], ["---"] * len(table["columns"]), *table["rows"]]
    rows = [f"| {' | '.join(cells)} |" for cells in lines]
    return "\n".join([*rows, "", *sentences, ""])
