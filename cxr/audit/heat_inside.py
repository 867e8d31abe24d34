"""Heat inside the lungs, and maps of networks whose weights are randomised.

N images, S side of prepared pixels, h w a map's cells.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from cxr.audit.context import Floats, Images, Masks, Rows, mean_intervals
from cxr.audit.limits import corrected, shortage
from cxr.data.decode import ShowProgress
from cxr.evaluation.intervals import cluster_interval
from cxr.explain.faithfulness import to_cells
from cxr.explain.gradcam import Maps, ensemble_cam, member_maps, resize_maps
from cxr.explain.randomise import map_similarity, randomise_cascade
from cxr.models.build import Member
from cxr.models.ensemble import WEIGHTED, Ensemble

Interval = dict[str, float]

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
        images: how many.
    """

    stages: list[str]
    similarity: list[Interval]
    other_image: Interval
    energy: list[Interval] = field(default_factory=list)
    blank: list[int] = field(default_factory=list)
    images: int = 0


def energy_inside(maps: Maps, masks: Masks) -> Floats:
    """Return the share of each map's sum that lies in the mask.

    Args:
        maps: (N, S, S), 0 and above.
        masks: (N, S, S).

    Returns:
        (N,), 0 to 1; NaN for a map that is 0 throughout.
    """
    total = maps.sum(axis=(1, 2), dtype=np.float64)
    within = np.where(masks, maps, 0).sum(axis=(1, 2), dtype=np.float64)
    share = np.full(len(maps), np.nan)
    np.divide(within, total, out=share, where=total > 0)
    return share


def heat_inside(
    members: Mapping[str, Member],
    ensemble: Ensemble,
    images: Images,
    rows: Rows,
    *,
    rng: np.random.Generator,
    resamples: int,
    batch_size: int,
    progress: ShowProgress,
) -> dict[tuple[str, str], Inside]:
    """Return, per model and class, the heat inside the lungs of maps of the true class.

    Args:
        members: the trained networks.
        ensemble: their weights.
        images: where the rows' pixels and masks are.
        rows: images with a mask.
        rng: of the resamples.
        resamples: of groups.
        batch_size: images at once.
        progress: see ``ShowProgress``.
    """
    side, targets = images.side_px, images.targets[rows]
    raw: dict[str, Maps] = {}
    with progress("maps and lungs", len(rows) * len(members)) as done:
        for name, member in members.items():
            raw[name] = member_maps(
                member, images.pixels, rows, targets, batch_size=batch_size, on_image=done
            )
    masks = images.read_masks(rows)
    solid = masks.astype(np.float32)
    lungs = {name: to_cells(solid, maps.shape[1:]) for name, maps in raw.items()}
    columns = {
        name: (
            energy_inside(resize_maps(raw[name], side), masks),
            energy_inside(resize_maps(lungs[name], side), masks),
        )
        for name in members
    } | {
        WEIGHTED: (
            energy_inside(ensemble_cam(raw, ensemble.weights, side), masks),
            energy_inside(ensemble_cam(lungs, ensemble.weights, side), masks),
        )
    }
    area = masks.mean(axis=(1, 2))
    found = {}
    for model, (energy, ceiling) in columns.items():
        for k, label in enumerate(images.labels):
            own = targets == k
            if not own.any():
                continue
            if blank := int(np.isnan(energy[own]).sum()):
                logger.warning(
                    "%d maps of %s by %s hold no heat: their share is undefined (NaN) and takes "
                    "no part",
                    blank,
                    label,
                    model,
                )
            table = np.stack([energy, area, energy - area, ceiling], axis=1)[own]
            means = mean_intervals(table, images.groups[rows][own], rng=rng, resamples=resamples)
            groups, gap = images.groups[rows][own], (energy - area)[own]
            known = ~np.isnan(gap)
            mean = float(gap[known].mean()) if known.any() else np.nan
            judged = cluster_interval(
                mean,
                (gap[known] - mean) / max(known.sum(), 1),
                groups[known],
                confidence=corrected(len(images.labels)),
            )
            short = shortage(own, images.groups[rows])
            inside, fills, excess, most = means
            found[model, label] = Inside(
                int(own.sum()), blank, inside, fills, excess, most, short, judged
            )
    return found


def follow_cascade(
    member: Member,
    images: Images,
    rows: Rows,
    *,
    rng: np.random.Generator,
    stages: int,
    resamples: int,
    batch_size: int,
    on_image: Callable[[], None],
) -> Cascade:
    """Follow a member's maps while its weights are randomised from the head down.

    Args:
        member: stays as it is.
        images: masks are used where all the chosen images have one.
        rows: the chosen images; the map of each one's true class is followed.
        rng: draws weights and resamples.
        stages: steps of the randomisation.
        resamples: of groups.
        batch_size: images at once.
        on_image: called once an image and step, ``stages`` + 1 times for each image.
    """
    targets, groups = images.targets[rows], images.groups[rows]
    masks = images.read_masks(rows) if images.has_mask[rows].all() else None

    def maps_of(network: Member) -> NDArray[np.float32]:
        return member_maps(
            network, images.pixels, rows, targets, batch_size=batch_size, on_image=on_image
        )

    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    steps = {"none": maps_of(member)}
    for name, network in randomise_cascade(member, generator=generator, stages=stages):
        steps[name] = maps_of(network)
    trained = steps["none"]
    # Each image's map beside that of the next image of its class.
    order = np.argsort(targets, kind="stable")
    after = np.roll(order, -1)
    other = np.where(
        targets[order] == targets[after], map_similarity(trained[order], trained[after]), np.nan
    )
    columns = [map_similarity(trained, maps) for maps in steps.values()]
    if masks is not None:
        enlarged = [resize_maps(maps, images.side_px) for maps in steps.values()]
        columns += [energy_inside(maps, masks) for maps in enlarged]
    means = mean_intervals(np.stack(columns, axis=1), groups, rng=rng, resamples=resamples)
    between = mean_intervals(other, groups[order], rng=rng, resamples=resamples)[0]
    return Cascade(
        list(steps),
        means[: len(steps)],
        between,
        means[len(steps) :],
        [int((maps.max(axis=(1, 2)) <= 0).sum()) for maps in steps.values()],
        len(rows),
    )
