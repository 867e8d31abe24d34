"""What may differ between one machine's images and another's. S side of prepared pixels."""

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

Pixels = NDArray[np.uint8]
WHITE = 255


class Change(NamedTuple):
    """A change of images at several levels, from mild to strong.

    Attributes:
        unit: how a level is written, with {} in the number's place.
        apply: from image (S, S), level and a generator to the changed image. The generator is
            the same for every level of an image, so that its direction is.
        axis: what a plot's axis counts.
        usual: images come that way, so that the mildest level must do no harm.
    """

    name: str
    levels: tuple[float, ...]
    unit: str
    apply: Callable[[Pixels, float, np.random.Generator], Pixels]
    axis: str
    usual: bool = True

    def words(self, level: float) -> str:
        """Write a level with its unit."""
        return self.unit.format(f"{level:g}")

    def tick(self, number: int) -> str:
        """Write a level as short as an axis needs it."""
        short = self.unit.split("{}")[0] if self.unit.startswith("1/") else ""
        return f"{short}{self.levels[number]:g}"


def change_images(images: Pixels, name: str, level: int, *, seed: int) -> Pixels:
    """Change images, (N, S, S), by one of ``CHANGES`` at the level of that place.

    The seed, with an image's place, decides on direction and noise.
    """
    change = next(change for change in CHANGES if change.name == name)
    strength, rng = change.levels[level], np.random.default_rng
    changed = [change.apply(image, strength, rng([seed, row])) for row, image in enumerate(images)]
    return np.stack(changed)


def _sign(rng: np.random.Generator) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def _to_gray(values: NDArray[np.floating]) -> Pixels:
    """Round; what is brighter than white or darker than black is cut off, as in a detector."""
    return np.asarray(np.rint(np.clip(values, 0, WHITE)), np.uint8)


def _rotate(image: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    rotated = Image.fromarray(image).rotate(_sign(rng) * level, Image.Resampling.BILINEAR)
    return np.asarray(rotated)


def _shift(image: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    pixels = round(level / 100 * image.shape[0])
    quarters = int(rng.integers(4))
    # Down, on an image rotated by quarters: any of the four directions.
    rotated = np.rot90(image, quarters)
    moved = np.zeros_like(rotated)
    moved[pixels:] = rotated[: len(rotated) - pixels]
    return np.rot90(moved, -quarters)


def _brightness(image: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    return _to_gray(image + _sign(rng) * level * WHITE)


def _contrast(image: Pixels, level: float, _rng: np.random.Generator) -> Pixels:
    mean = image.mean()
    return _to_gray(mean + (image - mean) * level)


def _gamma(image: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    return _to_gray(WHITE * (image / WHITE) ** (level ** _sign(rng)))


def _blur(image: Pixels, level: float, _rng: np.random.Generator) -> Pixels:
    return _to_gray(gaussian_filter(image.astype(np.float32), level / 100 * image.shape[0]))


def _noise(image: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    return _to_gray(image + level * WHITE * rng.standard_normal(image.shape, dtype=np.float32))


def _jpeg(radiograph: Pixels, level: float, _rng: np.random.Generator) -> Pixels:
    stream = io.BytesIO()
    Image.fromarray(radiograph).save(stream, "JPEG", quality=int(level))
    with Image.open(stream, formats=("JPEG",)) as image:
        return np.asarray(image.convert("L"))


def _resolution(radiograph: Pixels, level: float, _rng: np.random.Generator) -> Pixels:
    side = radiograph.shape[0]
    small = max(1, round(side / level))
    image = Image.fromarray(radiograph).resize((small, small), Image.Resampling.BOX)
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def _invert(image: Pixels, _level: float, _rng: np.random.Generator) -> Pixels:
    return (WHITE - image).astype(np.uint8)


UP_DOWN = "of the range, up or down"
CHANGES = (
    Change("rotation", (5, 10, 20, 30), "{} degrees", _rotate, "degrees"),
    Change("shift", (5, 10, 15, 20), "{} % of the side", _shift, "% of the side"),
    Change("brightness", (0.1, 0.2, 0.3, 0.4), f"{{}} {UP_DOWN}", _brightness, UP_DOWN),
    Change("contrast", (0.8, 0.6, 0.4, 0.2), "{} times", _contrast, "times"),
    Change("gamma", (1.25, 1.5, 2, 3), "{} or its inverse", _gamma, "exponent, or its inverse"),
    Change("blur", (0.5, 1, 2, 3), "{} % of the side", _blur, "% of the side"),
    Change("noise", (0.02, 0.05, 0.1, 0.2), "{} of the range", _noise, "of the range"),
    Change("JPEG", (50, 30, 15, 5), "quality {}", _jpeg, "quality"),
    Change("resolution", (2, 4, 8, 16), "1/{} of the side", _resolution, "of the side"),
    Change("inverted gray", (1,), "black for white", _invert, "black for white", usual=False),
)
"""The first levels are about what training itself varies, and less than hospitals differ by."""
