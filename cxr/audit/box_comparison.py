"""What a box around the lungs tells of one class against others, in each part of the split.

N images, n images of a part.
"""

from dataclasses import dataclass, field

import numpy as np

from cxr.audit.context import AuditContext, Floats, Interval, Masks, Rows
from cxr.audit.limits import corrected, firm_limit, shortage
from cxr.audit.maxt import permuted_aurocs
from cxr.audit.result import Verdict, judge, worst
from cxr.evaluation.intervals import auroc_influences, auroc_interval, cluster_interval
from cxr.evaluation.tables import show_interval
from cxr.labels import list_words

PARTS = ("train", "val", "test")
JUDGED = ("train", "test")
MEASURES = ("place across", "place down", "height", "width", "aspect")
"""Of the box: its middle in shares of the image, the logarithms of its sides and of their ratio.
The model has the first four, of which the last is a difference."""
SUSPICIOUS, SHORTCUT = 0.65, 0.80
"""Lower end of the AUROC's interval, as of the image's border in ``baselines``."""
ALPHA = 0.05
"""Family-wise, over all classes, pairs and judged parts."""
SHIFT = 0.10
"""AUROC by which train and test differ at least, lower end. A disease keeps what it does to the
lungs from one part to the next, so where the box tells a pair of classes and this differs, it is
not the disease alone that tells."""
STREAM = 9
"""Of the permutations, beside the seed: the number of the test."""


@dataclass
class Comparison:
    """A class against the rest, or against another, from the box alone.

    Attributes:
        name: "normal against covid".
        pair: whether it is of two classes.
        short: which judged parts are not judged.
        p: per judged part, of so high an AUROC by chance, adjusted for all comparisons.
        shift: train less test, where both are judged.
        measure: of ``MEASURES`` that tells most in train, and per part its AUROC.
    """

    name: str
    pair: bool
    auroc: dict[str, Interval] = field(default_factory=dict)
    short: list[str] = field(default_factory=list)
    p: dict[str, float] = field(default_factory=dict)
    shift: Interval | None = None
    measure: tuple[str, dict[str, float]] = ("", {})

    def low(self, part: str) -> float:
        """Return the lower limit by which a part is judged: chance's at most if p allows it."""
        return firm_limit(self.auroc[part], self.p[part] < ALPHA, chance=0.5)

    @property
    def moved(self) -> bool:
        """Whether train and test differ for certain."""
        return self.shift is not None and max(self.shift["low"], -self.shift["high"]) >= SHIFT

    @property
    def verdict(self) -> Verdict:
        """What is told in the judged parts, and whether it holds in both."""
        found = worst(
            judge(self.low(part), suspicious=SUSPICIOUS, shortcut=SHORTCUT) for part in self.p
        )
        return "shortcut" if found == "suspicious" and self.moved else found

    @property
    def words(self) -> str:
        """Name it with its numbers."""
        ours = [
            f"{show_interval(value, digits=2)} in {part}"
            for part, value in self.auroc.items()
            if not np.isnan(value["value"])
        ]
        name, alone = self.measure
        theirs = [f"{value:.2f}" for value in alone.values() if not np.isnan(value)]
        return f"{self.name} {list_words(ours)} ({name} alone {list_words(theirs)})"


def mask_boxes(masks: Masks) -> Floats:
    """Return top, left, bottom and right (n, 4) of masks (n, S, S), shares; NaN where empty."""
    ends = []
    for axis in (2, 1):
        lines, side = np.asarray(masks.any(axis=axis)), masks.shape[3 - axis]
        ends.append((lines.argmax(axis=1) / side, 1 - lines[:, ::-1].argmax(axis=1) / side))
    (top, bottom), (left, right) = ends
    empty = ~np.asarray(masks.any(axis=(1, 2)))[:, None]
    return np.where(empty, np.nan, np.column_stack([top, left, bottom, right]))


def box_measures(boxes: Floats) -> Floats:
    """Return (N, 5), see ``MEASURES``, of boxes (N, 4)."""
    top, left, bottom, right = boxes.T
    tall, wide = np.log(bottom - top), np.log(right - left)
    return np.column_stack([(left + right) / 2, (top + bottom) / 2, tall, wide, tall - wide])


def compare(
    context: AuditContext,
    comparison: Comparison,
    positive: Masks,
    scores: Floats,
    rows: dict[str, Rows],
) -> list[Floats]:
    """Measure a comparison in each part; return permuted statistics (R + 1, 1) of the judged."""
    statistics, influences = [], {}
    for part, own in rows.items():
        parts = (positive[own], scores[own], context.groups[own])
        comparison.auroc[part] = auroc_interval(*parts)
        if part not in JUDGED:
            continue
        short = [shortage(side, parts[2]) for side in (parts[0], ~parts[0])]
        if any(short):
            comparison.short.append(f"{comparison.name} in {part}")
            continue
        influences[part] = auroc_influences(*parts[:2])
        rng = np.random.default_rng([context.seed, STREAM])
        statistics.append(permuted_aurocs(*parts, rng=rng, permutations=context.resamples))
        comparison.p[part] = np.nan
    if comparison.pair and len(influences) == len(JUDGED):
        (train, of_train), (test, of_test) = (influences[part] for part in JUDGED)
        groups = np.concatenate([context.groups[rows[part]] for part in JUDGED])
        pairs = len(context.labels) * (len(context.labels) - 1) // 2
        comparison.shift = cluster_interval(
            *(train - test, np.concatenate([of_train, -of_test]), groups),
            confidence=corrected(2 * pairs),
        )
    return statistics


def find_best_measure(
    comparison: Comparison, positive: Masks, measures: Floats, rows: dict[str, Rows]
) -> None:
    """Find the measure that tells most in train, whichever way, and what it tells elsewhere."""
    aurocs = {}
    for name, values in zip(MEASURES, measures.T, strict=True):
        told = {part: auroc_influences(positive[own], values[own])[0] for part, own in rows.items()}
        up = told["train"] >= 0.5
        aurocs[name] = told if up else {part: 1 - value for part, value in told.items()}
    name = max(aurocs, key=lambda name: aurocs[name]["train"])
    comparison.measure = (name, aurocs[name])
