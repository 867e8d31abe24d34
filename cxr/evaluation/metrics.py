"""Classification metrics of images that may count more or less than once.

N samples, K classes, L thresholds (distinct scores).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

OVERALL = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "nll")
PER_CLASS = ("sensitivity", "specificity", "ppv", "npv", "f1", "auroc", "average_precision")
MIN_PROB = 1e-300
"""Floor inside the logarithm, as in the fit of the ensemble."""

Floats = NDArray[np.float64]
Scores = dict[str, Floats]
"""Metric name to a 0-d array for the names in ``OVERALL``, (K,) for those in ``PER_CLASS``."""


def score(y_true: ArrayLike, y_prob: ArrayLike, weights: ArrayLike | None = None) -> Scores:
    """Compute every metric.

    The predicted class is the most probable one, the first of equals. Macro values average
    over the classes for which the term is defined: balanced accuracy and macro AUROC over
    the classes present, macro F1 over those present or predicted, as scikit-learn does.

    Args:
        y_true: (N,) class positions.
        y_prob: (N, K), rows summing to 1.
        weights: (N,), 0 or above; how often each image counts, once by default.

    Returns:
        ``OVERALL`` and ``PER_CLASS``; NaN where a metric is undefined. NLL in nats per image,
        the others 0 to 1.
    """
    targets, probs = np.asarray(y_true, np.int64), np.asarray(y_prob, np.float64)
    counts = np.ones(len(targets)) if weights is None else np.asarray(weights, np.float64)
    confusion = confusion_matrix(targets, probs, counts)
    hits, true, predicted = np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    total = true.sum()
    rejected = total - true - predicted + hits
    sensitivity, f1 = _ratio(hits, true), _ratio(2 * hits, true + predicted)
    ranked = [_ranking(targets == k, probs[:, k], counts) for k in range(probs.shape[1])]
    auroc, precision = (np.array(values) for values in zip(*ranked, strict=True))
    chosen = np.maximum(np.take_along_axis(probs, targets[:, None], axis=1)[:, 0], MIN_PROB)
    return {
        "accuracy": _ratio(hits.sum(), total),
        "balanced_accuracy": _mean_of_defined(sensitivity),
        "macro_f1": _mean_of_defined(f1),
        "sensitivity": sensitivity,
        "specificity": _ratio(rejected, total - true),
        "ppv": _ratio(hits, predicted),
        "npv": _ratio(rejected, total - predicted),
        "f1": f1,
        "auroc": auroc,
        "average_precision": precision,
        "macro_auroc": _mean_of_defined(auroc),
        "nll": _ratio(counts @ -np.log(chosen), counts.sum()),
    }


def confusion_matrix(
    y_true: ArrayLike, y_prob: ArrayLike, weights: ArrayLike | None = None
) -> NDArray[np.generic]:
    """Count images, (K, K): the row is the true class, the column the predicted one."""
    targets, probs = np.asarray(y_true, np.int64), np.asarray(y_prob, np.float64)
    classes = probs.shape[1]
    cells = targets * classes + probs.argmax(axis=1)
    return np.bincount(cells, weights, minlength=classes**2).reshape(classes, classes)


def _ranking(positive: NDArray[np.bool_], values: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return AUROC and average precision of one class.

    Cumulative weights of positives and negatives down the sorted scores, read where a run
    of equal scores ends, are the ROC curve; its trapezia count a tied pair as one half.
    Average precision is the sum of precision times the step in recall.

    Source: scikit-learn's ``roc_auc_score`` and ``average_precision_score``.
    """
    order = np.argsort(-values, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(values[order])), len(order) - 1)
    above = np.cumsum(weights[order])[ends]
    true = np.cumsum(weights[order] * positive[order])[ends]
    false = above - true
    true_step = np.diff(true, prepend=0)
    area = np.einsum("l,l->", np.diff(false, prepend=0), true - true_step / 2)
    precision = np.divide(true, above, out=np.zeros_like(true), where=above > 0)
    steps = np.einsum("l,l->", true_step, precision)
    return _ratio(area, true[-1] * false[-1]), _ratio(steps, true[-1])


def _ratio(over: ArrayLike, under: ArrayLike) -> Floats:
    """Divide; NaN where the divisor is 0."""
    over, under = np.asarray(over, np.float64), np.asarray(under, np.float64)
    quotient = np.full(under.shape, np.nan)
    np.divide(over, under, out=quotient, where=under > 0)
    return quotient


def _mean_of_defined(values: Floats) -> Floats:
    """Average without NaN; NaN where nothing is left."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(), defined.sum())
