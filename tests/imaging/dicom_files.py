"""DICOM files made in memory: what the tests of images share. Not a test module."""

import io
import zlib
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

SECRET = "Doe^Jane"
"""Stands wherever a header can name a patient."""
ROWS, COLUMNS = 40, 50


def ramp(bits: int = 12, rows: int = ROWS, columns: int = COLUMNS) -> np.ndarray:
    """Return an image whose values run over all its bits."""
    flat = np.linspace(0, (1 << bits) - 1, rows * columns).round()
    return flat.reshape(rows, columns).astype(np.uint8 if bits <= 8 else np.uint16)


def noise(bits: int = 12, rows: int = 40, columns: int = 50) -> np.ndarray:
    """Return an image that no compression makes small."""
    random = np.random.default_rng(7)
    image = ramp(bits, rows, columns) // 2 + random.integers(0, 1 << (bits - 2), (rows, columns))
    return image.astype(np.uint8 if bits <= 8 else np.uint16)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return a picture in one of Pillow's formats."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def dataset(pixels: np.ndarray, **changes: Any) -> Dataset:
    """Return a chest image's header and pixels; ``changes`` by keyword, None removes."""
    made = Dataset()
    made.SOPClassUID = DigitalXRayImageStorageForPresentation
    made.SOPInstanceUID = generate_uid(entropy_srcs=["image"])
    made.PatientName, made.PatientID = SECRET, SECRET
    made.PatientBirthDate, made.PatientSex, made.PatientAge = "19010203", "F", "099Y"
    made.InstitutionName, made.StudyDescription = SECRET, SECRET
    made.Modality, made.BodyPartExamined, made.ViewPosition = "DX", "CHEST", "PA"
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    made.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        made.PlanarConfiguration = 0
    made.BitsAllocated = pixels.dtype.itemsize * 8
    made.BitsStored = changes.pop("BitsStored", made.BitsAllocated)
    made.HighBit = max(made.BitsStored - 1, 0)
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes()
    made["PixelData"].VR = "OW" if pixels.dtype.itemsize == 2 else "OB"
    for keyword, value in changes.items():
        if value is None:
            delattr(made, keyword)
        else:
            setattr(made, keyword, value)
    return made


def written(made: Dataset, syntax: str = ExplicitVRLittleEndian, frame: bytes = b"") -> bytes:
    """Return the file; ``frame`` is a compressed frame to put in the pixels' place."""
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = made.get("SOPClassUID", "1.2")
    made.file_meta.MediaStorageSOPInstanceUID = made.get("SOPInstanceUID", "1.2")
    made.file_meta.TransferSyntaxUID = syntax
    if frame:
        made.PixelData = encapsulate([frame])
        made["PixelData"].VR = "OB"
        made["PixelData"].is_undefined_length = True
    stream = io.BytesIO()
    made.save_as(
        stream,
        enforce_file_format=True,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
    )
    return stream.getvalue()


def deflated(made: Dataset) -> bytes:
    """Return the file deflated."""
    return written(made, DeflatedExplicitVRLittleEndian)


def deflate_bomb(inflated_bytes: int) -> bytes:
    """Return a deflated file that inflates to zeros without end."""
    whole = deflated(dataset(ramp()))
    # The length of the group that is never deflated stands behind its first element.
    length = int.from_bytes(whole[140:144], "little")
    meta = whole[: 144 + length]
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = b"".join(engine.compress(bytes(1 << 20)) for _ in range(inflated_bytes >> 20))
    return meta + body + engine.flush()


class BitWriter:
    """Bits to bytes, with JPEG's stuffing."""

    def __init__(self) -> None:
        self.bits: list[str] = []

    def put(self, value: int, count: int) -> None:
        if count:
            self.bits.append(format(value, f"0{count}b"))

    def coded(self) -> bytes:
        joined = "".join(self.bits)
        joined += "1" * (-len(joined) % 8)
        raw = int(joined, 2).to_bytes(len(joined) // 8, "big") if joined else b""
        return raw.replace(b"\xff", b"\xff\0")


def lossless_jpeg(image: np.ndarray, bits: int, predictor: int = 1, restart_rows: int = 0) -> bytes:
    """Encode an image as T.81, annex H does, pixel by pixel: a slow oracle.

    Each number of following bits, 0 to 16, has a code of 5 bits.
    """

    def segment(marker: int, payload: bytes) -> bytes:
        return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload

    rows, columns = image.shape
    counts = bytes([0, 0, 0, 0, 17] + [0] * 11)
    out = b"\xff\xd8"
    frame = bytes([bits]) + rows.to_bytes(2, "big") + columns.to_bytes(2, "big")
    out += segment(0xC3, frame + bytes([1, 1, 0x11, 0]))
    out += segment(0xC4, bytes([0]) + counts + bytes(range(17)))
    if restart_rows:
        out += segment(0xDD, (restart_rows * columns).to_bytes(2, "big"))
    out += segment(0xDA, bytes([1, 1, 0, predictor, 0, 0]))
    writer, restarts = BitWriter(), 0
    values = image.astype(object)
    for row in range(rows):
        top = row == 0 or (restart_rows and row % restart_rows == 0)
        if top and row:
            out += writer.coded() + bytes([0xFF, 0xD0 + restarts % 8])
            writer, restarts = BitWriter(), restarts + 1
        for column in range(columns):
            difference = values[row, column] - _guess(values, row, column, predictor, top, bits)
            _put_difference(writer, difference % 65536)
    return out + writer.coded() + b"\xff\xd9"


def _guess(values: Any, row: int, column: int, predictor: int, top: bool, bits: int) -> int:
    if top:
        return values[row, column - 1] if column else 1 << (bits - 1)
    above = values[row - 1, column]
    if not column:
        return above
    left, corner = values[row, column - 1], values[row - 1, column - 1]
    return {
        1: left,
        2: above,
        3: corner,
        4: left + above - corner,
        5: left + ((above - corner) >> 1),
        6: above + ((left - corner) >> 1),
        7: (left + above) >> 1,
    }[predictor]


def _put_difference(writer: BitWriter, modulo: int) -> None:
    difference = modulo - 65536 if modulo > 32768 else modulo
    count = abs(difference).bit_length()
    writer.put(count, 5)
    if count < 16:
        writer.put(difference if difference >= 0 else difference + (1 << count) - 1, count)
