"""Small files that ask for much; run as a program it reads each and prints the costs.

Not a test module: ``test_hostile`` runs it in a process of its own.
"""

import importlib.util
import json
import resource
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, RLELossless

from cxr.errors import InputError
from cxr.imaging.read import read_image

_spec = importlib.util.spec_from_file_location(
    "dicom_files", Path(__file__).with_name("dicom_files.py")
)
made = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(made)
encoded, noise = made.encoded, made.noise


def png(width: int, height: int, chunks: bytes = b"", kind: int = 0) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    samples = {0: 1, 2: 3, 6: 4}[kind]
    engine = zlib.compressobj(9)
    row = bytes(1 + width * samples)
    body = b"".join(engine.compress(row) for _ in range(height)) + engine.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    text = chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(200 << 20))) if chunks else b""
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + text
    return start + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def tiff(**tags: tuple[int, int, int]) -> bytes:
    """Return a TIFF of zeros with tags as (number, type, value), some of them absurd."""
    entries = {
        256: (4, 64),
        257: (4, 64),
        258: (3, 8),
        259: (3, 1),
        262: (3, 1),
        273: (4, 8),
        277: (3, 1),
        278: (4, 64),
        279: (4, 4096),
    }
    entries |= {number: (kind, value) for number, kind, value in tags.values()}
    body = b"II*\0" + struct.pack("<I", 8 + 4096) + bytes(4096)
    body += struct.pack("<H", len(entries))
    for number, (kind, value) in sorted(entries.items()):
        body += struct.pack("<HHII", number, kind, 1, value)
    return body + bytes(4)


def most_bytes() -> int:
    """Return the most memory this process held; ru_maxrss would hold its parent's too."""
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def many_scans() -> bytes:
    """Return a JPEG whose last pass stands there a thousand times."""
    whole = encoded(Image.new("L", (2000, 2000)), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * 1000 + b"\xff\xd9"


def run_length_bomb(runs: int = 7000 * 7000 // 128) -> bytes:
    image = made.dataset(noise(8))
    image.Rows, image.Columns = 7000, 7000
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * runs + b"\xc1\0"
    return made.written(image, RLELossless, frame)


def lossless_bomb(side: int = 4400) -> bytes:
    """Return a lossless JPEG of 19 megapixels that says nothing but zero differences."""
    frame = bytearray(made.lossless_jpeg(noise(8), 8))
    place = frame.index(b"\xff\xc3") + 5
    frame[place : place + 4] = struct.pack(">HH", side, side)
    start = frame.index(b"\xff\xda") + 10
    image = made.dataset(noise(8))
    image.Rows, image.Columns = side, side
    return made.written(
        image, JPEGLosslessSV1, bytes(frame[:start]) + bytes(5 * side * side // 8) + b"\xff\xd9"
    )


def tiled_jpeg_2000() -> bytes:
    frame = bytearray(encoded(Image.fromarray(noise(8)), "JPEG2000", no_jp2=True))
    frame[24:32] = struct.pack(">II", 1, 1)
    return made.written(made.dataset(noise(8)), JPEG2000Lossless, bytes(frame))


def nested_sequences() -> bytes:
    """Return a DICOM header of sequences in sequences, 100,000 deep."""
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    level = struct.pack("<HH2sHI", 0x0008, 0x1115, b"SQ", 0, 0xFFFFFFFF) + item
    return made.written(made.dataset(noise(8)))[:132] + level * 100_000


def large_dicom() -> bytes:
    """Return the largest image that is read, of 16 bits, uncompressed."""
    return made.written(made.dataset(np.full((7000, 7000), 700, np.uint16)))


BOMBS: dict[str, Callable[[], bytes]] = {
    "png of 49 megapixels": lambda: png(7000, 7000, kind=6),
    "png over the limit": lambda: png(20_000, 20_000)[:100_000],
    "png with inflating text": lambda: png(64, 64, chunks=b"zTXt"),
    "tiff of absurd strips": lambda: tiff(rows=(278, 4, 0xFFFFFFFF), bytes=(279, 4, 0xFFFFFFFF)),
    "tiff of absurd samples": lambda: tiff(samples=(277, 3, 65535)),
    "tiff of absurd size": lambda: tiff(width=(256, 4, 0xFFFFFFFF)),
    "tiff of 40 megapixels without pixels": lambda: tiff(w=(256, 4, 8000), h=(257, 4, 5000)),
    "tiff of deflate": lambda: tiff(kind=(259, 3, 8), w=(256, 4, 7000), h=(257, 4, 7000)),
    "tiff of absurd tiles": lambda: tiff(w=(322, 4, 1 << 30), h=(323, 4, 1 << 30), o=(324, 4, 8)),
    "jpeg of a thousand scans": many_scans,
    "deflated dicom": lambda: made.deflate_bomb(200 << 20),
    "run lengths": run_length_bomb,
    "run lengths without end": lambda: run_length_bomb(3_000_000),
    "lossless jpeg": lossless_bomb,
    "lossless jpeg of 49 megapixels": lambda: lossless_bomb(7000),
    "lossless jpeg over the limit": lambda: lossless_bomb(7200),
    "jpeg 2000 of tiny tiles": tiled_jpeg_2000,
    "nested sequences": nested_sequences,
    "dicom of 49 megapixels": large_dicom,
}


def measure() -> dict[str, object]:
    """Read every bomb; what came of it, and the processor seconds it took."""
    found: dict[str, object] = {}
    for name, make in BOMBS.items():
        data = make()
        began = time.process_time()
        try:
            read_image(data)
            result = "read"
        except InputError as error:
            result = str(error)
        found[name] = (result, time.process_time() - began)
    found["most bytes"] = most_bytes()
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure()))
