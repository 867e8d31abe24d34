"""Unpack the archives of public sources, nothing outside the folder, nothing by half."""

import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from cxr.errors import InputError
from cxr.files import leaves_folder, replacing_folder

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
    try:
        with zipfile.ZipFile(archive) as file, replacing_folder(folder) as partial:
            members = [member for member in file.infolist() if _is_wanted(member, archive)]
            total = sum(member.file_size for member in members)
            free = shutil.disk_usage(partial).free
            if total > free:
                raise InputError(
                    f"unpacking {archive} needs {total / 1e9:.1f} GB, {free / 1e9:.1f} GB are "
                    f"free on the disk of {folder.parent}: free some space"
                )
            done = 0
            for member in members:
                file.extract(member, partial)
                done += member.file_size
                if on_progress:
                    on_progress(folder.name, done, total)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise InputError(
            f"{archive} is no whole ZIP archive ({error}): remove it and give the same command "
            "again, or fetch it by hand once more"
        ) from None
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
