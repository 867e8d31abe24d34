"""DICOM pixel data to stored values, by transfer syntax. H W pixels.

The compressed stream's own size is compared with the header's before anything is decoded,
so that neither can lie the other into memory.
"""

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.imaging.dicom import jpeg
from cxr.imaging.dicom.header import Layout
from cxr.imaging.dicom.jpegls import decode_jpegls
from cxr.imaging.dicom.parse import Elements
from cxr.imaging.dicom.terms import BIG_ENDIAN, NATIVE, RLE
from cxr.imaging.raster import MAX_SCANS, ImageError

Codes = NDArray[np.uint8] | NDArray[np.uint16]

_ITEM, _END = 0xFFFEE000, 0xFFFEE0DD
_J2K_START = b"\xff\x4f\xff\x51"
_RLE_HEADER = struct.Struct("<16I")


def stored_codes(elements: Elements, layout: Layout) -> Codes:
    """Decode the one frame of a file.

    Args:
        elements: the header with its pixel data.
        layout: one sample a pixel.

    Returns:
        (H, W) uint8 or uint16: the stored bits of each pixel as an unsigned number below
        2 ** bits stored, also where they stand for signed values.

    Raises:
        ImageError: shorter than it says, damaged, of a size or depth that the header
            denies, or of a kind that is not read.
    """
    data = elements.raw("PixelData")
    if elements.syntax in NATIVE:
        order = ">" if elements.syntax == BIG_ENDIAN else "<"
        raw = _native(data, layout, order, words=elements.value_representation("PixelData") != "OB")
        return _stored_bits(raw, layout)
    frame = _encapsulated(data)
    if elements.syntax == RLE:
        return _stored_bits(_rle(frame, layout), layout)
    decoded = _compressed(frame, layout)
    if not layout.signed and int(decoded.max()) >> layout.bits_stored:
        raise ImageError(
            f"holds values beyond its {layout.bits_stored} stored bits: export it anew"
        )
    mask = decoded.dtype.type((1 << layout.bits_stored) - 1)
    return decoded & mask


def colour_frame(elements: Elements, layout: Layout) -> NDArray[np.uint8]:
    """Decode a frame of three samples to gray, ITU-R 601 luma.

    Raises:
        ImageError: as ``stored_codes``; colours in RLE, JPEG-LS and JPEG lossless.
    """
    data = elements.raw("PixelData")
    if elements.syntax not in NATIVE:
        frame = _encapsulated(data)
        kind = _kind(frame)
        if elements.syntax == RLE or kind not in ("jpeg", "j2k"):
            raise ImageError("holds colours, compressed in a way that is read for gray only")
        _check_stream(frame, kind, layout)
        return np.asarray(_pillow(frame, kind).convert("L"))
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


def _kind(frame: bytes) -> str:
    """Tell the compression by the stream itself; headers name the wrong one at times."""
    if frame.startswith(b"\xff\xd8"):
        return jpeg.kind(frame)
    return "j2k" if _J2K_START in frame[:4096] else ""


def _check_stream(frame: bytes, kind: str, layout: Layout) -> None:
    """Compare the compressed stream's size with the header's, before decoding."""
    if kind == "j2k":
        at = frame.index(_J2K_START) + 8
        if len(frame) < at + 32:
            raise ImageError("has a damaged JPEG 2000 stream: export it anew")
        right, bottom, left, top = struct.unpack_from(">4I", frame, at)
        tile_width, tile_height = struct.unpack_from(">2I", frame, at + 16)
        size = (bottom - top, right - left)
        bits = (frame[at + 34] & 0x7F) + 1 if len(frame) > at + 34 else 99
        samples = struct.unpack_from(">H", frame, at + 32)[0] if len(frame) > at + 34 else 0
        tiles = -(-right // max(tile_width, 1)) * -(-bottom // max(tile_height, 1))
        if tiles > 1 + layout.pixels // 1024:
            raise ImageError(f"has a JPEG 2000 stream of {tiles} tiles: export it anew")
    else:
        bits, *size_of, samples = jpeg.size(frame)
        size = (size_of[0], size_of[1])
        if frame.count(b"\xff\xda") > MAX_SCANS:
            raise ImageError(f"has a JPEG stream of over {MAX_SCANS} scans: export it anew")
    if size != (layout.rows, layout.columns) or samples != layout.samples:
        raise ImageError(
            f"is {layout.columns} x {layout.rows} x {layout.samples} by its header, and "
            f"{size[1]} x {size[0]} x {samples} by its compressed pixels: export it anew"
        )
    if bits > layout.bits_allocated:
        raise ImageError(
            f"has compressed pixels of {bits} bits, and BitsAllocated {layout.bits_allocated}"
        )


def _compressed(frame: bytes, layout: Layout) -> Codes:
    kind = _kind(frame)
    if not kind:
        raise ImageError("holds compressed pixels of a kind that is not read: export it anew")
    _check_stream(frame, kind, layout)
    if kind == "jls":
        return decode_jpegls(frame, layout.rows, layout.columns)
    if kind in ("lossless", "deep"):
        return jpeg.decode(frame)
    image = _pillow(frame, kind)
    if kind == "jpeg":
        return np.asarray(image.convert("L"))
    return _undo_scaling(np.asarray(image), frame)


def _pillow(frame: bytes, kind: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(frame), formats=["JPEG" if kind == "jpeg" else "JPEG2000"])
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


def _rle(frame: bytes, layout: Layout) -> Codes:
    """Decode run lengths, high bytes first. Source: PS3.5, annex G."""
    width = layout.bits_allocated // 8
    if len(frame) < _RLE_HEADER.size:
        raise ImageError("has damaged run lengths: export it anew")
    count, *starts = _RLE_HEADER.unpack_from(frame)
    if count != width:
        raise ImageError(f"has {count} segments of run lengths, {width} are needed")
    ends = [*starts[1:count], len(frame)]
    planes = []
    for start, end in zip(starts[:count], ends, strict=True):
        plane = _unpack_runs(frame[start:end], layout.pixels)
        planes.append(np.frombuffer(plane, np.uint8).reshape(layout.rows, layout.columns))
    if width == 1:
        return planes[0]
    deep = planes[0].astype(np.uint16)
    deep <<= 8
    deep |= planes[1]
    return deep


def _unpack_runs(data: bytes, need: int) -> bytes:
    """Unpack one segment, and stop where it has given what is needed."""
    parts: list[bytes] = []
    place, have, end = 0, 0, len(data)
    while have < need and place < end:
        head = data[place]
        if head < 128:
            part = data[place + 1 : place + 2 + head]
            place += 2 + head
        elif head > 128:
            part = data[place + 1 : place + 2] * (257 - head)
            place += 2
        else:
            place += 1
            continue
        parts.append(part)
        have += len(part)
    if have < need:
        raise ImageError(f"holds {have} pixels of run lengths, {need} are needed")
    return b"".join(parts)[:need]
