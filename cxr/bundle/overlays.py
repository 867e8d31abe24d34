"""An image under the heat map of its class, as a picture file with the words that belong to it."""

import math
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cxr.files import atomic_write


def overlay_path(folder: Path, name: str) -> Path:
    """Return where an image's overlay lies: the image's own path below ``folder``, and ``.png``."""
    parts = [
        part.replace(":", "_") for part in PurePosixPath(name).parts if part not in ("/", "..")
    ]
    return folder.joinpath(*parts[:-1], f"{parts[-1]}.png")


def save_overlay(prediction: Any, path: Path) -> None:
    """Write the image under the heat map of its predicted class, with what it is below it.

    Args:
        prediction: with maps.
        path: PNG; its folder is made.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    pixels: NDArray[np.uint8] = prediction.maps.overlay(prediction.label)
    height, width = pixels.shape[:2]
    lines = (f"{prediction.label} {prediction.probs[prediction.label]:.3f}", prediction.note)
    # A letter is about half as wide as high.
    size = max(10.0, min(width / 30, 1.8 * width / max(map(len, lines))))
    font = ImageFont.load_default(size)
    # Words that would not be legible in a small image's width get the width that they need.
    wide = max(width, *(math.ceil(font.getlength(line) + size) for line in lines))
    shown = Image.new("RGB", (wide, height + round(3 * size)))
    shown.paste(Image.fromarray(pixels))
    draw = ImageDraw.Draw(shown)
    for number, line in enumerate(lines):
        place = (size / 2, height + (0.2 + 1.3 * number) * size)
        draw.text(place, line, fill="white", font=font)
    with atomic_write(path) as file:
        shown.save(file, format="PNG", compress_level=3)
