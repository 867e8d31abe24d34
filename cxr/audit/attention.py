"""Test 4: do the maps look at the lungs, and do they show what was learned?"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from cxr.audit.audit_plots import draw_attention
from cxr.audit.context import AuditContext, draw_per_class
from cxr.audit.heat_inside import Cascade, Inside, follow_cascade, heat_inside
from cxr.audit.limits import too_few
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
from cxr.evaluation.tables import show_interval
from cxr.explain.randomise import STAGES
from cxr.labels import list_words
from cxr.models.ensemble import WEIGHTED

TEST = AuditTest(
    "attention",
    4,
    "Where the maps look",
    "The heat map of each image's true class is laid over the lungs: how much of its heat lies "
    "inside them, against the share of the image that they fill? Then the networks' weights are "
    "replaced by random ones, layer by layer: a map that does not change shows the image and not "
    "what was learned.",
)
NO_FINDING = "normal"
"""A healthy image has no place to point at, so this class takes no part in the verdict."""
STILL_SIMILAR = 0.5
"""Rank correlation with the trained network's map above which a network without any learned
weight still draws the same picture."""
HARDLY = 0.25
"""Share of the way from an even map (0) to a map of the lungs themselves (1), both at the same
cells, below which the lungs hardly draw the heat: three quarters of it lie where they would if
the network did not know where the lungs are."""
SHUNNED = 0.5
"""Share of an even map's heat inside the lungs below which the maps shun them. A little less
than even may come from a network's padding; half of it is heat that lies elsewhere."""
COARSE = 0.1
"""Where even a map of the lungs themselves would hold no more than this above an even map, the
cells are too coarse to say anything."""
MOST_MAPS, MOST_RANDOM = 100, 8
"""Images of a class whose maps are measured, and that pass through the randomised networks."""


def audit_attention(
    context: AuditContext, *, most_random: int = MOST_RANDOM, stages: int = STAGES
) -> AuditResult:
    """Measure the heat inside the lungs, and what becomes of the maps without learned weights.

    Only images with a mask take part, if any has one; without masks only the randomisation is
    done, in so many stages and with ``most_random`` images of a class.

    Returns:
        A shortcut where the ensemble's maps of a class (but ``NO_FINDING``) shun the lungs
        (see ``SHUNNED``); suspicious where they hold no more heat there than an even map, or
        hardly more (see ``HARDLY``), or where a network without learned weights still draws
        the same maps. Cells too coarse to tell (see ``COARSE``) are not judged.

    Source: Wang et al. 2020, Score-CAM, section 4.3 (energy); Adebayo et al. 2018 (weights).
    """
    rng, targets = context.stream(TEST.number), context.targets
    masked = context.masked(context.test_rows)
    rows = context.with_lungs(draw_per_class(masked, targets, MOST_MAPS, rng))
    inside = heat_inside(context, rows, rng) if len(rows) else {}
    few = draw_per_class(rows if len(rows) else context.test_rows, targets, most_random, rng)
    cascades = {name: follow_cascade(context, name, few, rng, stages) for name in context.members}
    return context.with_plot(
        _judge(context, inside, cascades),
        lambda: draw_attention(inside, cascades, labels=context.labels, note=context.note),
    )


def judge_inside(part: Inside) -> Verdict:
    """Judge one class by its heat inside the lungs beside an even map and one of the lungs."""
    excess = part.judged or part.excess
    low, high = excess["low"], excess["high"]
    most = part.ceiling["value"] - part.area["value"]
    if math.isnan(low) or most < COARSE:
        return "skipped"
    if high < (SHUNNED - 1) * part.area["value"]:
        return "shortcut"
    return "suspicious" if low <= 0 or high < HARDLY * most else "clear"


def way_to_lungs(part: Inside) -> float:
    """Return how far the maps are from an even map (0) to a map of the lungs (1)."""
    most = part.ceiling["value"] - part.area["value"]
    return part.excess["value"] / most if most > 0 else math.nan


def judge_cascade(part: Cascade) -> Verdict:
    """Judge one member by its maps when no learned weight is left.

    Maps without any heat (an undefined similarity) have changed too.
    """
    return "suspicious" if part.similarity[-1]["low"] > STILL_SIMILAR else "clear"


def _judge(
    context: AuditContext, inside: Mapping[tuple[str, str], Inside], cascades: Mapping[str, Cascade]
) -> AuditResult:
    shown = {label: part for (model, label), part in inside.items() if model == WEIGHTED}
    judged = {
        label: part for label, part in shown.items() if label != NO_FINDING and not part.short
    }
    verdicts = [judge_inside(part) for part in judged.values()]
    verdicts += [judge_cascade(part) for part in cascades.values()]
    sentences, statistic = [], None
    if judged:
        shares = [
            f"{label} {show_interval(part.energy, digits=2)} (an even map "
            f"{part.area['value']:.2f}, a map of the lungs {part.ceiling['value']:.2f})"
            for label, part in judged.items()
        ]
        sentences += [
            f"Share of the heat of the ensemble's maps inside the lungs: {list_words(shares)}.",
            _meaning(judged),
        ]
        weakest = min(judged, key=lambda label: np.nan_to_num(way_to_lungs(judged[label])))
        part, metric = judged[weakest], f"share of the heat inside the lungs, {weakest}"
        statistic = statistic_of(part.energy, "heat_inside", metric, chance=part.area["value"])
    return TEST.result(
        worst(verdicts),
        " ".join([*sentences, _cascade_sentence(cascades)]),
        statistic,
        values={
            "heat_inside": {label: part.energy for label, part in shown.items()},
            "even_map": {label: part.area["value"] for label, part in shown.items()},
        },
        tables=[
            *([_inside_table(inside)] if inside else []),
            *(_cascade_table(name, part) for name, part in cascades.items()),
        ],
        reason=_reason(context, shown, list(judged)),
    )


def _cascade_sentence(cascades: Mapping[str, Cascade]) -> str:
    last = {name: f"{part.similarity[-1]['value']:.2f}" for name, part in cascades.items()}
    ends = list_words([f"{x} ({name})".replace("nan", "no map at all") for name, x in last.items()])
    start = "With every weight at random the maps"
    if "suspicious" in map(judge_cascade, cascades.values()):
        return (
            f"{start} still correlate with the trained ones, by {ends}: they show the image more "
            "than what was learned."
        )
    return (
        f"{start}' rank correlation with the trained ones falls from 1 to {ends}, so they show "
        "what was learned."
    )


def _meaning(judged: Mapping[str, Inside]) -> str:
    """Say what the shares mean, by the worst of the classes."""
    verdict = worst(map(judge_inside, judged.values()))
    classes = list_words([k for k, part in judged.items() if judge_inside(part) == verdict])
    return {
        "shortcut": f"The maps of {classes} shun the lungs.",
        "suspicious": (
            f"The lungs hardly draw the maps of {classes}: most of the heat lies where it would if "
            "the network did not know where the lungs are."
        ),
        "clear": "The maps look at the lungs.",
        "skipped": "The maps' cells are too coarse to say whether they look at the lungs.",
    }[verdict]


def _reason(context: AuditContext, shown: Mapping[str, Inside], judged: list[str]) -> str:
    if not shown:
        return "no test image has a lung mask, so only the weights were randomised"
    thin = {
        label: shown[label].short if label in shown else "0 images"
        for label in context.labels
        if label not in (*judged, NO_FINDING)
    }
    reasons = too_few(thin, "images with a mask")
    if coarse := [label for label in judged if judge_inside(shown[label]) == "skipped"]:
        reasons.append(f"the maps' cells are too coarse to judge {list_words(coarse)}")
    return "; ".join(reasons + context.mask_notes(context.masked(context.test_rows)))


def _inside_table(inside: Mapping[tuple[str, str], Inside]) -> AuditTable:
    rows = [
        (
            *(model, label, part.images, part.energy, part.area, part.excess),
            *(way_to_lungs(part), part.ceiling["value"], part.blank),
        )
        for (model, label), part in inside.items()
    ]
    columns = (
        *(Column("map"), Column("class"), Column("images", kind="count")),
        Column("energy", "heat inside", "interval", 2),
        Column("area", "lungs' share of the image", "interval", 2),
        Column("difference", "", "interval", 2),
        Column("way", "of the way to the lungs", "share"),
        Column("ceiling", "a map of the lungs themselves", "number", 2),
        Column("blank_maps", kind="count"),
    )
    return AuditTable("inside", "Heat inside the lungs", columns, tuple(rows))


def _cascade_table(name: str, part: Cascade) -> AuditTable:
    energy: Sequence[Cell] = part.energy or [None] * len(part.stages)
    rows: list[tuple[Cell, ...]] = [
        *zip(part.stages, part.similarity, energy, part.blank, strict=True),
        ("another image of the class", part.other_image, None, None),
    ]
    columns = (
        Column("stage", "down to"),
        Column("similarity", "rank correlation with the trained map", "interval", 2),
        Column("energy", "heat inside", "interval", 2),
        Column("blank_maps", kind="count"),
    )
    title = f"{name}, weights at random from the head down to this layer, {part.images} images"
    return AuditTable(f"cascade_{name}", title, columns, tuple(rows))
