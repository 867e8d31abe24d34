"""Ribs, clavicles, spine, scapulae and upper arms as water-equivalent paths.

All ribs of both sides are one periodic function of a pixel's place, so that eleven pairs
cost as much as one. H W pixels; every map is (H, W) float32.
"""

import numpy as np

from cxr.data.phantom.chest import RIBS, Chest
from cxr.data.phantom.lung_shapes import Field, ball
from cxr.data.phantom.phantom_image import Pose, View
from cxr.data.phantom.vessels import Floats


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
