"""From an image of any size to the pixels that a network sees, in numpy.

This is the reference. The training loader and the exported graph must agree with it.
H W pixels of an image, S side of the prepared square.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.errors import InputError

Fit = Literal["stretch", "letterbox"]
LungUse = Literal["none", "crop", "mask"]
Fallback = Literal["whole", "centre"]
Box = tuple[float, float, float, float]
"""Top, left, bottom, right as shares of a height and a width."""
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
LUNGS_FILE = "lungs.onnx"
"""The network that found the lungs, in a prepared set and in a bundle."""


@dataclass(frozen=True)
class PreprocessSpec:
    """How an image becomes a prepared square.

    Attributes:
        size_px: side of the square.
        fit: ``stretch`` fills the square and gives up the aspect ratio, ``letterbox``
            keeps the ratio and pads with black.
        lungs: ``none`` shows the whole image, ``crop`` the box of both lungs, ``mask`` that box
            with black outside the lungs' convex hull (see cxr.lungs.crop).
        lungs_margin: added to each side of that box, a share of its height or width.
        lungs_fallback: what is shown where fewer than two lungs are found, the ``whole`` image
            or a ``centre`` box that is the same for all.
        finder: digest of the network that finds the lungs; empty with ``none``.
    """

    size_px: int = 224
    fit: Fit = "stretch"
    lungs: LungUse = "none"
    lungs_margin: float = 0.06
    lungs_fallback: Fallback = "whole"
    finder: str = ""

    def __post_init__(self) -> None:
        if not 32 <= self.size_px <= 2048:
            raise InputError(f"data.size is {self.size_px}: allowed are 32 to 2048 pixels")
        for key, kind in NAMED.items():
            if getattr(self, key) not in get_args(kind):
                allowed = ", ".join(get_args(kind))
                raise InputError(f"data.{key} is {getattr(self, key)!r}: allowed are {allowed}")
        if not 0 <= self.lungs_margin <= 1:
            raise InputError(f"data.lungs_margin is {self.lungs_margin}: allowed are 0 to 1")

    def to_dict(self) -> dict[str, Any]:
        """Return what ``PreprocessSpec(**values)`` reads; of whole images size and fit alone."""
        values = asdict(self)
        return values if self.lungs != "none" else {key: values[key] for key in ("size_px", "fit")}

    def how(self) -> str:
        """Say in a few words how the square is filled."""
        if self.lungs == "none":
            return self.fit
        verb = "cropped to" if self.lungs == "crop" else "nothing but"
        return f"{self.fit}, {verb} the lungs and {self.lungs_margin:.0%} around them"


NAMED = {"fit": Fit, "lungs": LungUse, "lungs_fallback": Fallback}
"""Settings that are one of a few names."""


@dataclass(frozen=True)
class Placement:
    """Where a prepared square shows its image."""

    source: Box = WHOLE
    """Part of the image that the square shows."""
    target: Box = WHOLE
    """Part of the square that shows it; the rest is black."""


@dataclass(frozen=True)
class MemberInput:
    """What one member expects; it travels with the member's weights."""

    size_px: int
    """Side to which prepared pixels are resized (bilinear)."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """Both per channel, on the scale 0 to 1."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "MemberInput":
        """Read what ``dataclasses.asdict`` wrote."""
        return cls(values["size_px"], tuple(values["mean"]), tuple(values["std"]))


def place(shape: tuple[int, ...], spec: PreprocessSpec, source: Box = WHOLE) -> Placement:
    """Return where the prepared square shows an image.

    ``shape`` (H, W) has the true aspect ratio; ``source`` is the part of the image to show.
    """
    if spec.fit == "stretch":
        return Placement(source)
    side, (top, left, bottom, right) = spec.size_px, source
    lengths = (shape[0] * (bottom - top), shape[1] * (right - left))
    scale = side / max(lengths)
    extents = [max(1, round(length * scale)) for length in lengths]
    starts = [(side - extent) // 2 for extent in extents]
    ends = [start + extent for start, extent in zip(starts, extents, strict=True)]
    return Placement(source, tuple(share / side for share in (*starts, *ends)))  # type: ignore[arg-type]


def to_square(
    radiograph: NDArray[np.uint8], spec: PreprocessSpec, placement: Placement | None = None
) -> NDArray[np.uint8]:
    """Resize a radiograph (H, W) uint8, or what is shown of it, to the prepared square (S, S).

    Resampling is Pillow's antialiased bilinear filter, once, from the radiograph's own pixels. By
    default the placement is that of the whole radiograph.
    """
    side, (tall, wide) = spec.size_px, radiograph.shape
    placement = placement or place(radiograph.shape, spec)
    top, left, bottom, right = placement.source
    start_y, start_x, end_y, end_x = (round(share * side) for share in placement.target)
    shown = Image.fromarray(radiograph).resize(
        (end_x - start_x, end_y - start_y),
        Image.Resampling.BILINEAR,
        box=(left * wide, top * tall, right * wide, bottom * tall),
    )
    if shown.size == (side, side):
        return np.asarray(shown)
    square = Image.new("L", (side, side))
    square.paste(shown, (start_x, start_y))
    return np.asarray(square)


def original_shape(row: Mapping[Any, Any], where: str) -> tuple[int, int] | None:
    """Return (height, width) of an image's original as a manifest's row states them, or None.

    One of the two alone, or no whole number above 0, is an InputError, which calls the row
    ``where``.
    """
    texts = [row.get(key) or "" for key in ("height", "width")]
    if not any(texts):
        return None
    try:
        height, width = (int(float(text)) for text in texts)
    except (ValueError, OverflowError):
        height = width = 0
    if min(height, width) < 1:
        raise InputError(
            f"height and width of {where} are {texts[0]!r} and {texts[1]!r}: allowed are pixels "
            "of the original, both above 0, or nothing in both"
        )
    return height, width
