"""Test 1: the same image, or the same patient, on both sides of a split.

Everything is counted again from the pixels and the files; what ``prepare`` stored is only
compared with it. N images, S side of prepared pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cxr.audit.copy_search import Copies, FileCheck, Pairs, find_leaks, pair_equal
from cxr.audit.result import AuditResult, Verdict, figure_of, worst
from cxr.data.decode import ShowProgress, no_progress
from cxr.data.groups import describe_limits
from cxr.data.near_duplicates import ORIENTATIONS
from cxr.evaluation.intervals import share_interval
from cxr.evaluation.tables import Cell, Table, show_interval

NAME, TITLE = "leak", "The same image or patient on both sides"
WHAT = (
    "Every image was compared with every image of the other splits, from the pixels, also rotated, "
    "mirrored, inverted, cropped and padded: a network that has trained on a copy of a test "
    "image, or on another image of the same patient, need not diagnose it, only recognise it."
)
SHORTCUT_SHARE = 0.01
"""Of test images with a copy outside test; one in a hundred moves an accuracy by as much as a
good idea does. A single copy is suspicious."""
PATIENT_SHARE = 0.05
"""Of test images with their patient outside test; a second image of a patient is no copy."""
_SHOWN = 20


def audit_leak(
    pixels: NDArray[np.uint8],
    split: ArrayLike,
    patients: ArrayLike,
    stored_groups: ArrayLike,
    names: Sequence[str],
    *,
    files: FileCheck | None = None,
    progress: ShowProgress = no_progress,
) -> AuditResult:
    """Count copies and patients that lie on both sides of a split.

    Args:
        pixels: (N, S, S) uint8.
        split: (N,) train, val or test.
        patients: (N,) patient ids of the manifest, "" where unknown.
        stored_groups: (N,) the groups that ``prepare`` made, for comparison alone.
        names: (N,) the images' names.
        files: what ``read_files`` found, or None where the originals are not at hand.
        progress: see ``ShowProgress``.

    Returns:
        ``shortcut`` where over ``SHORTCUT_SHARE`` of the test images have a copy, or over
        ``PATIENT_SHARE`` their patient, outside test; ``suspicious`` where one has.
    """
    parts = np.asarray(split, str)
    copies = find_leaks(pixels, parts, digests=files.digests if files else None, progress=progress)
    together = np.concatenate([copies.pairs, pair_equal(np.asarray(patients, str))])
    group = _components(len(parts), together)
    test = parts == "test"
    with_copy = _touched(copies.pairs, len(parts)) & test
    crossing = _crossing(group, parts)
    with_patient = np.isin(group, crossing) & test
    # Two images of one patient in val and train cross too, but no test figure suffers.
    with_patient &= np.isin(group, np.unique(group[~test]))
    shares = {
        "copy": share_interval(with_copy[test], group[test]),
        "patient": share_interval(with_patient[test], group[test]),
    }
    counts = {
        "copy": int(with_copy.sum()),
        "patient": int(with_patient.sum()),
        "test": int(test.sum()),
        "crossing": len(crossing),
    }
    verdict = _verdict(shares, counts, len(copies.pairs))
    known = int((np.asarray(patients, str) != "").sum())
    return AuditResult(
        NAME,
        TITLE,
        WHAT,
        verdict,
        _sentence(copies, counts, shares, group, parts, known),
        _figure(shares),
        _tables(copies, counts, shares, group, parts, np.asarray(stored_groups, str), names, files),
        _reason(files, known, len(parts), np.asarray(names, str)),
    )


def _components(count: int, pairs: Pairs) -> NDArray[np.int64]:
    ones = np.ones(len(pairs), np.int8)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _touched(pairs: Pairs, count: int) -> NDArray[np.bool_]:
    touched = np.zeros(count, bool)
    touched[pairs.ravel()] = True
    return touched


def _crossing(group: NDArray[np.int64], split: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return the groups that lie in more than one split."""
    both = np.unique(np.stack([group.astype(str), split], axis=1), axis=0)[:, 0]
    names, counts = np.unique(both, return_counts=True)
    return np.asarray(names[counts > 1], np.int64)


def _verdict(
    shares: Mapping[str, Mapping[str, float]], counts: Mapping[str, int], pairs: int
) -> Verdict:
    def one(share: float, limit: float, any_at_all: bool) -> Verdict:
        if share > limit:
            return "shortcut"
        return "suspicious" if any_at_all else "clear"

    return worst(
        [
            one(shares["copy"]["value"], SHORTCUT_SHARE, pairs > 0),
            one(shares["patient"]["value"], PATIENT_SHARE, counts["crossing"] > 0),
        ]
    )


def _figure(shares: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Return the share of copies, or where there is none that of known patients if any."""
    if shares["copy"]["value"] == 0 < shares["patient"]["value"]:
        metric = "share of test images whose patient is outside test"
        return figure_of(shares["patient"], metric=metric, chance=0)
    return figure_of(
        shares["copy"], metric="share of test images with a copy outside test", chance=0
    )


def _sentence(
    copies: Copies,
    counts: Mapping[str, int],
    shares: Mapping[str, Mapping[str, float]],
    group: NDArray[np.int64],
    split: NDArray[np.str_],
    known: int,
) -> str:
    groups = len(np.unique(group))
    who = "patients or groups of copies" if known else "groups of copies (no patient is named)"
    start = f"{len(split):,} images of {groups:,} {who}, counted again: "
    if not len(copies.pairs) and not counts["crossing"]:
        return (
            f"{start}as far as this search sees, no image of one split is a copy of an image of "
            f"another, and no patient lies on both sides ({describe_limits(len(split))})."
        )
    return (
        f"{start}{counts['copy']} of {counts['test']} test images "
        f"({show_interval(shares['copy'])}) have a copy outside test "
        f"({int(copies.identical.sum())} identical and {int((~copies.identical).sum())} "
        f"near-identical pairs over all splits), and {counts['patient']} "
        f"({show_interval(shares['patient'])}) show a patient who is also outside test; "
        f"{counts['crossing']} groups lie on both sides of a split. Figures on such test images "
        "are not those of unseen patients."
    )


def _tables(
    copies: Copies,
    counts: Mapping[str, int],
    shares: Mapping[str, Mapping[str, float]],
    group: NDArray[np.int64],
    split: NDArray[np.str_],
    stored: NDArray[np.str_],
    names: Sequence[str],
    files: FileCheck | None,
) -> list[Table]:
    rows: list[tuple[Cell, ...]] = [
        ("groups, counted again", len(np.unique(group))),
        ("groups, as prepare stored them", len(np.unique(stored))),
        ("groups on both sides of a split, counted again", counts["crossing"]),
        (
            "groups on both sides of a split, as stored",
            len(_crossing(np.unique(stored, return_inverse=True)[1], split)),
        ),
        ("identical pairs across splits", int(copies.identical.sum())),
        ("near-identical pairs across splits", int((~copies.identical).sum())),
        ("of these turned or mirrored", int((copies.turns > 0).sum())),
        ("test images with a copy outside test", counts["copy"]),
        ("their share", show_interval(shares["copy"])),
        ("test images whose patient is outside test", counts["patient"]),
        ("their share", show_interval(shares["patient"])),
    ]
    if files is not None:
        rows += [
            ("original files read again", int((files.digests != "").sum())),
            ("files that no longer give the prepared pixels", len(files.differing)),
        ]
    tables = [Table("Counted from the pixels", ("what", "count"), tuple(rows))]
    if len(copies.pairs):
        listed = [
            (
                names[a],
                str(split[a]),
                names[b],
                str(split[b]),
                "identical" if copies.identical[i] else "near",
                ORIENTATIONS[copies.turns[i]],
                round(float(copies.correlation[i]), 3),
            )
            for i, (a, b) in enumerate(copies.pairs[:_SHOWN].tolist())
        ]
        title = f"Copies across splits, {len(listed)} of {len(copies.pairs)}"
        heads = ("image", "split", "copy", "its split", "kind", "orientation", "correlation")
        tables.append(Table(title, heads, tuple(listed)))
    return tables


def _reason(files: FileCheck | None, known: int, count: int, names: NDArray[np.str_]) -> str:
    reasons = []
    if files is None:
        reasons.append("the original files are not at hand, so the prepared pixels alone were read")
    elif files.differing:
        reasons.append(
            f"{len(files.differing)} files no longer give the prepared pixels, such as "
            f"{names[files.differing[0]]}: prepare the data again"
        )
    if not known:
        reasons.append("no image names its patient, so patients were not counted")
    elif known < count:
        reasons.append(f"{count - known} of {count} images name no patient")
    return "; ".join(reasons)
