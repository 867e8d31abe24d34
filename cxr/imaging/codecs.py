"""Codecs of imagecodecs (BSD-3), in a child process with limits of time and memory. H W pixels.

Some decoders loop for ever or abort on damaged streams of 2 kB, and nothing inside a process can
stop that. A child starts with the first stream (0.2 s), waits for the next one, and ends with this
process; threads that decode at the same time have one each.
"""

import atexit
import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cxr.imaging.codec_child import ANSWER, REQUEST
from cxr.imaging.raster import ImageError

Codec = Literal["jpeg", "jpegls", "rle"]
NAMES = {"jpeg": "JPEG pixels", "jpegls": "JPEG-LS pixels", "rle": "run lengths"}
CHILD = Path(__file__).with_name("codec_child.py")
START_S = 3
"""Processor seconds to start and to decode a small image."""
PIXELS_PER_S = 5_000_000
"""A slow computer's speed."""
WALL_FACTOR = 6
"""Seconds waited for each processor second, on a busy computer."""

_waiting: list[subprocess.Popen[bytes]] = []
# A forked process would talk to its parent's children.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_waiting.clear)


def decode(
    codec: Codec, stream: bytes, shape: tuple[int, int], *, bytes_allocated: int
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Decode a compressed stream of one component to (H, W) uint8 or uint16.

    The codec is ``jpeg`` (lossless, and sequential of 8 or 12 bits), ``jpegls`` or DICOM's ``rle``,
    which does not say itself how many bytes a pixel has. The stream's own size was compared with
    ``shape``.

    Raises:
        ImageError: damaged, or not decoded within the time and memory for its size.
    """
    pixels = shape[0] * shape[1]
    seconds = START_S + pixels // PIXELS_PER_S
    name = f"rle{bytes_allocated}" if codec == "rle" else codec
    request = REQUEST.pack(name.encode(), seconds, (512 << 20) + 8 * pixels, len(stream))
    child, late = _take_child(), threading.Event()

    def stop() -> None:
        late.set()
        child.kill()

    clock = threading.Timer(WALL_FACTOR * seconds, stop)
    clock.start()
    values = None
    try:
        values = _exchange(child, request + stream)
    finally:
        clock.cancel()
        if values is None or late.is_set():
            _close(child)
        else:
            _waiting.append(child)
    if late.is_set():
        raise ImageError(f"has damaged {NAMES[codec]}: decoding does not end")
    if values is None or values.size != pixels:
        raise ImageError(f"has damaged {NAMES[codec]}: export it anew")
    return values.reshape(shape)


def _exchange(
    child: subprocess.Popen[bytes], request: bytes
) -> NDArray[np.uint8] | NDArray[np.uint16] | None:
    """Return the decoded values, none of them where the stream is refused; None if it died."""
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(request)
        child.stdin.flush()
    except BrokenPipeError:
        return None
    head = child.stdout.read(ANSWER.size)
    if len(head) < ANSWER.size:
        return None
    rows, columns, width = ANSWER.unpack(head)
    data = child.stdout.read(rows * columns * width)
    if len(data) < rows * columns * width:
        return None
    return np.frombuffer(data, np.uint8) if width == 1 else np.frombuffer(data, np.uint16)


def _take_child() -> subprocess.Popen[bytes]:
    """Return a child that waits, or start one."""
    while True:
        try:
            child = _waiting.pop()
        except IndexError:
            break
        if child.poll() is None:
            return child
        _close(child)
    # -P keeps this folder off the child's path. Threads of its own would only take memory.
    return subprocess.Popen(
        [sys.executable, "-P", str(CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )


def _close(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    # What is left in the buffer of a broken pipe cannot be written.
    with contextlib.suppress(BrokenPipeError):
        child.communicate()


@atexit.register
def close_children() -> None:
    """End the children that wait."""
    while _waiting:
        _close(_waiting.pop())
