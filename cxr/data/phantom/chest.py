"""Who is on the image: one synthetic patient's anatomy, drawn once and kept.

Lengths are in half image widths at scale 1 (about 18 cm); x grows to the patient's left,
which is the image's right, y grows to the feet. Water paths are in units of a trunk's
depth. All proportions are drawn from memory of adult frontal images, not measured. A thin
structure is a cloud of P weighted points that is added to the image (H, W) bilinearly and blurred
to its width: as fast as a few array operations, smooth at any image size, and its shadow adds up
as shadows do.
"""

from dataclasses import dataclass
from typing import Literal

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


Sex = Literal["F", "M"]
RIBS = 11
"""Pairs of ribs that are drawn; the twelfth hides in the abdomen."""


@dataclass(frozen=True)
class Chest:
    """Anatomy of one patient."""

    sex: Sex  # F or M
    age: int  # years
    half_width: float  # midline to the inner chest wall at the base
    apex: float  # y of the lung apices
    dome: tuple[float, float]  # y of the right hemidiaphragm's top, the left one's
    wall: float  # soft tissue outside the ribs
    depth: float  # trunk depth, 1 the average
    lung_density: float  # of aerated lung, water 1
    heart: float  # linear factor on the heart
    heart_axis: float  # tilt of the heart's long axis, radians
    aorta: float  # linear factor on the aortic knob
    mediastinum: float  # linear factor on the width of the upper mediastinum
    bend: float  # sideways bend of the spine
    rib_start: float  # y of the first rib's head
    rib_step: float  # distance between rib heads
    rib_tilt: float  # how far a rib ring leans, its front below its back by twice this
    rib_radius: float  # half height of a rib
    rib_jitter: NDArray[np.float32]  # (RIBS, 2) offsets of single ribs, in steps, per side
    bone: float  # factor on the density of all bones
    breast: tuple[float, float]  # size of each breast's shadow, right and left; 0 for none
    nipple: float  # strength of the nipples' shadows
    vascularity: float  # factor on all lung vessels
    vessels: VesselTree  # the tree
    gas: float  # strength of the stomach bubble
    mottle: NDArray[np.float32]  # (24, 24) smooth noise that makes tissue uneven
    scar: tuple[float, float, float, float]  # plate of atelectasis: x, y, half length, strength
    granuloma: tuple[float, float, float]  # calcified spot: x, y, strength


def draw_chest(rng: np.random.Generator) -> Chest:
    """Draw a patient. The class of the images is not known here, on purpose."""
    sex: Sex = "F" if rng.random() < 0.5 else "M"
    age = int(np.clip(rng.normal(56, 17), 18, 92))
    half_width = rng.uniform(0.66, 0.77)
    apex = rng.uniform(-0.80, -0.70)
    right_dome = rng.uniform(0.38, 0.54)
    old = (age - 18) / 74
    return Chest(
        sex=sex,
        age=age,
        half_width=half_width,
        apex=apex,
        dome=(right_dome, right_dome + rng.uniform(0.02, 0.09)),
        wall=rng.uniform(0.06, 0.20),
        depth=rng.uniform(0.85, 1.2),
        lung_density=rng.uniform(0.20, 0.34),
        heart=rng.uniform(0.86, 1.12) + 0.08 * old,
        heart_axis=rng.uniform(0.45, 0.85),
        aorta=rng.uniform(0.75, 1.0) + 0.3 * old,
        mediastinum=rng.uniform(0.85, 1.15) + 0.1 * old,
        bend=rng.normal(0, 0.02),
        rib_start=apex + rng.uniform(-0.01, 0.03),
        rib_step=rng.uniform(0.118, 0.136),
        rib_tilt=rng.uniform(0.15, 0.25),
        rib_radius=rng.uniform(0.022, 0.031),
        rib_jitter=rng.normal(0, 0.05, (RIBS, 2)).astype(np.float32),
        bone=rng.uniform(0.75, 1.3) - 0.25 * old,
        breast=_draw_breasts(sex, rng),
        nipple=float(rng.uniform(0.3, 1.0)) if rng.random() < 0.25 else 0.0,
        vascularity=float(np.exp(rng.normal(0, 0.25))),
        vessels=grow_vessels(rng, half_width=half_width),
        gas=float(rng.uniform(0.4, 1.0)) if rng.random() < 0.65 else 0.0,
        mottle=rng.standard_normal((24, 24)).astype(np.float32),
        scar=_draw_scar(rng),
        granuloma=_draw_granuloma(rng),
    )


def _draw_breasts(sex: Sex, rng: np.random.Generator) -> tuple[float, float]:
    size = rng.uniform(0.35, 1.0) if sex == "F" else rng.uniform(0, 0.2)
    # One in twenty women here had a breast removed: that lung looks darker and is healthy.
    sides = [size * rng.uniform(0.9, 1.1), size * rng.uniform(0.9, 1.1)]
    if sex == "F" and rng.random() < 0.05:
        sides[int(rng.integers(2))] = 0.0
    return sides[0], sides[1]


def _draw_scar(rng: np.random.Generator) -> tuple[float, float, float, float]:
    strength = rng.uniform(0.4, 1.0) if rng.random() < 0.2 else 0.0
    side = rng.choice((-1.0, 1.0))
    return side * rng.uniform(0.3, 0.5), rng.uniform(0.2, 0.4), rng.uniform(0.07, 0.16), strength


def _draw_granuloma(rng: np.random.Generator) -> tuple[float, float, float]:
    strength = rng.uniform(0.4, 1.0) if rng.random() < 0.1 else 0.0
    return rng.choice((-1.0, 1.0)) * rng.uniform(0.25, 0.5), rng.uniform(-0.5, 0.3), strength
