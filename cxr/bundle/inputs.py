"""Which images a prediction run takes: files, folders, globs, manifests. One at a time.

Nothing here holds a list of all images, so that a million of them need no more memory than ten.
"""

import csv
import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr.errors import InputError, MissingInputError
from cxr.files import leaves_folder
from cxr.imaging.preprocess import original_shape
from cxr.imaging.read import is_image_file


@dataclass(frozen=True)
class ImageFile:
    """An image to predict."""

    path: Path
    name: str
    """What the results call it: the path as it was given, with slashes."""
    error: str = ""
    """Why it cannot be used, known before it is opened; empty where nothing is known."""
    original: tuple[int, int] | None = None
    """(H, W) of its original, where a manifest states it."""

    def key(self) -> int:
        """Return 64 bits of the file's place, size and time of change, and of the name if wrong.

        A file that was changed has another key, and a missing one that comes back too.
        """
        try:
            stat = self.path.stat()
            state = f"{stat.st_size} {stat.st_mtime_ns}"
        except OSError:
            state = "missing"
        if self.error:  # rows of a manifest that name no file share its path
            state += f" {self.name}"
        place = os.fsencode(os.path.abspath(self.path))
        state_hash = hashlib.blake2b(place + b"\0" + state.encode(), digest_size=8)
        return int.from_bytes(state_hash.digest(), "big")


def find_images(sources: Sequence[str]) -> Iterator[ImageFile]:
    """Yield the images that the sources name, in their order, folders by alphabet.

    A source is a file of any name; a folder, searched to any depth for JPEG, PNG, TIFF and DICOM
    (by ending, or where there is none by content); a pattern with ``*``, ``?`` or ``[``, in which
    ``**`` goes to any depth; or a CSV with a column ``image``, paths relative to its own folder,
    beside it ``width`` and ``height`` of the originals. What lies in a folder that was named
    before is not taken again.

    Raises:
        MissingInputError: a source that does not exist, or a pattern that nothing matches.
        InputError: a CSV without the column ``image``.
    """
    folders: list[Path] = []
    for source in sources:
        for path in _paths(source):
            place = path.resolve()
            if any(place.is_relative_to(folder) for folder in folders):
                continue
            if path.is_dir():
                yield from _in_folder(path)
                folders.append(place)
            elif path.suffix.lower() == ".csv":
                yield from _in_manifest(path)
            else:
                yield ImageFile(path, path.as_posix())


def _paths(source: str) -> Iterator[Path]:
    path = Path(source)
    if path.exists():
        yield path
        return
    if not glob.has_magic(source):
        raise MissingInputError(
            f"there is no {source}: give an image, a folder, a pattern in quotes such as "
            "'images/**/*.dcm', or a manifest.csv"
        )
    matched = False
    for match in sorted(glob.iglob(source, recursive=True)):
        # A pattern with ** names folders too, whose images it names itself.
        if not ("**" in source and os.path.isdir(match)):
            matched = True
            yield Path(match)
    if not matched:
        raise MissingInputError(f"nothing matches the pattern {source}: correct it")


def _in_folder(folder: Path) -> Iterator[ImageFile]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(place, name)
            if is_image_file(path):
                yield ImageFile(path, path.as_posix())


def _in_manifest(path: Path) -> Iterator[ImageFile]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        try:
            if "image" not in (rows.fieldnames or ()):
                raise InputError(
                    f"{path} has no column 'image': it has {', '.join(rows.fieldnames or ())}; "
                    "name the column of the images' paths so"
                )
            for row in rows:
                yield _of_row(path, row)
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read as CSV in UTF-8 ({error})") from None


def _of_row(manifest: Path, row: dict[str, str]) -> ImageFile:
    name = row["image"] or ""
    if not name or leaves_folder(name):
        return ImageFile(manifest, name, f"{name!r} is no path inside the folder of {manifest}")
    place = manifest.parent / name
    try:
        return ImageFile(place, place.as_posix(), original=original_shape(row, name))
    except InputError as error:
        return ImageFile(place, place.as_posix(), str(error))
