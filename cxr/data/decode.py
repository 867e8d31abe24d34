"""Decode images once, in parallel, into a memory map. N images, S side in pixels."""

import concurrent.futures
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.errors import InputError, MissingInputError
from cxr.files import digest
from cxr.imaging.preprocess import WHOLE, PreprocessSpec, original_shape, to_square
from cxr.imaging.raster import ImageError
from cxr.imaging.read import read_gray
from cxr.lungs.crop import to_model_input
from cxr.lungs.find import Lungs

ShowProgress = Callable[[str, int], contextlib.AbstractContextManager[Callable[[], None]]]
"""From (description, total) to a context that yields a function which counts one."""
LUNG_COLUMNS = {
    "lungs_count": "integer",
    "lungs_score": "number",
    **dict.fromkeys(("lungs_top", "lungs_left", "lungs_bottom", "lungs_right"), "number"),
}
"""What the table says of the lungs, and of which type; the box is empty where none was found."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images that could be read."""

    table: pd.DataFrame
    """N rows of the manifest with ``sha256`` of the pixels at their own size, ``width`` and
    ``height`` filled in, and ``LUNG_COLUMNS`` where lungs were looked for."""
    whole: NDArray[np.uint8]  # (N, S, S), whole images, in which copies are looked for
    shown: NDArray[np.uint8]  # (N, S, S), what a model sees; ``whole`` itself without lungs
    masks: NDArray[np.uint8] | None  # (N, bytes), the lungs' (G, G) masks as bits
    unreadable: list[dict[str, str]]  # the other rows, as ``image`` and ``reason``


def decode_images(
    manifest: pd.DataFrame,
    root: Path,
    folder: Path,
    spec: PreprocessSpec,
    *,
    skip_errors: bool = False,
    workers: int = 0,
    progress: ShowProgress,
) -> Decoded:
    """Decode every image of a manifest once, in threads (Pillow lets the interpreter go).

    ``folder`` receives ``all.npy`` and with lungs ``shown.npy``, the working copies. Images that
    cannot be read are listed with ``skip_errors``, else the first one stops it. ``workers`` 0 takes
    a thread a processor.

    Raises:
        InputError: an image that cannot be read, or none that can.
    """
    shape = (len(manifest), spec.size_px, spec.size_px)
    whole: NDArray[np.uint8] = allocate(folder / "all.npy", shape)
    shown = whole if spec.lungs == "none" else allocate(folder / "shown.npy", shape)
    images = manifest["image"].tolist()
    stated = manifest[["image", "width", "height"]].to_dict("records")

    def one(row: int) -> tuple[str, tuple[int, int], Lungs | None]:
        image, lungs = read_gray(root / images[row], name=images[row]), None
        whole[row] = to_square(image, spec)
        if spec.lungs != "none":
            original = original_shape(stated[row], images[row])
            made = to_model_input(image, spec, original=original)
            shown[row], lungs = made.pixels, made.lungs
        sha = digest(np.asarray(image.shape, np.int64).tobytes(), image.tobytes())
        return sha, image.shape, lungs

    rows, results, unreadable = [], [], []
    pool = concurrent.futures.ThreadPoolExecutor(workers or os.cpu_count() or 1)
    with progress("prepare", len(images)) as done, pool:
        tasks = [pool.submit(one, row) for row in range(len(images))]
        for row, task in enumerate(tasks):
            try:
                results.append(task.result())
                rows.append(row)
            except BaseException as error:
                if not skip_errors or not isinstance(error, ImageError | MissingInputError):
                    pool.shutdown(cancel_futures=True)
                    raise
                unreadable.append({"image": images[row], "reason": str(error)})
            done()
    if not rows:
        raise InputError(f"none of the {len(images)} images under {root} could be read")
    shas, shapes, lungs = zip(*results, strict=True)
    table, masks = manifest.iloc[rows].reset_index(drop=True).assign(sha256=shas), None
    for axis, column in enumerate(("height", "width")):
        known = table[column] != ""
        table[column] = table[column].where(known, [str(shape[axis]) for shape in shapes])
    if spec.lungs != "none":
        masks = np.stack([np.packbits(found.mask) for found in lungs])
        table = table.join(pd.DataFrame([_lung_values(found) for found in lungs]))
    if len(rows) < len(images):
        whole, shown = whole[rows], shown[rows]
    return Decoded(table, whole, shown, masks, unreadable)


def _lung_values(lungs: Lungs) -> dict[str, str]:
    """Return ``LUNG_COLUMNS`` as texts that give the same numbers again."""
    box = [""] * len(WHOLE) if lungs.box is None else [repr(float(share)) for share in lungs.box]
    texts = (str(lungs.count), repr(float(lungs.score)), *box)
    return dict(zip(LUNG_COLUMNS, texts, strict=True))


def no_progress(_text: str, _total: int) -> contextlib.nullcontext[Callable[[], None]]:
    """Count nothing; what ``ShowProgress`` is where nobody watches."""
    return contextlib.nullcontext(lambda: None)


def allocate(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Make a memory map whose bytes are reserved, so that a full disk is an error, not a crash."""
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    with path.open("r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return mapped
