"""What is gained when the least confident images are referred to a human.

``confidence`` is (N,), larger is more confident; ``wrong`` (N,) bool, ``groups`` (N,) patient or
group names. N samples, K classes, L levels (distinct confidences), C coverages.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cxr.evaluation.intervals import cluster_interval, share_interval
from cxr.evaluation.metrics import Floats
from cxr.reliability.conformal import REFERRAL_COVERAGE, refer

COVERAGES = tuple(np.round(np.arange(0.05, 1.0001, 0.05), 2).tolist())
"""Where the risk-coverage curve is stored with intervals."""
NEAR = 20
"""A twentieth of the images to either side tells the error at the border of an answered share."""


def risks_at(
    confidence: ArrayLike, wrong: ArrayLike, coverages: ArrayLike
) -> tuple[Floats, Floats]:
    """Return the risk at coverages, and its influences.

    The risk of a coverage is the error among that share of images which is the most confident;
    of images of equal confidence at the border a part counts.

    Coverages, (C,), are above 0 and at most 1.

    Returns:
        (C,) risks, 0 to 1, and (C, N) their derivatives by the images' weights. Where the border
        falls depends on the weights too; the error there is that of the tenth of images around it.

    Source: Geifman, El-Yaniv 2017 (selective risk).
    """
    scores, errors = np.asarray(confidence, np.float64), np.asarray(wrong, np.float64)
    images, ordered = len(scores), np.sort(-scores)
    before, until = (np.searchsorted(ordered, -scores, side=side) for side in ("left", "right"))
    risks, influences = [], []
    for coverage in np.asarray(coverages, np.float64):
        wanted = coverage * images
        answered = np.clip((wanted - before) / (until - before), 0, 1)
        risk = float(answered @ errors) / wanted
        near = np.abs((before + until) / 2 - wanted) <= max(images / NEAR, 1)
        border = float(errors[near].mean()) if near.any() else risk
        risks.append(risk)
        influences.append(
            (answered * (errors - risk) + (coverage - answered) * (border - risk)) / wanted
        )
    return np.array(risks), np.array(influences)


def risk_area(confidence: ArrayLike, wrong: ArrayLike) -> tuple[float, Floats]:
    """Return the area under the risk-coverage curve, and its influences, (N,).

    The area is the mean over images of the risk among all images at least as confident. An image
    counts as itself, and in the risk of every image that is no more confident.

    Source: Geifman, Uziel, El-Yaniv 2019.
    """
    scores, errors = np.asarray(confidence, np.float64), np.asarray(wrong, np.float64)
    order = np.argsort(scores, kind="stable")
    rising = scores[order]
    first, last = (np.searchsorted(rising, scores, side=side) for side in ("left", "right"))
    above = len(scores) - first
    risk = (errors.sum() - np.concatenate([[0], np.cumsum(errors[order])])[first]) / above
    area = float(risk.mean())
    share, lost = (np.cumsum(part[order])[last - 1] for part in (1 / above, risk / above))
    return area, (risk - area + errors * share - lost) / len(scores)


def risk_curve(confidence: ArrayLike, wrong: ArrayLike) -> tuple[Floats, Floats]:
    """Return coverage, rising to 1, and risk at every distinct confidence, each (L,)."""
    scores = np.asarray(confidence, np.float64)
    steps = np.arange(1, len(scores) + 1)
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    risk = np.cumsum(np.asarray(wrong, np.float64)[order]) / steps
    return steps[ends] / len(steps), risk[ends]


def measure_selective(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    groups: ArrayLike,
    *,
    threshold: float | None = None,
    coverage: float = REFERRAL_COVERAGE,
) -> dict[str, Any]:
    """Measure one model with a human behind it.

    Args:
        y_true: (N,) class positions.
        y_prob: (N, K), rows summing to 1.
        groups: (N,).
        threshold: fitted on validation; None leaves ``at_threshold`` out.
        coverage: share of images that is answered.

    Returns:
        ``aurc``; ``accuracy_all``; ``at_coverage`` (the most confident share of these very images:
        ``coverage``, ``accuracy``); ``at_threshold`` (``threshold``, the ``coverage`` that it
        gave, ``accuracy``, NaN where it answers no image); ``curve`` with ``coverage`` and
        ``risk`` of each point. All with intervals.
    """
    targets, probs = np.asarray(y_true, np.int64), np.asarray(y_prob, np.float64)
    scores, wrong = probs.max(axis=1), probs.argmax(axis=1) != targets
    names = np.asarray(groups)
    area, by_image = risk_area(scores, wrong)
    risks, parts = risks_at(scores, wrong, [*COVERAGES, coverage])
    *points, answered = (
        cluster_interval(float(risk), part, names, scale="logit")
        for risk, part in zip(risks, parts, strict=True)
    )
    result: dict[str, Any] = {
        "certainty": "largest probability",
        "aurc": cluster_interval(area, by_image, names, scale="logit"),
        "accuracy_all": share_interval(~wrong, names),
        "at_coverage": {
            "coverage": coverage,
            "accuracy": {
                "value": 1 - answered["value"],
                "low": 1 - answered["high"],
                "high": 1 - answered["low"],
            },
        },
        "curve": [{"coverage": at} | point for at, point in zip(COVERAGES, points, strict=True)],
    }
    if threshold is not None:
        kept = ~refer(probs, threshold)
        result["at_threshold"] = {
            "threshold": threshold,
            "wished_coverage": coverage,
            "coverage": share_interval(kept, names),
            "accuracy": share_interval(~wrong[kept], names[kept]),
        }
    return result
