"""DICOM bytes to the few elements that are needed, through pydicom's reader.

Only the listed tags are read; names, numbers and institutions are passed over unread, so
nothing later can leak them. Values are decoded here and not by pydicom, whose warnings
quote them.
"""

import contextlib
import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator

from pydicom import config
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from cxr.imaging.raster import DICOM_HEAD_BYTES, MAX_COSTLY_PIXELS, ImageError, has_dicom_mark

MAX_INFLATED_BYTES = 3 * MAX_COSTLY_PIXELS
"""Largest deflated file once inflated: 50 megapixels of 24 bits."""

SYNTAXES = {
    "1.2.840.10008.1.2": "Implicit VR Little Endian",
    "1.2.840.10008.1.2.1": "Explicit VR Little Endian",
    "1.2.840.10008.1.2.1.99": "Deflated Explicit VR Little Endian",
    "1.2.840.10008.1.2.2": "Explicit VR Big Endian",
    "1.2.840.10008.1.2.4.50": "JPEG Baseline",
    "1.2.840.10008.1.2.4.51": "JPEG Extended",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless, first-order prediction",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS Near-Lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 Lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.201": "High-Throughput JPEG 2000 Lossless",
    "1.2.840.10008.1.2.4.202": "High-Throughput JPEG 2000 Lossless RPCL",
    "1.2.840.10008.1.2.4.203": "High-Throughput JPEG 2000",
    "1.2.840.10008.1.2.5": "RLE Lossless",
}
"""Transfer syntaxes that are read (PS3.6, annex A)."""
IMPLICIT, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"
BIG_ENDIAN, RLE = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.5"
NATIVE = (IMPLICIT, "1.2.840.10008.1.2.1", DEFLATED, BIG_ENDIAN)

TAGS = {
    "SOPClassUID": 0x00080016,
    "Modality": 0x00080060,
    "BodyPartExamined": 0x00180015,
    "ViewPosition": 0x00185101,
    "SamplesPerPixel": 0x00280002,
    "PhotometricInterpretation": 0x00280004,
    "PlanarConfiguration": 0x00280006,
    "NumberOfFrames": 0x00280008,
    "Rows": 0x00280010,
    "Columns": 0x00280011,
    "BitsAllocated": 0x00280100,
    "BitsStored": 0x00280101,
    "HighBit": 0x00280102,
    "PixelRepresentation": 0x00280103,
    "PixelPaddingValue": 0x00280120,
    "PixelPaddingRangeLimit": 0x00280121,
    "WindowCenter": 0x00281050,
    "WindowWidth": 0x00281051,
    "RescaleIntercept": 0x00281052,
    "RescaleSlope": 0x00281053,
    "VOILUTFunction": 0x00281056,
    "ModalityLUTSequence": 0x00283000,
    "VOILUTSequence": 0x00283010,
    "PresentationLUTShape": 0x20500020,
    "PixelData": 0x7FE00010,
}
LUT_DESCRIPTOR, LUT_DATA = 0x00283002, 0x00283006
DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
_SYNTAX_TAG = 0x00020010
_CLASS_TAG = 0x00020002

_quiet_lock = threading.Lock()


class Elements:
    """The listed elements of one DICOM file, decoded on request."""

    def __init__(self, dataset: Dataset, syntax: str, *, big_endian: bool = False) -> None:
        self.syntax = syntax
        self._dataset = dataset
        self._order = ">" if big_endian else "<"

    def raw(self, keyword: str) -> bytes:
        """Return an element's bytes; none where it is missing."""
        return _raw(self._dataset, TAGS[keyword])

    def value_representation(self, keyword: str) -> str:
        """Return the two letters of an explicit value representation, or nothing."""
        element = self._dataset.get_item(TAGS[keyword], keep_deferred=True)
        return str(getattr(element, "VR", "") or "")

    def text(self, keyword: str) -> str:
        """Return the first value of a code, in capitals."""
        value = self.raw(keyword).decode("ascii", "replace").split("\\")[0]
        return value.strip(" \0").upper()

    def integer(self, keyword: str, default: int | None = None, *, signed: bool = False) -> int:
        """Return a 16-bit number.

        Raises:
            ImageError: missing, with no default.
        """
        value = self.raw(keyword)
        if len(value) < 2:
            if default is None:
                raise ImageError(f"has no {keyword} in its header")
            return default
        return int(struct.unpack(f"{self._order}{'h' if signed else 'H'}", value[:2])[0])

    def number(self, keyword: str) -> float | None:
        """Return the first value of a decimal text; None where there is none.

        Raises:
            ImageError: not a finite number.
        """
        value = self.text(keyword)
        if not value:
            return None
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not abs(number) < 1e12:
            raise ImageError(f"has a {keyword} in its header that is no usable number")
        return number

    def table(self, keyword: str, *, signed: bool) -> tuple[list[int], int, int] | None:
        """Return the first look-up table of a sequence: entries, first input, stated bits.

        Raises:
            ImageError: shorter than it says.
        """
        try:
            with _quietly():
                items = self._dataset[TAGS[keyword]].value if self._has(keyword) else []
                item = items[0] if items else None
        # What pydicom raises on a damaged sequence differs.
        except Exception:
            raise ImageError(f"has a damaged {keyword} in its header") from None
        if item is None:
            return None
        head, data = _raw(item, LUT_DESCRIPTOR), _raw(item, LUT_DATA)
        if len(head) < 6:
            raise ImageError(f"has a {keyword} without a description")
        count, first, bits = struct.unpack(f"{self._order}H{'h' if signed else 'H'}H", head[:6])
        count = count or 65536
        # Tables of 8 bits are written a byte or a word an entry (PS3.3, C.11.1.1).
        width = 1 if len(data) < 2 * count and bits <= 8 else 2
        if len(data) < width * count:
            raise ImageError(f"has a {keyword} of {len(data) // width} entries, {count} stated")
        letter = "B" if width == 1 else "H"
        entries = list(struct.unpack(f"{self._order}{count}{letter}", data[: width * count]))
        return entries, first, min(bits, 16)

    def _has(self, keyword: str) -> bool:
        return TAGS[keyword] in self._dataset


def parse(data: bytes) -> Elements:
    """Find the listed elements of a DICOM file, with or without its preamble.

    Raises:
        ImageError: damaged, a directory, or a transfer syntax that is not read; the
            message lacks the image's name.
    """
    stream = io.BytesIO(data)
    stream.seek(DICOM_HEAD_BYTES if has_dicom_mark(data) else 0)
    meta = _read(stream, implicit=False, only_meta=True)
    if _ascii(_raw(meta, _CLASS_TAG)) == DIRECTORY_CLASS:
        raise ImageError("is a DICOMDIR, a list of files: give the files that it lists")
    begin = stream.tell()
    syntax = _ascii(_raw(meta, _SYNTAX_TAG)) or _guess_syntax(data[begin : begin + 6])
    if syntax not in SYNTAXES:
        raise ImageError(
            "is compressed in a way that is not read: JPEG, JPEG-LS, JPEG 2000 and RLE are; "
            "have it exported uncompressed"
        )
    if syntax == DEFLATED:
        stream = io.BytesIO(_inflate(data[begin:]))
    big = syntax == BIG_ENDIAN
    dataset = _read(stream, implicit=syntax == IMPLICIT, big_endian=big)
    return Elements(dataset, syntax, big_endian=big)


def _read(
    stream: io.BytesIO, *, implicit: bool, big_endian: bool = False, only_meta: bool = False
) -> Dataset:
    last = 0x0002FFFF if only_meta else TAGS["PixelData"]
    try:
        with _quietly():
            return read_dataset(
                stream,
                implicit,
                not big_endian,
                stop_when=lambda tag, _vr, _length: tag > last,
                specific_tags=[_SYNTAX_TAG, _CLASS_TAG] if only_meta else list(TAGS.values()),
            )
    # What pydicom raises on damaged files differs, and its text quotes values.
    except Exception:
        raise ImageError("has a damaged DICOM header: export it anew") from None


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence pydicom, whose warnings and log quote the header that it reads."""
    # The lock is there because images are read in threads and both are everybody's.
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = config.logger.disabled
        config.logger.disabled = True
        try:
            yield
        finally:
            config.logger.disabled = before


def _raw(dataset: Dataset, tag: int) -> bytes:
    # Without keep_deferred pydicom converts elements of no value, and quotes them.
    value = getattr(dataset.get_item(tag, keep_deferred=True), "value", None)
    return value if isinstance(value, bytes) else b""


def _ascii(value: bytes) -> str:
    return value.decode("ascii", "replace").strip(" \0")


def _guess_syntax(body: bytes) -> str:
    """Tell how elements are written where no file meta information says so."""
    little = body[4:6].isalpha() and body[4:6].isupper()
    return "1.2.840.10008.1.2.1" if little else IMPLICIT


def _inflate(body: bytes) -> bytes:
    try:
        engine = zlib.decompressobj(-zlib.MAX_WBITS)
        inflated = engine.decompress(body, MAX_INFLATED_BYTES)
    except zlib.error:
        raise ImageError("has damaged deflated data: export it anew") from None
    if engine.unconsumed_tail:
        raise ImageError(
            f"inflates to over {MAX_INFLATED_BYTES // 1_000_000} MB: export it uncompressed"
        )
    return inflated
