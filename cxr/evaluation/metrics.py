"""Classification metrics of many weightings of the same images at once.

One code path serves point values and bootstrap: a resample is a row of counts that says how
often each image was drawn, the point value the row of ones. N samples, K classes,
R resamples, L thresholds (distinct scores).
"""

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import UndefinedMetricWarning

OVERALL = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "nll")
PER_CLASS = ("sensitivity", "specificity", "ppv", "npv", "f1", "auroc", "average_precision")
MIN_PROB = 1e-300
"""Floor inside the logarithm, as in the fit of the ensemble."""

Floats = NDArray[np.float64]
Scores = dict[str, Floats]
"""Metric name to (R,) for the names in ``OVERALL``, (R, K) for those in ``PER_CLASS``."""


def weighted_scores(y_true: ArrayLike, y_prob: ArrayLike, weights: ArrayLike) -> Scores:
    """Compute every metric for every row of weights.

    The predicted class is the most probable one, the first of equals. Macro values average
    over the classes for which the term is defined: balanced accuracy and macro AUROC over
    the classes present, macro F1 over those present or predicted, as scikit-learn does.

    Args:
        y_true: (N,) class positions.
        y_prob: (N, K), rows summing to 1.
        weights: (R, N), 0 or above; how often each image counts.

    Returns:
        ``OVERALL`` (R,) and ``PER_CLASS`` (R, K); NaN where a metric is undefined. NLL in
        nats per image, the others 0 to 1.
    """
    targets, probs = np.asarray(y_true, np.int64), np.asarray(y_prob, np.float64)
    counts = np.asarray(weights, np.float64)
    confusion = _confusion(targets, probs, counts)
    scores = _confusion_scores(confusion)
    by_image = np.ascontiguousarray(counts.T)
    ranked = [_ranking(targets == k, probs[:, k], by_image) for k in range(probs.shape[1])]
    scores["auroc"] = np.stack([auroc for auroc, _ in ranked], axis=1)
    scores["average_precision"] = np.stack([precision for _, precision in ranked], axis=1)
    scores["macro_auroc"] = _mean_of_defined(scores["auroc"])
    chosen = np.maximum(np.take_along_axis(probs, targets[:, None], axis=1)[:, 0], MIN_PROB)
    scores["nll"] = _ratio(counts @ -np.log(chosen), counts.sum(axis=1))
    return scores


def score(y_true: ArrayLike, y_prob: ArrayLike) -> Scores:
    """Compute every metric once.

    Args:
        y_true: (N,) class positions.
        y_prob: (N, K), rows summing to 1.

    Returns:
        ``OVERALL`` as 0-d arrays and ``PER_CLASS`` as (K,). NaN, with an
        ``UndefinedMetricWarning``, where a class lacks the images that a metric needs.
    """
    once = weighted_scores(y_true, y_prob, np.ones((1, len(np.asarray(y_true)))))
    scores = {name: values[0] for name, values in once.items()}
    undefined = [name for name, values in scores.items() if np.isnan(values).any()]
    if undefined:
        warnings.warn(
            f"undefined, hence NaN: {', '.join(sorted(undefined))}",
            UndefinedMetricWarning,
            stacklevel=2,
        )
    return scores


def confusion_matrix(y_true: ArrayLike, y_prob: ArrayLike) -> NDArray[np.int64]:
    """Count images, (K, K): the row is the true class, the column the predicted one."""
    targets, probs = np.asarray(y_true, np.int64), np.asarray(y_prob, np.float64)
    return np.asarray(_confusion(targets, probs, np.ones((1, len(targets))))[0], np.int64)


def _confusion(targets: NDArray[np.int64], probs: Floats, weights: Floats) -> Floats:
    """Return (R, K, K), true class by predicted class."""
    n_classes = probs.shape[1]
    cells = np.eye(n_classes**2)[targets * n_classes + probs.argmax(axis=1)]
    return np.asarray((weights @ cells).reshape(-1, n_classes, n_classes))


def _confusion_scores(confusion: Floats) -> Scores:
    """Return the metrics that the predicted classes decide."""
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    true, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
    total = true.sum(axis=1, keepdims=True)
    rejected = total - true - predicted + hits
    sensitivity, f1 = _ratio(hits, true), _ratio(2 * hits, true + predicted)
    return {
        "accuracy": _ratio(hits.sum(axis=1), total[:, 0]),
        "balanced_accuracy": _mean_of_defined(sensitivity),
        "macro_f1": _mean_of_defined(f1),
        "sensitivity": sensitivity,
        "specificity": _ratio(rejected, total - true),
        "ppv": _ratio(hits, predicted),
        "npv": _ratio(rejected, total - predicted),
        "f1": f1,
    }


def _ranking(
    positive: NDArray[np.bool_], values: Floats, by_image: Floats
) -> tuple[Floats, Floats]:
    """Return AUROC and average precision of one class, each (R,); weights are (N, R).

    Cumulative weights of positives and negatives down the sorted scores, read where a run
    of equal scores ends, are the ROC curve; its trapezia count a tied pair as one half.
    Average precision is the sum of precision times the step in recall.

    Source: scikit-learn's ``roc_auc_score`` and ``average_precision_score``.
    """
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    sorted_weights = by_image[order]
    above = np.cumsum(sorted_weights, axis=0)[ends]
    sorted_weights *= positive[order, None]
    true = np.cumsum(sorted_weights, axis=0)[ends]
    false = above - true
    true_step = np.diff(true, axis=0, prepend=0)
    area = np.einsum("lr,lr->r", np.diff(false, axis=0, prepend=0), true - true_step / 2)
    precision = np.divide(true, above, out=np.zeros_like(true), where=above > 0)
    auroc = _ratio(area, true[-1] * false[-1])
    return auroc, _ratio(np.einsum("lr,lr->r", true_step, precision), true[-1])


def _ratio(over: Floats, under: Floats) -> Floats:
    """Divide; NaN where the divisor is 0."""
    result = np.full(np.broadcast_shapes(over.shape, under.shape), np.nan)
    np.divide(over, under, out=result, where=under > 0)
    return result


def _mean_of_defined(values: Floats) -> Floats:
    """Average over the last axis without NaN; NaN where nothing is left."""
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0).sum(axis=-1)
    return _ratio(total, defined.sum(axis=-1).astype(np.float64))
