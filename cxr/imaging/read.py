"""Files to gray pixels, with what a file may not be.

The one door for images: JPEG, PNG and TIFF (``cxr.imaging.raster``) and DICOM
(``cxr.imaging.dicom``). H W pixels.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr.errors import MissingInputError
from cxr.imaging.raster import DICOM_HEAD_BYTES, MAX_PIXELS, ImageError, has_dicom_mark, read_raster

SUFFIXES = (".dcm", ".dicom", ".jpeg", ".jpg", ".png", ".tif", ".tiff")
"""File name endings that count as images; DICOM without an ending is told by its bytes."""
MAX_FILE_BYTES = 2 * MAX_PIXELS
"""Largest file opened: 100 megapixels of 16 bits, uncompressed."""

_RASTER_STARTS = (b"\xff\xd8", b"\x89PNG", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """An image as it may leave its file: nothing that was in the file can name a patient."""

    pixels: NDArray[np.uint8]
    """(H, W), 0 black."""
    warnings: tuple[str, ...] = ()
    """One sentence for each thing that had to be guessed or looks wrong; without the name."""
    colour: float | None = None
    """How far the original lies off gray, see ``colourfulness``; None where it was gray."""
    name: str = ""
    """What results call the image, where the caller says so."""
    original: tuple[int, int] | None = None
    """(H, W) of its original, where the caller knows it."""


def read_gray(source: Path | bytes, *, name: str | None = None) -> NDArray[np.uint8]:
    """Decode as ``read_image`` does, to (H, W) uint8, 0 black, and log what it warns of."""
    image = read_image(source, name=name)
    for warning in image.warnings:
        log.warning("%s %s", _shown(source, name), warning)
    return image.pixels


def read_image(source: Path | bytes, *, name: str | None = None) -> DecodedImage:
    """Decode an image and keep what had to be guessed; errors call it ``name``, or by its path.

    Raster files are read as ``cxr.imaging.raster.read_raster`` says, DICOM as
    ``cxr.imaging.dicom.grayscale.read_dicom`` says.

    Raises:
        MissingInputError: no file at the path.
        ImageError: neither JPEG, PNG, TIFF nor DICOM; damaged; under 32 pixels on a side,
            over 100 megapixels (50 where a pixel costs more) or 200 MB; a DICOM file of
            something that is no chest radiograph, of several frames or of an unreadable kind.
    """
    shown = _shown(source, name)
    data = _read_file(source, shown) if isinstance(source, Path) else source
    if _is_dicom(data[:DICOM_HEAD_BYTES]):
        # Imported here: JPEG folders never pay for it.
        from cxr.imaging.dicom.grayscale import read_dicom

        return DecodedImage(*read_dicom(data, shown))
    return DecodedImage(*read_raster(data, shown))


def is_image_file(path: Path) -> bool:
    """Tell whether a path is an image that can be read: not hidden, and by its ending.

    Hospitals write DICOM without an ending, or named by a number with dots, whose last one then
    looks like an ending: such files are told by their mark.
    """
    if path.name.startswith("."):
        return False
    if path.suffix.lower() in SUFFIXES:
        return True
    named_otherwise = path.suffix and not path.suffix[1:].isdigit()
    if named_otherwise or path.name == "DICOMDIR" or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return has_dicom_mark(file.read(DICOM_HEAD_BYTES))
    except OSError:
        return False


def _shown(source: Path | bytes, name: str | None) -> str:
    return name or (str(source) if isinstance(source, Path) else "the uploaded bytes")


def _read_file(path: Path, shown: str) -> bytes:
    if not path.exists():
        raise MissingInputError(
            f"no image at {shown}: correct the manifest's path, or restore the file"
        )
    # A pipe or a device would be waited for without end.
    if not path.is_file():
        raise ImageError(f"{shown} is no file: give the path of an image")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ImageError(
            f"{shown} has {path.stat().st_size // 1_000_000} MB: at most "
            f"{MAX_FILE_BYTES // 1_000_000} MB are read; scale it down"
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(
            f"{path} cannot be opened ({error.strerror}): correct its permissions"
        ) from None


def _is_dicom(head: bytes) -> bool:
    """Tell DICOM by its mark, or without a preamble by its first element."""
    if has_dicom_mark(head):
        return True
    if head.startswith(_RASTER_STARTS) or len(head) < 8:
        return False
    # Group 0002 or 0008 with a small element number, little endian: how such files begin.
    return head[0] in (2, 8) and head[1] == 0 and head[3] == 0
