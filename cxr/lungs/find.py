"""Find the lungs on any image: one small network, run by onnxruntime. No torch.

H W pixels of an image, G side of the network's grid.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.errors import InputError, MissingInputError, reason_of
from cxr.files import read_json

GRID_PX = 128
"""G; the whole image is stretched over the grid."""
FINDER_FILE = Path(__file__).with_name("lungs.onnx")
"""The shipped network; ``lungs.json`` beside it holds its digest and its figures."""
HINT = "install the package again"
INPUT = "pixels"
OUTPUTS = ("lung_probs", "score")
LEAST_SHARE = 0.01
"""Of the image, below which a connected component is no lung. The smallest lung among the
training masks covers 0.045; an image may show its chest at half the size."""
TOUCHING = 0.5
"""Lungs that touch are told apart where the rows of lung in a column fall, between two columns, to
this share of what the lower of the two has."""

Mask = NDArray[np.bool_]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Lungs:
    """The lungs of one image."""

    mask: Mask
    """(G, G) on the finder's grid, which is stretched over the whole image."""
    box: Box | None
    """Top, left, bottom, right of both lungs, as shares 0 to 1 of the image's height and width;
    None where nothing was found."""
    score: float
    """How sure the finder is that it sees a pair of lungs, 0 to 1; 0 where nothing was found.
    Calibrated on held-out chests and on what is no chest, half of each; see CARD.md."""
    count: int
    """Lungs found, 0 to 2: connected components of a plausible size, or halves where they touch."""


def find_lungs(image: NDArray[np.uint8], finder: Path = FINDER_FILE) -> Lungs:
    """Find the lungs on an image (H, W) of any size; the whole image, as read.

    One session on one thread serves all callers, so the bits of the answer do not depend on how
    many threads there are. Another ``finder`` than the shipped one is the caller's to check.

    Raises:
        MissingInputError: the network or its digest is missing.
        InputError: the shipped network was changed, or is none.
    """
    own = finder != FINDER_FILE and finder.is_file()
    session = _session(finder, finder.stat().st_mtime_ns if own else 0)
    probs, scores = session.run(OUTPUTS, {INPUT: to_grid(image)[None, None]})
    parts = [part for part in components(probs[0] >= 0.5) if part.mean() >= LEAST_SHARE]
    mask = np.any(parts, axis=0) if parts else np.zeros((GRID_PX, GRID_PX), bool)
    count = 2 if len(parts) == 1 and _touch(mask) else min(len(parts), 2)
    return Lungs(mask, _box(mask), float(scores[0]) if parts else 0.0, count)


def to_grid(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Stretch (H, W) pixels over the (G, G) grid with Pillow's antialiased bilinear filter.

    Large images are first averaged down to at least twice the grid, which is four times faster.
    """
    side, filter_ = (GRID_PX, GRID_PX), Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image).resize(side, filter_, reducing_gap=2.0))


def finder_digest(finder: Path = FINDER_FILE) -> str:
    """Return the SHA-256 of a network's file, hexadecimal."""
    try:
        return hashlib.sha256(finder.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise MissingInputError(f"the lung finder {finder} is missing: {HINT}") from None


@cache
def _session(finder: Path, _changed_ns: int) -> Any:
    """Open a network once, again after a change; the shipped one must be what its digest says."""
    digest = finder_digest(finder)
    if finder == FINDER_FILE:
        stated = str(read_json(finder.with_suffix(".json"), hint=HINT).get("sha256"))
        if stated != digest:
            raise InputError(
                f"the lung finder {finder} was changed (SHA-256 {digest[:12]}, {stated[:12]} "
                f"expected): {HINT}"
            )
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            str(finder), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's own classes have no common ancestor
        raise InputError(
            f"onnxruntime cannot load the lung finder {finder} ({reason_of(error)}): {HINT}"
        ) from None


def components(mask: Mask) -> list[Mask]:
    """Return the 4-connected components of a (G, G) mask, each (G, G), from the top.

    Runs of each row are joined with those that they touch in the row above.

    Source: Rosenfeld, Pfaltz 1966, J. ACM 13:471-494.
    """
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    stops = np.nonzero(edges == -1)[1]
    parents = list(range(len(rows)))

    def root(run: int) -> int:
        while parents[run] != run:
            run = parents[run]
        return run

    first = np.searchsorted(rows, np.arange(len(mask) + 1))
    for run, (row, start, stop) in enumerate(
        zip(rows.tolist(), starts.tolist(), stops.tolist(), strict=True)
    ):
        for above in range(first[row - 1], first[row]) if row else ():
            if starts[above] < stop and start < stops[above]:
                parents[root(run)] = root(above)
    labels = np.zeros(mask.shape, np.int64)
    for run in range(len(rows)):
        labels[rows[run], starts[run] : stops[run]] = root(run) + 1
    return [labels == label for label in np.unique(labels[labels > 0])]


def _touch(lung: Mask) -> bool:
    """Tell whether one component is two lungs that touch: two wide humps with a dip between."""
    heights = lung.sum(axis=0)
    columns = np.flatnonzero(heights)
    heights = heights[columns[0] : columns[-1] + 1]
    third = max(1, len(heights) // 3)
    dip = third + int(heights[third : 2 * third].argmin()) if len(heights) >= 3 else 0
    humps = heights[:dip], heights[dip:]
    if min(hump.sum() for hump in humps) < LEAST_SHARE * lung.size:
        return False
    return bool(heights[dip] <= TOUCHING * min(hump.max() for hump in humps))


def _box(mask: Mask) -> Box | None:
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    edges = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
    top, left, bottom, right = (float(edge) / GRID_PX for edge in edges)
    return top, left, bottom, right
