"""How the search for near copies grows with the number of hashes, and what it finds.

    python benchmarks/near_duplicates.py [--max-distance 8] [--sizes 2000 20000 200000]
    python benchmarks/near_duplicates.py recall outputs/cxr4/prepared/<name> [--images 2000]

``recall`` gives every image of a prepared set at most one altered copy, as many to each of the
``ALTERATIONS``, and runs the search of ``prepare`` (or of the audit) on images and copies together.

Two kinds of hashes: random bits, and hashes that share bits as chest images do (a common
shape of the thorax plus own variation, tuned so that about as large a part of all pairs lies
within 8 bits as of 6,188 real images, 6 in 10,000). Pairs found among the latter grow with the
square of their number, whatever finds them. A growth exponent of 1 is linear, 2 quadratic.
"""

import argparse
import io
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cxr.audit.copy_search import find_leaks
from cxr.data.groups import find_copies
from cxr.data.near_duplicates import near_pairs
from cxr.data.prepared import open_prepared

SIZES = (2_000, 20_000, 50_000)
MOST_COMPARED = 20_000
"""Hashes up to which the pairs are checked against those of a loop over all pairs."""


def random_hashes(count: int, rng: np.random.Generator) -> NDArray[np.uint64]:
    """Draw (N, 8) hashes of independent even bits."""
    return rng.integers(0, 2**63, (count, 8), dtype=np.uint64) * np.uint64(2)


def image_like_hashes(count: int, rng: np.random.Generator) -> NDArray[np.uint64]:
    """Draw (N, 8) hashes of cosine coefficients around a common shape.

    Mirroring changes the sign of odd columns, a half turn of odd columns and rows, and a
    quarter turn exchanges rows and columns, as in hashes of real images.
    """
    scale = 1 / (1 + np.add.outer(np.arange(8), np.arange(8)))
    shape = 1.2 * rng.standard_normal((8, 8)) * scale
    waves = shape + rng.standard_normal((count, 8, 8)) * scale
    sign = np.where(np.arange(8) % 2, -1, 1)
    hashes = np.empty((count, 8), np.uint64)
    for column in range(8):
        turned = waves.transpose(0, 2, 1) if column & 1 else waves
        turned = turned * (sign if column & 2 else 1) * (sign[:, None] if column & 4 else 1)
        flat = turned.reshape(count, 64)
        bits = flat > np.median(flat, axis=1, keepdims=True)
        hashes[:, column] = np.packbits(bits, axis=1).view(">u8")[:, 0]
    return hashes


def compare_all(hashes: NDArray[np.uint64], max_distance: int) -> NDArray[np.int64]:
    """Find close pairs by comparing every image with every orientation of every other."""
    pairs = []
    for row in range(len(hashes) - 1):
        later = hashes[row + 1 :]
        ways = np.bitwise_count(later ^ hashes[row, 0]).min(axis=1)
        back = np.bitwise_count(later[:, :1] ^ hashes[row]).min(axis=1)
        others = row + 1 + np.flatnonzero(np.minimum(ways, back) <= max_distance)
        pairs.append(np.stack([np.full(len(others), row), others], axis=1))
    return np.concatenate(pairs)


def measure(
    name: str,
    draw: Callable[[int, np.random.Generator], NDArray[np.uint64]],
    max_distance: int,
    sizes: Sequence[int],
) -> None:
    """Time the search at each size and print the growth between sizes."""
    times: list[float] = []
    for count in sizes:
        hashes = draw(count, np.random.default_rng(0))
        start = time.perf_counter()
        pairs = near_pairs(hashes, max_distance=max_distance)
        times.append(time.perf_counter() - start)
        share = len(pairs) / (count * (count - 1) / 2)
        line = f"{name:10s} {count:9,d} hashes {times[-1]:8.2f} s {len(pairs):10,d} pairs"
        print(f"{line} ({share:.1e})", flush=True)
        if count <= MOST_COMPARED:
            start = time.perf_counter()
            assert np.array_equal(compare_all(hashes, max_distance), pairs)
            print(f"{'':10s} the same by a loop in {time.perf_counter() - start:.2f} s")
    if len(sizes) > 1:
        exponent = math.log(times[-1] / times[0]) / math.log(sizes[-1] / sizes[0])
        print(f"{name:10s} growth exponent {exponent:.2f}")


Pixels = NDArray[np.uint8]


def cropped(radiograph: Pixels, *shares: float) -> Pixels:
    """Cut shares of the side off: left, top, right, bottom; one share for all."""
    side = len(radiograph)
    left, top, right, bottom = (round(share * side) for share in (shares * 4)[:4])
    image = Image.fromarray(radiograph).crop((left, top, side - right, side - bottom))
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def rotated(image: Pixels, angle_deg: float) -> Pixels:
    """Rotate about the centre; corners become black."""
    return np.asarray(Image.fromarray(image).rotate(angle_deg, Image.Resampling.BILINEAR))


def padded(radiograph: Pixels, rows: float, columns: float, gray: int = 0) -> Pixels:
    """Shrink to what shares of rows and columns on each border leave, and fill these."""
    side = len(radiograph)
    down, right = round(rows * side), round(columns * side)
    image = Image.new("L", (side, side), gray)
    small = Image.fromarray(radiograph).resize((side - 2 * right, side - 2 * down), 2)
    image.paste(small, (right, down))
    return np.asarray(image)


def framed(image: Pixels, share: float, gray: int) -> Pixels:
    """Draw a frame over the border."""
    inner, side = round(share * len(image)), len(image)
    drawn = np.full_like(image, gray)
    drawn[inner : side - inner, inner : side - inner] = image[
        inner : side - inner, inner : side - inner
    ]
    return drawn


def written_on(radiograph: Pixels) -> Pixels:
    """Write on a black box over 6 % of the radiograph."""
    image, side = Image.fromarray(radiograph), len(radiograph)
    draw = ImageDraw.Draw(image)
    draw.rectangle((side * 0.03, side * 0.03, side * 0.38, side * 0.2), fill=0)
    draw.text((side * 0.05, side * 0.06), "PORTABLE AP\n12:30", fill=255)
    return np.asarray(image)


def outlined(radiograph: Pixels) -> Pixels:
    """Draw a thin rectangle around the lungs, as a detector does."""
    image, side = Image.fromarray(radiograph), len(radiograph)
    box = (side * 0.2, side * 0.25, side * 0.8, side * 0.8)
    ImageDraw.Draw(image).rectangle(box, outline=255, width=max(1, side // 75))
    return np.asarray(image)


def encoded(radiograph: Pixels, quality: int) -> Pixels:
    """Encode as JPEG."""
    stream = io.BytesIO()
    Image.fromarray(radiograph).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


ALTERATIONS: dict[str, Callable[[Pixels], Pixels]] = {
    "JPEG quality 30": lambda image: encoded(image, 30),
    "brighter": lambda image: np.clip(image * 1.3 + 20, 0, 255).astype(np.uint8),
    "gamma 1.6": lambda image: np.asarray(255 * (image / 255) ** 1.6, np.uint8),
    "mirrored": lambda image: image[:, ::-1],
    "rotated 90": np.rot90,
    "inverted": lambda image: 255 - image,
    "letterboxed 4:3": lambda image: padded(image, 0.125, 0),
    "white margin 8 %": lambda image: padded(image, 0.08, 0.08, 255),
    "white frame 5 %": lambda image: framed(image, 0.05, 255),
    "text box": written_on,
    "outlined": outlined,
    "cropped 3 %": lambda image: cropped(image, 0.03),
    "cropped 5 %": lambda image: cropped(image, 0.05),
    "cropped 10 %": lambda image: cropped(image, 0.10),
    "cropped 15 %": lambda image: cropped(image, 0.15),
    "cropped 20 %": lambda image: cropped(image, 0.20),
    "corner cropped 10 %": lambda image: cropped(image, 0.1, 0.1, 0, 0),
    "rotated 2": lambda image: rotated(image, 2),
    "rotated 5": lambda image: rotated(image, -5),
    "rotated 10": lambda image: rotated(image, 10),
    "rotated 15": lambda image: rotated(image, -15),
    "rotated 20": lambda image: rotated(image, 20),
    "inverted, cropped 10 %": lambda image: 255 - cropped(image, 0.1),
    "inverted, letterboxed": lambda image: padded(255 - image, 0.125, 0),
    "mirrored, rotated 5, cropped 5 %": lambda image: cropped(
        rotated(image[:, ::-1].copy(), 5), 0.05
    ),
    "text box, rotated 5": lambda image: rotated(written_on(image), 5),
}


def measure_recall(folder: Path, *, most: int, audit: bool) -> None:
    """Print which share of altered copies is found, and how many pairs that are none."""
    images = open_prepared(folder).pixels
    images = images[np.sort(np.random.default_rng(1).permutation(len(images))[:most])]
    each = min(150, len(images) // len(ALTERATIONS))
    rows = np.random.default_rng(0).permutation(len(images))[: each * len(ALTERATIONS)]
    kinds = np.repeat(list(ALTERATIONS), each)
    copies = [ALTERATIONS[kind](images[row]) for row, kind in zip(rows, kinds, strict=True)]
    squares = np.concatenate([images, np.stack(copies)])
    start = time.process_time()
    if audit:
        pairs = find_leaks(squares, np.repeat(["train", "test"], [len(images), len(rows)])).pairs
    else:
        pairs = find_copies(np.arange(len(squares)).astype(object), squares).pairs
    true = pairs[:, 0] == np.append(np.full(len(images), -1), rows)[pairs[:, 1]]
    print(
        f"{len(images):,} images, {each} copies of each kind, {time.process_time() - start:.0f} s"
    )
    found = np.isin(np.arange(len(rows)) + len(images), pairs[true, 1])
    for kind in ALTERATIONS:
        print(f"{kind:34s} {found[kinds == kind].mean():6.1%}")
    print(f"pairs of different images: {(~true).sum()} of {len(pairs)}")


def main() -> None:
    """Print the times of both kinds, or the recall."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max-distance", type=int, default=8)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="hashes, for speed")
    parser.add_argument("what", nargs="?", choices=("speed", "recall"), default="speed")
    parser.add_argument("prepared", nargs="?", type=Path, help="a prepared set, for recall")
    parser.add_argument("--images", type=int, default=10_000, help="at most, for recall")
    parser.add_argument("--audit", action="store_true", help="the audit's search, for recall")
    options = parser.parse_args()
    if options.what == "recall":
        if options.prepared is None:
            parser.error("recall needs the folder of a prepared set")
        measure_recall(options.prepared, most=options.images, audit=options.audit)
        return
    distance = options.max_distance
    measure("random", random_hashes, distance, options.sizes)
    measure("image-like", image_like_hashes, distance, options.sizes)


if __name__ == "__main__":
    main()
