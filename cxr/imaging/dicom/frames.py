"""DICOM pixel data to stored values, by transfer syntax. H W pixels.

The compressed stream's own size is compared with the header's before anything is decoded,
so that neither can lie the other into memory.
"""

import io
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.imaging.codecs import Codec, decode
from cxr.imaging.dicom.header import Layout
from cxr.imaging.dicom.parse import BIG_ENDIAN, NATIVE, RLE, Elements
from cxr.imaging.raster import MAX_SCANS, ImageError

Codes = NDArray[np.uint8] | NDArray[np.uint16]

_ITEM, _END = 0xFFFEE000, 0xFFFEE0DD
_J2K_START = b"\xff\x4f\xff\x51"
# Start of frame (ITU-T T.81, table B.1; JPEG-LS is T.87): marker to what decodes it, for 8 bits.
_JPEG_FRAMES = {0xC0: "pillow", 0xC1: "pillow", 0xC2: "pillow", 0xC3: "jpeg", 0xF7: "jpegls"}
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, b"\xff\xd9"
_PADDING_BYTES = 64
"""At the end of a stream: what may follow the mark of its end."""


def stored_codes(elements: Elements, layout: Layout) -> Codes:
    """Decode the one frame of a file, of one sample a pixel.

    Return the stored bits of each pixel, (H, W) uint8 or uint16, as an unsigned number below
    2 ** bits stored, also where they stand for signed values.

    Raises:
        ImageError: shorter than it says, damaged, of a size or depth that the header
            denies, or of a kind that is not read.
    """
    data = elements.raw("PixelData")
    if elements.syntax in NATIVE:
        order = ">" if elements.syntax == BIG_ENDIAN else "<"
        raw = _native(data, layout, order, words=not elements.is_in_bytes("PixelData"))
        return _stored_bits(raw, layout)
    frame = _encapsulated(data)
    if elements.syntax == RLE:
        return _stored_bits(_child_codes("rle", frame, layout), layout)
    decoded = _compressed(frame, layout)
    if not layout.signed and int(decoded.max()) >> layout.bits_stored:
        raise ImageError(
            f"holds values beyond its {layout.bits_stored} stored bits: export it anew"
        )
    # A stream of 8 bits may stand under a header of more.
    most = int(np.iinfo(decoded.dtype).max)
    return decoded & decoded.dtype.type(min((1 << layout.bits_stored) - 1, most))


def colour_frame(elements: Elements, layout: Layout) -> NDArray[np.uint8]:
    """Decode a frame of three samples to gray, ITU-R 601 luma.

    Errors are those of ``stored_codes``, and colours in RLE, JPEG-LS and JPEG lossless.
    """
    data = elements.raw("PixelData")
    if elements.syntax not in NATIVE:
        frame = _encapsulated(data)
        stream = _describe(frame) if elements.syntax != RLE else None
        if stream is None or stream.codec not in ("pillow", "j2k"):
            raise ImageError("holds colours, compressed in a way that is read for gray only")
        _check_stream(stream, layout)
        return np.asarray(_pillow(frame, stream.codec).convert("L"))
    need = 3 * layout.pixels
    if layout.photometric == "YBR_FULL_422" or len(data) < need:
        raise ImageError(f"holds {len(data)} bytes of pixels, {need} are needed: export it anew")
    samples = np.frombuffer(data, np.uint8, need)
    shape = (layout.rows, layout.columns)
    planes = samples.reshape(3, *shape) if layout.planar else samples.reshape(*shape, 3)
    if layout.photometric != "RGB":
        return np.ascontiguousarray(planes[0] if layout.planar else planes[..., 0])
    rgb = np.moveaxis(planes, 0, -1) if layout.planar else planes
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).convert("L"))


def _native(data: bytes, layout: Layout, order: str, *, words: bool) -> Codes:
    width = layout.bits_allocated // 8
    need = layout.pixels * width
    if len(data) < need:
        raise ImageError(f"holds {len(data)} bytes of pixels, {need} are needed: export it anew")
    shape = (layout.rows, layout.columns)
    if width == 2:
        deep = np.frombuffer(data, f"{order}u2", layout.pixels).reshape(shape)
        return deep.astype(np.uint16, copy=False)
    if order == ">" and words:
        # Big endian exchanges the bytes of words also where each holds two pixels.
        even = data[: len(data) // 2 * 2]
        data = np.frombuffer(even, ">u2").astype("<u2").tobytes() + data[len(even) :]
    return np.frombuffer(data, np.uint8, layout.pixels).reshape(shape)


def _stored_bits(raw: Codes, layout: Layout) -> Codes:
    """Drop what lies beside the stored bits: overlays were once kept there."""
    shift = layout.high_bit + 1 - layout.bits_stored
    if shift == 0 and layout.bits_stored == layout.bits_allocated:
        return raw
    kind = raw.dtype.type
    return (raw >> kind(shift)) & kind((1 << layout.bits_stored) - 1)


def _encapsulated(data: bytes) -> bytes:
    """Join the fragments of the one frame; the first item is a table of offsets."""
    fragments: list[bytes] = []
    place = 0
    while place + 8 <= len(data):
        group, element, length = struct.unpack_from("<HHI", data, place)
        tag = group << 16 | element
        if tag == _END:
            break
        if tag != _ITEM or length > len(data) - place - 8:
            raise ImageError("has damaged fragments of compressed pixels: export it anew")
        fragments.append(data[place + 8 : place + 8 + length])
        place += 8 + length
    frame = b"".join(fragments[1:])
    if not frame:
        raise ImageError("is said to be compressed and holds no fragment: export it anew")
    return frame


@dataclass(frozen=True)
class _Stream:
    """What a compressed stream says of itself; headers name the wrong compression at times."""

    codec: str
    bits: int
    rows: int
    columns: int
    samples: int


def _describe(frame: bytes) -> _Stream | None:
    """Read a stream's own header; None for a kind that is not read."""
    if frame.startswith(b"\xff\xd8"):
        return _describe_jpeg(frame)
    at = frame.find(_J2K_START, 0, 4096) + 8
    if at < 8:
        return None
    if len(frame) < at + 35:
        raise ImageError("has a damaged JPEG 2000 stream: export it anew")
    right, bottom, left, top, tile_width, tile_height = struct.unpack_from(">6I", frame, at)
    (samples,) = struct.unpack_from(">H", frame, at + 32)
    size = (bottom - top) * (right - left)
    tiles = -(-right // max(tile_width, 1)) * -(-bottom // max(tile_height, 1))
    if tiles > 1 + size // 1024:
        raise ImageError(f"has a JPEG 2000 stream of {tiles} tiles: export it anew")
    return _Stream("j2k", (frame[at + 34] & 0x7F) + 1, bottom - top, right - left, samples)


def _describe_jpeg(frame: bytes) -> _Stream | None:
    place = 2
    while place + 10 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        length, bits, rows, columns, samples = struct.unpack_from(">HBHHB", frame, place + 2)
        if marker in _JPEG_FRAMES:
            codec = _JPEG_FRAMES[marker]
            if codec == "pillow" and bits != 8:
                codec = "jpeg" if bits == 12 and marker != 0xC2 else ""
            return _Stream(codec, bits, rows, columns, samples) if codec else None
        if marker == _START_OF_SCAN or length < 2:
            return None
        place += 2 + length
    return None


def _check_stream(stream: _Stream, layout: Layout) -> None:
    """Compare the compressed stream's size with the header's, before decoding."""
    size = (layout.rows, layout.columns, layout.samples)
    if (stream.rows, stream.columns, stream.samples) != size:
        raise ImageError(
            f"is {layout.columns} x {layout.rows} x {layout.samples} by its header, and "
            f"{stream.columns} x {stream.rows} x {stream.samples} by its compressed pixels: "
            "export it anew"
        )
    if stream.bits > layout.bits_allocated:
        raise ImageError(
            f"has compressed pixels of {stream.bits} bits, and BitsAllocated "
            f"{layout.bits_allocated}"
        )


def _compressed(frame: bytes, layout: Layout) -> Codes:
    stream = _describe(frame)
    if stream is None:
        raise ImageError("holds compressed pixels of a kind that is not read: export it anew")
    _check_stream(stream, layout)
    if stream.codec == "jpegls":
        return _child_codes("jpegls", frame, layout)
    if stream.codec == "jpeg":
        # libjpeg-turbo fills what is missing with gray, and says nothing.
        if _END_OF_IMAGE not in frame[-_PADDING_BYTES:]:
            raise ImageError("has damaged JPEG pixels that end early: export it anew")
        return _child_codes("jpeg", frame, layout)
    image = _pillow(frame, stream.codec)
    if stream.codec == "pillow":
        return np.asarray(image.convert("L"))
    return _undo_scaling(np.asarray(image), frame)


def _child_codes(codec: Codec, frame: bytes, layout: Layout) -> Codes:
    shape = (layout.rows, layout.columns)
    return decode(codec, frame, shape, bytes_allocated=layout.bits_allocated // 8)


def _pillow(frame: bytes, codec: str) -> Image.Image:
    if codec == "pillow" and frame.count(b"\xff\xda") > MAX_SCANS:
        raise ImageError(f"has a JPEG stream of over {MAX_SCANS} scans: export it anew")
    try:
        image = Image.open(io.BytesIO(frame), formats=["JPEG" if codec == "pillow" else "JPEG2000"])
        image.load()
    # What Pillow raises on damaged streams differs.
    except Exception:
        raise ImageError("has damaged compressed pixels: export it anew") from None
    return image


def _undo_scaling(pixels: NDArray[np.generic], frame: bytes) -> Codes:
    """Return JPEG 2000's own values: Pillow shifts them to 8 or 16 bits and to be unsigned."""
    depth = frame[frame.index(_J2K_START) + 42]
    bits, signed = (depth & 0x7F) + 1, bool(depth & 0x80)
    if pixels.ndim != 2 or bits > 16:
        raise ImageError(f"has a JPEG 2000 stream of {bits} bits: 16 are read")
    codes = pixels.astype(np.uint16) >> np.uint16((8 if bits <= 8 else 16) - bits)
    if signed:
        # Back from an offset of half the range to two's complement, over all 16 bits.
        wide = codes.astype(np.int32) - (1 << (bits - 1))
        return wide.astype(np.uint16)
    return codes
