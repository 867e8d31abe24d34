"""Decode images once, in parallel, into a memory map. N images, S side in pixels."""

import concurrent.futures
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.errors import InputError, MissingInputError
from cxr.files import digest
from cxr.imaging.preprocess import PreprocessSpec, to_square
from cxr.imaging.read import ImageError, read_gray

ShowProgress = Callable[[str, int], contextlib.AbstractContextManager[Callable[[], None]]]
"""From (description, total) to a context that yields a function which counts one."""


def decode_images(
    manifest: pd.DataFrame,
    root: Path,
    folder: Path,
    spec: PreprocessSpec,
    *,
    skip_errors: bool = False,
    workers: int = 0,
    progress: ShowProgress | None = None,
) -> tuple[pd.DataFrame, NDArray[np.uint8], list[dict[str, str]]]:
    """Decode every image once, in threads (Pillow releases the interpreter while it decodes).

    Args:
        manifest: N rows; paths relative to ``root``.
        root: folder of the images.
        folder: receives ``all.npy``, the working copy.
        spec: side and fit.
        skip_errors: list images that cannot be read instead of stopping at the first.
        workers: threads; 0 takes one a processor.
        progress: see ``ShowProgress``.

    Returns:
        The rows that could be read with ``sha256`` of their pixels at their own size and
        ``width`` and ``height`` filled in; their (N, S, S) uint8 squares; and the others as
        ``image`` and ``reason``.

    Raises:
        InputError: an image that cannot be read, or none that can.
    """
    side = spec.size_px
    squares = allocate(folder / "all.npy", (len(manifest), side, side))
    shas: list[str] = [""] * len(manifest)
    sizes: list[tuple[int, int]] = [(0, 0)] * len(manifest)
    unreadable: list[dict[str, str]] = []
    images = manifest["image"].tolist()

    def one(row: int) -> None:
        image = read_gray(root / images[row], name=images[row])
        shas[row] = digest(np.asarray(image.shape, np.int64).tobytes(), image.tobytes())
        sizes[row] = image.shape
        squares[row] = to_square(image, spec)

    show = progress or no_progress
    count = workers or os.cpu_count() or 1
    pool = concurrent.futures.ThreadPoolExecutor(count)
    with show("prepare", len(images)) as done, pool:
        tasks = [pool.submit(one, row) for row in range(len(images))]
        for row, task in enumerate(tasks):
            try:
                task.result()
            except (ImageError, MissingInputError) as error:
                if not skip_errors:
                    pool.shutdown(cancel_futures=True)
                    raise
                unreadable.append({"image": images[row], "reason": str(error)})
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            done()
    table = manifest.assign(sha256=shas)
    for column, axis in (("width", 1), ("height", 0)):
        known = table[column] != ""
        table[column] = table[column].where(known, [str(size[axis]) for size in sizes])
    readable = np.flatnonzero([bool(sha) for sha in shas])
    if not len(readable):
        raise InputError(f"none of the {len(images)} images under {root} could be read")
    if len(readable) < len(images):
        return table.iloc[readable].reset_index(drop=True), squares[readable], unreadable
    return table, squares, unreadable


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
