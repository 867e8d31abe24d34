"""Test 9: framing: what the place, size and aspect of the lungs' box alone tell of the class.

N images, K classes.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from cxr.audit.box_comparison import (
    JUDGED,
    PARTS,
    Comparison,
    box_measures,
    compare,
    find_best_measure,
    mask_boxes,
)
from cxr.audit.context import AuditContext, Floats, Rows, chunks
from cxr.audit.limits import judgeable
from cxr.audit.linear import fit_linear, out_of_fold
from cxr.audit.maxt import adjusted_p
from cxr.audit.result import (
    AuditResult,
    AuditTable,
    AuditTest,
    Cell,
    Column,
    Verdict,
    statistic_of,
    worst,
)
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
NAMED = 4
"""Comparisons in the sentence."""
PENALTY = (1e-3,)
"""Four numbers of hundreds of images need no choice."""
ADVICE = (
    "Crop to the lungs (data.lungs=crop), or draw the framing at random while training "
    "(trainer.augment.scale=0.35 trainer.augment.shift=0.15), and measure on a source left out."
)


def audit_framing(context: AuditContext, *, boxes: Floats | None = None) -> AuditResult:
    """Tell classes by the lungs' box alone, in train by folds, in val and test by train's model.

    Boxes, (N, 4), are top, left, bottom, right as shares of the image as the network gets it, NaN
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
    rest = [(k, [j for j in enough if j != k]) for k in enough if len(enough) > 2]
    for k, others in rest + [(k, [j]) for k, j in combinations(enough, 2)]:
        pair = len(others) == 1
        name = f"{labels[k]} against {labels[others[0]] if pair else 'the rest'}"
        comparison = Comparison(name, pair)
        scores = np.log(probs[:, k]) - np.log(probs[:, others].sum(axis=1))
        used = {part: own[np.isin(place[own], [k, *others])] for part, own in rows.items()}
        statistics += compare(context, comparison, place == k, scores, used)
        find_best_measure(comparison, place == k, measures, used)
        compared.append(comparison)
    flat = iter(adjusted_p(np.concatenate(statistics, axis=1)).tolist())
    for comparison in compared:
        comparison.p = {part: next(flat) for part in comparison.p}
    thin += [context.outlined_by] if context.outlined_by else []
    return _judge(compared, int((~known).sum()), thin)


def lung_boxes(context: AuditContext) -> Floats:
    """Return top, left, bottom and right (N, 4) of the lungs, shares; NaN where none are known."""
    rows = context.masked(np.arange(len(context.table)))
    sides = np.full((len(context.table), 4), np.nan)
    with context.progress("framing: boxes around the lungs", len(rows)) as done:
        for part in chunks(rows):
            sides[part] = mask_boxes(context.read_masks(part))
            for _ in part:
                done()
    return sides


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
    metric = f"AUROC of {first.name} in {part}, from the lungs' box alone"
    return TEST.result(
        verdict,
        _sentence(verdict, worse, compared),
        statistic_of(first.auroc[part], "auroc", metric, chance=0.5),
        values={
            "auroc": {comparison.name: comparison.auroc for comparison in compared},
            "shift": {part.name: part.shift for part in compared if part.shift},
        },
        tables=[_table(compared)],
        reason="; ".join(reasons),
    )


def _sentence(verdict: Verdict, worse: Sequence[Comparison], compared: Sequence[Comparison]) -> str:
    start = {
        "shortcut": "Where the lungs lie and how large they are tells the class",
        "suspicious": "Where the lungs lie and how large they are tells something of the class",
        "clear": "Where the lungs lie and how large they are tells little of the class",
        "skipped": "No statistic is defined",
    }[verdict]
    told = worse[: 1 if verdict == "clear" else NAMED]
    sentence = (
        f"{start}. AUROC of a linear model on the box alone (0.50 is guessing): "
        f"{list_words([comparison.words for comparison in told])}."
    )
    if moved := [comparison.name for comparison in compared if comparison.moved]:
        sentence += (
            f" It differs between train and test for {list_words(moved)}, which no disease "
            "explains; a validation split framed as train is cannot see that."
        )
    if verdict in ("suspicious", "shortcut"):
        sentence += f" {ADVICE}"
    return sentence


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
