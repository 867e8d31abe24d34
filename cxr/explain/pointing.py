"""The pointing game: does a map's maximum lie in the true lesion?

N images, S side of prepared pixels.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from cxr.errors import InputError
from cxr.imaging.preprocess import Placement, PreprocessSpec, to_square
from cxr.imaging.read import read_gray

Masks = NDArray[np.bool_]
ShareInterval = Callable[[NDArray[np.bool_], NDArray[np.str_]], Mapping[str, float]]
"""From hits and patients, both (n,), to the share's ``value``, ``low`` and ``high``."""
PLATEAU = 1e-6
"""Values this close to the maximum, relative to it, count as the maximum."""


def read_masks(
    root: Path,
    names: Sequence[str],
    spec: PreprocessSpec,
    placements: Iterable[Placement | None] = repeat(None),
) -> Masks:
    """Read masks into the geometry of the prepared images.

    ``names`` are paths below ``root``, or "" where there is no mask; ``placements`` tell where the
    squares show the images, whole ones by default.

    Returns:
        (N, S, S) bool, empty where there is no mask. A prepared pixel belongs to the mask
        if at least half of it does.

    Raises:
        InputError: a file that is missing or no image.
    """
    masks = np.zeros((len(names), spec.size_px, spec.size_px), np.bool_)
    for row, (name, placement) in enumerate(zip(names, placements, strict=False)):
        if name:
            white = np.where(read_gray(root / name, name=name) > 127, 255, 0).astype(np.uint8)
            masks[row] = to_square(white, spec, placement) > 127
    return masks


def find_peaks(maps: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return where each map (N, S, S) has its maximum: (N, 2) row and column.

    Enlarging a coarse map leaves it flat from the centre of an outer cell to the image's edge.
    Of equal values the one nearest to the image's centre is taken, which is that cell's centre
    and not, as argmax has it, the image's corner; -1, -1 for a map without a value above 0.
    """
    side = maps.shape[-1]
    offset = np.square(np.arange(side) - (side - 1) / 2)
    from_centre = offset[:, None] + offset[None, :]
    peaks = np.full((len(maps), 2), -1, np.int64)
    for row, values in enumerate(maps):
        if values.max() > 0:
            distance = np.where(values >= values.max() * (1 - PLATEAU), from_centre, np.inf)
            peaks[row] = np.unravel_index(distance.argmin(), distance.shape)
    return peaks


def pointing_game(
    maps: Mapping[str, NDArray[np.float32]],
    lesions: Masks,
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    cell_px: float,
    interval: ShareInterval,
    lungs: Masks | None = None,
) -> dict[str, Any]:
    """Count the maps whose maximum lies in the lesion, or within half a feature cell of it.

    ``maps`` (N, S, S) are by member and ensemble, of each image's true class. Images without a
    lesion mask do not take part; a map without a value above 0 misses. ``cell_px`` is the side of a
    feature cell in prepared pixels: half of it is how far off a maximum can be placed by the grid
    alone. ``interval`` is such as ``cxr.evaluation.intervals.share_interval``.

    Returns:
        ``cell_px``; then ``all`` and ``per_class`` of each class with lesions, each with
        ``images``, ``patients``, ``chance`` (what a random point of the image, and of the lungs,
        would score) and ``models``: per name ``inside`` and ``half_cell``, each with ``hits``,
        ``images``, ``rate`` and its interval by patient, ``low`` and ``high``.

    Raises:
        InputError: arrays of different images.

    Source: Zhang et al. 2018, Top-down neural attention by excitation backprop, section 4.2,
    where the tolerance is 15 pixels of the original image.
    """
    if any(values.shape != lesions.shape for values in maps.values()):
        shapes = {name: values.shape for name, values in maps.items()}
        raise InputError(f"maps have shapes {shapes}, masks {lesions.shape}: use the same images")
    rows = np.flatnonzero(lesions.any(axis=(1, 2)))
    distances = [distance_transform_edt(~lesions[row]) for row in rows]
    distance = np.asarray(distances, np.float64).reshape(len(rows), *lesions.shape[1:])
    reach = {"inside": 0.0, "half_cell": cell_px / 2}
    hits = {}
    for name, values in maps.items():
        peaks = find_peaks(values[rows])
        away = distance[np.arange(len(rows)), peaks[:, 0], peaks[:, 1]]
        hits[name] = {key: (peaks[:, 0] >= 0) & (away <= limit) for key, limit in reach.items()}
    areas = {"image": np.ones_like(lesions[rows])}
    if lungs is not None and lungs[rows].any(axis=(1, 2)).all():
        areas["lungs"] = lungs[rows]
    chance = {  # the share of each image's area that would be a hit
        area: {
            key: ((distance <= limit) & within).sum(axis=(1, 2)) / within.sum(axis=(1, 2))
            for key, limit in reach.items()
        }
        for area, within in areas.items()
    }
    classes, patients = np.asarray(labels, dtype=object)[rows], np.asarray(groups)[rows]

    def rate(hit: Masks, patients: NDArray[np.str_]) -> dict[str, float]:
        share = interval(hit, patients)
        ends = {"rate": share["value"], "low": share["low"], "high": share["high"]}
        return {"hits": int(hit.sum()), "images": len(hit)} | ends

    def count(some: Masks) -> dict[str, Any]:
        images, whose = int(some.sum()), patients[some]
        return {
            "images": images,
            "patients": len(np.unique(whose)),
            "chance": {
                area: {key: float(part[some].mean()) if images else nan for key, part in of.items()}
                for area, of in chance.items()
            },
            "models": {
                name: {key: rate(part[some], whose) for key, part in of.items()}
                for name, of in hits.items()
            },
        }

    everyone, each = np.ones(len(rows), np.bool_), dict.fromkeys(classes)
    per_class = {name: count(classes == name) for name in each}
    return {"cell_px": cell_px, "all": count(everyone), "per_class": per_class}
