"""From an image to the square that a model sees: whole, cropped to the lungs, or masked.

``prepare`` and the predictor both come here. H W pixels of an image, S side of the prepared
square, G side of the finder's grid.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr.imaging.preprocess import WHOLE, Box, Placement, PreprocessSpec, place, to_square
from cxr.lungs.find import FINDER_FILE, Lungs, find_lungs

CENTRE: Box = (0.1, 0.1, 0.9, 0.9)
"""Box of the fallback ``centre``."""
DIRECTIONS = 64
"""Half-planes whose intersection stands for the convex hull."""


@dataclass(frozen=True, eq=False)
class ModelInput:
    """What a model sees of an image."""

    pixels: NDArray[np.uint8]  # (S, S)
    placement: Placement  # where they show the image
    lungs: Lungs | None = None  # what was found in it; None where nobody looked


def to_model_input(
    image: NDArray[np.uint8],
    spec: PreprocessSpec,
    *,
    original: tuple[int, int] | None = None,
    lungs: Lungs | None = None,
    finder: Path = FINDER_FILE,
) -> ModelInput:
    """Return the square that a model sees of an image (H, W), scaled down once from its own pixels.

    A letterboxed crop has the aspect ratio of ``original`` (H, W), the image's own by default; a
    whole image keeps the one of its file. ``lungs`` are given where they were found before.
    """
    if spec.lungs == "none":
        placement = place(image.shape, spec)
        return ModelInput(to_square(image, spec, placement), placement, lungs)
    lungs = lungs or find_lungs(image, finder)
    placement = place(original or image.shape, spec, shown_box(lungs, spec))
    pixels = to_square(image, spec, placement)
    if spec.lungs == "mask" and lungs.count >= 2:
        window = to_square(lung_window(lungs, spec.lungs_margin), spec, placement)
        # Rounded to the nearest, in whole numbers.
        pixels = ((pixels.astype(np.uint16) * window + 127) // 255).astype(np.uint8)
    return ModelInput(pixels, placement, lungs)


def shown_box(lungs: Lungs, spec: PreprocessSpec) -> Box:
    """Return the part of the image that is shown: both lungs and the margin, or the fallback."""
    if lungs.box is None or lungs.count < 2:
        return WHOLE if spec.lungs_fallback == "whole" else CENTRE
    top, left, bottom, right = lungs.box
    down, across = spec.lungs_margin * (bottom - top), spec.lungs_margin * (right - left)
    return (
        max(0.0, top - down),
        max(0.0, left - across),
        min(1.0, bottom + down),
        min(1.0, right + across),
    )


def lung_window(lungs: Lungs, margin: float) -> NDArray[np.uint8]:
    """Return how much of each cell stays, (G, G) uint8: all of the lungs' convex hull, less beyond.

    The hull keeps what lies between the lungs, of which there is at least a cell. Beyond it the
    share falls in a straight line and is 0 from ``margin`` on, a share of the box's mean side as
    with the crop.
    """
    side = len(lungs.mask)
    lines, (rows, columns) = np.arange(side), np.nonzero(lungs.mask)
    # Of each direction's half-plane, how far inside a cell lies; of all of them the worst.
    depth = np.full((side, side), np.inf)
    for angle in np.arange(DIRECTIONS) * (2 * np.pi / DIRECTIONS):
        down, across = np.sin(angle), np.cos(angle)
        farthest = (rows * down + columns * across).max()
        np.minimum(depth, farthest - (lines * down)[:, None] - lines * across, out=depth)
    top, left, bottom, right = lungs.box or WHOLE
    reach = max(margin * side * (bottom - top + right - left) / 2, 1e-6)
    shares = np.clip(1 + depth / reach, 0, 1)
    return np.asarray(np.rint(shares * 255), np.uint8)
