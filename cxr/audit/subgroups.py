"""Test 8: subgroup performance: sensitivity by sex, age, view and source.

Where many groups are compared one lies low by chance; how low the lowest of all does is learned
by permuting the attributes between patients (``maxt``). N test images, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxr.audit.context import AuditContext, Masks, Names, Rows
from cxr.audit.limits import TOO_FEW
from cxr.audit.maxt import adjusted_p, permuted_gaps
from cxr.audit.result import AuditResult, AuditTable, AuditTest, Cell, Column, Verdict, statistic_of
from cxr.evaluation.intervals import share_interval
from cxr.evaluation.tables import show_interval
from cxr.labels import list_words

AGE_BANDS = {0: "0 to 5", 6: "6 to 17", 18: "18 to 39", 40: "40 to 64", 65: "65 and over"}
"""First year of each: infants and small children, older children, three of adults."""
OLDEST = 150
GAP = 0.10
"""Sensitivity below the rest of the class from which a group is worth a look."""
ALPHA = 0.05
"""Family-wise: among all groups of a run without any gap, how often one is called lower."""
FEWEST_PATIENTS = 10
"""Patients of a group, and of the rest of its class, below which nothing is said."""
PERMUTATIONS = 1000
UNKNOWN = ""
TEST = AuditTest(
    "subgroups",
    8,
    "Subgroup performance",
    "Sensitivity, the share of ill (or healthy) images that are named rightly, was counted for "
    "women and men, age bands, views and sources, inside each class and only where the manifest "
    f"knows them. Below {TOO_FEW} images or {FEWEST_PATIENTS} patients nothing is said, and p is "
    "adjusted for the number of groups that are compared.",
)


def age_bands(ages: Sequence[str]) -> Names:
    """Return each image's age band of ages (N,) in years, text; "" where it is unknown."""
    # A child of 5.5 years is in the band that ends with 5.
    years = np.trunc(pd.to_numeric(pd.Series(ages, dtype=object), errors="coerce"))
    bands = pd.cut(years, [*AGE_BANDS, OLDEST + 1], right=False, labels=[*AGE_BANDS.values()])
    return np.asarray(bands.astype(object).fillna(UNKNOWN), str)


@dataclass
class Group:
    """The images of one class and one value of an attribute, "" where it is not known.

    Attributes:
        right: (n,) whether each image is classified rightly.
        patients: (n,) patient or group names.
        gap: sensitivity less that of the class's other images of known value, with its
            interval; empty where one side has too few.
        p: that of so low a gap by chance, adjusted for all comparisons of the run.
    """

    label: str
    attribute: str
    value: str
    right: Masks
    patients: Names
    gap: dict[str, float]
    p: float = 1.0

    @property
    def where(self) -> str:
        """Name the group."""
        return f"{self.label} {self.attribute} {self.value}"

    @property
    def words(self) -> str:
        """Name the group with its numbers."""
        shown = show_interval(self.gap, digits=2)
        return f"{self.where} ({shown}, {len(self.right)} images, p {self.p:.3f})"


def audit_subgroups(context: AuditContext) -> AuditResult:
    """Compare the sensitivity of each subgroup with the rest of its class.

    Returns:
        ``suspicious`` where a subgroup lies at least ``GAP`` below the rest of its class and
        its p, adjusted for all comparisons, is below ``ALPHA``. Never ``shortcut``: a gap says
        who is classified worse, not why.
    """
    rows, labels, resamples = context.test_rows, context.labels, context.resamples
    targets, groups = context.targets[rows], context.groups[rows]
    attributes = {name: context.column(name)[rows] for name in ("sex", "age", "view", "source")}
    attributes["age"] = age_bands(attributes["age"].tolist())
    known = {name: values for name, values in attributes.items() if (values != UNKNOWN).any()}
    missing = [name for name in attributes if name not in known]
    if not known:
        reason = f"the manifest knows no {list_words(list(attributes))} of the test images"
        return TEST.skipped(reason.replace(" and ", " or "))
    right = targets == context.probs[context.model].argmax(axis=1)
    parts: list[Group] = []
    statistics = [np.empty((resamples + 1, 0))]
    for name, values in known.items():
        for k, label in enumerate(labels):
            own = targets == k
            subgroups = _groups(label, name, right[own], values[own], groups[own])
            parts += subgroups
            if compared := [group.value for group in subgroups if group.gap]:
                inside = own & (values != UNKNOWN)
                # Attributes known of the same images of a class are permuted together.
                rng = np.random.default_rng([context.seed, k])
                columns = (right[inside], values[inside], groups[inside], compared)
                statistics.append(permuted_gaps(*columns, rng=rng, permutations=resamples))
    with_gap = [group for group in parts if group.gap]
    for group, p in zip(with_gap, adjusted_p(np.concatenate(statistics, axis=1)), strict=True):
        group.p = float(p)
    return _judge(parts, with_gap, _reason(missing, known, targets, labels))


def _groups(
    label: str, attribute: str, right: Masks, values: Names, patients: Names
) -> list[Group]:
    """Return the groups of one class, the unknown last; none where all are unknown."""
    bands = list(AGE_BANDS.values())
    known = sorted(
        set(values.tolist()) - {UNKNOWN},
        key=lambda value: (bands.index(value) if value in bands else 0, value),
    )
    subgroups = []
    for value in known + ([UNKNOWN] if known and (values == UNKNOWN).any() else []):
        here = values == value
        rest = ~here & (values != UNKNOWN)
        gap = {}
        if value and all(_enough(right[part], patients[part]) for part in (here, rest)):
            gap = _gap_interval(
                *(share_interval(right[part], patients[part]) for part in (here, rest))
            )
        subgroups.append(Group(label, attribute, value, right[here], patients[here], gap))
    return subgroups


def _enough(right: Masks, patients: Names) -> bool:
    return len(right) >= TOO_FEW and len(np.unique(patients)) >= FEWEST_PATIENTS


def _gap_interval(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """Return the difference of two shares with its interval.

    Source: Newcombe 1998, Interval estimation for the difference between independent
    proportions, method 10.
    """
    value = first["value"] - second["value"]
    down = np.hypot(first["value"] - first["low"], second["high"] - second["value"])
    up = np.hypot(first["high"] - first["value"], second["value"] - second["low"])
    return {"value": value, "low": float(value - down), "high": float(value + up)}


def _judge(parts: Sequence[Group], compared: Sequence[Group], reason: str) -> AuditResult:
    lower = [group for group in compared if group.gap["value"] <= -GAP and group.p < ALPHA]
    first = min(compared, key=lambda group: group.gap["value"], default=None)
    verdict: Verdict = "suspicious" if lower else "clear"
    statistic = None
    if first is None:
        verdict = "skipped"
        sentence = (
            f"No group can be compared: inside no class do two groups have {TOO_FEW} test images "
            f"and {FEWEST_PATIENTS} patients each."
        )
    else:
        metric = f"sensitivity of {first.where}, less the rest of the class"
        statistic = statistic_of(first.gap, "sensitivity_gap", metric, chance=0)
        sentence = (
            f"Of {len(compared)} groups with {TOO_FEW} images and {FEWEST_PATIENTS} patients or "
            f"more, none lies {GAP:.0%} or more below the rest of its class beyond chance; the "
            f"lowest is {first.words}."
        )
    if lower:
        sentence = "Sensitivity is lower than in the rest of the class for "
        sentence += f"{list_words([group.words for group in lower])}."
    few = [
        f"{group.where} ({len(group.right)})"
        for group in parts
        if group.value and not _enough(group.right, group.patients)
    ]
    sentence += f" Too few to say: {list_words(few)}." if few else ""
    values = {"compared": len(compared), "lower": [group.where for group in lower]}
    return TEST.result(
        verdict, sentence, statistic, values=values, tables=[_table(parts)], reason=reason
    )


def _table(parts: Sequence[Group]) -> AuditTable:
    rows: list[tuple[Cell, ...]] = []
    for group in parts:
        right, patients = group.right, group.patients
        counts = (len(right), len(np.unique(patients)), int(right.sum()))
        known = _enough(right, patients)
        sensitivity: Cell = share_interval(right, patients) if known else "too few to say"
        gap = (group.gap, group.p) if group.gap else (None, None)
        name = group.value or "unknown"
        rows.append((group.label, group.attribute, name, *counts, sensitivity, *gap))
    columns = (
        *(Column("class"), Column("attribute", "by"), Column("group")),
        Column("images", kind="count"),
        Column("patients", "patients or groups", "count"),
        Column("right", kind="count"),
        Column("sensitivity", kind="interval"),
        Column("gap", "less the rest of the class", "interval"),
        Column("p", "adjusted p", "p"),
    )
    return AuditTable("groups", "Sensitivity of each group, test images", columns, tuple(rows))


def _reason(
    missing: Sequence[str], known: Mapping[str, Names], targets: Rows, labels: Sequence[str]
) -> str:
    """Say which attributes are unknown, wholly or for some classes."""
    reasons = [f"no test image's {name} is known" for name in missing]
    for name, values in known.items():
        blank = [
            label
            for k, label in enumerate(labels)
            if (targets == k).any() and (values[targets == k] == UNKNOWN).all()
        ]
        if blank:
            classes = list_words(blank).replace(" and ", " or ")
            reasons.append(f"{name} is known of no {classes} image")
    return "; ".join(reasons)
