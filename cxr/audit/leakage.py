"""Test 1: the same image, or the same patient, on both sides of a split.

Everything is counted again from the pixels and the files; what ``prepare`` stored is only
compared with it. N images, P pairs.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cxr.audit.context import AuditContext, Names
from cxr.audit.copy_search import Copies, FileCheck, find_leaks, pair_equal, read_files
from cxr.audit.result import (
    AuditResult,
    AuditTable,
    AuditTest,
    Cell,
    Column,
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
    # Where there is no copy, the share of known patients decides if there is any.
    kind, metric = "copy_share", "share of test images with a copy outside test"
    if counted["copies"] == 0 < counted["patients"]:
        kind, metric = "patient_share", "share of test images whose patient is outside test"
    return TEST.result(
        _verdict(counted),
        _sentence(counted),
        statistic_of(counted[kind], kind, metric, chance=0),
        values=counted,
        tables=[
            _count_table(counted, files),
            *([_pair_table(copies, split, names)] if len(copies.pairs) else []),
        ],
        reason=_reason(files, counted, names),
    )


def _count(copies: Copies, split: Names, patients: Names, stored: Names) -> dict[str, Any]:
    """Return what lies on both sides of a split by its id in ``values``, pairs over all splits."""
    pairs = np.concatenate([copies.pairs, pair_equal(patients)])
    group, test = components(len(split), pairs), split == "test"
    with_copy = np.isin(np.arange(len(split)), copies.pairs) & test
    crossing = _crossing(group, split)
    # Two images of one patient in val and train cross too, but no test statistic suffers.
    with_patient = np.isin(group, crossing) & test & np.isin(group, np.unique(group[~test]))
    return {
        "images": len(split),
        "known": int((patients != "").sum()),
        "groups": len(np.unique(group)),
        "crossing_groups": len(crossing),
        "stored_groups": len(np.unique(stored)),
        "stored_crossing_groups": len(_crossing(stored, split)),
        "test_images": int(test.sum()),
        "copies": int(with_copy.sum()),
        "patients": int(with_patient.sum()),
        "identical_pairs": int(copies.identical.sum()),
        "near_pairs": int((~copies.identical).sum()),
        "rotated_pairs": int((copies.orientations > 0).sum()),
        "copy_share": share_interval(with_copy[test], group[test]),
        "patient_share": share_interval(with_patient[test], group[test]),
    }


def _crossing(group: ArrayLike, split: Names) -> NDArray[Any]:
    """Return the groups that lie in more than one split."""
    splits = pd.Series(split).groupby(np.asarray(group)).nunique()
    return splits.index[splits > 1].to_numpy()


def _verdict(counted: Mapping[str, Any]) -> Verdict:
    pairs = counted["identical_pairs"] + counted["near_pairs"]
    parts = (
        (counted["copy_share"]["value"] > SHORTCUT_SHARE, pairs),
        (counted["patient_share"]["value"] > PATIENT_SHARE, counted["crossing_groups"]),
    )
    return worst(
        "shortcut" if over else "suspicious" if any_at_all else "clear"
        for over, any_at_all in parts
    )


def _sentence(counted: Mapping[str, Any]) -> str:
    named = "patients or groups of copies"
    who = named if counted["known"] else "groups of copies (no patient is named)"
    start = f"{counted['images']:,} images of {counted['groups']:,} {who}, counted again: "
    if not counted["identical_pairs"] + counted["near_pairs"] + counted["crossing_groups"]:
        return (
            f"{start}as far as this search sees, no image of one split is a copy of an image of "
            f"another, and no patient lies on both sides ({describe_limits(counted['images'])})."
        )
    shown = {key: show_interval(counted[key]) for key in ("copy_share", "patient_share")}
    return start + (
        "{copies} of {test_images} test images ({copy_share}) have a copy outside test "
        "({identical_pairs} identical and {near_pairs} near-identical pairs over all splits), and "
        "{patients} ({patient_share}) show a patient who is also outside test; {crossing_groups} "
        "groups lie on both sides of a split. Figures on such test images are not those of unseen "
        "patients."
    ).format(**{**counted, **shown})


def _count_table(counted: Mapping[str, Any], files: FileCheck | None) -> AuditTable:
    words = {
        "groups": "groups, counted again",
        "stored_groups": "groups, as prepare stored them",
        "crossing_groups": "groups on both sides of a split, counted again",
        "stored_crossing_groups": "groups on both sides of a split, as stored",
        "identical_pairs": "identical pairs across splits",
        "near_pairs": "near-identical pairs across splits",
        "rotated_pairs": "of these rotated or mirrored",
        "copies": "test images with a copy outside test",
        "patients": "test images whose patient is outside test",
    }
    shares = {"copies": counted["copy_share"], "patients": counted["patient_share"]}
    rows: list[tuple[Cell, ...]] = [
        (text, counted[key], shares.get(key)) for key, text in words.items()
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
    return AuditTable("counts", "Counted from the pixels", columns, tuple(rows))


def _pair_table(copies: Copies, split: Names, names: Names) -> AuditTable:
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


def _reason(files: FileCheck | None, counted: Mapping[str, Any], names: Names) -> str:
    reasons = []
    if files is None:
        reasons.append("the original files are not at hand, so the prepared pixels alone were read")
    elif files.differing:
        reasons.append(
            f"{len(files.differing)} files no longer give the prepared pixels, such as "
            f"{names[files.differing[0]]}: prepare the data again"
        )
    if not counted["known"]:
        reasons.append("no image names its patient, so patients were not counted")
    elif unnamed := counted["images"] - counted["known"]:
        reasons.append(f"{unnamed} of {counted['images']} images name no patient")
    return "; ".join(reasons)
