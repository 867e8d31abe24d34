"""Heat maps at an image's own size, their overlay, and the strip of words below it.

K classes, h w last feature layer of a member, H W pixels of the image as read.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from cxr.errors import InputError
from cxr.imaging.preprocess import Placement

ENSEMBLE = "ensemble"
OPACITY = 0.5
"""Of an overlay where the map is 1."""
OPACITY_POWER = 0.7
"""Opacity rises as this power of the map, as in the plots of ``scripts/explain.py``."""
INFERNO = (
    "000004 0A0722 1E0C45 380962 510E6C 69166E 801F6C 982766 B0315B "
    "C63D4D D94D3D E9612B F47918 FA9407 FCB014 F8CD37 F2EA69 FCFFA4"
)
"""Every fifteenth colour of matplotlib's inferno (van der Walt and Smith 2015, CC0), which rises
in lightness throughout; between them colours are interpolated, off by at most 5 of 255."""
DARKEST = 0.15
"""Share of the colour map that is left out at its dark end: invisible on an image."""

INK, PAPER = (235, 238, 242), (16, 20, 25)
"""Of the strip of words."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class HeatMaps:
    """Class activation maps of one image.

    Attributes:
        classes: the K class names.
        members: per member (K, h, w) float32, 0 and above, in units of the logit.
        weights: per member, summing to 1.
        image: (H, W) uint8, as read.
        placement: where the prepared square shows the image.
        lungs: (G, G) bool, the lungs as found, over the whole image; None where nobody looked.
    """

    classes: tuple[str, ...]
    members: Mapping[str, Floats]
    weights: Mapping[str, float]
    image: NDArray[np.uint8]
    placement: Placement = field(default_factory=Placement)
    lungs: NDArray[np.bool_] | None = None

    def of(self, label: str, member: str | None = None) -> Floats:
        """Return a map (H, W) float32, 0 to 1, at the image's own size.

        A member's map is divided by its maximum; the ensemble's, which is the default, is the
        weighted mean of those, so its maximum tells how far the members agree. It is 0 throughout
        where nothing speaks for the class; an unknown class or member is an InputError.
        """
        if label not in self.classes:
            raise InputError(f"there is no map of {label!r}: allowed are {', '.join(self.classes)}")
        if member is None or member == ENSEMBLE:
            return np.asarray(
                sum(np.float32(self.weights[name]) * self.of(label, name) for name in self.members),
                np.float32,
            )
        if member not in self.members:
            names = ", ".join([*self.members, ENSEMBLE])
            raise InputError(f"there is no map of the member {member!r}: allowed are {names}")
        cells = self.members[member][self.classes.index(label)]
        peak = float(cells.max())
        if peak <= 0:
            return np.zeros(self.image.shape, np.float32)
        return enlarge(cells / np.float32(peak), self.image.shape, self.placement)

    def overlay(
        self, label: str, member: str | None = None, opacity: float = OPACITY
    ) -> NDArray[np.uint8]:
        """Lay a map over the image; return (H, W, 3) uint8. See ``of`` and ``overlay``."""
        return overlay(self.image, self.of(label, member), opacity)


def enlarge(cells: Floats, shape: tuple[int, ...], placement: Placement) -> Floats:
    """Enlarge a map bilinearly to the image's own size, undoing crop, stretch and letterbox.

    Args:
        cells: (h, w) over the prepared square.
        shape: H, W of the image.
        placement: where the square shows the image.

    Returns:
        (H, W) float32, 0 where the square does not show the image; as torch's interpolate with
        ``align_corners=False`` where the whole square is the whole image.
    """
    source, target = placement.source, placement.target
    rows, columns = (
        _interpolation(length, cells.shape[axis], source[axis::2], target[axis::2])
        for axis, length in enumerate(shape)
    )
    return np.asarray(rows @ cells @ columns.T, np.float32)


def overlay(image: NDArray[np.uint8], values: Floats, opacity: float) -> NDArray[np.uint8]:
    """Lay a map (H, W), 0 to 1, over an image (H, W) uint8; return (H, W, 3) uint8.

    ``opacity``, 0 to 1 or an InputError, is that where the map is 1; where it is 0 the image
    shows unchanged.
    """
    if not 0 <= opacity <= 1:
        raise InputError(f"opacity is {opacity}: allowed are 0 to 1")
    shades = np.linspace(0, 1, 256, dtype=np.float32)
    alpha = np.float32(opacity) * shades ** np.float32(OPACITY_POWER)
    level = np.rint(values * 255).astype(np.uint8)
    under = image * (1 - alpha)[level]
    result = np.empty((*image.shape, 3), np.uint8)
    # A channel at a time: an image may have 100 megapixels.
    for channel, shade in enumerate(heat_colours().T):
        result[..., channel] = np.rint(under + (shade * alpha)[level])
    return result


def outline_layer(mask: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the outline of a mask (G, G) over an image of ``shape`` (H, W), as (H, W, 4) uint8.

    White on dark, so that it shows on bone and on air; transparent elsewhere.
    """
    cells = Image.fromarray(mask).convert("L").filter(ImageFilter.GaussianBlur(1))
    inside = cells.resize(shape[::-1], Image.Resampling.BILINEAR)
    inside = inside.point(lambda value: 255 * (value >= 128))
    width = 2 * max(1, min(shape) // 300) + 1
    eroded, dilated = (
        np.asarray(inside.filter(kind(width))) > 0
        for kind in (ImageFilter.MinFilter, ImageFilter.MaxFilter)
    )
    layer = np.zeros((*shape, 4), np.uint8)
    layer[dilated & ~eroded] = 0, 0, 0, 110
    layer[(np.asarray(inside) > 0) & ~eroded] = 255, 255, 255, 230
    return layer


def heat_colours() -> Floats:
    """Return the colour map of activation, (256, 3) float32, 0 to 255, from 0 to 1."""
    anchors = np.array([*bytes.fromhex(INFERNO)], np.float32).reshape(-1, 3)
    places = np.linspace(DARKEST, 1, 256) * (len(anchors) - 1)
    columns = [np.interp(places, np.arange(len(anchors)), channel) for channel in anchors.T]
    return np.asarray(np.stack(columns, axis=1), np.float32)


def colour_layer(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a map (h, w) uint8 as colours (h, w, 4), transparent where nothing is active."""
    alpha = 255 * np.linspace(0, 1, 256) ** OPACITY_POWER
    table = np.rint(np.column_stack([heat_colours(), alpha])).astype(np.uint8)
    return np.asarray(table[values])


def captioned(pixels: NDArray[np.uint8], lines: Sequence[str]) -> NDArray[np.uint8]:
    """Add a strip with lines of words below a picture (H, W) or (H, W, 3) uint8.

    The words are whole: a small picture's strip, (H + strip, W or wider, 3), is as wide as they.
    """
    picture = Image.fromarray(pixels).convert("RGB")
    size = max(13, picture.width // 48)
    font = ImageFont.load_default(size)
    width = max(picture.width, *(math.ceil(font.getlength(line) + size) for line in lines))
    strip = round(size * (1.45 * len(lines) + 0.8))
    sheet = Image.new("RGB", (width, picture.height + strip), PAPER)
    sheet.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(sheet)
    for row, line in enumerate(lines):
        place = (size // 2, picture.height + round(size * (0.4 + 1.45 * row)))
        draw.text(place, line, fill=INK, font=font)
    return np.asarray(sheet)


def _interpolation(
    n_out: int, n_in: int, source: tuple[float, ...], target: tuple[float, ...]
) -> Floats:
    """Return the (n_out, n_in) matrix that samples n_in cells over target for what is in source."""
    (first, last), (start, end) = source, target
    inside = (np.arange(n_out) + 0.5) / n_out
    places = (start + (inside - first) / (last - first) * (end - start)) * n_in - 0.5
    places = places.clip(0, n_in - 1)
    low = np.minimum(places.astype(np.int64), max(0, n_in - 2))
    share = (places - low).astype(np.float32)
    matrix = np.zeros((n_out, n_in), np.float32)
    rows = np.arange(n_out)
    matrix[rows, low] = 1 - share
    matrix[rows, np.minimum(low + 1, n_in - 1)] += share
    matrix[(inside < first) | (inside > last)] = 0
    return matrix
