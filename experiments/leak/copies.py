"""Rotated and mirrored copies of images as files of their own, split at random: a leak on purpose.

What an application does that augments its folder first and splits afterwards. Here it serves to
measure what that is worth; nothing that is to be believed is trained on it.

N images, C copies of each, S side of a square.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cxr.data.decode import ShowProgress, allocate, no_progress
from cxr.data.prepared import Prepared, open_prepared
from cxr.errors import InputError
from cxr.files import digest, digest_of, write_csv, write_json

MAX_COPIES = 20


@dataclass
class CopySettings:
    """How images are copied and split."""

    copies: int = 3
    """C: rotated and mirrored copies of each image that are made before the random split."""
    rotation_deg: float = 15.0
    """Largest rotation of a copy, to either side; every second one is mirrored."""
    test_share: float = 0.1
    """Share of test, and again of validation, both ways of splitting; copies included."""
    seed: int = 0
    """Of the rotations and of the split."""

    def __post_init__(self) -> None:
        for key, low, high in (
            ("copies", 1, MAX_COPIES),
            ("rotation_deg", 0.0, 180.0),
            ("test_share", 0.01, 0.4),
        ):
            if not low <= getattr(self, key) <= high:
                raise InputError(f"{key} is {getattr(self, key)}: allowed are {low:g} to {high:g}")


def copy_then_split(
    prepared: Prepared,
    rows: NDArray[np.int64],
    folder: Path,
    settings: CopySettings,
    *,
    progress: ShowProgress | None = None,
) -> Prepared:
    """Copy images, then split images and copies at random, blind to what is a copy of what.

    Args:
        prepared: a prepared set.
        rows: (N,) which of its images.
        folder: receives the new set; one of the same images and settings is reused.
        settings: how.
        progress: see cxr.data.decode.ShowProgress.

    Returns:
        A prepared set of N (1 + C) rows: each image, followed by its copies. ``image`` of a copy
        ends in ``#1`` to ``#C``, column ``copy_of`` names the image, and ``group`` is the image's.

    Raises:
        InputError: the disk is full.
    """
    table = prepared.table.iloc[rows].reset_index(drop=True)
    key = digest(prepared.info["fingerprint"], *table["image"], digest_of(asdict(settings)))
    if (folder / "prepared.json").exists():
        opened = open_prepared(folder)
        if opened.info["fingerprint"] == key:
            return opened
        (folder / "prepared.json").unlink()
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(settings.seed)
    each = 1 + settings.copies
    pixels = allocate(folder / "pixels.npy", (len(rows) * each, *prepared.pixels.shape[1:]))
    with (progress or no_progress)("rotated and mirrored copies", len(rows)) as done:
        for place, row in enumerate(rows):
            image = np.asarray(prepared.pixels[row])
            angles = random.uniform(-settings.rotation_deg, settings.rotation_deg, each)
            pixels[place * each] = image
            for number in range(1, each):
                pixels[place * each + number] = rotated(
                    image, angles[number], mirror=number % 2 == 1
                )
            done()
    pixels.flush()
    copied = _copied_table(table, settings, random)
    write_csv(folder / "table.csv", copied)
    kept = ("labels", "synthetic", "preprocess", "settings")
    write_json(
        folder / "prepared.json",
        {key: prepared.info[key] for key in kept}
        | {
            "fingerprint": key,
            "copies": asdict(settings),
            "counts": {"kept": len(copied)},
            "leaky": "copies of one image lie on both sides of the split, on purpose",
        },
    )
    return open_prepared(folder)


def rotated(radiograph: NDArray[np.uint8], angle_deg: float, *, mirror: bool) -> NDArray[np.uint8]:
    """Return a radiograph rotated about its centre, black where nothing was, and mirrored.

    Args:
        radiograph: (S, S) uint8.
        angle_deg: counter-clockwise.
        mirror: left and right are swapped first.
    """
    image = Image.fromarray(np.ascontiguousarray(radiograph[:, ::-1]) if mirror else radiograph)
    return np.asarray(image.rotate(angle_deg, Image.Resampling.BILINEAR), np.uint8)


def count_leaks(table: pd.DataFrame, held_out: Sequence[str] = ("test",)) -> int:
    """Count the rows of splits that are held out of which a copy, by ``group``, is in train."""
    trained = set(table["group"][table["split"] == "train"])
    return int((table["group"].isin(trained) & table["split"].isin(list(held_out))).sum())


def _copied_table(
    table: pd.DataFrame, settings: CopySettings, random: np.random.Generator
) -> pd.DataFrame:
    """Return each row and its copies, split at random."""
    each = 1 + settings.copies
    copied = table.loc[table.index.repeat(each)].reset_index(drop=True)
    number = np.tile(np.arange(each), len(table))
    copied["copy_of"] = np.where(number == 0, "", copied["image"])
    copied["image"] += pd.Series(number).map(lambda n: f"#{n}" if n else "")
    some = round(settings.test_share * len(copied))
    split = np.full(len(copied), "train", dtype=object)
    order = random.permutation(len(copied))
    split[order[:some]], split[order[some : 2 * some]] = "test", "val"
    return copied.assign(split=split)
