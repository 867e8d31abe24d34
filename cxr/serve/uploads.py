"""Images on disk: a folder of random name each, written whole or not at all, never served itself.

An image is kept as gray PNG made from its pixels, so nothing else of the uploaded file remains.
H W pixels of an image, K classes, h w of a stored map.
"""

import contextlib
import errno
import io
import logging
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr.bundle.maps import HeatMaps
from cxr.imaging.preprocess import Placement, PreprocessSpec, place

log = logging.getLogger(__name__)

MAP_SIDE_PX = 192
"""Longest side of a map as it is read; what is stored is its grid of at most 10 x 10 cells."""
THUMB_SIDE_PX = 160
PNG_LEVEL = 1
"""Fast: an image of 9 megapixels would otherwise take longer to pack than to predict."""
ORPHAN_AGE_S = 3600.0
"""A folder without a row is an orphan only when no request can still be writing the row."""
FOLDER, IMAGE_FILE, THUMB_FILE = "films", "film.png", "thumb.png"
"""As version 0.1 called them on disk: other names would leave what it stored behind."""
_STEM = re.compile(r"[0-9a-f]{32}")


class StorageError(Exception):
    """An image could not be stored; the reason is in the log, for it is not the user's doing."""


def gray_map(maps: HeatMaps, label: str, member: str | None = None) -> NDArray[np.uint8]:
    """Return a map (h, w) uint8, or raise InputError for an unknown class or member."""
    return np.asarray(np.rint(maps.of(label, member) * 255).astype(np.uint8))


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """Return pixels (H, W), (H, W, 3) or (H, W, 4) as PNG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=PNG_LEVEL)
    return stream.getvalue()


class ImageStore:
    """The images' folder, made at the first image.

    ``spare_bytes`` are left free on its disk; an image that comes when there is less is refused.
    """

    def __init__(self, folder: Path, *, spare_bytes: int = 0) -> None:
        self.folder, self._spare_bytes = folder, spare_bytes

    def save(self, image: NDArray[np.uint8], maps: HeatMaps | None) -> str:
        """Write an image (H, W) uint8, its small picture, and its maps where it was not refused.

        Return the stem, by which everything of the image is found, or raise StorageError: the disk
        is full or the folder cannot be written.
        """
        stem = secrets.token_hex(16)
        place = self._place(stem)
        work: Path | None = None
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self.folder).free < self._spare_bytes:
                raise OSError(errno.ENOSPC, "only the spare space is left")
            work = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder))
            _write(work / IMAGE_FILE, png_bytes(image))
            _write(work / THUMB_FILE, png_bytes(_thumb(image)))
            if maps is not None:
                _write(work / "maps.npz", _maps_bytes(maps))
            work.rename(place)
            return stem
        except OSError as error:
            if work is not None:
                shutil.rmtree(work, ignore_errors=True)
            log.error("an image could not be stored: %s", error.strerror)
            raise StorageError(
                "the server could not store the image: try again later, or tell who runs it"
            ) from error

    def image_path(self, stem: str, name: str = IMAGE_FILE) -> Path:
        """Return where the image's PNG is, or its ``THUMB_FILE``."""
        return self._place(stem) / name

    def load_image(self, stem: str) -> NDArray[np.uint8]:
        """Return the image, (H, W) uint8, or raise FileNotFoundError: it was deleted."""
        with Image.open(self.image_path(stem), formats=("PNG",)) as image:
            return np.asarray(image)

    def load_maps(self, stem: str) -> HeatMaps | None:
        """Return the maps over a small blank image, or None: there are none."""
        try:
            with np.load(self._place(stem) / "maps.npz", allow_pickle=False) as archive:
                return _read_maps(archive)
        except FileNotFoundError:
            return None

    def remove(self, stem: str) -> None:
        """Delete everything of an image; what is gone already is no error."""
        trash = self.folder / f".old-{secrets.token_hex(8)}"
        try:
            self._place(stem).rename(trash)
        except FileNotFoundError:
            return
        shutil.rmtree(trash, ignore_errors=True)

    def tidy(self, known: Callable[[list[str]], set[str]]) -> int:
        """Delete images without a row and what interrupted work left; return how many went.

        ``known`` says which of these stems have a row.
        """
        before = time.time() - ORPHAN_AGE_S
        stems: list[str] = []
        left: list[str] = []
        for path in [*self.folder.glob("[0-9a-f][0-9a-f]/*"), *self.folder.glob(".*-*")]:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    (stems if _STEM.fullmatch(path.name) else left).append(path.name)
        orphans = sorted(set(stems) - known(stems)) if stems else []
        for stem in orphans:
            self.remove(stem)
        for name in left:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        if orphans or left:
            log.info("tidied %d orphans and %d unfinished images", len(orphans), len(left))
        return len(orphans) + len(left)

    def _place(self, stem: str) -> Path:
        if not _STEM.fullmatch(stem):
            raise FileNotFoundError("not an image's stem")
        return self.folder / stem[:2] / stem


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _maps_bytes(maps: HeatMaps) -> bytes:
    """Pack the cells themselves, a few thousand numbers: they are enlarged when they are read."""
    stream = io.BytesIO()
    names = list(maps.members)
    arrays: dict[str, Any] = {
        "classes": np.array(maps.classes),
        "names": np.array(names),
        "weights": np.array([maps.weights[name] for name in names]),
        "shape": np.array(maps.image.shape),
        "placement": np.array([maps.placement.source, maps.placement.target]),
    }
    if maps.lungs is not None:
        arrays["lungs"] = maps.lungs
    arrays |= {f"cells_{place}": maps.members[name] for place, name in enumerate(names)}
    np.savez(stream, **arrays)
    return stream.getvalue()


def _read_maps(archive: Mapping[str, NDArray[Any]]) -> HeatMaps:
    """Unpack what ``_maps_bytes`` packed; the image is blank and small, for so are the cells."""
    names = [str(name) for name in archive["names"]]
    height, width = (int(side) for side in archive["shape"])
    scale = min(1.0, MAP_SIDE_PX / max(height, width))
    shape = (max(1, round(height * scale)), max(1, round(width * scale)))
    if "placement" in archive:
        placement = Placement(*(tuple(box) for box in archive["placement"].tolist()))
    else:  # as version 0.1 stored it
        spec = PreprocessSpec(int(archive["size_px"]), cast(Any, str(archive["fit"])))
        placement = place((height, width), spec)
    return HeatMaps(
        classes=tuple(str(name) for name in archive["classes"]),
        members={name: archive[f"cells_{place}"] for place, name in enumerate(names)},
        weights=dict(zip(names, map(float, archive["weights"]), strict=True)),
        image=np.zeros(shape, np.uint8),
        placement=placement,
        lungs=archive.get("lungs"),
    )


def _thumb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    thumb = Image.fromarray(image)
    thumb.thumbnail((THUMB_SIDE_PX, THUMB_SIDE_PX), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(thumb)
