"""Shortcuts that can be planted on purpose, to see whether the audit finds them.

Marker and exposure are laid on the finished image and draw nothing, so that what lies below
them is the image of the same settings without one. Framing moves the patient before the image is
taken, so that masks move along; it draws nothing either. H W pixels.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cxr.data.phantom.phantom_image import Pose
from cxr.labels import CANONICAL

SHORTCUTS = ("none", "marker", "exposure", "framing")

MARKED = "covid"
"""The class that bears the marker."""
GAMMAS = {"normal": 1.0, "covid": 0.65, "bacterial": 1.45, "viral": 0.82}
"""Exponent of the gray of each class, as if each had come from a console of its own."""
FRAMES = {
    "normal": (1.0, 0.0, 1.0),
    "covid": (0.82, -0.08, 1.0),
    "bacterial": (1.12, 0.05, 0.95),
    "viral": (0.92, 0.03, 1.08),
}
"""Zoom of each class's thorax, its shift down in half image widths, and the factor on its width
over height, as if each had come from a room of its own. Images of one class vary by 6 % in
zoom, 0.05 in shift and 3 % in aspect anyway (standard deviations of ``draw_pose``)."""


def plant(
    pixels: NDArray[np.uint8], label: str, shortcut: str, *, strength: float = 1.0
) -> NDArray[np.uint8]:
    """Lay a shortcut on an image.

    Args:
        pixels: (H, W) uint8.
        label: one of the canonical classes.
        shortcut: ``marker`` puts a bar in the upper left corner of images of ``MARKED``;
            ``exposure`` bends the gray of each class by ``GAMMAS``; the others return the image.
        strength: 0 to 1; the marker's contrast, from the image (0) to white (1), and the power
            to which the exponents are raised.
    """
    assert label in CANONICAL, label
    if shortcut == "exposure":
        curve = 255 * (np.arange(256) / 255) ** (GAMMAS[label] ** strength)
        return np.asarray(np.round(curve).astype(np.uint8)[pixels])
    if shortcut == "marker" and label == MARKED:
        height, width = pixels.shape
        marked = pixels.copy()
        bar = marked[height // 32 : height // 12, width // 32 : width // 6]
        bar[:] = np.round(bar + strength * (255.0 - bar))
        return marked
    return pixels


def frame(pose: Pose, label: str, shortcut: str, *, strength: float = 1.0) -> Pose:
    """Place the patient as images of the class are framed, if ``shortcut`` is ``framing``.

    ``strength``, 0 to 1, is the power of zoom and aspect of ``FRAMES``, the factor on the shift.
    """
    assert label in CANONICAL, label
    if shortcut != "framing":
        return pose
    zoom, down, aspect = FRAMES[label]
    return replace(
        pose,
        scale=pose.scale * zoom**strength,
        stretch=pose.stretch * aspect**strength,
        shift=(pose.shift[0], pose.shift[1] + strength * down),
    )
