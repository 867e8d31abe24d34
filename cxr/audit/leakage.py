"""Test 1: the same image, or the same patient, on both sides of a split.

Everything is counted again from the pixels and the files; what ``prepare`` stored is only
compared with it. N images, P pairs.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from cxr.audit.context import AuditContext, Interval
from cxr.audit.copy_search import Copies, FileCheck, find_leaks, pair_equal, read_files
from cxr.audit.result import (
    AuditResult,
    AuditTable,
    AuditTest,
    Cell,
    Column,
    Statistic,
    Verdict,
    statistic_of,
    worst,
)
from cxr.data.groups import components, describe_limits
from cxr.data.near_duplicates import ORIENTATIONS
from cxr.evaluation.intervals import share_interval
from cxr.evaluation.tables import show_interval

TEST = AuditTest(
    "leak",
    1,
    "Near-duplicates and patients across splits",
    "Every image was compared with every image of the other splits, from the pixels, also rotated, "
    "mirrored, inverted, cropped and padded: a network that has trained on a copy of a test "
    "image, or on another image of the same patient, need not diagnose it, only recognise it.",
)
SHORTCUT_SHARE = 0.01
"""Of test images with a copy outside test; one in a hundred moves an accuracy by as much as a
good idea does. A single copy is suspicious."""
PATIENT_SHARE = 0.05
"""Of test images with their patient outside test; a second image of a patient is no copy."""
_SHOWN = 20


@dataclass(frozen=True)
class _Counted:
    """What lies on both sides of a split; ids as in ``values``, pairs over all splits."""

    images: int
    known: int
    groups: int
    crossing_groups: int
    stored_groups: int
    stored_crossing_groups: int
    test_images: int
    copies: int
    patients: int
    identical_pairs: int
    near_pairs: int
    rotated_pairs: int
    copy_share: Interval
    patient_share: Interval


def audit_leak(context: AuditContext) -> AuditResult:
    """Count copies and patients that lie on both sides of a split.

    Returns:
        ``shortcut`` where over ``SHORTCUT_SHARE`` of the test images have a copy, or over
        ``PATIENT_SHARE`` their patient, outside test; ``suspicious`` where one has.
    """
    split, names, progress = context.column("split"), context.column("image"), context.progress
    files = None
    if context.square_of is not None:
        files = read_files(
            context.root, names.tolist(), context.pixels, context.square_of, progress=progress
        )
    digests = files.digests if files else None
    copies = find_leaks(context.pixels, split, digests=digests, progress=progress)
    counted = _count(copies, split, context.column("patient_id"), context.groups)
    tables = [_count_table(counted, files)]
    if len(copies.pairs):
        tables.append(_pair_table(copies, split, names))
    return TEST.result(
        _verdict(counted),
        _sentence(counted),
        _statistic(counted),
        values=asdict(counted),
        tables=tables,
        reason=_reason(files, counted, names),
    )


def _count(
    copies: Copies, split: NDArray[np.str_], patients: NDArray[np.str_], stored: NDArray[np.str_]
) -> _Counted:
    pairs = np.concatenate([copies.pairs, pair_equal(patients)])
    group, test = components(len(split), pairs), split == "test"
    with_copy = np.isin(np.arange(len(split)), copies.pairs) & test
    crossing = _crossing(group, split)
    # Two images of one patient in val and train cross too, but no test statistic suffers.
    with_patient = np.isin(group, crossing) & test & np.isin(group, np.unique(group[~test]))
    return _Counted(
        images=len(split),
        known=int((patients != "").sum()),
        groups=len(np.unique(group)),
        crossing_groups=len(crossing),
        stored_groups=len(np.unique(stored)),
        stored_crossing_groups=len(_crossing(np.unique(stored, return_inverse=True)[1], split)),
        test_images=int(test.sum()),
        copies=int(with_copy.sum()),
        patients=int(with_patient.sum()),
        identical_pairs=int(copies.identical.sum()),
        near_pairs=int((~copies.identical).sum()),
        rotated_pairs=int((copies.orientations > 0).sum()),
        copy_share=share_interval(with_copy[test], group[test]),
        patient_share=share_interval(with_patient[test], group[test]),
    )


def _crossing(group: NDArray[np.int64], split: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return the groups that lie in more than one split."""
    both = np.unique(np.stack([group.astype(str), split], axis=1), axis=0)[:, 0]
    names, counts = np.unique(both, return_counts=True)
    return np.asarray(names[counts > 1], np.int64)


def _verdict(counted: _Counted) -> Verdict:
    def one(share: float, limit: float, any_at_all: bool) -> Verdict:
        return "shortcut" if share > limit else "suspicious" if any_at_all else "clear"

    pairs = counted.identical_pairs + counted.near_pairs
    return worst(
        [
            one(counted.copy_share["value"], SHORTCUT_SHARE, pairs > 0),
            one(counted.patient_share["value"], PATIENT_SHARE, counted.crossing_groups > 0),
        ]
    )


def _statistic(counted: _Counted) -> Statistic:
    """Return the share of copies, or where there is none that of known patients if any."""
    if counted.copy_share["value"] == 0 < counted.patient_share["value"]:
        metric = "share of test images whose patient is outside test"
        return statistic_of(counted.patient_share, "patient_share", metric, chance=0)
    metric = "share of test images with a copy outside test"
    return statistic_of(counted.copy_share, "copy_share", metric, chance=0)


def _sentence(counted: _Counted) -> str:
    named = "patients or groups of copies"
    who = named if counted.known else "groups of copies (no patient is named)"
    start = f"{counted.images:,} images of {counted.groups:,} {who}, counted again: "
    if not counted.identical_pairs + counted.near_pairs + counted.crossing_groups:
        return (
            f"{start}as far as this search sees, no image of one split is a copy of an image of "
            f"another, and no patient lies on both sides ({describe_limits(counted.images)})."
        )
    copies, patients = show_interval(counted.copy_share), show_interval(counted.patient_share)
    return (
        f"{start}{counted.copies} of {counted.test_images} test images ({copies}) have a copy "
        f"outside test ({counted.identical_pairs} identical and {counted.near_pairs} "
        f"near-identical pairs over all splits), and {counted.patients} ({patients}) show a "
        f"patient who is also outside test; {counted.crossing_groups} groups lie on both sides of "
        "a split. Figures on such test images are not those of unseen patients."
    )


def _count_table(counted: _Counted, files: FileCheck | None) -> AuditTable:
    rows: list[tuple[Cell, ...]] = [
        ("groups, counted again", counted.groups, None),
        ("groups, as prepare stored them", counted.stored_groups, None),
        ("groups on both sides of a split, counted again", counted.crossing_groups, None),
        ("groups on both sides of a split, as stored", counted.stored_crossing_groups, None),
        ("identical pairs across splits", counted.identical_pairs, None),
        ("near-identical pairs across splits", counted.near_pairs, None),
        ("of these rotated or mirrored", counted.rotated_pairs, None),
        ("test images with a copy outside test", counted.copies, counted.copy_share),
        ("test images whose patient is outside test", counted.patients, counted.patient_share),
    ]
    if files is not None:
        rows += [
            ("original files read again", int((files.digests != "").sum()), None),
            ("files that no longer give the prepared pixels", len(files.differing), None),
        ]
    columns = (
        Column("what"),
        Column("count", kind="count"),
        Column("share", "share of the test images", "interval"),
    )
    return AuditTable("counts", "_Counted from the pixels", columns, tuple(rows))


def _pair_table(copies: Copies, split: NDArray[np.str_], names: NDArray[np.str_]) -> AuditTable:
    rows = [
        (
            str(names[a]),
            str(split[a]),
            str(names[b]),
            str(split[b]),
            "identical" if copies.identical[i] else "near",
            ORIENTATIONS[copies.orientations[i]],
            float(copies.correlation[i]),
        )
        for i, (a, b) in enumerate(copies.pairs[:_SHOWN].tolist())
    ]
    columns = (
        *(Column("image"), Column("split"), Column("copy"), Column("copy_split", "its split")),
        *(Column("kind"), Column("orientation"), Column("correlation", kind="number")),
    )
    title = f"Copies across splits, {len(rows)} of {len(copies.pairs)}"
    return AuditTable("pairs", title, columns, tuple(rows))


def _reason(files: FileCheck | None, counted: _Counted, names: NDArray[np.str_]) -> str:
    reasons = []
    if files is None:
        reasons.append("the original files are not at hand, so the prepared pixels alone were read")
    elif files.differing:
        reasons.append(
            f"{len(files.differing)} files no longer give the prepared pixels, such as "
            f"{names[files.differing[0]]}: prepare the data again"
        )
    if not counted.known:
        reasons.append("no image names its patient, so patients were not counted")
    elif counted.known < counted.images:
        unnamed = counted.images - counted.known
        reasons.append(f"{unnamed} of {counted.images} images name no patient")
    return "; ".join(reasons)
