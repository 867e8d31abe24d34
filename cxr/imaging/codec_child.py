"""The process in which ``cxr.imaging.codecs`` decodes: run as a file, importing nothing of ours."""

import contextlib
import struct
import sys

import numpy as np
from numpy.typing import NDArray

REQUEST = struct.Struct("<8sIQQ")
"""Codec, processor seconds and bytes of memory allowed, bytes of the stream that follows."""
ANSWER = struct.Struct("<IIB")
"""Rows, columns and bytes a value of the values that follow, in the machine's byte order; zeros
where the library refuses the stream."""


def main() -> None:
    """Decode streams until the input ends."""
    while head := sys.stdin.buffer.read(REQUEST.size):
        codec, seconds, memory, length = REQUEST.unpack(head)
        stream = sys.stdin.buffer.read(length)
        _limit(seconds, memory)
        # What the library raises on damaged streams differs by codec.
        try:
            values = _decode(codec.rstrip(b"\0").decode(), stream)
        except Exception:
            values = np.empty((0, 0), np.uint8)
        sys.stdout.buffer.write(ANSWER.pack(*values.shape, values.dtype.itemsize))
        sys.stdout.buffer.write(values.data)
        sys.stdout.buffer.flush()


def _decode(codec: str, stream: bytes) -> NDArray[np.unsignedinteger]:
    import imagecodecs

    if codec in ("rle1", "rle2"):
        kind = np.dtype(f"u{codec[-1]}")
        return np.frombuffer(imagecodecs.dicomrle_decode(stream, kind), kind)[None]
    decode = imagecodecs.jpegls_decode if codec == "jpegls" else imagecodecs.jpeg8_decode
    values = np.ascontiguousarray(decode(stream))
    if values.ndim != 2 or values.dtype not in (np.uint8, np.uint16):
        raise ValueError("no gray image of up to 16 bits")
    return values


def _limit(seconds: int, memory: int) -> None:
    """Bound what the next stream may take; not on every system, the parent's clock remains."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        last = int(used.ru_utime + used.ru_stime) + 1 + seconds
        for limit, most in (("RLIMIT_CPU", last), ("RLIMIT_AS", memory), ("RLIMIT_CORE", 0)):
            number = getattr(resource, limit)
            resource.setrlimit(number, (most, resource.getrlimit(number)[1]))


if __name__ == "__main__":
    main()
