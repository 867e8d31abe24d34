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

from pydicom import config, uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from cxr.imaging.raster import DICOM_HEAD_BYTES, MAX_COSTLY_PIXELS, ImageError, has_dicom_mark

MAX_INFLATED_BYTES = 3 * MAX_COSTLY_PIXELS
"""Largest deflated file once inflated: 50 megapixels of 24 bits."""

IMPLICIT, EXPLICIT = uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian
DEFLATED, BIG_ENDIAN = uid.DeflatedExplicitVRLittleEndian, uid.ExplicitVRBigEndian
NATIVE = (IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN)
RLE = uid.RLELossless
SYNTAXES = (
    *(*NATIVE, RLE, *uid.JPEGTransferSyntaxes, *uid.JPEGLSTransferSyntaxes),
    *(uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K),
)
"""Transfer syntaxes that are read."""

KEYWORDS = (
    *("SOPClassUID", "Modality", "BodyPartExamined", "ViewPosition", "SamplesPerPixel"),
    *("PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue"),
    *("PixelPaddingRangeLimit", "WindowCenter", "WindowWidth", "RescaleIntercept"),
    *("RescaleSlope", "VOILUTFunction", "ModalityLUTSequence", "VOILUTSequence"),
    *("PresentationLUTShape", "PixelData"),
)
TAGS = {keyword: tag_for_keyword(keyword) or 0 for keyword in KEYWORDS}
LUT_DESCRIPTOR, LUT_DATA = 0x00283002, 0x00283006
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

    def is_in_bytes(self, keyword: str) -> bool:
        """Tell whether an element's explicit value representation is OB."""
        return getattr(self._dataset.get_item(TAGS[keyword], keep_deferred=True), "VR", "") == "OB"

    def text(self, keyword: str) -> str:
        """Return the first value of a code, in capitals."""
        value = self.raw(keyword).decode("ascii", "replace").split("\\")[0]
        return value.strip(" \0").upper()

    def integer(self, keyword: str, default: int | None = None, *, signed: bool = False) -> int:
        """Return a 16-bit number, or raise ImageError: missing, with no default."""
        value = self.raw(keyword)
        if len(value) < 2:
            if default is None:
                raise ImageError(f"has no {keyword} in its header")
            return default
        return int(struct.unpack(f"{self._order}{'h' if signed else 'H'}", value[:2])[0])

    def number(self, keyword: str) -> float | None:
        """Return the first value of a decimal text, or None; ImageError for no finite number."""
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

        One that is damaged, or shorter than it says, is an ImageError.
        """
        try:
            with _quietly():
                items = self._dataset[TAGS[keyword]].value if TAGS[keyword] in self._dataset else []
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


def parse(data: bytes) -> Elements:
    """Find the listed elements of a DICOM file, with or without its preamble.

    Raises:
        ImageError: damaged, a directory, or a transfer syntax that is not read; the
            message lacks the image's name.
    """
    stream = io.BytesIO(data)
    stream.seek(DICOM_HEAD_BYTES if has_dicom_mark(data) else 0)
    meta = _read(stream, implicit=False, only_meta=True)
    if _ascii(_raw(meta, _CLASS_TAG)) == uid.MediaStorageDirectoryStorage:
        raise ImageError("is a DICOMDIR, a list of files: give the files that it lists")
    begin = stream.tell()
    syntax = _ascii(_raw(meta, _SYNTAX_TAG))
    if not syntax:  # no file meta information says how elements are written
        letters = data[begin + 4 : begin + 6]
        syntax = EXPLICIT if letters.isalpha() and letters.isupper() else IMPLICIT
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
