"""Put an image together: anatomy, disease, position and exposure.

One patient is drawn from a seed of its own, so an image does not depend on how many others
there are or in which order they are made. H W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxr.data.phantom.bones import skeleton
from cxr.data.phantom.chest import Chest, draw_chest
from cxr.data.phantom.lesions import Lesion, draw_lesion, opacity
from cxr.data.phantom.lung_shapes import Field, Mask, ball, hollow, lay_out, soft_tissue
from cxr.data.phantom.phantom_image import Pose, View, draw_pose, expose, finish
from cxr.data.phantom.vessels import Floats, blur, splat
from cxr.labels import CANONICAL


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

    Args:
        label: one of the canonical classes.
        number: of the patient within the class.
        seed: of the whole phantom.
        size_px: side of the radiographs.
        images: fewest and most radiographs of a patient.
        place: changes each drawn position, where a framing is planted.
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
    """Take one image of a patient."""
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
