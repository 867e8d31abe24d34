"""The prepared set: images decoded once, grouped, without copies, split, as a memory map.

N images kept, S side in pixels.
"""

import contextlib
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.data.decode import (
    LUNG_COLUMNS,
    Decoded,
    ShowProgress,
    allocate,
    decode_images,
    no_progress,
)
from cxr.data.groups import group_images
from cxr.data.splits import SplitKind, check_disjoint, check_fractions, in_sources, split_images
from cxr.errors import InputError, MissingInputError, command
from cxr.files import (
    digest,
    digest_of,
    environment,
    read_json,
    replacing_folder,
    write_csv,
    write_json,
)
from cxr.imaging.preprocess import (
    LUNGS_FILE,
    NAMED,
    Placement,
    PreprocessSpec,
    original_shape,
    place,
    to_square,
)
from cxr.labels import check_labels, label_fault, label_memberships, order_labels, partly_known
from cxr.lungs.crop import shown_box, to_model_input
from cxr.lungs.find import FINDER_FILE, Lungs, find_lungs, finder_digest

VERSION = 1
"""Raised when the same settings would give other images."""
MASKS_FILE = "lungs.npy"
"""Masks of the lungs that were found, (N, bytes), bits of (G, G)."""
UNSURE = -1
"""Target of an image whose label is a set of classes."""


@dataclass
class PrepareSettings:
    """What a preparation depends on beside the images."""

    labels: list[str] | None = None
    """Classes in order; null takes those that occur."""
    size: int = 224
    """Side of the prepared square in pixels."""
    fit: str = "stretch"
    """stretch or letterbox."""
    lungs: str = "none"
    """none (the whole image), crop (the box of both lungs, from the original pixels), or mask (that
    box, black outside the lungs and what lies between them)."""
    lungs_margin: float = 0.06
    """Added to each side of the lungs' box, a share of its height or width."""
    lungs_fallback: str = "whole"
    """What is shown where fewer than two lungs are found: whole image, or a fixed centre box."""
    split: str = "patient"
    """patient (disjoint by group), published (the source's own test split), source (leave_out is
    test, the rest is split by patient), or whole (all test)."""
    leave_out: list[str] = field(default_factory=list)
    """For split=source: the sources that are test."""
    fractions: list[float] = field(default_factory=lambda: [0.7, 0.1, 0.2])
    """Shares of train, val and test."""
    split_seed: int = 0
    """Of the split."""
    near_duplicates: bool = True
    """Search near-identical images too, rotated and mirrored ones included."""
    on_error: str = "stop"
    """stop at a file that cannot be read, or skip it and list it."""
    synthetic: bool = False
    """Said wherever a number or a plot of this data appears."""

    def __post_init__(self) -> None:
        allowed = {key: get_args(kind) for key, kind in NAMED.items()}
        allowed |= {"split": get_args(SplitKind), "on_error": ("stop", "skip")}
        for key, values in allowed.items():
            if getattr(self, key) not in values:
                raise InputError(
                    f"data.{key} is {getattr(self, key)!r}: allowed are {', '.join(values)}"
                )
        check_fractions(self.fractions)
        if (self.split == "source") != bool(self.leave_out):
            raise InputError(
                f"data.split is {self.split!r} and data.leave_out {self.leave_out}: split=source "
                "needs the sources that are test, and no other split has any; give both, such as "
                "data.split=source data.leave_out=[nih]"
            )

    @property
    def spec(self) -> PreprocessSpec:
        """How an image becomes a square."""
        finder = "" if self.lungs == "none" else finder_digest()
        how = (self.fit, self.lungs, self.lungs_margin, self.lungs_fallback)
        return PreprocessSpec(self.size, *how, finder)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Prepared:
    """An opened prepared set."""

    folder: Path
    table: pd.DataFrame  # N rows, the manifest's columns and ``sha256``, ``group``, ``split``
    pixels: NDArray[np.uint8]  # (N, S, S) memory map, in the table's order
    info: dict[str, Any]  # ``prepared.json``
    reused: bool = True  # it was there already

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes in order."""
        return tuple(self.info["labels"])

    @property
    def targets(self) -> NDArray[np.int64]:
        """(N,) class index of every image, ``UNSURE`` of a label set."""
        members = self.memberships
        return np.where(members.sum(axis=1) == 1, members.argmax(axis=1), UNSURE)

    @property
    def memberships(self) -> NDArray[np.bool_]:
        """(N, K) which classes every image may be of."""
        return label_memberships(self.table["label"].tolist(), self.labels)

    @property
    def spec(self) -> PreprocessSpec:
        """How an image became a square."""
        return PreprocessSpec(**self.info["preprocess"])

    def with_split(self, split: NDArray[np.object_]) -> Self:
        """Return the same images under another split (N,), with a fingerprint of its own."""
        table = self.table.assign(split=split)
        key = digest(self.info["fingerprint"], *(table["image"] + " " + table["split"]))
        return replace(self, table=table, info=self.info | {"fingerprint": key})

    def lungs(self, row: int) -> Lungs | None:
        """Return the lungs that were found in an image; None where none were looked for."""
        if self.spec.lungs == "none":
            return None
        count, score, *box = self.table[list(LUNG_COLUMNS)].iloc[row].tolist()
        bits = np.unpackbits(np.load(self.folder / MASKS_FILE, mmap_mode="r")[row])
        side = int(np.sqrt(len(bits)))
        mask = bits.reshape(side, side).astype(np.bool_)
        sides = tuple(map(float, box)) if box[0] else None
        return Lungs(mask, sides, float(score), int(count))  # type: ignore[arg-type]

    def placement(self, row: int) -> Placement | None:
        """Return where a square shows its image; None for a whole image."""
        lungs, shape = self.lungs(row), self._original(row)
        return place(shape, self.spec, shown_box(lungs, self.spec)) if lungs and shape else None

    def square_of(self, row: int, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the (S, S) square of a row's image (H, W), as it was prepared."""
        lungs, shape = self.lungs(row), self._original(row)
        return to_model_input(image, self.spec, original=shape, lungs=lungs).pixels

    def lung_mask(self, row: int) -> NDArray[np.bool_]:
        """Return the (S, S) lungs that the finder sees; empty where it sees fewer than two.

        It looked at the original where the preparation asked for it, else it looks at the square.
        """
        lungs = self.lungs(row) or find_lungs(np.asarray(self.pixels[row]))
        white = np.where(lungs.mask & (lungs.count >= 2), 255, 0).astype(np.uint8)
        return to_square(white, self.spec, self.placement(row) or Placement()) > 127

    def _original(self, row: int) -> tuple[int, int] | None:
        """Return (height, width) of the original, which a whole image does not need."""
        sizes = self.table.iloc[row].to_dict()
        return None if self.spec.lungs == "none" else original_shape(sizes, sizes["image"])


def prepare(
    manifest: pd.DataFrame,
    root: Path,
    parent: Path,
    settings: PrepareSettings,
    *,
    excluded: Sequence[str] = (),
    workers: int = 0,
    progress: ShowProgress = no_progress,
) -> Prepared:
    """Read, check, group, split and decode the images of a manifest, whose paths start at ``root``.

    The folder's name below ``parent`` states the settings; the same preparation of the same files
    is reused, and an interrupted one leaves nothing half-written. ``excluded`` lists images that
    were left out on purpose before.

    Raises:
        InputError: an unreadable image (unless skipped), an unknown label, a class with too
            few groups, a full disk.
    """
    labels = tuple(settings.labels or ()) or order_labels(manifest["label"])
    # One class is enough where nothing is trained.
    labels = labels if settings.split == "whole" else check_labels(labels)
    for label, images in manifest.groupby("label", sort=False)["image"]:
        # By the image: a set of folders has no rows.
        if fault := label_fault(str(label), labels):
            raise InputError(
                f"unknown label {label!r} of {root / images.iloc[0]} (images with it: "
                f"{len(images)}): {fault}; rename or move away the folder {label!r} (with a "
                "manifest: correct its rows), or name the label in data.labels"
            )
    key = _inputs_digest(manifest, root, settings)
    spec = settings.spec
    lungs = "" if spec.lungs == "none" else f"-{spec.lungs}"
    folder = parent / f"{settings.split}-{spec.size_px}px{lungs}-{key[:8]}"
    if (folder / "prepared.json").exists():
        opened = open_prepared(folder)
        if opened.info["inputs_digest"] == key:
            return opened
    with replacing_folder(folder) as fresh:
        info = _write(manifest, root, fresh, settings, labels, workers, progress)
        info |= {"inputs_digest": key, "root": str(root.resolve())}
        info["dropped"]["excluded"] = list(excluded)
        info["counts"]["excluded"] = len(excluded)
        write_json(fresh / "prepared.json", info)
    return replace(open_prepared(folder), reused=False)


def open_prepared(folder: Path) -> Prepared:
    """Open a prepared set.

    Raises:
        InputError: a file is missing (``MissingInputError``), or they do not belong together.
    """
    hint = f"prepare the data again ({command('prepare')})"
    info = read_json(folder / "prepared.json", hint=hint)
    try:
        table = pd.read_csv(folder / "table.csv", dtype=str, keep_default_na=False)
        pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    except FileNotFoundError as error:
        raise MissingInputError(f"{error.filename} is missing: {hint}") from None
    except ValueError as error:
        raise InputError(f"{folder} is damaged ({error}): remove it and {hint}") from None
    if len(table) != len(pixels) or len(table) != info["counts"]["kept"]:
        raise InputError(
            f"{folder} is damaged: {len(table)} rows, {len(pixels)} images, "
            f"{info['counts']['kept']} stated; remove it and {hint}"
        )
    return Prepared(folder, table, pixels, info)


def _write(
    manifest: pd.DataFrame,
    root: Path,
    folder: Path,
    settings: PrepareSettings,
    labels: tuple[str, ...],
    workers: int,
    progress: ShowProgress,
) -> dict[str, Any]:
    """Write table and pixels into a folder and return what ``prepared.json`` says."""
    decoded = decode_images(
        manifest,
        root,
        folder,
        settings.spec,
        skip_errors=settings.on_error == "skip",
        workers=workers,
        progress=progress,
    )
    table, split_kind = decoded.table, settings.split
    # With a test split given its own images stay, and their copies leave the train part.
    tested = in_sources(table, settings.leave_out)
    if split_kind == "published":
        tested = table["published_split"].to_numpy(object) == "test"
    order = np.where(tested, 0, 1).astype(np.int64)
    with progress("look for copies", len(table)) as done:
        found = group_images(
            table, decoded.whole, near=settings.near_duplicates, keep_order=order, on_progress=done
        )
    table["group"] = found.group
    keep = np.flatnonzero(found.keep)
    table = table.iloc[keep].reset_index(drop=True)
    # Where nothing is trained a class may occur in label sets alone.
    occurring = order_labels(table["label"]) if split_kind == "whole" else set(table["label"])
    if missing := [label for label in labels if label not in occurring]:
        raise InputError(
            f"no image of class {', '.join(missing)} is left after dropping copies and "
            f"unreadable files, of {len(manifest)} rows: add images or correct data.labels"
        )
    table["split"] = split_images(
        table,
        split_kind,  # type: ignore[arg-type]  # checked by the settings
        fractions=settings.fractions,
        seed=settings.split_seed,
        leave_out=settings.leave_out,
    )
    proof = check_disjoint(table, forced=split_kind == "published")
    _keep_pixels(folder, decoded, keep)
    write_csv(folder / "table.csv", table)
    values = _settings_values(settings)
    images = sorted(table["sha256"] + table["label"] + table["split"])
    rows = [*labels, *sorted(set(table["label"][partly_known(table["label"])]))]
    counts = pd.crosstab(table["label"], table["split"]).reindex(rows)
    kinds = Counter(copy["kind"] for copy in found.copies)
    info = {
        "version": VERSION,
        "fingerprint": digest(*images, digest_of(values)),
        "labels": list(labels),
        "synthetic": settings.synthetic,
        "settings": values,
        "preprocess": settings.spec.to_dict(),
        "counts": {
            "rows": len(manifest),
            "kept": len(table),
            "dropped_copies": len(found.copies),
            "dropped_identical": kinds["identical"],
            "dropped_near": kinds["near"],
            "dropped_conflicting": sum(len(c["images"]) for c in found.conflicts),
            "dropped_unreadable": len(decoded.unreadable),
            "images": {label: counts.loc[label].to_dict() for label in rows},
            "patients_or_groups": int(table["group"].nunique()),
        },
        "disjoint": proof,
        "dropped": {"copies": found.copies, "conflicts": found.conflicts}
        | {"unreadable": decoded.unreadable},
        "environment": environment(),
    }
    if decoded.masks is not None:
        fewer = table["label"][table["lungs_count"].astype(int) < 2].value_counts()
        fallback = {label: int(fewer.get(label, 0)) for label in rows}
        info["lungs"] = {"columns": LUNG_COLUMNS, "fallback": fallback}
    return info


def _keep_pixels(folder: Path, decoded: Decoded, keep: NDArray[np.int64]) -> None:
    kept = allocate(folder / "pixels.npy", (len(keep), *decoded.shown.shape[1:]))
    for start in range(0, len(keep), 1024):
        kept[start : start + 1024] = decoded.shown[keep[start : start + 1024]]
    kept.flush()
    for name in ("all.npy", "shown.npy"):
        (folder / name).unlink(missing_ok=True)
    if decoded.masks is not None:
        np.save(folder / MASKS_FILE, decoded.masks[keep])
        shutil.copyfile(FINDER_FILE, folder / LUNGS_FILE)


def _inputs_digest(manifest: pd.DataFrame, root: Path, settings: PrepareSettings) -> str:
    """Digest what a preparation depends on, by the files' sizes and times, not their bytes."""
    stamps = []
    for image in manifest["image"]:
        with contextlib.suppress(OSError):
            stat = (root / image).stat()
            stamps.append((image, stat.st_size, stat.st_mtime_ns))
    rows = manifest.to_csv(index=False)
    return digest(rows, digest_of(stamps), digest_of(_settings_values(settings)), str(VERSION))


def _settings_values(settings: PrepareSettings) -> dict[str, Any]:
    """Return what fingerprints are made of, in the names that version 0.1 wrote."""
    names = ("split", "fractions", "near_duplicates", "on_error", "synthetic")
    return {
        **{name: getattr(settings, name) for name in names},
        "labels": settings.labels or None,
        "spec": settings.spec.to_dict(),
        "seed": settings.split_seed,
        "version": VERSION,
    } | ({"leave_out": sorted(settings.leave_out)} if settings.leave_out else {})
