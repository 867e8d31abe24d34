"""Images without a pair of lungs, for the finder to find nothing on: drawn, or made of chests.

G side of the finder's grid.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, label

Pixels = NDArray[np.uint8]
Random = np.random.Generator


def draw_negatives(
    count: int, chests: Pixels, masks: Pixels, *, rng: Random
) -> tuple[Pixels, Pixels]:
    """Draw images on which there is no pair of lungs, some from chests and their masks (N, G, G).

    Returns:
        (count, G, G) images and their masks, 0 or 255: empty, but for halves of chests, which show
        one lung.
    """
    kinds: tuple[Callable[[int, Random], Pixels], ...] = (
        *(_noise, _plain, _leaves, _leaves, _limb, _limb, _limb, _slice, _breast),
    )
    side = chests.shape[1]
    images, lungs = np.zeros((2, count, side, side), np.uint8)
    for place in range(count):
        if len(chests) and place % 2:
            row = int(rng.integers(len(chests)))
            make = (_one_lung, _one_lung, _no_lung, _erased)[int(rng.integers(4))]
            images[place], lungs[place] = make(chests[row], masks[row], rng)
        else:
            images[place] = kinds[int(rng.integers(len(kinds)))](side, rng)
    return images, lungs


def _noise(side: int, rng: Random) -> Pixels:
    """White noise, or noise of a power law as photographs have it."""
    sigma = float(rng.choice([0, 0.7, 2, 6, 14]))
    values = gaussian_filter(rng.standard_normal((side, side)), sigma)
    low, high = np.sort(rng.uniform(0, 255, 2))
    spread = (values - values.min()) / max(float(np.ptp(values)), 1e-9)
    return np.asarray(low + spread * (high - low), np.uint8)


def _plain(side: int, rng: Random) -> Pixels:
    """One gray, a ramp, or next to it."""
    ramp = np.linspace(0, rng.choice([0, 0, 60, 150]), side)
    values = rng.uniform(0, 255) + np.broadcast_to(ramp, (side, side))
    values = values.T if rng.random() < 0.5 else values
    return np.asarray(np.clip(values + rng.normal(0, 2, (side, side)), 0, 255), np.uint8)


def _leaves(side: int, rng: Random) -> Pixels:
    """Opaque shapes of all sizes, one over the other, as photographs are.

    Source: the dead leaves model, Lee, Mumford, Huang 2001, Int. J. Comput. Vis. 41:35-59.
    """
    image = Image.new("L", (side, side), int(rng.integers(256)))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(3, 120))):
        x, y = rng.uniform(-10, side, 2)
        wide, high = np.clip(3 / rng.uniform(0.03, 1, 2), 3, 0.7 * side)
        shape = draw.ellipse if rng.random() < 0.6 else draw.rectangle
        shape((x, y, x + wide, y + high), fill=int(rng.integers(256)))
    return _soften(image, rng)


def _limb(side: int, rng: Random) -> Pixels:
    """Bones in soft tissue on a dark ground: one to five, side by side or apart, jointed."""
    image = Image.new("L", (side, side), int(rng.integers(0, 60)))
    draw, bones = ImageDraw.Draw(image), int(rng.integers(1, 6))
    tissue, bone = int(rng.integers(70, 130)), int(rng.integers(150, 256))
    lanes = (np.arange(bones) + 0.5) / bones * side + rng.normal(0, 4, bones)
    width, lean = rng.uniform(0.35, 1.0) * side / bones, rng.normal(0, 18)
    joint, gap = rng.uniform(0.2, 0.8) * side, rng.uniform(1, 5)
    for lane in lanes:
        draw.line((lane - lean, -9, lane + lean, side + 9), fill=tissue, width=int(width))
    for lane in lanes:
        for low, high in ((-9.0, joint - gap), (joint + gap, side + 9.0)):
            thick = rng.uniform(0.25, 0.6) * width
            ends = [(lane + lean * (2 * y / side - 1), y) for y in (low, high)]
            draw.line(ends, fill=bone, width=max(2, int(thick)))
            draw.line(ends, fill=(bone + tissue) // 2, width=max(1, int(0.5 * thick)))
            x, y = ends[1] if low < 0 else ends[0]
            head = thick * rng.uniform(0.6, 1.0)
            draw.ellipse((x - head, y - head / 2, x + head, y + head / 2), fill=bone)
    return np.ascontiguousarray(np.rot90(_soften(image, rng), int(rng.integers(4))))


def _slice(side: int, rng: Random) -> Pixels:
    """A slice of a head, trunk or thigh: an oval with a rim and things inside."""
    image = Image.new("L", (side, side), 0)
    draw, middle = ImageDraw.Draw(image), side / 2
    wide, high = rng.uniform(0.25, 0.48, 2) * side
    for shrink, gray in ((1.0, rng.integers(90, 256)), (rng.uniform(0.8, 0.95), rng.integers(160))):
        a, b = wide * shrink, high * shrink
        draw.ellipse((middle - a, middle - b, middle + a, middle + b), fill=int(gray))
    for _ in range(int(rng.integers(1, 9))):
        x, y = middle + rng.uniform(-0.6, 0.6, 2) * (wide, high)
        a, b = rng.uniform(0.05, 0.3, 2) * (wide, high)
        draw.ellipse((x - a, y - b, x + a, y + b), fill=int(rng.integers(256)))
    return _soften(image, rng)


def _breast(side: int, rng: Random) -> Pixels:
    """Half an oval at one edge on a dark ground, brighter inside."""
    image = Image.new("L", (side, side), int(rng.integers(0, 30)))
    draw, middle = ImageDraw.Draw(image), rng.uniform(0.35, 0.65) * side
    for share in (1.0, 0.8, 0.5):
        a, b = share * rng.uniform(0.35, 0.9) * side, share * rng.uniform(0.3, 0.6) * side
        draw.ellipse((-a, middle - b, a, middle + b), fill=int(255 - share * rng.uniform(90, 200)))
    pixels = _soften(image, rng)
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


def _one_lung(chest: Pixels, mask: Pixels, rng: Random) -> tuple[Pixels, Pixels]:
    """The half of a chest around one lung, stretched over the whole image; the lung stays."""
    parts, count = label(mask)
    keep = parts == int(rng.integers(1, count + 1)) if count else parts > 0
    columns = np.flatnonzero(keep.any(axis=0))
    if not len(columns):
        return _no_lung(chest, mask, rng)
    reach = int(rng.integers(0, 12))
    frame = max(0, columns[0] - reach), 0, columns[-1] + 1 + reach, len(chest)
    return _crop(chest, *frame), _crop(np.asarray(keep * 255, np.uint8), *frame)


def _no_lung(chest: Pixels, mask: Pixels, rng: Random) -> tuple[Pixels, Pixels]:
    """What is below or above the lungs, or beside them, stretched over the whole image."""
    rows, columns, side = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0)), len(chest)
    if not len(rows):
        return chest, mask
    frames = [
        *((0, int(rows[-1]) + 1, side, side), (0, 0, side, int(rows[0]))),
        *((0, 0, int(columns[0]), side), (int(columns[-1]) + 1, 0, side, side)),
    ]
    frames = [frame for frame in frames if min(frame[2] - frame[0], frame[3] - frame[1]) >= 8]
    if not frames:
        return _erased(chest, mask, rng)
    return _crop(chest, *frames[int(rng.integers(len(frames)))]), np.zeros_like(mask)


def _erased(chest: Pixels, mask: Pixels, rng: Random) -> tuple[Pixels, Pixels]:
    """A chest whose lungs are filled with the gray around them."""
    lung = gaussian_filter((mask > 0).astype(np.float64), 3) * 1.8
    outside = chest[mask == 0] if (mask == 0).any() else chest
    gray = float(np.quantile(outside, rng.uniform(0.4, 0.9)))
    fill = gray + gaussian_filter(rng.standard_normal(chest.shape), 2) * rng.uniform(0, 40)
    mixed = chest + (fill - chest) * np.clip(lung, 0, 1)
    return np.asarray(np.clip(mixed, 0, 255), np.uint8), np.zeros_like(mask)


def _crop(pixels: Pixels, left: int, top: int, right: int, bottom: int) -> Pixels:
    image = Image.fromarray(pixels).crop((left, top, right, bottom))
    return np.asarray(image.resize(pixels.shape, Image.Resampling.BILINEAR))


def _soften(image: Image.Image, rng: Random) -> Pixels:
    """Blur a drawing and add grain, so that no pixel tells it from a photograph."""
    values = gaussian_filter(np.asarray(image, np.float64), rng.uniform(0.3, 2))
    grain = gaussian_filter(rng.standard_normal(values.shape), rng.uniform(0, 2))
    return np.asarray(np.clip(values + grain * rng.uniform(0, 14), 0, 255), np.uint8)
