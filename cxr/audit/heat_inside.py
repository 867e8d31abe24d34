"""Heat inside the lungs, and maps of networks whose weights are randomised.

N images, S side of prepared pixels, h w a map's cells.
"""

import itertools
import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from cxr.audit.context import AuditContext, Floats, Interval, Masks, Rows, mean_intervals
from cxr.audit.limits import corrected, shortage
from cxr.evaluation.intervals import cluster_interval
from cxr.explain.faithfulness import to_cells
from cxr.explain.gradcam import Maps, ensemble_cam, member_maps, resize_maps
from cxr.explain.randomise import map_similarity, randomise_cascade
from cxr.models.ensemble import WEIGHTED

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inside:
    """What the maps of one class and one model hold inside the lungs.

    Attributes:
        images: how many.
        blank: maps without any heat, which have no share.
        energy: share of the heat inside the lungs.
        area: share of the image that the lungs fill; what an even map would score.
        excess: energy - area, paired.
        ceiling: energy of a map that follows the lungs as closely as its cells allow.
        short: what the class lacks to be judged, in words.
        judged: excess at the confidence of all classes together.
    """

    images: int
    blank: int
    energy: Interval
    area: Interval
    excess: Interval
    ceiling: Interval
    short: str = ""
    judged: Interval | None = None


@dataclass(frozen=True)
class Cascade:
    """One member's maps while its weights are randomised from the head down.

    Attributes:
        stages: lowest layer that is random; the trained network first.
        similarity: to the trained network's maps, per stage.
        other_image: similarity of the trained network's maps of different images of a class.
        energy: share of the heat inside the lungs, per stage; empty without masks.
        blank: maps without any heat, per stage.
    """

    stages: list[str]
    similarity: list[Interval]
    other_image: Interval
    energy: list[Interval] = field(default_factory=list)
    blank: list[int] = field(default_factory=list)
    images: int = 0


def energy_inside(maps: Maps, masks: Masks) -> Floats:
    """Return the share (N,) of each map's sum, (N, S, S), in the mask; NaN of a map without any."""
    total = maps.sum(axis=(1, 2), dtype=np.float64)
    within = np.where(masks, maps, 0).sum(axis=(1, 2), dtype=np.float64)
    share = np.full(len(maps), np.nan)
    np.divide(within, total, out=share, where=total > 0)
    return share


def heat_inside(
    context: AuditContext, rows: Rows, rng: np.random.Generator
) -> dict[tuple[str, str], Inside]:
    """Return, per model and class, the heat inside the lungs of maps of the true class.

    The rows are of images with a mask; rng draws resamples.
    """
    side, targets, groups = context.side_px, context.targets[rows], context.groups[rows]
    members, weights = context.members, context.ensemble.weights
    raw: dict[str, Maps] = {}
    options: dict[str, Any] = {"batch_size": context.batch_size}
    with context.progress("maps and lungs", len(rows) * len(members)) as done:
        for name, member in members.items():
            raw[name] = member_maps(member, context.pixels, rows, targets, on_image=done, **options)
    masks = context.read_masks(rows)
    solid = masks.astype(np.float32)
    lungs = {name: to_cells(solid, maps.shape[1:]) for name, maps in raw.items()}
    columns = {
        name: [energy_inside(resize_maps(maps[name], side), masks) for maps in (raw, lungs)]
        for name in members
    }
    columns[WEIGHTED] = [
        energy_inside(ensemble_cam(maps, weights, side), masks) for maps in (raw, lungs)
    ]
    area = masks.mean(axis=(1, 2))
    parts = {}
    for model, (energy, ceiling) in columns.items():
        for k, label in enumerate(context.labels):
            own = targets == k
            if not own.any():
                continue
            if blank := int(np.isnan(energy[own]).sum()):
                logger.warning(
                    "%d maps of %s by %s hold no heat: their share is undefined (NaN) and takes "
                    "no part",
                    *(blank, label, model),
                )
            table = np.stack([energy, area, energy - area, ceiling], axis=1)[own]
            means = mean_intervals(table, groups[own], rng=rng, resamples=context.resamples)
            gap = (energy - area)[own]
            known = ~np.isnan(gap)
            mean = float(gap[known].mean()) if known.any() else np.nan
            influences = (gap[known] - mean) / max(known.sum(), 1)
            confidence = corrected(len(context.labels))
            judged = cluster_interval(mean, influences, groups[own][known], confidence=confidence)
            held, fills, excess, most = means
            parts[model, label] = Inside(
                *(int(own.sum()), blank, held, fills, excess, most),
                short=shortage(own, groups),
                judged=judged,
            )
    return parts


def follow_cascade(
    context: AuditContext, name: str, rows: Rows, rng: np.random.Generator, stages: int
) -> Cascade:
    """Follow a member's maps of the true class while its weights are randomised from the head down.

    The member stays as it is. Masks are used where all the chosen rows have one; rng draws weights
    and resamples.
    """
    member, targets, groups = context.members[name], context.targets[rows], context.groups[rows]
    whole = context.has_mask is not None and context.has_mask[rows].all()
    masks = context.read_masks(rows) if whole else None
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    size, resamples, steps = context.batch_size, context.resamples, {}
    with context.progress(f"weights randomised, {name}", len(rows) * (stages + 1)) as done:
        cascade = randomise_cascade(member, generator=generator, stages=stages)
        for stage, network in itertools.chain([("none", member)], cascade):
            steps[stage] = member_maps(
                network, context.pixels, rows, targets, batch_size=size, on_image=done
            )
    trained = steps["none"]
    # Each image's map beside that of the next image of its class.
    order = np.argsort(targets, kind="stable")
    after = np.roll(order, -1)
    likeness = map_similarity(trained[order], trained[after])
    other = np.where(targets[order] == targets[after], likeness, np.nan)
    columns = [map_similarity(trained, maps) for maps in steps.values()]
    if masks is not None:
        columns += [
            energy_inside(resize_maps(maps, context.side_px), masks) for maps in steps.values()
        ]
    means = mean_intervals(np.stack(columns, axis=1), groups, rng=rng, resamples=resamples)
    between = mean_intervals(other, groups[order], rng=rng, resamples=resamples)[0]
    blank = [int((maps.max(axis=(1, 2)) <= 0).sum()) for maps in steps.values()]
    similarity, energy = means[: len(steps)], means[len(steps) :]
    return Cascade(list(steps), similarity, between, energy, blank, len(rows))
