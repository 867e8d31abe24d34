"""Test 4: do the maps look at the lungs, and do they show what was learned?"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cxr.audit.attention_plots import draw_attention
from cxr.audit.context import Images, draw_per_class
from cxr.audit.heat_inside import Cascade, Inside, follow_cascade, heat_inside
from cxr.audit.limits import too_few
from cxr.audit.result import AuditResult, Verdict, figure_of, worst
from cxr.data.decode import ShowProgress, no_progress
from cxr.evaluation.tables import Cell, Table, show_interval
from cxr.explain.randomise import STAGES
from cxr.labels import list_words
from cxr.models.build import Member
from cxr.models.ensemble import WEIGHTED, Ensemble
from cxr.plotting import save_figure

NAME, TITLE = "attention", "Where the maps look"
WHAT = (
    "The heat map of each image's true class is laid over the lungs: how much of its heat lies "
    "inside them, against the share of the image that they fill? Then the networks' weights are "
    "replaced by random ones, layer by layer: a map that does not change shows the image and not "
    "what was learned."
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
RESAMPLES = 2000


def audit_attention(
    members: Mapping[str, Member],
    ensemble: Ensemble,
    images: Images,
    *,
    rng: np.random.Generator,
    folder: Path | None = None,
    note: str = "",
    most_maps: int = MOST_MAPS,
    most_random: int = MOST_RANDOM,
    stages: int = STAGES,
    resamples: int = RESAMPLES,
    batch_size: int = 32,
    progress: ShowProgress = no_progress,
) -> AuditResult:
    """Measure the heat inside the lungs, and what becomes of the maps without learned weights.

    Args:
        members: the trained networks.
        ensemble: their weights.
        images: only those with a mask take part, if any has one; without masks only the
            randomisation is done.
        rng: draws images, weights and resamples.
        folder: receives ``attention.png``; no figure without it.
        note: what the images are.
        most_maps: images of a class whose maps are measured.
        most_random: images of a class that pass through the randomised networks.
        stages: steps of the randomisation.
        resamples: of groups, for the intervals.
        batch_size: images at once.
        progress: see ``ShowProgress``.

    Returns:
        A shortcut where the ensemble's maps of a class (but ``NO_FINDING``) shun the lungs
        (see ``SHUNNED``); suspicious where they hold no more heat there than an even map, or
        hardly more (see ``HARDLY``), or where a network without learned weights still draws
        the same maps. Cells too coarse to tell (see ``COARSE``) are not judged.

    Source: Wang et al. 2020, Score-CAM, section 4.3 (energy); Adebayo et al. 2018 (weights).
    """
    masked = images.masked(images.test_rows)
    rows = images.with_lungs(draw_per_class(masked, images.targets, most_maps, rng))
    inside: dict[tuple[str, str], Inside] = {}
    if len(rows):
        inside = heat_inside(
            members,
            ensemble,
            images,
            rows,
            rng=rng,
            resamples=resamples,
            batch_size=batch_size,
            progress=progress,
        )
    few = draw_per_class(rows if len(rows) else images.test_rows, images.targets, most_random, rng)
    cascades = {}
    for name, member in members.items():
        with progress(f"weights randomised, {name}", len(few) * (stages + 1)) as done:
            cascades[name] = follow_cascade(
                member,
                images,
                few,
                rng=rng,
                stages=stages,
                resamples=resamples,
                batch_size=batch_size,
                on_image=done,
            )
    result = _judge(images, inside, cascades)
    if folder is not None:
        figure = draw_attention(inside, cascades, labels=images.labels, note=note)
        save_figure(figure, folder / f"{NAME}.png")
        result.figures.append(f"{NAME}.png")
    return result


def judge_inside(found: Inside) -> Verdict:
    """Judge one class by its heat inside the lungs beside an even map and one of the lungs."""
    excess = found.judged or found.excess
    low, high = excess["low"], excess["high"]
    most = found.ceiling["value"] - found.area["value"]
    if math.isnan(low) or most < COARSE:
        return "skipped"
    if high < (SHUNNED - 1) * found.area["value"]:
        return "shortcut"
    return "suspicious" if low <= 0 or high < HARDLY * most else "clear"


def way_to_lungs(found: Inside) -> float:
    """Return how far the maps are from an even map (0) to a map of the lungs (1)."""
    most = found.ceiling["value"] - found.area["value"]
    return found.excess["value"] / most if most > 0 else math.nan


def judge_cascade(found: Cascade) -> Verdict:
    """Judge one member by its maps when no learned weight is left.

    Maps without any heat (an undefined similarity) have changed too.
    """
    return "suspicious" if found.similarity[-1]["low"] > STILL_SIMILAR else "clear"


def _judge(
    images: Images, inside: Mapping[tuple[str, str], Inside], cascades: Mapping[str, Cascade]
) -> AuditResult:
    judged = {
        label: part
        for (model, label), part in inside.items()
        if model == WEIGHTED and label != NO_FINDING and not part.short
    }
    verdicts = [judge_inside(part) for part in judged.values()]
    verdicts += [judge_cascade(part) for part in cascades.values()]
    parts, figure = [], None
    if judged:
        shown = [
            f"{label} {show_interval(part.energy, digits=2)} (an even map "
            f"{part.area['value']:.2f}, a map of the lungs {part.ceiling['value']:.2f})"
            for label, part in judged.items()
        ]
        parts += [
            f"Share of the heat of the ensemble's maps inside the lungs: {list_words(shown)}.",
            _meaning(judged),
        ]
        weakest = min(judged, key=lambda label: np.nan_to_num(way_to_lungs(judged[label])))
        figure = figure_of(
            judged[weakest].energy,
            metric=f"share of the heat inside the lungs, {weakest}",
            chance=judged[weakest].area["value"],
        )
    ends = [
        f"{part.similarity[-1]['value']:.2f} ({name})".replace("nan", "no map at all")
        for name, part in cascades.items()
    ]
    parts.append(
        "With every weight at random the maps' rank correlation with the trained ones falls "
        f"from 1 to {list_words(ends)}, so they show what was learned."
        if "suspicious" not in map(judge_cascade, cascades.values())
        else f"With every weight at random the maps still correlate with the trained ones, by "
        f"{list_words(ends)}: they show the image more than what was learned."
    )
    return AuditResult(
        NAME,
        TITLE,
        WHAT,
        worst(verdicts),
        " ".join(parts),
        figure,
        [*_inside_tables(inside), *_cascade_tables(cascades)],
        _reason(images, inside, list(judged)),
    )


def _meaning(judged: Mapping[str, Inside]) -> str:
    """Say what the shares mean, by the worst of the classes."""
    by_verdict = {
        kind: [label for label, part in judged.items() if judge_inside(part) == kind]
        for kind in ("shortcut", "suspicious", "clear")
    }
    if by_verdict["shortcut"]:
        return f"The maps of {list_words(by_verdict['shortcut'])} shun the lungs."
    if by_verdict["suspicious"]:
        return (
            f"The lungs hardly draw the maps of {list_words(by_verdict['suspicious'])}: most of "
            "the heat lies where it would if the network did not know where the lungs are."
        )
    if not by_verdict["clear"]:
        return "The maps' cells are too coarse to say whether they look at the lungs."
    return "The maps look at the lungs."


def _reason(images: Images, inside: Mapping[tuple[str, str], Inside], judged: list[str]) -> str:
    if not inside:
        return "no test image has a lung mask, so only the weights were randomised"
    thin = {
        label: inside[WEIGHTED, label].short if (WEIGHTED, label) in inside else "0 images"
        for label in images.labels
        if label not in (*judged, NO_FINDING)
    }
    without = len(images.test_rows) - len(images.masked(images.test_rows))
    reasons = too_few(thin, "images with a mask")
    coarse = [label for label in judged if judge_inside(inside[WEIGHTED, label]) == "skipped"]
    if coarse:
        reasons.append(f"the maps' cells are too coarse to judge {list_words(coarse)}")
    reasons += [f"{without} test images without a mask take no part"] if without else []
    return "; ".join(reasons)


def _inside_tables(inside: Mapping[tuple[str, str], Inside]) -> list[Table]:
    if not inside:
        return []
    rows: list[tuple[Cell, ...]] = [
        (
            model,
            label,
            part.images,
            show_interval(part.energy, digits=2),
            show_interval(part.area, digits=2),
            show_interval(part.excess, digits=2),
            f"{way_to_lungs(part):.0%}",
            f"{part.ceiling['value']:.2f}",
            part.blank,
        )
        for (model, label), part in inside.items()
    ]
    heads = (
        "map",
        "class",
        "images",
        "heat inside",
        "lungs' share of the image",
        "difference",
        "of the way to the lungs",
        "a map of the lungs themselves",
        "blank maps",
    )
    return [Table("Heat inside the lungs", heads, tuple(rows))]


def _cascade_tables(cascades: Mapping[str, Cascade]) -> list[Table]:
    tables = []
    for name, part in cascades.items():
        energy = [show_interval(value, digits=2) for value in part.energy]
        rows: list[tuple[Cell, ...]] = [
            (
                stage,
                show_interval(part.similarity[k], digits=2),
                energy[k] if energy else None,
                part.blank[k],
            )
            for k, stage in enumerate(part.stages)
        ]
        rows.append(
            ("another image of the class", show_interval(part.other_image, digits=2), None, None)
        )
        tables.append(
            Table(
                f"{name}, weights at random from the head down to this layer, {part.images} images",
                ("down to", "rank correlation with the trained map", "heat inside", "blank maps"),
                tuple(rows),
            )
        )
    return tables
