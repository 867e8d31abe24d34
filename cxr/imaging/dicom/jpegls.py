"""JPEG-LS in a process of its own, with a limit on its time and memory.

The library (CharLS through pyjpegls) loops for ever on some damaged streams of 2 KB, and
nothing inside a process can stop it.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr.imaging.raster import ImageError

CHILD = Path(__file__).with_name("jpegls_child.py")
START_S = 3
"""Processor seconds to start and to decode a small image."""
PIXELS_PER_S = 5_000_000
"""A slow computer's speed."""
WALL_FACTOR = 6
"""Seconds waited for each processor second, on a busy computer."""


def decode_jpegls(frame: bytes, rows: int, columns: int) -> NDArray[np.uint16]:
    """Decode a JPEG-LS stream of one component.

    Args:
        frame: the stream, whose own size was compared with ``rows`` and ``columns``.
        rows: H.
        columns: W.

    Returns:
        (H, W) uint16.

    Raises:
        ImageError: damaged, or not decoded within the time for its size.
    """
    seconds = START_S + rows * columns // PIXELS_PER_S
    # -P keeps this folder off the child's path; it imports nothing of ours.
    command = [sys.executable, "-P", str(CHILD), str(seconds), str(rows * columns)]
    try:
        done = subprocess.run(
            command, input=frame, capture_output=True, timeout=WALL_FACTOR * seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise ImageError("has damaged JPEG-LS pixels: decoding does not end") from None
    if done.returncode or len(done.stdout) != 2 * rows * columns:
        raise ImageError("has damaged JPEG-LS pixels: export it anew")
    return np.frombuffer(done.stdout, "<u2").astype(np.uint16, copy=False).reshape(rows, columns)
