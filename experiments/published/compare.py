"""The published test split of the Kermany images beside the values that others reported on it.

N images.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cxr.evaluation.evaluate import evaluate
from cxr.evaluation.tables import show_interval, show_patients
from cxr.models.ensemble import WEIGHTED

CLASSES = ["normal", "bacterial", "viral"]
SOURCE = "kermany"
PAIR = ["bacterial", "viral"]
PUBLISHED_IMAGES = 624
"""Images of the published test folder, copies included."""
CONVNEXT = "ConvNeXtV2-tiny (kiselyovd/chest-xray-classifier, its metrics file)"
THREE, TWO = "three_classes", "bacterial_viral"
PUBLISHED: tuple[dict[str, Any], ...] = (
    {"who": CONVNEXT, "task": THREE, "metric": "accuracy", "value": 0.9135},
    {"who": CONVNEXT, "task": THREE, "metric": "sensitivity", "label": "bacterial", "value": 0.983},
    {"who": CONVNEXT, "task": THREE, "metric": "sensitivity", "label": "normal", "value": 0.897},
    {"who": CONVNEXT, "task": THREE, "metric": "sensitivity", "label": "viral", "value": 0.824},
    {"who": "Kermany et al. 2018, Cell 172", "task": TWO, "metric": "accuracy", "value": 0.907},
    {
        "who": "Rajaraman et al. 2018, Appl. Sci. 8, VGG16",
        "task": TWO,
        "metric": "accuracy",
        "value": 0.936,
    },
)
"""Values on the same test images, as their authors give them: single numbers."""


def compare_published(
    predictions: pd.DataFrame,
    three_classes: Mapping[str, Any],
    *,
    labels: Sequence[str],
    best_member: str,
) -> dict[str, Any] | None:
    """Set the ensemble beside the values published on the Kermany test images.

    Args:
        predictions: rows of the evaluation's predictions table that lie in the published test
            split.
        three_classes: what ``evaluate`` gave for them with ``classes`` restricted to theirs.
        labels: K classes that the run knows.
        best_member: chosen on validation.

    Returns:
        ``published``, the rows of ``PUBLISHED``, each with our ``renormalised`` and
        ``as_they_are`` value and interval; ``n`` of each task, ``copies_dropped``; None where
        the images are not those. ``patients`` of each row are those its value rests on.
    """
    known = set(predictions["source"]) == {SOURCE} and set(three_classes["labels"]) == set(CLASSES)
    if not known or not len(predictions):
        return None
    pair = evaluate(
        predictions,
        labels=labels,
        members=three_classes["members"],
        best_member=best_member,
        note=three_classes["note"],
        classes=PAIR,
    )
    ours = {THREE: three_classes, TWO: pair}
    rows: list[dict[str, Any]] = []
    for row in PUBLISHED:
        scores, plain = (ours[row["task"]][key][WEIGHTED] for key in ("models", "as_they_are"))
        metric, label = row["metric"], row.get("label")
        rows.append(
            row
            | {
                "renormalised": scores["per_class"][label][metric] if label else scores[metric],
                "as_they_are": plain[metric][label] if label else plain[metric],
                "patients": ours[row["task"]]["patients"][label]
                if label
                else ours[row["task"]]["n_groups"],
            }
        )
    return {
        "published": rows,
        "model": WEIGHTED,
        "n": {task: part["n"] for task, part in ours.items()},
        "published_images": PUBLISHED_IMAGES,
        "copies_dropped": PUBLISHED_IMAGES - three_classes["n"],
        "pair": {
            "models": {
                name: {"accuracy": scores["accuracy"]} for name, scores in pair["models"].items()
            }
        },
    }


def published_table(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return title, columns and rows of the comparison, as the report shows them.

    Args:
        result: what ``compare_published`` gave.
    """
    tasks = {
        THREE: f"normal, bacterial, viral ({result['n'][THREE]} images)",
        TWO: f"bacterial against viral ({result['n'][TWO]} images)",
    }
    rows = [
        [
            row["who"],
            tasks[row["task"]],
            f"{row['metric']} {row['label']}" if row.get("label") else row["metric"],
            str(show_patients(row["patients"])),
            f"{row['value']:g}",
            show_interval(row["renormalised"]),
            show_interval(row["as_they_are"]),
            _place(row),
        ]
        for row in result["published"]
    ]
    columns = [
        *("published by", "task", "statistic", "our patients", "published"),
        *(f"our {result['model']}, renormalised", "as it is", "published value lies"),
    ]
    title = "The same test images: what others report and what we measure"
    return {"title": title, "columns": columns, "rows": rows}


def differences(
    result: Mapping[str, Any], *, train_images: int, disjoint: Mapping[str, Any], opened: int
) -> list[str]:
    """Say what differs between the published values and ours.

    Args:
        result: what ``compare_published`` gave.
        train_images: images that our members learnt from.
        disjoint: of prepared.json: groups on both sides of the split.
        opened: how often our test split was opened.
    """
    crossing = disjoint["crossing_groups"]
    return [
        f"Training data: our members learnt four classes, covid included, from {train_images:,} "
        "images; the others learnt the two or three classes of their row. Renormalised means "
        "that the covid probability is dropped; as it is, an image that we call covid counts as "
        "wrong.",
        f"Patients: {crossing:,} patient numbers lie on both sides of the published split, with "
        f"{disjoint['test_images_in_crossing_groups']:,} of our test images. If the same number is "
        "the same child, this flatters every row, ours too; a split by patient does not have it.",
        f"Copies: of {result['published_images']} published test images {result['copies_dropped']} "
        f"are dropped here as copies of others, which leaves {result['n'][THREE]}. The published "
        "91.35 % is 570 of all 624; whether the others dropped any is not known here.",
        "Choice: our epochs, temperatures and weights were chosen on validation images alone, and "
        f"the test split was opened {opened} time(s) for this run. Whether a published value "
        "was chosen on the test images cannot be told from it.",
        "Interval: the published values are quoted as single numbers; ours carry 95 % "
        "intervals by patient. A published value inside ours is not told apart from it by so "
        "few images.",
    ]


def _place(row: Mapping[str, Any]) -> str:
    low, high = row["renormalised"]["low"], row["renormalised"]["high"]
    if low is None or high is None or low != low:
        return "n/a"
    if row["value"] > high:
        return "above our interval"
    return "below our interval" if row["value"] < low else "inside our interval"
