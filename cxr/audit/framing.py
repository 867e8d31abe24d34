"""Test 9: framing: what the place, size and aspect of the lungs' box alone tell of the class.

N images, K classes, n images of a part of the split.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from cxr.audit.context import AuditContext, Floats, Interval, Masks, Rows, chunks
from cxr.audit.limits import corrected, judgeable, shortage
from cxr.audit.linear import fit_linear, out_of_fold
from cxr.audit.maxt import adjusted_p, permuted_aurocs
from cxr.audit.result import (
    AuditResult,
    AuditTable,
    AuditTest,
    Cell,
    Column,
    Verdict,
    judge,
    statistic_of,
    worst,
)
from cxr.evaluation.intervals import auroc_influences, auroc_interval, cluster_interval
from cxr.evaluation.tables import show_interval
from cxr.labels import list_words

TEST = AuditTest(
    "framing",
    9,
    "Framing of the lungs",
    "A plain linear model was given nothing but the box around both lungs: where it lies in the "
    "image, how tall and how wide it is. What that tells of the class, a network can learn too; "
    "where it tells it in the training images and not in others, the network learns what fails "
    "elsewhere.",
)
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
NAMED = 4
"""Comparisons in the sentence."""
PENALTY = (1e-3,)
"""Four numbers of hundreds of images need no choice."""
ADVICE = (
    "Crop to the lungs (data.lungs=crop), or draw the framing at random while training "
    "(trainer.augment.scale=0.35 trainer.augment.shift=0.15), and measure on a source left out."
)


@dataclass
class Comparison:
    """A class against the rest, or against another, from the box alone.

    Attributes:
        name: "normal against covid".
        pair: whether it is of two classes.
        auroc: per part.
        short: why a judged part is not judged.
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
        low = self.auroc[part]["low"]
        return low if self.p[part] < ALPHA else min(low, 0.5)

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


def audit_framing(context: AuditContext, *, boxes: Floats | None = None) -> AuditResult:
    """Tell classes by the lungs' box alone, in train by folds, in val and test by train's model.

    Args:
        context: see ``AuditContext``.
        boxes: (N, 4) top, left, bottom, right as shares of the image as the network gets it, NaN
            where no lungs are known; by default those of the masks.

    Returns:
        The verdict of the worst comparison, by ``SUSPICIOUS`` and ``SHORTCUT`` in train or test
        where its p is below ``ALPHA``; ``shortcut`` too where the AUROC of a pair shifts by
        ``SHIFT``. Classes and parts with few images or patients are not judged.
    """
    boxes = lung_boxes(context) if boxes is None else boxes
    known = np.isfinite(boxes).all(axis=1)
    split, labels = context.column("split"), context.labels
    rows = {part: np.flatnonzero((split == part) & known) for part in PARTS}
    place, groups = context.targets, context.groups
    enough, thin = judgeable({"train images with lungs": rows["train"]}, place, groups, labels)
    if len(enough) < 2:
        lacking = thin or ["fewer than two classes have train images with lungs"]
        return TEST.skipped("; ".join(lacking))
    rows = {part: own[np.isin(place[own], enough)] for part, own in rows.items()}
    measures = box_measures(boxes)
    probs = _probs(context, measures[:, :4], rows, enough)
    compared, statistics = [], []
    rest = [(k, [j for j in enough if j != k]) for k in enough]
    pairs = [(k, [j]) for k, j in combinations(enough, 2)]
    for k, others in (rest if len(enough) > 2 else []) + pairs:
        pair = len(others) == 1
        name = f"{labels[k]} against {labels[others[0]] if pair else 'the rest'}"
        comparison = Comparison(name, pair)
        scores = np.log(probs[:, k]) - np.log(probs[:, others].sum(axis=1))
        used = {part: own[np.isin(place[own], [k, *others])] for part, own in rows.items()}
        statistics += _compare(context, comparison, place == k, scores, used)
        _best_measure(comparison, place == k, measures, used)
        compared.append(comparison)
    flat = iter(adjusted_p(np.concatenate(statistics, axis=1)).tolist())
    for comparison in compared:
        comparison.p = {part: next(flat) for part in comparison.p}
    thin += [context.outlined_by] if context.outlined_by else []
    return _judge(compared, int((~known).sum()), thin)


def lung_boxes(context: AuditContext) -> Floats:
    """Return top, left, bottom and right (N, 4) of the lungs, shares; NaN where none are known."""
    rows = np.flatnonzero(
        np.zeros(len(context.table)) if context.has_mask is None else context.has_mask
    )
    sides = np.full((len(context.table), 4), np.nan)
    with context.progress("framing: boxes around the lungs", len(rows)) as done:
        for part in chunks(rows):
            sides[part] = mask_boxes(context.read_masks(part))
            for _ in part:
                done()
    return sides


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


def _probs(
    context: AuditContext, measures: Floats, rows: dict[str, Rows], classes: Sequence[int]
) -> Floats:
    """Return (N, K) probabilities from the box; ones where none are known."""
    own, columns = rows["train"], np.asarray(classes)
    fit = (measures[own], np.searchsorted(columns, context.targets[own]), context.groups[own])
    count, seed = len(classes), context.seed
    probs = np.ones((len(measures), len(context.labels)))
    probs[np.ix_(own, columns)] = out_of_fold(*fit, n_classes=count, seed=seed, penalties=PENALTY)
    model = fit_linear(*fit, n_classes=count, seed=seed, penalties=PENALTY)
    for part in ("val", "test"):
        probs[np.ix_(rows[part], columns)] = model.probs(measures[rows[part]])
    return probs


def _compare(
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
        rng = np.random.default_rng([context.seed, TEST.number])
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


def _best_measure(
    comparison: Comparison, positive: Masks, measures: Floats, rows: dict[str, Rows]
) -> None:
    """Find the measure that tells most in train, whichever way, and what it tells elsewhere."""
    aurocs = {
        name: {
            part: auroc_influences(positive[own], measures[own, column])[0]
            for part, own in rows.items()
        }
        for column, name in enumerate(MEASURES)
    }
    name = max(aurocs, key=lambda name: abs(aurocs[name]["train"] - 0.5))
    up = aurocs[name]["train"] >= 0.5
    values = {part: value if up else 1 - value for part, value in aurocs[name].items()}
    comparison.measure = (name, values)


def _judge(compared: Sequence[Comparison], without: int, thin: list[str]) -> AuditResult:
    verdict = worst(comparison.verdict for comparison in compared)
    worse = [comparison for comparison in compared if comparison.verdict == verdict]
    worse.sort(key=lambda comparison: -max(map(comparison.low, comparison.p), default=-np.inf))
    first = worse[0]
    part = max(first.p, key=first.low, default="train")
    reasons = list(thin)
    if short := [name for comparison in compared for name in comparison.short]:
        reasons.append(f"too few images to judge {list_words(short)}")
    if without:
        reasons.append(f"{without} images without outlined lungs take no part")
    start = {
        "shortcut": "Where the lungs lie and how large they are tells the class",
        "suspicious": "Where the lungs lie and how large they are tells something of the class",
        "clear": "Where the lungs lie and how large they are tells little of the class",
        "skipped": "No statistic is defined",
    }[verdict]
    told = worse[: 1 if verdict == "clear" else NAMED]
    moved = [comparison.name for comparison in compared if comparison.moved]
    sentence = (
        f"{start}. AUROC of a linear model on the box alone (0.50 is guessing): "
        f"{list_words([comparison.words for comparison in told])}."
    )
    if moved:
        sentence += (
            f" It differs between train and test for {list_words(moved)}, which no disease "
            "explains; a validation split framed as train is cannot see that."
        )
    if verdict in ("suspicious", "shortcut"):
        sentence += f" {ADVICE}"
    return TEST.result(
        verdict,
        sentence,
        statistic_of(
            first.auroc[part],
            "auroc",
            f"AUROC of {first.name} in {part}, from the lungs' box alone",
            chance=0.5,
        ),
        values={
            "auroc": {comparison.name: comparison.auroc for comparison in compared},
            "shift": {part.name: part.shift for part in compared if part.shift},
        },
        tables=[_table(compared)],
        reason="; ".join(reasons),
    )


def _table(compared: Sequence[Comparison]) -> AuditTable:
    rows: list[tuple[Cell, ...]] = []
    for comparison in compared:
        aurocs = (comparison.auroc[part] for part in PARTS)
        p = (comparison.p.get(part) for part in JUDGED)
        name, alone = comparison.measure
        rows.append((comparison.name, *aurocs, *p, comparison.shift, name, *alone.values()))
    columns = (
        Column("comparison"),
        *(Column(f"auroc_{part}", f"AUROC in {part}", "interval", 2) for part in PARTS),
        *(Column(f"p_{part}", f"adjusted p in {part}", "p") for part in JUDGED),
        Column("shift", "train less test", "interval", 2),
        Column("measure", "best measure by itself"),
        *(Column(f"measure_{part}", f"its AUROC in {part}", "number", 2) for part in PARTS),
    )
    title = "What the lungs' box alone tells; train out of fold"
    return AuditTable("boxes", title, columns, tuple(rows))
