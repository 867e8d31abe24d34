"""JPEG that Pillow does not read: lossless, and sequential of 12 bits. H W pixels.

Huffman codes depend on all before them, but where a code would end depends on 16 bits only:
that is worked out for every bit of the stream at once, and then followed from code to code.
So damaged streams can neither crash nor hang. One component. Source: ITU-T T.81.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cxr.imaging.dicom.jpeg_codes import HuffmanTable, huffman_table, read_blocks, read_differences
from cxr.imaging.dicom.jpeg_prediction import undo_prediction
from cxr.imaging.raster import ImageError

DAMAGED = "has damaged JPEG pixels: export it anew"
MAX_DECODED_PIXELS = 20_000_000
"""Largest image decoded here, at about 4 million pixels a second; detectors have up to 15."""
MAX_INTERVALS = 10_000
"""Restarts in an image: encoders write one a row of pixels or blocks at most."""

_SOF = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}
_LOSSLESS, _JPEG_LS, _PROGRESSIVE = 0xC3, 0xF7, 0xC2
_DHT, _DQT, _DRI, _SOS, _EOI = 0xC4, 0xDB, 0xDD, 0xDA, 0xD9
# Zigzag order of an 8 x 8 block, T.81 figure A.6: place in the block of each coefficient.
_ZIGZAG = sorted(
    range(64), key=lambda p: (p // 8 + p % 8, p // 8 if (p // 8 + p % 8) % 2 else p % 8)
)


@dataclass
class _Stream:
    """What the segments before the pixels say."""

    frame: int = 0
    bits: int = 0
    rows: int = 0
    columns: int = 0
    tables: dict[int, HuffmanTable] = field(default_factory=dict)
    quantisers: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    quantiser: int = 0
    restart: int = 0
    scan: bytes = b""
    pixels_at: int = 0


def kind(frame: bytes) -> str:
    """Return jpeg (8 bits), deep (12), lossless, jls, or nothing for what is not read."""
    try:
        marker, head = next(_frames(frame))
    except StopIteration:
        return ""
    if marker == _JPEG_LS:
        return "jls"
    if marker == _LOSSLESS:
        return "lossless"
    if marker in (0xC0, 0xC1, _PROGRESSIVE) and head[0] == 8:
        return "jpeg"
    return "deep" if marker in (0xC0, 0xC1) and head[0] == 12 else ""


def size(frame: bytes) -> tuple[int, int, int, int]:
    """Return bits, rows, columns and components by the stream's own header.

    Raises:
        ImageError: it has none.
    """
    for _, head in _frames(frame):
        bits, rows, columns, components = struct.unpack_from(">BHHB", head)
        return bits, rows, columns, components
    raise ImageError(DAMAGED)


def decode(frame: bytes) -> NDArray[np.uint16]:
    """Decode a lossless or a 12-bit sequential stream of one component.

    Returns:
        (H, W) uint16.

    Raises:
        ImageError: damaged, cut, or of a kind that is not read.
    """
    try:
        stream = _read_segments(frame)
        if stream.rows * stream.columns > MAX_DECODED_PIXELS:
            raise ImageError(
                f"is {stream.columns} x {stream.rows} pixels of lossless or 12-bit JPEG: at most "
                f"{MAX_DECODED_PIXELS // 1_000_000} megapixels are read; scale it down"
            )
        if stream.frame == _LOSSLESS:
            return _lossless(stream, frame)
        return _sequential(stream, frame)
    except (struct.error, IndexError, KeyError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(DAMAGED) from None


def _segments(frame: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield marker, place after it, and payload, up to and with the start of a scan."""
    place = 2
    while place + 4 <= len(frame):
        if frame[place] != 0xFF:
            return
        marker = frame[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        length = int.from_bytes(frame[place + 2 : place + 4], "big")
        end = place + 2 + length
        if length < 2 or end > len(frame) or marker == _EOI:
            return
        yield marker, end, frame[place + 4 : end]
        if marker == _SOS:
            return
        place = end


def _frames(frame: bytes) -> Iterator[tuple[int, bytes]]:
    for marker, _, payload in _segments(frame):
        if marker in _SOF and len(payload) >= 6:
            yield marker, payload


def _read_segments(frame: bytes) -> _Stream:
    stream = _Stream()
    for marker, end, payload in _segments(frame):
        if marker == _DHT:
            while payload:
                counts = payload[1:17]
                total = sum(counts)
                stream.tables[payload[0]] = huffman_table(counts, payload[17 : 17 + total])
                payload = payload[17 + total :]
        elif marker == _DQT:
            while payload:
                width = 2 if payload[0] >> 4 else 1
                values = np.frombuffer(payload, f">u{width}", 64, 1).astype(np.float32)
                stream.quantisers[payload[0] & 15] = values
                payload = payload[1 + 64 * width :]
        elif marker == _DRI:
            stream.restart = int.from_bytes(payload[:2], "big")
        elif marker in _SOF:
            stream.frame = marker
            stream.bits, stream.rows, stream.columns, count = struct.unpack_from(">BHHB", payload)
            stream.quantiser = payload[8]
            if count != 1:
                raise ImageError(DAMAGED)
        elif marker == _SOS:
            stream.scan, stream.pixels_at = payload, end
    if not stream.scan or stream.scan[0] != 1 or not stream.rows * stream.columns:
        raise ImageError(DAMAGED)
    return stream


def _intervals(stream: _Stream, frame: bytes, units: int) -> list[tuple[bytes, int]]:
    """Split the coded bytes at the restarts; each with the units that it must hold."""
    body = frame[stream.pixels_at :]
    end = re.search(rb"\xff[^\x00\xd0-\xd7\xff]", body)
    parts = re.split(rb"\xff[\xd0-\xd7]", body[: end.start()] if end else body)
    each = stream.restart or units
    if -(-units // each) > min(len(parts), MAX_INTERVALS):
        raise ImageError(DAMAGED)
    held = [min(each, units - first) for first in range(0, units, each)]
    return [
        (part.replace(b"\xff\x00", b"\xff"), count)
        for part, count in zip(parts, held, strict=False)
    ]


def _lossless(stream: _Stream, frame: bytes) -> NDArray[np.uint16]:
    predictor, shift = stream.scan[3], stream.scan[5] & 15
    table = stream.tables[stream.scan[2] >> 4]
    rows, columns = stream.rows, stream.columns
    if not 1 <= predictor <= 7 or shift >= stream.bits or not 2 <= stream.bits <= 16:
        raise ImageError(DAMAGED)
    if stream.restart % columns:
        raise ImageError("has JPEG restarts inside a row, which are not read: export it anew")
    image = np.empty((rows, columns), np.uint16)
    top = 0
    for data, count in _intervals(stream, frame, rows * columns):
        part = read_differences(data, count, table).reshape(-1, columns)
        part[0, :1] += np.uint16(1 << (stream.bits - shift - 1))
        image[top : top + len(part)] = undo_prediction(part, predictor)
        top += len(part)
    image <<= np.uint16(shift)
    return image


def _sequential(stream: _Stream, frame: bytes) -> NDArray[np.uint16]:
    """Decode blocks of cosines. Source: T.81, A.3.3 and F.2."""
    dc, ac = stream.tables[stream.scan[2] >> 4], stream.tables[16 + (stream.scan[2] & 15)]
    high, wide = -(-stream.rows // 8), -(-stream.columns // 8)
    image = np.empty((high, 8, wide, 8), np.uint16)
    blocks = np.empty((high * wide, 64), np.int16)
    done = 0
    for data, count in _intervals(stream, frame, high * wide):
        blocks[done : done + count] = read_blocks(data, count, dc, ac)
        done += count
    angles = np.arange(8)[:, None] * (2 * np.arange(8) + 1) * np.pi / 16
    cosines = (np.cos(angles) / 2).astype(np.float32)
    cosines[0] /= np.sqrt(2)
    middle = 1 << (stream.bits - 1)
    for row in range(high):
        coded = blocks[row * wide : (row + 1) * wide] * stream.quantisers[stream.quantiser]
        square = np.empty((wide, 64), np.float32)
        square[:, _ZIGZAG] = coded
        values = cosines.T @ square.reshape(-1, 8, 8) @ cosines
        bounded = np.clip(np.rint(values) + middle, 0, 2 * middle - 1)
        image[row] = bounded.astype(np.uint16).transpose(1, 0, 2)
    return image.reshape(high * 8, wide * 8)[: stream.rows, : stream.columns]
