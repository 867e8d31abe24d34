"""From an image of any size to the pixels that a network sees, in numpy.

This is the reference. The training loader and the exported graph must agree with it.
H W pixels of an image, S side of the prepared square.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.errors import InputError

Fit = Literal["stretch", "letterbox"]


@dataclass(frozen=True)
class PreprocessSpec:
    """How an image becomes a prepared square.

    Attributes:
        size_px: side of the square.
        fit: ``stretch`` fills the square and gives up the aspect ratio, ``letterbox``
            keeps the ratio and pads with black.
    """

    size_px: int = 224
    fit: Fit = "stretch"

    def __post_init__(self) -> None:
        if not 32 <= self.size_px <= 2048:
            raise InputError(f"data.size is {self.size_px}: allowed are 32 to 2048 pixels")
        if self.fit not in get_args(Fit):
            raise InputError(f"data.fit is {self.fit!r}: allowed are {', '.join(get_args(Fit))}")


@dataclass(frozen=True)
class MemberInput:
    """What one member expects; it travels with the member's weights.

    Attributes:
        size_px: side to which prepared pixels are resized (bilinear).
        mean: per channel, on the scale 0 to 1.
        std: per channel, on the scale 0 to 1.
    """

    size_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "MemberInput":
        """Read what ``dataclasses.asdict`` wrote."""
        return cls(values["size_px"], tuple(values["mean"]), tuple(values["std"]))


def to_square(radiograph: NDArray[np.uint8], spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Resize a radiograph to the prepared square.

    Args:
        radiograph: (H, W) uint8.
        spec: side and fit.

    Returns:
        (S, S) uint8. Resampling is Pillow's antialiased bilinear filter.
    """
    side = spec.size_px
    image = Image.fromarray(radiograph)
    if spec.fit == "stretch":
        if radiograph.shape != (side, side):
            image = image.resize((side, side), Image.Resampling.BILINEAR)
        return np.asarray(image)
    scale = side / max(radiograph.shape)
    width, height = (
        max(1, round(length * scale)) for length in (radiograph.shape[1], radiograph.shape[0])
    )
    square = Image.new("L", (side, side))
    small = image.resize((width, height), Image.Resampling.BILINEAR)
    square.paste(small, ((side - width) // 2, (side - height) // 2))
    return np.asarray(square)
