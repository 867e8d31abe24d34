"""When a class is judged at all, and how surely: what every test of the audit that judges shares.

    if not shortage(targets == k, groups):
        verdict = judge(auroc_limit(targets == k, scores, groups, confidence=corrected(m)), ...)

N images, K classes. ``positive`` is (N,) bool, ``scores`` (N,), higher speaks for positive,
``groups`` (N,) patient or group names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from cxr.audit.context import Floats, Interval, Masks, Names, Rows
from cxr.evaluation.intervals import (
    CONFIDENCE,
    auroc_influences,
    auroc_interval,
    cluster_interval,
    share_interval,
    undefined,
)

MIN_IMAGES, MIN_PATIENTS = 10, 10
"""Below which a class, or a source, is not judged: with two images of a class in test, random
features gave a false alarm in 8 of 40 runs, with one image of a source in 27 of 60."""
TOO_FEW = 20
"""Images below which nothing is said about a share: at 19 of 20 the interval already reaches
from 0.76 to 0.99."""
FAMILY_ERROR = 0.05
"""Of all comparisons of a test together: how often it may alarm where nothing is to be found."""


def shortage(chosen: Masks, groups: ArrayLike) -> str:
    """Count what the chosen images, of a class, of a source or of all others, lack to be judged.

    Returns:
        "" where there are ``MIN_IMAGES`` of ``MIN_PATIENTS``, else how many there are, in words.
    """
    images, patients = int(chosen.sum()), len(np.unique(np.asarray(groups)[chosen]))
    if images >= MIN_IMAGES and patients >= MIN_PATIENTS:
        return ""
    return f"{images} images of {patients} patients"


def shortages(targets: Rows, groups: Names, labels: Sequence[str]) -> dict[str, str]:
    """Say, per class, what it or its rest lacks to be judged; see ``shortage``."""
    short = {}
    for k, label in enumerate(labels):
        rest = shortage(targets != k, groups)
        short[label] = shortage(targets == k, groups) or (f"all others: {rest}" if rest else "")
    return short


def too_few(shortages: dict[str, str], where: str) -> list[str]:
    """Return the reason why classes with a shortage are not judged, if there is one.

    ``where`` says which images were counted, "test images".
    """
    thin = [f"{label} ({count})" for label, count in shortages.items() if count]
    needed = f"{MIN_IMAGES} images of {MIN_PATIENTS} patients are needed"
    return [f"too few {where} to judge {', '.join(thin)}: {needed}"] if thin else []


def judgeable(
    parts: Mapping[str, Rows], targets: Rows, groups: Names, labels: Sequence[str]
) -> tuple[list[int], list[str]]:
    """Return the classes that every part has enough images of, and why others are not judged.

    ``parts`` are rows by what they are, "test images"; targets and groups are of all images.
    """
    short = {where: shortages(targets[rows], groups[rows], labels) for where, rows in parts.items()}
    enough = [k for k, label in enumerate(labels) if not any(s[label] for s in short.values())]
    return enough, [reason for where, part in short.items() for reason in too_few(part, where)]


def corrected(comparisons: int) -> float:
    """Return the two-sided confidence at which one of a test's comparisons is judged.

    The lower end of such an interval is a one-sided limit at 1 - ``FAMILY_ERROR`` /
    comparisons, so that all together exclude chance falsely in ``FAMILY_ERROR`` of cases at
    most, however they depend on each other.

    Source: Bonferroni's inequality; Dunn 1961, J. Am. Stat. Assoc. 56:52-64.
    """
    return 1 - 2 * FAMILY_ERROR / max(comparisons, 1)


def auroc_limit(
    positive: ArrayLike, scores: ArrayLike, groups: ArrayLike, *, confidence: float
) -> float:
    """Return the lower limit by which an AUROC is judged.

    Whether anything is told at all is asked at the confidence of all comparisons together, by
    the rank-sum test with patients for images, which is on the safe side; how much, by the
    usual 95 % interval. At 0.99 of few patients an interval of so high a confidence would
    hold nearly everything.

    Returns:
        The lower end of the 95 % interval, at most 0.5 where chance is not excluded; NaN where
        the AUROC is undefined.

    Source: variance of the AUROC by chance: Mann, Whitney 1947, Ann. Math. Stat. 18:50-60.
    """
    interval = auroc_interval(positive, scores, groups)
    truth, names = np.asarray(positive, bool), np.asarray(groups)
    ill, rest = (len(np.unique(names[side])) for side in (truth, ~truth))
    error = np.sqrt((ill + rest + 1) / (12 * max(ill * rest, 1)))
    any_told = interval["value"] - 0.5 > norm.ppf(0.5 + confidence / 2) * error
    return firm_limit(interval, any_told, chance=0.5)


def firm_limit(interval: Interval, any_told: bool, *, chance: float) -> float:
    """Return an interval's lower end, at most chance where that is not excluded."""
    return interval["low"] if any_told else min(interval["low"], chance)


def balanced_interval(hits: Masks, targets: ArrayLike, groups: ArrayLike) -> Interval:
    """Return the mean sensitivity of the classes present, with its interval by patient."""
    _, place, counts = np.unique(np.asarray(targets), return_inverse=True, return_counts=True)
    recall = np.bincount(place, hits) / counts
    influences = (hits - recall[place]) / (counts[place] * len(counts))
    return cluster_interval(float(recall.mean()), influences, groups, scale="logit")


def auroc_gain(
    positive: ArrayLike, scores: ArrayLike, baseline: ArrayLike, groups: ArrayLike
) -> Interval:
    """Return the AUROC of scores minus that of a baseline's on the same images, by patient.

    Source: DeLong, DeLong, Clarke-Pearson 1988; by cluster, Obuchowski 1997.
    """
    ours, own = auroc_influences(positive, scores)
    theirs, other = auroc_influences(positive, baseline)
    return cluster_interval(ours - theirs, own - other, groups)


def auroc_excess(
    positive: ArrayLike,
    scores: ArrayLike,
    control: ArrayLike,
    groups: ArrayLike,
    *,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Return the share of what a control leaves open that the scores tell, (A - C) / (1 - C).

    A difference of AUROC cannot exceed 1 - C, so 0.1 beyond a control of 0.88 is nearly all
    and beyond one of 0.5 next to nothing; this share has one scale for both. At a control of
    0.5 an AUROC of 0.65 is 0.3, one of 0.8 is 0.6. ``control`` are the scores, (N,), of the model
    that has the control's input alone.

    Returns:
        ``value``, ``low``, ``high``, 1 at most; NaN where the control is perfect, or one side
        has no image. A control below 0.5 counts as 0.5, which is what no control would have.

    Source: the skill score, Murphy 1988, Mon. Weather Rev. 116:2417-2424; its interval from the
    influences of both AUROCs (DeLong et al. 1988), on the logarithm of what is left open.
    """
    ours, own = auroc_influences(positive, scores)
    theirs, other = auroc_influences(positive, control)
    if theirs <= 0.5:
        theirs, other = 0.5, np.zeros_like(own)
    if np.isnan(ours) or np.isnan(theirs) or theirs >= 1:
        return undefined()
    if ours >= 1:
        # Nothing left open has no logarithm; it has the lower limit of an AUROC of 1.
        low = auroc_interval(positive, scores, groups, confidence=confidence)["low"]
        return {"value": 1.0, "low": (low - theirs) / (1 - theirs), "high": 1.0}
    left = (1 - ours) / (1 - theirs)
    slopes = (left * other - own) / (1 - theirs)
    open_share = cluster_interval(left, slopes, groups, scale="log", confidence=confidence)
    return {"value": 1 - left, "low": 1 - open_share["high"], "high": 1 - open_share["low"]}


@dataclass(frozen=True)
class Scored:
    """Images with their classes (n,), patient or group names (n,), and per model (n, K) probs."""

    targets: Rows
    groups: Names
    probs: Mapping[Any, Floats]

    def hits(self, model: Any) -> Masks:
        """Return (n,) which images a model has right."""
        return np.asarray(self.probs[model].argmax(axis=1) == self.targets)

    def accuracy(self, model: Any) -> Interval:
        """Return a model's share of images named rightly."""
        return share_interval(self.hits(model), self.groups)

    def balanced_accuracy(self, model: Any) -> Interval:
        """Return a model's mean sensitivity."""
        return balanced_interval(self.hits(model), self.targets, self.groups)

    def auroc(self, model: Any, k: int) -> Interval:
        """Return a model's AUROC of a class against the rest."""
        return auroc_interval(self.targets == k, self.probs[model][:, k], self.groups)

    def limit(self, model: Any, k: int, *, confidence: float) -> float:
        """Return the lower limit by which that is judged."""
        scores = self.probs[model][:, k]
        return auroc_limit(self.targets == k, scores, self.groups, confidence=confidence)

    def gain(self, model: Any, other: Any, k: int) -> Interval:
        """Return a model's AUROC of a class less that of another; the images are paired."""
        return auroc_gain(*self._pair(model, other, k))

    def excess(
        self, model: Any, control: Any, k: int, *, confidence: float = CONFIDENCE
    ) -> Interval:
        """Return the share of what a control leaves open that a model tells of a class."""
        return auroc_excess(*self._pair(model, control, k), confidence=confidence)

    def _pair(self, model: Any, other: Any, k: int) -> tuple[NDArray[Any], ...]:
        scores = self.probs[model][:, k], self.probs[other][:, k]
        return (self.targets == k, *scores, self.groups)
