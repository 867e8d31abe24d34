"""Every metric of a model with its interval by patient, and two models set against each other.

N samples, K classes. ``y_true`` are (N,) class positions, ``y_prob`` (N, K) rows that sum to 1,
``groups`` (N,) patient or group names.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxr.evaluation.intervals import (
    auroc_influences,
    cluster_interval,
    paired_difference,
    share_interval,
)
from cxr.evaluation.metrics import MIN_PROB, OVERALL, Floats, score

METHOD = {
    "accuracy, sensitivity, specificity, ppv, npv": "Wilson's score interval of as many images as "
    "the patients are worth (design effect)",
    "auroc, average precision, f1, balanced accuracy and macro values": "Student's t on the logit "
    "scale, standard error by patient from influences (AUROC: Obuchowski 1997)",
    "nll": "the same on the log scale",
    "differences": "the same on the plain scale; p by swapping the models' answers by patient",
}
"""How each family of metrics gets its interval, as metrics.json says it."""


def summarise(
    y_true: ArrayLike, y_prob: ArrayLike, groups: ArrayLike, labels: Sequence[str]
) -> dict[str, Any]:
    """Measure one model.

    Returns:
        Each of ``OVERALL`` and, under ``per_class``, of ``PER_CLASS`` as ``value``, ``low``,
        ``high``; NaN where undefined.
    """
    targets, probs = np.asarray(y_true, np.int64), np.asarray(y_prob, np.float64)
    names, predicted = np.asarray(groups), probs.argmax(axis=1)
    values, parts = measure(targets, probs)
    patients = count_patients(targets, names, len(labels))
    fewest = min((count for count in patients if count), default=0)
    result: dict[str, Any] = {"accuracy": share_interval(predicted == targets, names)}
    for key in OVERALL[1:]:
        scale = "log" if key == "nll" else "logit"
        result[key] = cluster_interval(
            float(values[key]), parts[key], names, scale=scale, patients=fewest
        )
    result["per_class"] = {}
    for k, label in enumerate(labels):
        true, named = targets == k, predicted == k
        among = {
            "sensitivity": (named, true),
            "specificity": (~named, ~true),
            "ppv": (true, named),
            "npv": (~true, ~named),
        }
        scores = {key: share_interval(hits[of], names[of]) for key, (hits, of) in among.items()}
        fewer = min(patients[k], len(np.unique(names[~true])))
        for key in ("f1", "auroc", "average_precision"):
            scores[key] = cluster_interval(
                float(values[key][k]), parts[key][:, k], names, scale="logit", patients=fewer
            )
        result["per_class"][label] = scores
    return result


def measure(y_true: ArrayLike, y_prob: ArrayLike) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Return metrics and their influences: the derivatives by how much each image counts.

    Returns:
        Every metric's value, 0-d or (K,), and for all but the shares of a class the influences,
        (N,) or (N, K); NaN where the metric is undefined.
    """
    targets, probs = np.asarray(y_true, np.int64), np.asarray(y_prob, np.float64)
    rows, classes = probs.shape
    values = score(targets, probs)
    truth, named = np.eye(classes)[targets], np.eye(classes)[probs.argmax(axis=1)]
    hits, true = truth * named, truth.sum(axis=0)
    loss = -np.log(np.maximum((probs * truth).sum(axis=1), MIN_PROB))
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = (hits - values["sensitivity"] * truth) / true
        f1 = (2 * hits - values["f1"] * (truth + named)) / (true + named.sum(axis=0))
    auroc = np.stack(
        [auroc_influences(targets == k, probs[:, k])[1] for k in range(classes)], axis=1
    )
    precision = [_precision_influences(targets == k, probs[:, k]) for k in range(classes)]
    return values, {
        "accuracy": (hits.sum(axis=1) - values["accuracy"]) / rows,
        "balanced_accuracy": _mean_of_defined(recall),
        "macro_f1": _mean_of_defined(f1),
        "macro_auroc": _mean_of_defined(auroc),
        "nll": (loss - values["nll"]) / rows,
        "f1": f1,
        "auroc": auroc,
        "average_precision": np.stack(precision, axis=1),
    }


def compare(
    y_true: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    groups: ArrayLike,
    *,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Set two models' probabilities, each (N, K), against each other on the same images.

    Returns:
        Each of ``OVERALL``, first less second, as ``value``, ``low``, ``high``; accuracy with
        ``p``, see ``paired_difference``; ``only_first`` and ``only_second``, images that one
        alone has right.
    """
    targets = np.asarray(y_true, np.int64)
    (one, one_parts), (two, two_parts) = measure(targets, first), measure(targets, second)
    right, other = (np.asarray(probs).argmax(axis=1) == targets for probs in (first, second))
    return {
        key: cluster_interval(float(one[key] - two[key]), one_parts[key] - two_parts[key], groups)
        for key in OVERALL
    } | {
        "accuracy": paired_difference(right, other, groups, rng=rng),
        "only_first": int((right & ~other).sum()),
        "only_second": int((other & ~right).sum()),
    }


def count_images(y_true: ArrayLike, groups: ArrayLike, labels: Sequence[str]) -> dict[str, Any]:
    """Return ``n`` and ``n_groups``, and ``counts`` and ``patients`` of each class."""
    targets, names = np.asarray(y_true, np.int64), np.asarray(groups)
    counts = np.bincount(targets, minlength=len(labels)).tolist()
    return {
        "n": len(targets),
        "n_groups": len(np.unique(names)),
        "counts": dict(zip(labels, counts, strict=True)),
        "patients": dict(zip(labels, count_patients(targets, names, len(labels)), strict=True)),
    }


def count_patients(y_true: ArrayLike, groups: ArrayLike, classes: int) -> list[int]:
    """Return how many patients or groups have images of each class."""
    targets, names = np.asarray(y_true), np.asarray(groups)
    return [len(np.unique(names[targets == k])) for k in range(classes)]


def _precision_influences(positive: NDArray[np.bool_], scores: Floats) -> Floats:
    """Return the influences of the average precision, (N,).

    An image counts as itself, where it is positive, and in the precision at every positive that
    is ranked no higher.
    """
    if not positive.any():
        return np.full(len(positive), np.nan)
    ordered = np.sort(scores)
    place = np.searchsorted(ordered, scores, side="left")
    above = len(scores) - place
    true_above = positive.sum() - np.searchsorted(np.sort(scores[positive]), scores, side="left")
    precision = true_above / above
    order = np.argsort(scores, kind="stable")
    # Sums over positives ranked no higher, read where a run of equal scores ends.
    until = np.searchsorted(ordered, scores, side="right") - 1
    gain = np.cumsum((positive / above)[order])[until]
    cost = np.cumsum((positive * true_above / above**2)[order])[until]
    average = precision[positive].mean()
    own = positive * (precision - average)
    return np.asarray((own + positive * gain - cost) / positive.sum(), np.float64)


def _mean_of_defined(values: Floats) -> Floats:
    """Average the classes' influences without those of undefined metrics; NaN where all are."""
    defined = ~np.isnan(values).any(axis=0)
    if not defined.any():
        return np.full(len(values), np.nan)
    return np.asarray(values[:, defined].mean(axis=1), np.float64)
