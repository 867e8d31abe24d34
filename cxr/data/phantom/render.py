"""Put an image together: anatomy, disease, position and exposure.

One patient is drawn from a seed of its own, so an image does not depend on how many others
there are or in which order they are made. A disease is an opacity: the part of the air on a
pixel's path that fluid has replaced, 0 to 1, so that a lesion's shadow depends on where in the lung
it lies, as in life. H W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxr.data.phantom.anatomy import (
    Field,
    Mask,
    ball,
    hollow,
    lay_out,
    sample_noise,
    skeleton,
    soft_tissue,
)
from cxr.data.phantom.chest import Chest, Floats, blur, draw_chest, splat
from cxr.data.phantom.phantom_image import Pose, View, draw_pose, expose, finish
from cxr.labels import CANONICAL

VISIBLE = 0.10
"""Opacity from which a pixel counts as lesion."""

LOBES = {
    # side, centre across, centre down, radius across, radius down, fissure above, below
    "right upper": (-1, 0.55, 0.30, 0.42, 0.20, None, 0.50),
    "right middle": (-1, 0.42, 0.70, 0.30, 0.20, 0.53, None),
    "right lower": (-1, 0.68, 0.85, 0.34, 0.24, None, None),
    "left upper": (1, 0.58, 0.32, 0.40, 0.24, None, None),
    "lingula": (1, 0.60, 0.70, 0.26, 0.20, None, None),
    "left lower": (1, 0.72, 0.86, 0.32, 0.24, None, None),
}


@dataclass(frozen=True)
class Lesion:
    """One patient's disease."""

    label: str  # the class
    severity: float  # 0 subtle to 1 plain
    blobs: NDArray[np.float32]  # (n, 6) side, across, down, radius across, radius down, strength
    fissure: tuple[float | None, float | None]  # down of sharp borders
    threads: Floats  # (P, 2) points of fine lines and nodules in the patient, perhaps none
    beads: Floats  # (P,) their weights
    mottle: NDArray[np.float32]  # (24, 24) noise of its own
    airways: NDArray[np.float32]  # (30, 30) noise whose level lines are the airways of a dense lobe
    grain: NDArray[np.float32]  # (56, 56) finer noise


def draw_lesion(label: str, chest: Chest, rng: np.random.Generator) -> Lesion:
    """Draw a patient's disease, by a generator of its own; nothing visible for normal."""
    severity = 0.45 + 0.55 * float(rng.beta(1.6, 1.2))
    blobs: list[tuple[float, ...]] = []
    fissure: tuple[float | None, float | None] = (None, None)
    threads, beads = np.zeros((0, 2), np.float32), np.zeros(0, np.float32)
    if label == "covid":
        blobs = _peripheral_patches(severity, rng)
    elif label == "bacterial":
        blobs, fissure = _one_lobe(severity, rng)
    elif label == "viral":
        threads, beads = _threads(severity, chest, rng)
        blobs = [(side, 0.40, 0.55, 0.40, 0.40, 0.03 + 0.04 * severity) for side in (-1.0, 1.0)]
    noises = [rng.standard_normal((side, side)).astype(np.float32) for side in (24, 30, 56)]
    patches = np.array(blobs, np.float32).reshape(-1, 6)
    return Lesion(label, severity, patches, fissure, threads, beads, *noises)


def _peripheral_patches(severity: float, rng: np.random.Generator) -> list[tuple[float, ...]]:
    """Ground glass under the pleura of both lungs, mostly low."""
    patches: list[tuple[float, ...]] = []
    for side in (-1.0, 1.0):
        for _ in range(int(rng.integers(2, 4 + round(2 * severity)))):
            down = rng.beta(3.2, 1.7) * 0.75 + 0.22
            across, wide = rng.uniform(0.62, 0.88), rng.uniform(0.16, 0.27)
            high, strength = rng.uniform(0.10, 0.18), rng.uniform(0.44, 0.54) + 0.22 * severity
            patches.append((side, across, down, wide, high, strength))
    return patches


def _one_lobe(
    severity: float, rng: np.random.Generator
) -> tuple[list[tuple[float, ...]], tuple[float | None, float | None]]:
    """Consolidation of one lobe or a segment of it."""
    side, across, down, wide, high, above, below = LOBES[str(rng.choice(list(LOBES)))]
    extent = 1.30 + 0.25 * severity
    across, down = across + rng.normal(0, 0.06), down + rng.normal(0, 0.04)
    strength = rng.uniform(0.86, 0.94) + 0.12 * severity
    return [(side, across, down, wide * extent, high * extent, strength)], (above, below)


def _threads(severity: float, chest: Chest, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """A net of fine lines and small nodules in both lungs, thickest about the hila."""
    count, steps = int(260 + 260 * severity), 8
    side = rng.choice((-1.0, 1.0), count)
    angle = rng.uniform(-1.45, 1.45, count)
    far = chest.half_width * (0.22 + 0.68 * rng.beta(1.3, 1.7, count))
    start = np.stack([side * (0.08 + far * np.cos(angle)), 0.02 + 0.85 * far * np.sin(angle)], 1)
    lean = np.where(rng.random(count) < 0.5, angle, angle + rng.normal(1.57, 0.4, count))
    length = rng.uniform(0.04, 0.13, count)
    t = np.linspace(-0.5, 0.5, steps)
    ray = np.stack([side * np.cos(lean), np.sin(lean)], 1)
    lines = start[:, None] + (length[:, None] * t)[..., None] * ray[:, None]
    weights = np.repeat(length / steps * rng.uniform(0.5, 1.3, count), steps)
    nodules = start[: count // 3] + rng.normal(0, 0.02, (count // 3, 2))
    points = np.concatenate([lines.reshape(-1, 2), nodules])
    beads = np.concatenate([weights, rng.uniform(0.02, 0.05, count // 3)])
    return points.astype(np.float32), beads.astype(np.float32)


def opacity(lesion: Lesion, field: Field, pose: Pose) -> tuple[Floats, Mask]:
    """Render a disease: (H, W) float32 opacity, 0 to 1, and (H, W) bool where it is visible."""
    if lesion.label == "normal":
        return np.zeros_like(field.x), np.zeros(field.x.shape, np.bool_)
    uneven = sample_noise(lesion.mottle, field.x, field.y)
    total = np.zeros_like(field.x)
    for blob in lesion.blobs:
        np.maximum(total, _blob(blob, field, uneven, lesion.label), out=total)
    haze = total
    if lesion.label == "bacterial":
        above, below = lesion.fissure
        sharp = pose.unit_px * 0.6
        if above is not None:
            total *= np.clip((field.down - above + 0.03 * field.across) * sharp, 0, 1)
        if below is not None:
            total *= np.clip((below - field.down - 0.03 * field.across) * sharp, 0, 1)
        # Air bronchograms: the airways stay open and dark in the dense lobe. The level lines
        # of smooth noise branch and wind as they do. They are what tells a dense lobe from
        # heart and abdomen, which are as white, so they lie close.
        airways = sample_noise(lesion.airways, field.x, field.y)
        haze = total
        total = total * (1 - np.float32(0.9) * np.exp(-((airways / np.float32(0.20)) ** 2)))
    grain = sample_noise(lesion.grain, field.x, field.y)
    total = total * np.clip(1 + (0.7 if lesion.label == "covid" else 0.08) * grain, 0, 2)
    if len(lesion.threads):
        columns, rows = pose.to_pixels(lesion.threads)
        weights = lesion.beads * np.float32(pose.unit_px**2 / 64)
        net = blur(splat(columns, rows, weights, pose.size_px), 0.008 * pose.unit_px)
        net = net * np.float32(0.45 + 0.25 * lesion.severity)
        near = blur(net, 0.05 * pose.unit_px)
        # Small airways swell and trap air: between the lines the lung is darker, so that
        # the pattern shows but a thumbnail's brightness hardly does.
        total = total + net - np.float32(0.65) * near
        haze = haze + near
    total = np.clip(total, -0.2, 0.97)
    return total, (haze > VISIBLE) & field.lung


def _blob(blob: NDArray[np.float32], field: Field, uneven: Floats, label: str) -> Floats:
    """One patch with an irregular outline; dense ones are flat-topped, hazy ones are not."""
    side, across, down, wide, high, strength = blob
    u, w = (field.across - across) / wide, (field.down - down) / high
    reach = u * u + w * w + np.float32(0.22) * uneven
    if label == "bacterial":
        shape = 1 / (1 + np.exp(np.clip((reach - 1) * 8, -30, 30)))
    else:
        shape = np.exp(-(np.maximum(reach, 0) ** 1.3))
    return np.asarray(strength * shape * (field.right == (side < 0)), np.float32)


@dataclass(frozen=True)
class PhantomImage:
    """One rendered image."""

    pixels: NDArray[np.uint8]  # (H, W) uint8
    lung: Mask  # (H, W) bool, lung fields
    lesion: Mask  # (H, W) bool, visible disease
    view: View  # AP or PA


def render_patient(
    label: str,
    number: int,
    *,
    seed: int,
    size_px: int,
    images: Sequence[int],
    place: Callable[[Pose], Pose] = lambda pose: pose,
) -> tuple[Chest, list[PhantomImage]]:
    """Render one patient's anatomy and radiographs. Equal arguments give equal pixels.

    ``number`` counts the patients of a class, ``images`` are fewest and most radiographs of one,
    and ``place`` changes each drawn position, where a framing is planted.
    """
    key = (CANONICAL.index(label), number)
    # Anatomy, disease and each radiograph have streams of their own, so that what is drawn for
    # a disease cannot shift anything else.
    seeds = np.random.SeedSequence(seed, spawn_key=key).spawn(2 + images[1])
    who, disease = np.random.default_rng(seeds[0]), np.random.default_rng(seeds[1])
    chest = draw_chest(who)
    count = int(who.integers(images[0], images[1] + 1))
    lesion = draw_lesion(label, chest, disease)
    streams = map(np.random.default_rng, seeds[2 : 2 + count])
    return chest, [_render(chest, lesion, rng, size_px, place) for rng in streams]


def _render(
    chest: Chest,
    lesion: Lesion,
    rng: np.random.Generator,
    size_px: int,
    place: Callable[[Pose], Pose],
) -> PhantomImage:
    view: View = "AP" if rng.random() < 0.4 else "PA"
    pose = place(draw_pose(rng, view, size_px))
    field = lay_out(chest, pose, view)
    filled, visible = opacity(lesion, field, pose)
    columns, rows = pose.to_pixels(chest.vessels.points)
    vessels = _vessel_path(chest, pose.unit_px, columns, rows, size_px)
    # In filled lung vessels vanish, and the airways beside them show as dark branches.
    aerated = field.air * np.clip(1 - field.shadow, 0, 1)
    vessels = vessels * (1 - 2.2 * filled) * np.minimum(aerated * 2 + 0.3 * field.air, 1)
    lost = hollow(chest) * aerated * filled
    path = soft_tissue(field, chest, pose) + skeleton(field, chest, pose, view)
    path = path + vessels + lost + _confusers(field, chest)
    path = path * (1 + 0.012 * field.mottle)
    gray = expose(np.asarray(path, np.float32), rng)
    return PhantomImage(finish(gray, pose, rng), field.lung, visible, view)


def _vessel_path(
    chest: Chest, unit_px: float, columns: Floats, rows: Floats, size_px: int
) -> Floats:
    """Path of the vessels: three widths of blur stand for six generations."""
    total = np.zeros((size_px, size_px), np.float32)
    for first, sigma in ((0, 0.018), (2, 0.011), (4, 0.007)):
        of_width = (chest.vessels.generation // 2) == first // 2
        drawn = splat(columns[of_width], rows[of_width], chest.vessels.weights[of_width], size_px)
        total += blur(drawn, sigma * unit_px)
    return np.asarray(total * (unit_px**2 * 7.0 * chest.vascularity), np.float32)


def _confusers(field: Field, chest: Chest) -> Floats:
    """Harmless things in the lungs: a plate of atelectasis, a calcified spot."""
    total = np.zeros_like(field.x)
    x, y, half, strength = chest.scar
    if strength:
        total += 0.07 * strength * ball(field.x, field.y, (x, y), (half, 0.013), 0.15)
    x, y, strength = chest.granuloma
    if strength:
        total += 0.12 * strength * ball(field.x, field.y, (x, y), (0.022, 0.022))
    return total
