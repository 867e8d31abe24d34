"""Class activation maps as pictures: a transparent layer, a film under it, a strip of words below.

H W pixels of a film, h w of a stored map.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cxr.bundle.maps import OPACITY_POWER, heat_colours, overlay
from cxr.serve.settings import RESEARCH_USE

Pixels = NDArray[np.uint8]

DEFAULT_OPACITY = 0.5
INK, PAPER = (235, 238, 242), (16, 20, 25)


def colour_layer(values: Pixels) -> Pixels:
    """Return a map (h, w) uint8 as colours (h, w, 4), transparent where nothing is active."""
    alpha = 255 * np.linspace(0, 1, 256) ** OPACITY_POWER
    table = np.rint(np.column_stack([heat_colours(), alpha])).astype(np.uint8)
    return np.asarray(table[values])


def compose(film: Pixels, values: Pixels, opacity: float = DEFAULT_OPACITY) -> Pixels:
    """Lay a map over a film.

    Args:
        film: (H, W) uint8.
        values: (h, w) uint8, of any size.
        opacity: 0 to 1; 0 shows the film alone.

    Returns:
        (H, W, 3) uint8.

    Raises:
        InputError: an opacity outside 0 to 1.
    """
    height, width = film.shape
    grown = Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR)
    return overlay(film, np.asarray(grown, np.float32) / np.float32(255), opacity)


def captioned(pixels: Pixels, lines: Sequence[str]) -> Pixels:
    """Add a strip below a picture with lines of words and the research-use sentence.

    Args:
        pixels: (H, W) or (H, W, 3) uint8.
        lines: shortened where they are wider than the picture.

    Returns:
        (H + strip, W, 3) uint8; at least 360 pixels wide, so that the words can be read.
    """
    picture = Image.fromarray(pixels).convert("RGB")
    width = max(picture.width, 360)
    size = max(13, width // 48)
    font = ImageFont.load_default(size)
    shown = [_shorten(line, font, width - size) for line in (*lines, RESEARCH_USE)]
    strip = round(size * (1.45 * len(shown) + 0.8))
    sheet = Image.new("RGB", (width, picture.height + strip), PAPER)
    sheet.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(sheet)
    for row, line in enumerate(shown):
        place = (size // 2, picture.height + round(size * (0.4 + 1.45 * row)))
        draw.text(place, line, fill=INK, font=font)
    return np.asarray(sheet)


def _shorten(line: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    while font.getlength(line) > width and len(line) > 4:
        line = line[: max(3, len(line) * 9 // 10)].rstrip("… ") + "…"
    return line
