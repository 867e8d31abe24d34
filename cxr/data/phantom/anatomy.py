"""What casts a shadow: trunk, lungs, diaphragm, heart, vessels and bones as water paths.

All ribs of both sides are one periodic function of a pixel's place, so that eleven pairs
cost as much as one. H W pixels; every map is (H, W) float32 unless it says otherwise.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxr.data.phantom.chest import RIBS, Chest, Floats
from cxr.data.phantom.phantom_image import Pose, View

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Field:
    """Where each pixel lies in this patient's chest, as posed."""

    x: Floats  # to the patient's left
    y: Floats  # to the feet
    right: Mask  # bool, the patient's right half, which is the image's left
    off: Floats  # distance from the midline
    wall: Floats  # distance from the midline to the pleura at that height
    across: Floats  # off / wall, 1 at the pleura
    dome: Floats  # y of the hemidiaphragm at that column
    down: Floats  # 0 at the apex, 1 at the hemidiaphragm
    air: Floats  # lung path, what of the trunk's depth is aerated
    shadow: Floats  # path of heart and mediastinum
    lung: Mask  # bool, lung fields that neither heart nor diaphragm covers
    mottle: Floats  # smooth noise, about unit variance


def lay_out(chest: Chest, pose: Pose, view: View) -> Field:
    """Find each pixel's place in the chest, from which all drawing starts."""
    x, y = pose.grid()
    middle = np.float32(chest.bend) * np.sin(3 * y) + np.float32(0.02 * pose.turn)
    right = x < middle
    off = np.abs(x - middle)
    # Breathing in lifts the cage a little outward.
    half = chest.half_width * (1 + 0.03 * pose.breath)
    domes = np.array(chest.dome, np.float32) + np.float32(pose.drop)
    bottom = float(domes.max()) + 0.22
    part = np.clip((y - chest.apex) / (bottom - chest.apex), 0, 1)
    wall = half * np.sqrt(1 - (1 - part) ** 3.0) * (0.84 + 0.16 * part) + np.float32(1e-3)
    across = off / wall
    crest = 0.45 * half
    lateral = np.maximum(off - crest, 0) / (half - crest)
    medial = np.maximum(crest - off, 0) / crest
    dome = np.where(right, domes[0], domes[1]) + 0.20 * lateral**2.1 + 0.075 * medial**2
    down = (y - chest.apex) / (dome - chest.apex)
    depth = np.sqrt(np.clip(1 - across**2, 0, 1)) * np.clip(part * 5, 0, 1) ** 0.5
    edge = np.clip((dome - y) * pose.unit_px * 0.7 + 0.5, 0, 1)
    # Behind the dome the lung goes on, ever thinner: the edge is no knife's cut.
    behind = 0.22 * np.clip(1 - (y - dome) / 0.22, 0, 1)
    air = depth * np.maximum(edge, behind) * np.clip(0.5 + 4 * off, 0, 1)
    shadow = _mediastinum(x - np.float32(0.05 * pose.turn), y, chest, pose.drop, view)
    lung = (across < 1) & (y < dome) & (part > 0) & (shadow < 0.12) & (off > 0.1)
    mottle = sample_noise(chest.mottle, x, y)
    return Field(x, y, right, off, wall, across, dome, down, air, shadow, lung, mottle)


def sample_noise(noise: NDArray[np.float32], x: Floats, y: Floats) -> Floats:
    """Read a patient's noise at places in the patient, smooth in between."""
    last = noise.shape[0] - 1
    rows = np.clip((y + 1.2) * np.float32(last / 2.4), 0, last - 0.01)
    columns = np.clip((x + 1.2) * np.float32(last / 2.4), 0, last - 0.01)
    top, left = rows.astype(np.int32), columns.astype(np.int32)
    lower, right = rows - top, columns - left
    # By hand: twice as fast as scipy's map_coordinates on an image this small.
    flat, corner = noise.ravel(), top * (last + 1) + left
    upper = flat[corner] * (1 - right) + flat[corner + 1] * right
    under = flat[corner + last + 1] * (1 - right) + flat[corner + last + 2] * right
    return np.asarray(upper * (1 - lower) + under * lower, np.float32)


def ball(
    x: Floats, y: Floats, centre: tuple[float, float], radii: tuple[float, float], lean: float = 0
) -> Floats:
    """Return the path through an ellipsoid, 1 in its middle; its first axis leans clockwise."""
    cos, sin = np.cos(lean), np.sin(lean)
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    u = (dx * np.float32(cos) + dy * np.float32(sin)) / np.float32(radii[0])
    w = (dy * np.float32(cos) - dx * np.float32(sin)) / np.float32(radii[1])
    return np.asarray(np.sqrt(np.maximum(1 - u * u - w * w, 0)))


def _mediastinum(x: Floats, y: Floats, chest: Chest, drop: float, view: View) -> Floats:
    """Path of heart, great vessels and upper mediastinum, 1 in the heart's middle."""
    size = chest.heart * (1.1 if view == "AP" else 1.0) * (1 - 0.25 * drop)
    low = sum(chest.dome) / 2 + drop
    broad, knob = chest.mediastinum, chest.aorta
    parts = [
        # Ventricles with the apex to the patient's left, resting on the domes.
        ball(x, y, (0.13, low - 0.20 * size), (0.35 * size, 0.235 * size), chest.heart_axis),
        0.9 * ball(x, y, (-0.05, low - 0.22 * size), (0.17 * size, 0.25 * size), -0.2),
        # The left border's straight middle: pulmonary trunk and left atrial appendage.
        0.9 * ball(x, y, (0.07, low - 0.42 * size), (0.15 * size, 0.30 * size), -0.25),
        0.7 * ball(x, y, (0.075 * knob, -0.31), (0.095 * knob, 0.11 * knob)),
        0.55 * ball(x, y, (0.10, -0.02), (0.085 * broad, 0.42), 0.08),
        # Superior vena cava and ascending aorta; vessels of the neck.
        0.7 * ball(x, y, (-0.065 * broad, -0.20), (0.10 * broad, 0.46)),
        0.6 * ball(x, y, (0.01, -0.62), (0.17 * broad, 0.42)),
        0.6 * ball(x, y, (0.02, -0.05), (0.15 * broad, 0.6)),
    ]
    # Between the largest (sharp notches) and the sum (too dense): neighbours merge.
    merged = np.sqrt(sum(part * part for part in parts))
    return np.minimum(merged, 1.15, dtype=np.float32)


def soft_tissue(field: Field, chest: Chest, pose: Pose) -> Floats:
    """Return the water path of all that is soft, less the lungs: (H, W), 1 an average trunk."""
    y, side = field.y, np.abs(field.x)
    outer = chest.half_width + chest.wall + 0.03 * np.clip(y, 0, 1)
    trunk = np.sqrt(np.clip(1 - (side / outer) ** 2, 0, 1)) ** 0.8
    trunk = trunk * np.clip((y + 0.98) / 0.3, 0, 1) ** 0.5
    shoulder = 0.62 * ball(side, y, (0.66, -0.56), (0.62, 0.33 + chest.wall), 0.35)
    neck = 0.6 * np.sqrt(np.clip(1 - (side / 0.27) ** 2, 0, 1)) * (y < -0.55)
    arm = 0.42 * ball(side, y, (1.10, 0.05), (0.85, 0.15 + 0.3 * chest.wall), 1.45)
    body = chest.depth * np.maximum.reduce([trunk, shoulder, neck, arm])
    below = np.clip((y - field.dome) * 6, 0, 1)
    belly = below * (0.15 + np.float32(0.05) * field.right)
    heart = 0.52 * field.shadow * np.clip(1 - 0.85 * below, 0, 1)
    total = body - hollow(chest) * field.air + heart + belly
    return np.asarray(total - _gas(field, chest, pose.drop) + _breasts(field, chest), np.float32)


def hollow(chest: Chest) -> float:
    """Return the water path that the lungs, where deepest, take out of the trunk."""
    return 0.78 * chest.depth * (1 - chest.lung_density)


def _gas(field: Field, chest: Chest, drop: float) -> Floats:
    """Air in trachea, main bronchi and stomach."""
    x, y = field.x, field.y
    path = x - np.float32(0.012)
    trachea = np.sqrt(np.clip(1 - (path / 0.042) ** 2, 0, 1)) * np.clip((-0.20 - y) * 20, 0, 1)
    fork = np.abs(x) * np.where(x < 0, 1.15, 0.75)
    bronchus = np.sqrt(np.clip(1 - ((y + 0.23 - fork) / 0.035) ** 2, 0, 1)) * (np.abs(x) < 0.13)
    air = 0.115 * np.maximum(trachea, bronchus * 0.8)
    if chest.gas:
        top = chest.dome[1] + drop
        bubble = ball(x, y, (0.34, top + 0.22), (0.17, 0.11), 0.1)
        # Upright images show the fluid level.
        air = air + 0.22 * chest.gas * bubble * np.clip((top + 0.25 - y) * 25, 0, 1) * (
            y > field.dome + 0.03
        )
    return np.asarray(air, np.float32)


def _breasts(field: Field, chest: Chest) -> Floats:
    """Breasts with their crisp lower fold, nipples, pectoral muscle."""
    x, y, total = field.x, field.y, np.zeros_like(field.x)
    for sign, size in ((-1.0, chest.breast[0]), (1.0, chest.breast[1])):
        if size <= 0:
            continue
        middle = (sign * 0.46, 0.16 + 0.14 * size)
        total += 0.17 * size * ball(x, y, middle, (0.27 + 0.08 * size, 0.20 + 0.12 * size))
        if chest.nipple:
            total += 0.06 * chest.nipple * ball(x, y, (sign * 0.47, 0.27), (0.028, 0.028))
    if chest.sex == "M":
        total += 0.05 * ball(np.abs(x), y, (0.5, -0.22), (0.34, 0.26), -0.5)
    return total


def skeleton(field: Field, chest: Chest, pose: Pose, view: View) -> Floats:
    """Return the path of all bones, (H, W) float32; AP leaves the blades over the lungs."""
    total = _ribs(field, chest, pose) + _clavicles(field, chest, pose)
    total = total + _spine(field, chest, pose) + _shoulders(field, view)
    return np.asarray(chest.bone * total, np.float32)


def tube(distance: Floats, radius: float) -> Floats:
    """Return the path through a hollow bone by the distance from its axis, about 1 at its rim."""
    # The marrow space takes 70 % of the radius and weighs a third.
    squared = distance * distance
    whole = np.sqrt(np.maximum(np.float32(radius**2) - squared, 0))
    marrow = np.sqrt(np.maximum(np.float32((0.7 * radius) ** 2) - squared, 0))
    return np.asarray((whole - 0.66 * marrow) * np.float32(1.3 / radius))


def _ribs(field: Field, chest: Chest, pose: Pose) -> Floats:
    """Rib rings leaning forward: seen from the front, the back arcs and the front arcs."""
    across = np.minimum(field.across, 0.985)
    depth = np.sqrt(1 - across**2)
    # Where a ring turns at the side, the beam runs along it.
    grazing = np.minimum(1 / depth, 2.2)
    lift = 0.05 * (0.6 - pose.breath)
    tilt = chest.rib_tilt * (1 + 0.25 * np.clip(field.y, -0.8, 0.6)) + lift
    slope = tilt * across / (field.wall * depth)
    narrow = 1 / np.sqrt(1 + slope**2)
    fade = np.clip((1.06 - field.across) * 14, 0, 1)
    lane = np.where(field.right, 0, 1)
    total = np.zeros_like(field.x)
    for front, density in ((False, 0.105), (True, 0.055)):
        fall = tilt * (1 + depth) if front else tilt * (1 - depth) - 0.035 * np.sin(3 * across)
        step = (field.y - chest.rib_start - fall) / chest.rib_step
        index = np.rint(step)
        known = np.clip(index, 0, RIBS - 1).astype(np.int64)
        apart = (step - index - chest.rib_jitter[known, lane]) * chest.rib_step
        ring = tube(apart * narrow, chest.rib_radius * (1.12 if front else 1.0))
        there = (index >= 0) & (index < (7 if front else RIBS))
        if front:
            # Cartilage between bone and breastbone casts next to no shadow.
            there = there * np.clip((field.across - 0.42 - 0.02 * index) * 12, 0, 1)
        total += density * ring * grazing * there
    return np.asarray(total * fade, np.float32)


def _clavicles(field: Field, chest: Chest, pose: Pose) -> Floats:
    """S-shaped collar bones; a turned patient shows one end nearer to the spine."""
    x = field.x - np.float32(0.07 * pose.turn)
    side = np.abs(x)
    high = chest.apex + 0.17
    along = np.clip((side - 0.06) / 0.66, 0, 1)
    course = high - 0.09 * along**0.8 + 0.03 * np.sin(2 * np.pi * along)
    thick = 0.030 + 0.014 * (1 - along) ** 3
    shape = tube((field.y - course) * 0.030 / thick * 0.93, 0.030)
    ends = np.clip((side - 0.06) * 30, 0, 1) * np.clip((0.76 - side) * 20, 0, 1)
    return np.asarray(0.17 * shape * ends, np.float32)


def _spine(field: Field, chest: Chest, pose: Pose) -> Floats:
    """Vertebral bodies with discs between, pedicles and spinous processes."""
    middle = np.float32(chest.bend) * np.sin(3 * field.y)
    x = field.x - middle + np.float32(0.015 * pose.turn)
    phase = (field.y - chest.rib_start) / chest.rib_step + 0.25
    within = phase - np.rint(phase)
    half = 0.088 + 0.02 * np.clip(field.y, -0.6, 0.8) + 0.012 * (4 * within**2)
    body = np.clip((half - np.abs(x)) * 60, 0, 1)
    disc = np.exp(-(((np.abs(within) - 0.5) / 0.10) ** 2))
    rim = np.exp(-(((np.abs(within) - 0.36) / 0.06) ** 2))
    pedicle = np.exp(-(((np.abs(x) - 0.055) / 0.018) ** 2) - ((within + 0.1) / 0.17) ** 2)
    process = np.exp(-((x / 0.014) ** 2) - ((within - 0.2) / 0.2) ** 2)
    total = body * (0.13 - 0.06 * disc + 0.04 * rim) + 0.06 * pedicle + 0.06 * process
    return np.asarray(total, np.float32)


def _shoulders(field: Field, view: View) -> Floats:
    """Shoulder blades and heads of the upper arms, seldom wholly on the image."""
    side, y = np.abs(field.x), field.y
    over = 0.62 if view == "AP" else 0.74
    edge = over + 0.10 * np.sin(2.2 * (y + 0.75))
    rows = np.clip((y + 0.72) * 8, 0, 1) * np.clip((-0.02 - y) * 6, 0, 1)
    blade = 0.035 * np.clip((side - edge) * 40, 0, 1) * np.clip((0.98 - side) * 8, 0, 1) * rows
    rim = 0.075 * np.exp(-(((side - edge - 0.012) / 0.016) ** 2)) * rows
    head = 0.16 * ball(side, y, (0.97, -0.62), (0.115, 0.125))
    shaft = 0.15 * tube(side - 1.03 - 0.16 * (y + 0.5), 0.055) * (y > -0.58)
    return np.asarray(blade + rim + np.maximum(head, shaft), np.float32)
