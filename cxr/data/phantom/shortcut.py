"""Shortcuts that can be planted on purpose, to see whether the audit finds them.

They are laid on the finished film and draw nothing, so that what lies below them is the film
of the same settings without one. H W pixels.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cxr.labels import CANONICAL

Shortcut = Literal["none", "marker", "exposure"]

MARKED = "covid"
"""The class that bears the marker."""
GAMMAS = {"normal": 1.0, "covid": 0.65, "bacterial": 1.45, "viral": 0.82}
"""Exponent of the gray of each class, as if each had come from a console of its own."""


def plant(pixels: NDArray[np.uint8], label: str, shortcut: Shortcut) -> NDArray[np.uint8]:
    """Lay a shortcut on a film.

    Args:
        pixels: (H, W) uint8.
        label: one of the canonical classes.
        shortcut: ``none`` returns the film; ``marker`` puts a bright bar in the upper left
            corner of films of ``MARKED``; ``exposure`` bends the gray of each class by
            ``GAMMAS``.
    """
    assert label in CANONICAL, label
    if shortcut == "exposure":
        curve = 255 * (np.arange(256) / 255) ** GAMMAS[label]
        return np.asarray(np.round(curve).astype(np.uint8)[pixels])
    if shortcut == "marker" and label == MARKED:
        height, width = pixels.shape
        marked = pixels.copy()
        marked[height // 32 : height // 12, width // 32 : width // 6] = 255
        return marked
    return pixels
