"""Compare what an exported graph answers with what PyTorch answered, image by image.

N images, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.errors import InputError

PROBS_LIMIT = 1e-5
"""Largest difference of a probability: what float32 arithmetic in another order gives."""
FLOAT32_LEAST = 1e-36
"""Below it float32 has no full precision left."""
METRICS_LIMIT = 1e-4
"""Largest difference of a metric: less than one image among ten thousand."""


class GateError(InputError):
    """An exported graph that does not do what the trained members do."""


def largest_gap(exported: NDArray[np.floating], trained: NDArray[np.floating]) -> float:
    """Return the largest difference; NaN where the shapes differ."""
    if exported.shape != trained.shape:
        return float("nan")
    return float(np.abs(exported.astype(np.float64) - trained).max())


def check_classes(
    exported: NDArray[np.floating], trained: NDArray[np.floating], images: Sequence[str], split: str
) -> dict[str, float]:
    """Check that the graph's most probable class is PyTorch's on every image of a split.

    ``exported`` and ``trained`` are (N, K), the second as stored when the run was trained or
    evaluated; ``images`` N names; ``split`` what errors call it.

    Returns:
        ``images``, ``largest_difference`` of a probability, and ``ties``: images on which no
        order of the two most probable classes is right.

    Raises:
        GateError: another class, which the message names with its image.
    """
    tied = _ties(trained)
    other = np.flatnonzero((exported.argmax(axis=1) != trained.argmax(axis=1)) & ~tied)
    gap = largest_gap(exported, trained)
    if len(other) or not np.isfinite(gap):
        first = images[int(other[0])] if len(other) else "all"
        raise GateError(
            f"the exported graph gives another class than PyTorch on {len(other)} of "
            f"{len(trained)} {split} images (first {first}; probabilities differ by up to "
            f"{gap:.2g}). The former bundle stays; evaluate the run again (scripts/evaluate.py) "
            "if its members were trained anew"
        )
    return {"images": len(trained), "largest_difference": gap, "ties": int(tied.sum())}


def check_metrics(
    exported: Mapping[str, Mapping[str, Any]],
    trained: Mapping[str, Mapping[str, Any]],
    slack: Mapping[str, Mapping[str, float]],
) -> float:
    """Compare each model's metrics through the graph with those of ``scripts/evaluate.py``.

    An undefined metric is None or NaN; ``slack`` is that of ``tie_slack``. Return the largest
    difference of the metrics that no tie leaves open; one above the limit is a GateError.
    """
    largest = 0.0
    for model, values in trained.items():
        for metric, value in values.items():
            pair = (value, exported[model][metric])
            before, after = (np.nan if one is None else float(one) for one in pair)
            left_open = slack.get(model, {}).get(metric, 0.0)
            gap = 0.0 if np.isnan(before) and np.isnan(after) else abs(after - before)
            allowed = METRICS_LIMIT + left_open
            if not gap <= allowed and np.isfinite(allowed):
                raise GateError(
                    f"{metric} of {model} is {after:.6f} through the exported graph and "
                    f"{before:.6f} in metrics.json; a difference of {allowed:.1g} is allowed. "
                    "The former bundle stays; evaluate the run again (scripts/evaluate.py)"
                )
            largest = largest if left_open else max(largest, gap)
    return largest


def tie_slack(
    probs: NDArray[np.floating], targets: NDArray[np.int64], labels: Sequence[str]
) -> dict[str, float]:
    """Return how far metrics may move when equal probabilities are told apart at random.

    Probabilities (N, K) of PyTorch within twice the limit count as equal. With many images hardly
    any are; with sixteen, one swapped pair moves an AUROC by percents. What counts classes has
    infinite slack where two classes tie on an image.
    """
    slack: dict[str, float] = {}
    each = []
    for place, label in enumerate(labels):
        scores, positive = probs[:, place], targets == place
        right, wrong = scores[positive], np.sort(scores[~positive])
        near = np.searchsorted(wrong, right + 2 * PROBS_LIMIT, "right")
        pairs = int((near - np.searchsorted(wrong, right - 2 * PROBS_LIMIT, "left")).sum())
        each.append(pairs / max(len(right) * len(wrong), 1))
        slack[f"auroc for {label}"] = each[-1]
        slack[f"average_precision for {label}"] = pairs / max(len(right), 1)
    slack["macro_auroc"] = float(np.mean(each))
    # A probability that float32 cannot hold is 0 in the graph, and its logarithm anything.
    if probs[np.arange(len(targets)), targets].min() < FLOAT32_LEAST:
        slack["nll"] = np.inf
    if _ties(probs).any():
        slack |= dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1"), np.inf)
        counting = ("sensitivity", "specificity", "ppv", "npv", "f1")
        slack |= {f"{metric} for {label}": np.inf for metric in counting for label in labels}
    return slack


def _ties(probs: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Tell on which images the two most probable classes are equal within twice the limit."""
    order = np.sort(probs, axis=1)
    return np.asarray(order[:, -1] - order[:, -2] <= 2 * PROBS_LIMIT, np.bool_)
