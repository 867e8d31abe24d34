"""Test 8: whom the model wrongs: sensitivity by sex, age, view and source.

N test films, K classes.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cxr.evaluation.audit.intervals import TOO_FEW, difference_interval, share_interval
from cxr.evaluation.audit.result import (
    AuditResult,
    Cell,
    Table,
    Verdict,
    figure_of,
    list_words,
    skipped,
    worst,
)
from cxr.evaluation.tables import show_interval

NAME, TITLE = "subgroups", "Who is wronged"
WHAT = (
    "Sensitivity, the share of ill (or healthy) films that are named rightly, was counted for "
    "women and men, age bands, views and sources, inside each class and only where the manifest "
    f"knows them. Below {TOO_FEW} films nothing is said."
)
AGE_BANDS = ((0, 5), (6, 17), (18, 39), (40, 64), (65, 150))
"""Years, both ends included: infants and small children, older children, three of adults."""
GAP = 0.10
"""Sensitivity below the rest of the class from which a group is worth a look."""
FEW_WORDS = "too few to say"
RESAMPLES = 1000
UNKNOWN = ""


def age_bands(ages: Sequence[str]) -> NDArray[np.str_]:
    """Return each film's age band, "" where the age is unknown.

    Args:
        ages: (N,) text in years.
    """
    found = []
    for text in ages:
        try:
            # A child of 5.5 years is in the band that ends with 5.
            years = int(float(text))
        except (ValueError, OverflowError):
            found.append(UNKNOWN)
            continue
        band = [(low, high) for low, high in AGE_BANDS if low <= years <= high]
        found.append(_band_name(*band[0]) if band else UNKNOWN)
    return np.asarray(found, str)


def audit_subgroups(
    targets: NDArray[np.int64],
    predicted: NDArray[np.int64],
    groups: NDArray[np.str_],
    labels: Sequence[str],
    attributes: Mapping[str, NDArray[np.str_]],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> AuditResult:
    """Compare the sensitivity of each subgroup with the rest of its class.

    Args:
        targets: (N,) class positions of the test films.
        predicted: (N,) the model's.
        groups: (N,) patient or group names.
        labels: K class names.
        attributes: per name ("sex") each film's value, "" where unknown.
        seed: of the bootstrap.
        resamples: of groups.

    Returns:
        ``suspicious`` where a subgroup of ``TOO_FEW`` films or more lies at least ``GAP`` below
        the rest of its class and the interval of the difference excludes 0. Never
        ``shortcut``: a gap says who is wronged, not why.
    """
    known = {name: values for name, values in attributes.items() if (values != UNKNOWN).any()}
    missing = [name for name in attributes if name not in known]
    if not known:
        reason = f"the manifest knows no {list_words(list(attributes))} of the test films"
        return skipped(NAME, TITLE, WHAT, reason.replace(" and ", " or "))
    right = targets == predicted
    rows: list[tuple[Cell, ...]] = []
    gaps: list[tuple[str, dict[str, float], int]] = []
    few: list[str] = []
    for name, values in known.items():
        for k, label in enumerate(labels):
            for value in _values(values[targets == k]):
                here = (targets == k) & (values == value)
                row, gap = _row(right, here, targets == k, groups, seed, resamples)
                rows.append((label, name, value or "unknown", *row))
                where = f"{label} {name} {value}"
                if value and int(here.sum()) < TOO_FEW:
                    few.append(f"{where} ({int(here.sum())})")
                elif value and gap is not None:
                    gaps.append((where, gap, int(here.sum())))
    heads = ("class", "by", "group", "films", "patients or groups", "right", "sensitivity",
             "less the rest of the class")  # fmt: skip
    table = Table("Sensitivity of each group, test films", heads, tuple(rows))
    verdict: Verdict = worst(["clear" if not _is_wronged(gap) else "suspicious"
                              for _, gap, _ in gaps])  # fmt: skip
    lowest = min(gaps, key=lambda found: found[1]["value"], default=None)
    figure = None if lowest is None else figure_of(
        lowest[1], metric=f"sensitivity of {lowest[0]}, less the rest of the class", chance=0
    )  # fmt: skip
    return AuditResult(
        NAME, TITLE, WHAT, verdict, _sentence(gaps, few, verdict), figure, [table],
        _reason(missing, known, targets, labels),
    )  # fmt: skip


def _row(
    right: NDArray[np.bool_],
    here: NDArray[np.bool_],
    of_class: NDArray[np.bool_],
    groups: NDArray[np.str_],
    seed: int,
    resamples: int,
) -> tuple[tuple[Cell, ...], dict[str, float] | None]:
    """Return a table row's figures, and the gap to the rest where both have films enough."""
    count, rest = int(here.sum()), int((of_class & ~here).sum())
    counts: tuple[Cell, ...] = (count, len(np.unique(groups[here])), int(right[here].sum()))
    if count < TOO_FEW:
        return (*counts, FEW_WORDS, None), None
    shown = show_interval(share_interval(right[here], groups[here]))
    if rest < TOO_FEW:
        return (*counts, shown, None), None
    gap = difference_interval(
        right[of_class], here[of_class], groups[of_class],
        rng=np.random.default_rng(seed), resamples=resamples,
    )  # fmt: skip
    return (*counts, shown, show_interval(gap)), gap


def _is_wronged(gap: Mapping[str, float]) -> bool:
    return gap["value"] <= -GAP and gap["high"] < 0


def _sentence(
    gaps: Sequence[tuple[str, dict[str, float], int]], few: Sequence[str], verdict: Verdict
) -> str:
    wronged = [(where, gap, count) for where, gap, count in gaps if _is_wronged(gap)]
    if wronged:
        told = [f"{where} ({show_interval(gap, digits=2)}, {count} films)"
                for where, gap, count in wronged]  # fmt: skip
        first = f"Sensitivity is lower than in the rest of the class for {list_words(told)}."
    elif verdict == "clear":
        lowest = min(gaps, key=lambda found: found[1]["value"])
        first = (
            f"Of {len(gaps)} groups with {TOO_FEW} films or more, none lies {GAP:.0%} or more "
            f"below the rest of its class beyond chance; the lowest is {lowest[0]} "
            f"({show_interval(lowest[1], digits=2)}, {lowest[2]} films)."
        )
    else:
        first = (
            f"No group can be compared: inside no class do two groups have {TOO_FEW} test films "
            "each."
        )
    return f"{first} Too few to say: {list_words(few)}." if few else first


def _values(values: NDArray[np.str_]) -> list[str]:
    """Return the values that occur, in order, the unknown last; none where all are unknown."""
    found = sorted(set(values.tolist()) - {UNKNOWN}, key=_order)
    unknown = [UNKNOWN] if found and (values == UNKNOWN).any() else []
    return found + unknown


def _order(value: str) -> tuple[int, str]:
    names = [_band_name(*band) for band in AGE_BANDS]
    return (names.index(value) if value in names else 0, value)


def _band_name(low: int, high: int) -> str:
    return f"{low} and over" if high >= 150 else f"{low} to {high}"


def _reason(
    missing: Sequence[str],
    known: Mapping[str, NDArray[np.str_]],
    targets: NDArray[np.int64],
    labels: Sequence[str],
) -> str:
    """Say which attributes are unknown, wholly or for some classes."""
    reasons = [f"no test film's {name} is known" for name in missing]
    for name, values in known.items():
        blank = [label for k, label in enumerate(labels)
                 if (targets == k).any() and (values[targets == k] == UNKNOWN).all()]  # fmt: skip
        if blank:
            reasons.append(f"{name} is known of no {list_words(blank).replace(' and ', ' or ')} "
                           "film")  # fmt: skip
    return "; ".join(reasons)
