"""Lung masks of V7 Labs, drawn by people on Kermany's and Cohen's images, as PNG files.

Source: V7 Labs, CloudFactory 2020, covid-19-xray-dataset (CC BY 4.0). A Darwin JSON file per image:
``image`` has original_filename, width and height, ``annotations`` polygons called Lung, as its
covid-only.zip shows; holes (complex_polygon) and version 2 (paths) as Darwin's documentation says.
The area behind the heart counts as lung.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image, ImageChops, ImageDraw, UnidentifiedImageError

from cxr.data.sources.download import Archive
from cxr.errors import InputError
from cxr.files import atomic_write

log = logging.getLogger(__name__)

LUNG_MASKS = Archive(
    name="lung_masks",
    urls=("https://github.com/v7labs/covid-19-xray-dataset/raw/master/annotations/all-images.zip",),
    file_name="v7-covid-19-xray-all-images.zip",
    home_page="https://github.com/v7labs/covid-19-xray-dataset",
    license="CC BY 4.0",
    credit="V7 Labs and CloudFactory 2020: name the authors",
    pinned=True,
)
Shape = list[list[tuple[float, float]]]
TOLERANCE = 0.02
"""How much an annotation's aspect ratio may differ from its image's; some were scaled."""


def draw_masks(table: pd.DataFrame, root: Path, annotations: Path) -> pd.DataFrame:
    """Draw a mask for every image of a manifest that is annotated.

    An annotation belongs to the image with its file name, whatever the ending, if their aspect
    ratios agree; of Hannover's images a square one is of the middle. ``annotations`` holds Darwin
    JSON files at any depth; the masks go into ``masks/<source>`` below ``root``.

    Returns:
        The manifest with ``mask``: one-bit PNG files of the annotation's scale, lung white. How
        many images have one, by source, is logged.

    Raises:
        InputError: a file that is no Darwin JSON.
    """
    images, sources = table["image"].tolist(), table["source"].tolist()
    rows = {Path(image).stem.lower(): row for row, image in enumerate(images)}
    masks = [""] * len(table)
    for path in sorted(annotations.rglob("*.json")):
        name, size, lungs = _read(path)
        row = rows.get(Path(name).stem.lower())
        if row is None or masks[row] or not lungs:
            continue
        image = root / images[row]
        canvas = _canvas(image, size, cropped=sources[row] == "hannover")
        if canvas is None:
            continue
        masks[row] = f"masks/{sources[row]}/{image.stem}.png"
        if not (root / masks[row]).is_file():
            whole = Image.new("1", canvas)
            corner = (canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2
            whole.paste(_draw(lungs, size), corner)
            with atomic_write(root / masks[row]) as file:
                whole.save(file, format="PNG")
    masked = table.assign(mask=pd.Series(masks, index=table.index, dtype="str"))
    for source, values in masked["mask"].ne("").groupby(masked["source"]):
        log.info("%s: %d of %d images have a lung mask", source, values.sum(), len(values))
    return masked


def _draw(shapes: list[Shape], size: tuple[int, int]) -> Image.Image:
    """Fill shapes of one or more closed paths of (x, y), the later ones holes."""
    mask = Image.new("1", size)
    for paths in shapes:
        shape = Image.new("1", size)
        for path in paths:
            inside = Image.new("1", size)
            ImageDraw.Draw(inside).polygon(path, fill=1, outline=1)
            shape = ImageChops.logical_xor(shape, inside)
        mask = ImageChops.logical_or(mask, shape)
    return mask


def _read(path: Path) -> tuple[str, tuple[int, int], list[Shape]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8", errors="replace"))
        image = content["image"]
        lungs = [list(_paths(a)) for a in content["annotations"] if a["name"] == "Lung"]
        return image["original_filename"], (int(image["width"]), int(image["height"])), lungs
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no Darwin annotation ({type(error).__name__}: {error}): remove "
            f"{path.parent} and fetch it again from {LUNG_MASKS.home_page}"
        ) from None


def _paths(annotation: dict[str, Any]) -> Iterator[list[tuple[float, float]]]:
    shape = annotation.get("polygon") or annotation["complex_polygon"]
    paths = shape["paths"] if "paths" in shape else shape["path"]
    for path in [paths] if isinstance(paths[0], dict) else paths:
        yield [(float(point["x"]), float(point["y"])) for point in path]


def _canvas(image: Path, size: tuple[int, int], *, cropped: bool) -> tuple[int, int] | None:
    """Return the whole image's size in the annotation's pixels, None for another image.

    Hannover's images were annotated on Cohen's copies, which are their central squares.
    """
    try:
        with Image.open(image) as file:
            aspect = file.width / file.height
    except (UnidentifiedImageError, OSError):
        return None
    if abs(aspect * size[1] / size[0] - 1) <= TOLERANCE:
        return size
    if cropped and size[0] == size[1]:
        return round(size[0] * max(1, aspect)), round(size[1] * max(1, 1 / aspect))
    return None
