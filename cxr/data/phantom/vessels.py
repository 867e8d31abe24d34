"""Lung vessels, grown from the hila, and the drawing of thin structures as point clouds.

P points, H W pixels. A thin structure is a cloud of weighted points that is added to the
image bilinearly and blurred to its width: as fast as a few array operations, smooth at
any image size, and its shadow adds up as shadows do.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]

GENERATIONS = 6
STEMS = 9
STEPS = 7
"""Points along one segment of a vessel."""


@dataclass(frozen=True)
class VesselTree:
    """Both lungs' vessels as points."""

    points: Floats  # (P, 2) float32, x and y
    weights: Floats  # (P,) float32, cross section times the length a point stands for
    generation: NDArray[np.int64]  # (P,) int, 0 the stem


def grow_vessels(rng: np.random.Generator, *, half_width: float) -> VesselTree:
    """Grow the vessels of both lungs; the chest's half width sets the branches' lengths."""
    points, weights, generation = [], [], []
    for side in (-1.0, 1.0):
        # The left hilum stands a little higher than the right one.
        start = np.array([side * 0.15, 0.0 if side < 0 else -0.04])
        nodes = start + rng.normal(0, 0.025, (STEMS, 2))
        spread = np.linspace(-1.35, 1.35, STEMS) + rng.normal(0, 0.1, STEMS)
        width = rng.uniform(0.017, 0.026, STEMS)
        length = half_width * rng.uniform(0.18, 0.26, STEMS)
        for level in range(GENERATIONS):
            path, nodes = _segments(rng, nodes, spread, length, side)
            points.append(path.reshape(-1, 2))
            weights.append(np.repeat(width**2 * length / STEPS, STEPS))
            generation.append(np.full(path.shape[0] * STEPS, level))
            fork = rng.uniform(0.2, 0.55, len(spread))
            nodes = np.repeat(nodes, 2, axis=0)
            spread = (spread[:, None] + np.stack([fork, -fork], 1)).ravel()
            width = np.repeat(width, 2) * rng.uniform(0.62, 0.86, 2 * len(width))
            length = np.repeat(length, 2) * rng.uniform(0.6, 0.95, 2 * len(length))
    return VesselTree(
        np.concatenate(points).astype(np.float32),
        np.concatenate(weights).astype(np.float32),
        np.concatenate(generation),
    )


def _segments(
    rng: np.random.Generator,
    nodes: NDArray[np.float64],
    spread: NDArray[np.float64],
    length: NDArray[np.float64],
    side: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the points (segments, STEPS, 2) of bent segments and their ends."""
    along = np.linspace(0, 1, STEPS)
    bend = rng.normal(0, 0.12, len(spread))
    direction = np.stack([side * np.cos(spread), np.sin(spread)], 1)
    across = np.stack([-direction[:, 1], direction[:, 0]], 1)
    bow = bend[:, None] * np.sin(np.pi * along)
    steps = direction[:, None] * along[:, None] + across[:, None] * bow[..., None]
    path = nodes[:, None] + length[:, None, None] * steps
    return path, path[:, -1]


def splat(columns: Floats, rows: Floats, weights: Floats, size_px: int) -> Floats:
    """Add weighted points to an empty image, each shared by its four nearest pixels.

    Coordinates (P,) count pixels, 0 the centre of the first; points outside are left out.
    """
    left, top = np.floor(columns).astype(np.int64), np.floor(rows).astype(np.int64)
    inside = (left >= 0) & (top >= 0) & (left < size_px - 1) & (top < size_px - 1)
    left, top, weights = left[inside], top[inside], weights[inside]
    right_part, lower_part = columns[inside] - left, rows[inside] - top
    flat = top * size_px + left
    index = np.concatenate([flat, flat + 1, flat + size_px, flat + size_px + 1])
    upper, lower = weights * (1 - lower_part), weights * lower_part
    shares = np.concatenate(
        [upper * (1 - right_part), upper * right_part, lower * (1 - right_part), lower * right_part]
    )
    image = np.bincount(index, shares, size_px * size_px)
    return image.reshape(size_px, size_px).astype(np.float32)


def blur(image: Floats, sigma_px: float) -> Floats:
    """Return the image under a Gaussian of the given width, cut at three sigma."""
    return np.asarray(ndimage.gaussian_filter(image, sigma_px, mode="nearest", truncate=3.0))
