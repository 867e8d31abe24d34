"""What is gained when the least certain films are referred to a human.

As in ``metrics``, a resample is a row of counts and the point value the row of ones. Certainty
is the largest probability. N samples, R resamples, L levels (distinct certainties), C coverages.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxr.evaluation.bootstrap import RESAMPLES, interval, weight_blocks
from cxr.evaluation.metrics import Floats
from cxr.uncertainty import REFERRAL_COVERAGE, refer

COVERAGES = tuple(np.round(np.arange(0.05, 1.0001, 0.05), 2).tolist())
"""Where the risk-coverage curve is stored with intervals."""


def weighted_risks(
    certainty: ArrayLike, wrong: ArrayLike, weights: ArrayLike, coverages: ArrayLike
) -> tuple[Floats, Floats]:
    """Return the area under the risk-coverage curve, and the risk at coverages.

    The risk of a coverage is the error among that share of films which is the most certain;
    of films of equal certainty at the border a part counts. The area is the mean over films of
    the risk among all films at least as certain.

    Args:
        certainty: (N,) larger is surer.
        wrong: (N,) bool.
        weights: (R, N), 0 or above.
        coverages: (C,) above 0, at most 1.

    Returns:
        (R,) areas and (R, C) risks, both 0 to 1.

    Source: Geifman, El-Yaniv 2017 (selective risk); Geifman, Uziel, El-Yaniv 2019 (the area).
    """
    surety, errors = np.asarray(certainty, np.float64), np.asarray(wrong, np.float64)
    counts = np.asarray(weights, np.float64)
    order = np.argsort(-surety, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(surety[order])), len(order) - 1)
    films = np.cumsum(counts[:, order], axis=1)[:, ends]
    missed = np.cumsum(counts[:, order] * errors[order], axis=1)[:, ends]
    own = np.diff(films, axis=1, prepend=0)
    risk = missed / np.maximum(films, 1e-12)
    areas = (risk * own).sum(axis=1) / films[:, -1]
    zero = np.zeros((len(counts), 1))
    wanted = np.asarray(coverages, np.float64) * films[:, -1:]
    errors_at = np.stack([
        np.interp(want, have, lost)
        for want, have, lost in zip(
            wanted, np.hstack([zero, films]), np.hstack([zero, missed]), strict=True
        )
    ])  # fmt: skip
    return areas, np.asarray(errors_at / wanted)


def risk_curve(certainty: ArrayLike, wrong: ArrayLike) -> tuple[Floats, Floats]:
    """Return coverage and risk at every distinct certainty, for drawing.

    Args:
        certainty: (N,).
        wrong: (N,) bool.

    Returns:
        (L,) coverages, rising to 1, and (L,) risks.
    """
    surety = np.asarray(certainty, np.float64)
    steps = np.arange(1, len(surety) + 1)
    order = np.argsort(-surety, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(surety[order])), len(order) - 1)
    risk = np.cumsum(np.asarray(wrong, np.float64)[order]) / steps
    return steps[ends] / len(steps), risk[ends]


def measure_selective(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    groups: ArrayLike,
    *,
    threshold: float | None = None,
    coverage: float = REFERRAL_COVERAGE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure one model with a human behind it.

    Args:
        y_true: (N,) class positions.
        y_prob: (N, K), rows summing to 1.
        groups: (N,) patient or group names; whole groups are drawn.
        threshold: referral threshold fitted on validation; None leaves ``at_threshold`` out.
        coverage: share of films that is answered.
        resamples: R.
        seed: of the draws.

    Returns:
        ``aurc``; ``accuracy_all``; ``at_coverage`` (the most certain share of these very films:
        ``coverage``, ``accuracy``); ``at_threshold`` (``threshold``, the ``coverage`` that it
        gave, ``accuracy``, NaN where it answers no film); ``curve`` with ``coverage`` and
        ``risk`` of each point. All with intervals.
    """
    targets, probs = np.asarray(y_true, np.int64), np.asarray(y_prob, np.float64)
    surety, wrong = probs.max(axis=1), probs.argmax(axis=1) != targets
    asked = np.array([*COVERAGES, coverage])
    parts = []
    answered = np.zeros(len(targets), bool) if threshold is None else ~refer(probs, threshold)
    for weights in weight_blocks(groups, resamples, np.random.default_rng(seed)):
        areas, risks = weighted_risks(surety, wrong, weights, asked)
        kept, right = weights @ answered, weights @ (answered & ~wrong)
        accuracy = np.full(len(weights), np.nan)
        np.divide(right, kept, out=accuracy, where=kept > 0)
        share = kept / weights.sum(axis=1)
        parts.append(np.column_stack([areas, share, accuracy, risks]))
    draws: NDArray[np.float64] = np.concatenate(parts)
    risks = draws[:, 3:]
    result: dict[str, Any] = {
        "certainty": "largest probability",
        "aurc": interval(draws[:, 0]),
        "accuracy_all": interval(1 - risks[:, len(COVERAGES) - 1]),
        "at_coverage": {"coverage": coverage, "accuracy": interval(1 - risks[:, -1])},
        "curve": [
            {"coverage": at} | interval(risks[:, place]) for place, at in enumerate(COVERAGES)
        ],
    }
    if threshold is not None:
        result["at_threshold"] = {
            "threshold": threshold,
            "wished_coverage": coverage,
            "coverage": interval(draws[:, 1]),
            "accuracy": interval(draws[:, 2]),
        }
    return result
