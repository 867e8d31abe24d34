"""Unpack the archives of public sources, nothing outside the folder, nothing by half."""

import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from cxr.errors import InputError
from cxr.files import leaves_folder, raise_if_unwritable

IGNORED = ("__MACOSX", ".DS_Store")
"""What archives made on a Mac hold beside the tree."""
Progress = Callable[[str, int, int | None], None]
"""Called with what is worked on, the bytes done and all bytes (None while unknown)."""


def unpack(archive: Path, folder: Path, *, on_progress: Progress | None = None) -> Path:
    """Unpack a ZIP archive into a folder, whole or not at all.

    A folder that is there already is left as it is. ``__MACOSX`` and ``.DS_Store`` are
    passed over.

    Raises:
        InputError: no ZIP archive, damaged, a name in it that leaves the folder, or too
            little room on the disk.
    """
    if folder.is_dir() and any(folder.iterdir()):
        return folder
    partial = folder.with_name(f".{folder.name}.unpacking")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        with zipfile.ZipFile(archive) as file:
            members = [member for member in file.infolist() if _is_wanted(member, archive)]
            total = sum(member.file_size for member in members)
            partial.mkdir(parents=True)
            _check_room(partial, total, archive)
            done = 0
            for member in members:
                file.extract(member, partial)
                done += member.file_size
                if on_progress:
                    on_progress(folder.name, done, total)
        if folder.is_dir():
            folder.rmdir()
        partial.replace(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise InputError(
            f"{archive} is no whole ZIP archive ({error}): remove it and give the same command "
            "again, or fetch it by hand once more"
        ) from None
    except OSError as error:
        raise_if_unwritable(error, folder)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _is_wanted(member: zipfile.ZipInfo, archive: Path) -> bool:
    """Tell whether to unpack a member; refuse one that would land elsewhere."""
    name = member.filename
    if leaves_folder(name):
        raise InputError(
            f"{archive} holds {name!r}, which would land outside its folder: it is not unpacked; "
            "fetch the archive from its publisher"
        )
    return not any(part in IGNORED for part in PurePosixPath(name).parts)


def _check_room(folder: Path, needed: int, archive: Path) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"unpacking {archive} needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free on "
            f"the disk of {folder.parent}: free some space"
        )
