"""Cross-validation: predictions of all folds pooled, and what differs from fold to fold.

N images, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.errors import InputError
from cxr.evaluation.evaluate import best_member, evaluate
from cxr.evaluation.metrics import OVERALL
from cxr.evaluation.tables import NAMES, OVERALL_SHOWN, Row, show_number
from cxr.models.ensemble import WEIGHTED, Ensemble


@dataclass(frozen=True)
class FoldResult:
    """What one fold gave: predictions of its test images, its ensemble.

    Attributes:
        validation: per member and average the point values of the overall metrics there.
        sizes: images of ``train``, ``val`` and ``test``.
        name: what was left out; "" numbers the folds.
    """

    predictions: pd.DataFrame
    ensemble: Ensemble
    validation: Mapping[str, Mapping[str, float]]
    sizes: Mapping[str, int]
    name: str = ""


def cross_validation(
    results: Sequence[FoldResult], images: NDArray[np.object_], *, seed: int, note: str
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Pool the folds and measure.

    Args:
        results: of each fold, all of the same members and labels.
        images: (N,) the images tested, in the order wanted; each is in one fold's test.
        seed: of the paired test's permutations.
        note: what the images are.

    Returns:
        The pooled predictions with a column ``fold``, and the content of cv.json: what
        ``evaluate`` says of them, ``per_fold`` with each fold's point values, and
        ``across_folds`` with mean, standard deviation, lowest and highest of these, without folds
        where the metric is undefined. Pooling compares probabilities of different members, so a
        pooled AUROC may lie below each fold's.

    Raises:
        InputError: an image that no fold has tested, or more than one.
    """
    first = results[0].ensemble
    heads = [result.name or number for number, result in enumerate(results, start=1)]
    parts = zip(heads, results, strict=True)
    pooled = pd.concat(
        [result.predictions.assign(fold=head) for head, result in parts], ignore_index=True
    )
    if len(pooled) != len(images) or set(pooled["image"]) != set(images):
        raise InputError(
            f"the folds predict {len(pooled)} images, {len(images)} were dealt: remove the folder "
            "of the cross-validation and run it again"
        )
    pooled = pooled.set_index("image", drop=False).loc[list(images)].reset_index(drop=True)
    names = first.members
    means = {
        name: {
            key: float(np.mean([result.validation[name][key] for result in results]))
            for key in ("balanced_accuracy", "nll")
        }
        for name in names
    }
    options: dict[str, Any] = {
        "labels": first.labels,
        "members": names,
        "best_member": best_member(means, names),
        "seed": seed,
        "note": note,
    }
    found = evaluate(pooled, **options)
    per_fold = [
        _of_fold(head, result, evaluate(result.predictions, **options))
        for head, result in zip(heads, results, strict=True)
    ]
    found |= {"folds": len(results), "per_fold": per_fold, "across_folds": {}}
    for model in found["models"]:
        scores = pd.DataFrame([fold["models"][model] for fold in per_fold])
        found["across_folds"][model] = {
            metric: {
                **{key: float(scores[metric].dropna().agg(key)) for key in ("mean", "min", "max")},
                "sd": float(scores[metric].dropna().std()),
            }
            for metric in OVERALL
        }
    return pooled, found


def fold_table(found: Mapping[str, Any], model: str = WEIGHTED) -> list[Row]:
    """Return a row per fold, then mean and range, of one model's overall metrics in cv.json."""
    rows = [
        {"fold": str(fold["fold"]), "test images": str(fold["n"])}
        | {NAMES.get(key, key): show_number(fold["models"][model][key]) for key in OVERALL_SHOWN}
        for fold in found["per_fold"]
    ]
    spread = found["across_folds"][model]
    for head, names in (("mean", ("mean",)), ("range", ("min", "max"))):
        row = {"fold": head, "test images": ""}
        for key in OVERALL_SHOWN:
            row[NAMES.get(key, key)] = " to ".join(show_number(spread[key][name]) for name in names)
        rows.append(row)
    return rows


def _of_fold(head: str | int, result: FoldResult, scores: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "fold": head,
        "n": scores["n"],
        "n_groups": scores["n_groups"],
        "counts": scores["counts"],
        "images": dict(result.sizes),
        "ensemble": result.ensemble.to_dict(),
        "models": {
            model: {metric: values[metric]["value"] for metric in OVERALL}
            for model, values in scores["models"].items()
        },
    }
