"""How an image was taken: position, exposure, what lies on the detector. It never sees a label.

H W pixels, S the side. Gray is 0 black to 1 white before it becomes uint8.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cxr.data.phantom.chest import Floats, blur, splat

View = Literal["AP", "PA"]

LETTERS = {
    "L": ("1000", "1000", "1000", "1000", "1000", "1111"),
    "R": ("1110", "1001", "1001", "1110", "1010", "1001"),
}


@dataclass(frozen=True)
class Pose:
    """Where the patient stood."""

    size_px: int  # side of the image
    rotation: float  # in the image's plane, radians
    scale: float  # enlargement
    shift: tuple[float, float]  # of the patient's origin, right and down, in half image widths
    turn: float  # of the patient about the long axis, -1 to 1; front and back structures part
    breath: float  # depth of inspiration, 0 shallow to 1 full
    stretch: float  # width over height of the patient's enlargement

    def _axes(self) -> NDArray[np.float64]:
        cos, sin = np.cos(self.rotation), np.sin(self.rotation)
        turn = np.array([[cos, -sin], [sin, cos]])
        return turn @ np.diag([self.scale * self.stretch, self.scale])

    def grid(self) -> tuple[Floats, Floats]:
        """Return each pixel's place in the patient, x and y, (H, W) float32 each."""
        line = (np.arange(self.size_px) + 0.5) / self.size_px * 2 - 1
        right, down = line[None, :] - self.shift[0], line[:, None] - self.shift[1]
        inverse = np.linalg.inv(self._axes())
        x = inverse[0, 0] * right + inverse[0, 1] * down
        y = inverse[1, 0] * right + inverse[1, 1] * down
        return x.astype(np.float32), y.astype(np.float32)

    def to_pixels(self, points: Floats) -> tuple[Floats, Floats]:
        """Return columns and rows of points (P, 2) of the patient."""
        placed = points @ self._axes().T + np.array(self.shift)
        pixels = ((placed + 1) / 2 * self.size_px - 0.5).astype(np.float32)
        return pixels[:, 0], pixels[:, 1]

    @property
    def drop(self) -> float:
        """How far breathing in has lowered the domes."""
        return 0.16 * (self.breath - 0.6)

    @property
    def unit_px(self) -> float:
        """Pixels per unit of length."""
        return self.scale * self.size_px / 2


def draw_pose(rng: np.random.Generator, view: View, size_px: int) -> Pose:
    """Draw a position; an image at the bedside (AP) is less straight and less deeply breathed."""
    loose = 1.4 if view == "AP" else 1.0
    return Pose(
        size_px=size_px,
        rotation=float(rng.normal(0, 0.03 * loose)),
        scale=float(rng.uniform(1.14, 1.40)),
        shift=(float(rng.normal(0, 0.045 * loose)), float(rng.normal(0.09, 0.05 * loose))),
        turn=float(np.clip(rng.normal(0, 0.35 * loose), -1, 1)),
        breath=float(rng.uniform(0.1, 0.8) if view == "AP" else rng.uniform(0.35, 1.0)),
        # Images are stretched to a square, and chests are taller than wide.
        stretch=float(rng.uniform(0.80, 0.90)),
    )


def expose(path: Floats, rng: np.random.Generator) -> Floats:
    """Turn water paths (H, W) into gray, by attenuation, scatter, noise and a display curve.

    Source: Beer-Lambert law; quantum noise falls with the root of the dose that arrives.
    """
    size = path.shape[0]
    line = np.linspace(-1, 1, size, dtype=np.float32)
    # Uneven beam (heel effect, grid cut-off, bedside angle): slow, larger than most lesions.
    slope = rng.normal(0, 0.06, 2)
    # Bedding, clothes and flesh pressed aside: soft shadows without texture, on any image.
    coarse = rng.normal(0, 0.05, (5, 5)).astype(np.float32)
    folds = blur(_enlarge(coarse, size), size / 16)
    uneven = np.float32(slope[0]) * line[None, :] + np.float32(slope[1]) * line[:, None] + folds
    primary = np.exp(-rng.uniform(2.4, 3.6) * (path + uneven))
    # A quarter of the pixels is enough for what is as blurred as scatter.
    scatter = _enlarge(blur(primary[::4, ::4], size / 24), size)
    arrived = primary + rng.uniform(0.15, 0.6) * scatter
    grain = rng.standard_normal(path.shape, dtype=np.float32)
    noise = blur(grain, rng.uniform(0.35, 0.7)) * np.sqrt(np.float32(size / 128))
    arrived = arrived + rng.uniform(0.004, 0.013) * np.sqrt(arrived) * noise
    dense = -np.log(np.maximum(arrived, 1e-3))
    dense = blur(dense, rng.uniform(0.3, 0.6) * size / 128)
    return _display(dense, rng)


def _enlarge(coarse: Floats, size_px: int) -> Floats:
    """Stretch a small square map over the image, bilinearly."""
    places = np.linspace(0, coarse.shape[0] - 1, size_px, dtype=np.float32)
    first = np.minimum(places.astype(np.int64), coarse.shape[0] - 2)
    part = places - first.astype(np.float32)
    rows = coarse[first] * (1 - part)[:, None] + coarse[first + 1] * part[:, None]
    return np.asarray(rows[:, first] * (1 - part) + rows[:, first + 1] * part, np.float32)


def _display(dense: Floats, rng: np.random.Generator) -> Floats:
    """Window, gamma and s-curve as a console does: from the image's own middle part."""
    size = dense.shape[0]
    middle = dense[size // 8 : -size // 8 : 2, size // 8 : -size // 8 : 2]
    low, high = np.percentile(middle, (rng.uniform(1, 4), rng.uniform(96, 99.5))).tolist()
    span = (high - low) * rng.uniform(1.0, 1.3)
    low = low - (high - low) * rng.uniform(0.02, 0.22)
    gray = np.clip((dense - low) / span, 0, 1.2) ** np.float32(np.exp(rng.normal(0, 0.22)))
    top = rng.uniform(0.78, 1.0)
    return np.asarray(np.clip(gray * top + rng.uniform(0, 0.07), 0, 1), np.float32)


def finish(gray: Floats, pose: Pose, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Lay collimation, side marker and sometimes a cable on (H, W) gray; make it uint8."""
    image = gray.copy()
    if rng.random() < 0.12:
        image = np.maximum(image, _cable(pose, rng) * rng.uniform(0.7, 1.0))
    if rng.random() < 0.55:
        _collimate(image, rng)
    if rng.random() < 0.7:
        _mark(image, rng)
    return np.asarray(np.clip(image * 255 + 0.5, 0, 255), np.uint8)


def _collimate(image: Floats, rng: np.random.Generator) -> None:
    size = image.shape[0]
    shade = rng.uniform(0, 0.08)
    widths = np.round(rng.uniform(0, 0.07, 4) * size * (rng.random(4) < 0.5)).astype(int)
    image[: widths[0]] = shade
    image[size - widths[1] :] = shade
    image[:, : widths[2]] = shade
    image[:, size - widths[3] :] = shade


def _mark(image: Floats, rng: np.random.Generator) -> None:
    """Put the lead letter on the side that it names."""
    size = image.shape[0]
    name = str(rng.choice(("L", "R")))
    dots = np.array([[int(dot) for dot in row] for row in LETTERS[name]], np.float32)
    dots = np.kron(dots, np.ones((max(1, size // 96),) * 2, np.float32))
    height, width = dots.shape
    margin = max(1, int(size * rng.uniform(0.02, 0.09)))
    top = int(rng.uniform(0.02, 0.3) * size)
    left = size - margin - width if name == "L" else margin
    patch = image[top : top + height, left : left + width]
    np.maximum(patch, dots * rng.uniform(0.85, 1.0), out=patch)


def _cable(pose: Pose, rng: np.random.Generator) -> Floats:
    """Draw a monitor's lead with its electrode, 0 to 1."""
    start, end = rng.uniform((-0.5, -0.5), (0.5, 0.3)), rng.uniform((-1, 0.5), (1, 1.1))
    knee = (start + end) / 2 + rng.normal(0, 0.25, 2)
    t = np.linspace(0, 1, 6 * pose.size_px)[:, None]
    curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * knee + t**2 * end
    columns, rows = pose.to_pixels(curve.astype(np.float32))
    wire = blur(splat(columns, rows, np.ones(len(t), np.float32), pose.size_px), 0.5)
    x, y = pose.grid()
    disc = np.hypot(x - start[0], y - start[1]) < 0.035
    return np.asarray(np.maximum(np.clip(wire / 2.5, 0, 0.8), disc * np.float32(0.9)), np.float32)
