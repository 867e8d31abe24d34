"""Images with their lungs occluded, or with nothing but their lungs. N images, S side."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cxr.errors import InputError

Variant = Literal["whole", "lungs_only", "lungs_black", "lungs_gray", "box_black", "box_alone"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
"""In ``lungs_black``, ``lungs_gray`` and ``box_black`` no lung is to be seen. Black is what the
literature does and what an image's border is; but a black hole is a strange thing to a network
that never saw one, so gray shows whether the finding hangs on that. In both the hole has the
lungs' outline, and a mask that leaves out a consolidated part draws the disease; the box shows
four edges and no outline. But these edges are the place, size and aspect of the lungs, which tell
the class too: see ``box_alone``."""
EVEN_GRAY = 128
"""Of all that is not the box in ``box_alone``."""
BOX_MARGIN = 0.04
"""Of the side, added around the box: the rim of lung that an outline misses."""


def occlude(
    images: NDArray[np.uint8], masks: NDArray[np.bool_], variant: Variant
) -> NDArray[np.uint8]:
    """Occlude a part of each image.

    ``whole`` occludes nothing; ``lungs_only`` blackens all but the lungs; ``lungs_black`` and
    ``lungs_gray`` fill the lungs, gray being the image's mean outside of them, so that the fill
    tells nothing of the lungs; ``box_black`` fills the upright rectangle around both lungs and a
    margin; ``box_alone`` is that black rectangle on an even gray, so that nothing is left but where
    it lies.

    Returns:
        (N, S, S), new, as the images and the masks of their lungs are.

    Raises:
        InputError: arrays of different images, an unknown variant, or an image without a mask.
    """
    if images.shape != masks.shape:
        raise InputError(f"images are {images.shape}, masks {masks.shape}: use the same images")
    if variant not in VARIANTS:
        raise InputError(f"variant is {variant!r}: allowed are {', '.join(VARIANTS)}")
    if not masks.any(axis=(1, 2)).all():
        raise InputError("an image without a mask cannot be occluded: leave such images out")
    fill: NDArray[np.generic] | int = 0
    if variant == "lungs_gray":
        outside = np.maximum((~masks).sum(axis=(1, 2)), 1)
        mean = np.where(masks, 0, images).sum(axis=(1, 2), dtype=np.int64) / outside
        fill = np.rint(mean)[:, None, None]
    covered = {"whole": np.zeros_like(masks), "lungs_only": ~masks}.get(variant, masks)
    if variant in ("box_black", "box_alone"):
        covered = boxes(masks)
    around = EVEN_GRAY if variant == "box_alone" else images
    return np.where(covered, fill, around).astype(np.uint8)


def boxes(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (N, S, S), true in the upright rectangle around each mask and its margin."""
    margin = round(BOX_MARGIN * masks.shape[-1])
    filled = np.zeros_like(masks)
    for row, mask in enumerate(masks):
        tall, wide = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(tall):
            down = slice(max(tall[0] - margin, 0), tall[-1] + margin + 1)
            filled[row, down, max(wide[0] - margin, 0) : wide[-1] + margin + 1] = True
    return filled


def visible_share(masks: NDArray[np.bool_], variant: Variant) -> float:
    """Return the mean share of an image that a variant leaves to see; NaN without images."""
    if not len(masks):
        return float("nan")
    if variant in ("whole", "box_alone"):
        return float(variant == "whole")
    if variant == "lungs_only":
        return float(masks.mean())
    return 1 - float((boxes(masks) if variant == "box_black" else masks).mean())
