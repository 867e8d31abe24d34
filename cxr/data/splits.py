"""Splits that are disjoint by group.

N films. A group is what must stay together: one patient, and every copy of a film.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.errors import InputError

SplitKind = Literal["patient", "published"]
SPLITS = ("train", "val", "test")


def patient_split(
    table: pd.DataFrame, *, fractions: Sequence[float], seed: int
) -> NDArray[np.object_]:
    """Split films into train, val and test, stratified by label and disjoint by group.

    A group counts for the label that most of its films have. Within a label the largest
    groups are dealt first, equals in random order, each to the split that lies furthest
    behind its share of the label's films.

    Args:
        table: N rows with columns ``label`` and ``group``.
        fractions: shares of train, val and test, summing to 1.
        seed: of the order.

    Returns:
        (N,) of ``train``, ``val`` and ``test``.

    Raises:
        InputError: fractions that do not sum to 1, or a label with fewer groups than there
            are splits to fill.
    """
    wanted = {
        name: share for name, share in zip(SPLITS, fractions, strict=True) if share > 0
    }
    if abs(sum(wanted.values()) - 1) > 1e-6 or min(fractions) < 0:
        raise InputError(
            f"data.fractions is {list(fractions)}: shares of train, val and test must be at "
            "least 0 and sum to 1"
        )
    return _assign(table, wanted, np.random.default_rng(seed))


def published_split(
    table: pd.DataFrame, *, fractions: Sequence[float], seed: int
) -> NDArray[np.object_]:
    """Keep the source's own test split and take validation from its train part by group.

    Films whose source publishes no split are split as ``patient_split`` does.

    Args:
        table: N rows with columns ``label``, ``group`` and ``published_split``.
        fractions: shares of train, val and test; of the published train part, validation
            gets its share of train and validation together.
        seed: of the order.

    Returns:
        (N,) of ``train``, ``val`` and ``test``.

    Raises:
        InputError: no film of the table has a published test split.
    """
    published = table["published_split"].to_numpy(dtype=object)
    if not (published == "test").any():
        raise InputError(
            "data.split=published, but no film is marked published_split=test: "
            "use data.split=patient or fill the column"
        )
    split = np.full(len(table), "test", dtype=object)
    free = published == ""
    if free.any():
        split[free] = patient_split(table[free], fractions=fractions, seed=seed)
    rest = (published == "train") | (published == "val")
    share = fractions[1] / (fractions[0] + fractions[1])
    random = np.random.default_rng(seed)
    split[rest] = _assign(table[rest], {"train": 1 - share, "val": share}, random)
    return _mend_free_groups(table["group"].to_numpy(dtype=object), split, free)


def crossing_groups(table: pd.DataFrame) -> pd.DataFrame:
    """List the groups that have films in more than one split.

    Args:
        table: N rows with columns ``group`` and ``split``.

    Returns:
        One row a crossing group, columns ``train``, ``val``, ``test`` with its films in each.
    """
    counts = pd.crosstab(table["group"], table["split"]).reindex(columns=list(SPLITS), fill_value=0)
    return counts[(counts > 0).sum(axis=1) > 1]


def check_disjoint(table: pd.DataFrame, *, forced: bool) -> dict[str, Any]:
    """Prove that no group crosses a split, or count what a published split forces.

    Args:
        table: N rows with columns ``group`` and ``split``.
        forced: the test split is the source's own, so a group may lie in it and elsewhere;
            between train and validation none may even then.

    Returns:
        Plain values for ``prepared.json``.

    Raises:
        AssertionError: a crossing that nothing forced, which is a bug.
    """
    crossing = crossing_groups(table)
    ours = crossing if not forced else crossing[(crossing["train"] > 0) & (crossing["val"] > 0)]
    assert ours.empty, f"{len(ours)} groups cross a split, first {ours.index[0]}"
    touched = table["group"].isin(crossing.index)
    return {
        "groups": int(table["group"].nunique()),
        "crossing_groups": len(crossing),
        "crossing_forced_by_published_split": bool(len(crossing)),
        "test_films_in_crossing_groups": int((touched & (table["split"] == "test")).sum()),
        "crossing_group_names": sorted(map(str, crossing.index)),
    }


def _assign(
    table: pd.DataFrame, wanted: dict[str, float], random: np.random.Generator
) -> NDArray[np.object_]:
    """Give each group a split, label by label."""
    sizes = pd.crosstab(table["group"], table["label"])
    label_of = sizes.idxmax(axis=1)
    total = sizes.sum(axis=1)
    chosen: dict[str, str] = {}
    for label in sorted(table["label"].unique()):
        groups = label_of.index[label_of == label].to_numpy(dtype=object)
        if len(groups) < len(wanted):
            raise InputError(
                f"class {label!r} has {len(groups)} group(s) of patients, but "
                f"{', '.join(wanted)} need one each: add patients or set a share in "
                "data.fractions to 0"
            )
        chosen.update(_fill(random.permutation(groups), total, wanted))
    return table["group"].map(chosen).to_numpy(dtype=object)


def _fill(
    groups: NDArray[np.object_], total: "pd.Series[int]", wanted: dict[str, float]
) -> dict[str, str]:
    """Deal groups to the split that lies furthest behind; large groups are dealt first."""
    order = sorted(groups, key=lambda group: -int(total[group]))
    films = float(sum(total[group] for group in order))
    have = dict.fromkeys(wanted, 0.0)
    chosen = {}
    for group in order:
        behind = max(wanted, key=lambda name: wanted[name] - have[name] / films)
        chosen[str(group)] = behind
        have[behind] += float(total[group])
    if empty := [name for name in wanted if not have[name]]:
        for name, group in zip(empty, reversed(order), strict=False):
            chosen[str(group)] = name
    return chosen


def _mend_free_groups(
    groups: NDArray[np.object_], split: NDArray[np.object_], free: NDArray[np.bool_]
) -> NDArray[np.object_]:
    """Let films without a published split follow the films of their group that have one."""
    fixed = pd.Series(split[~free], index=groups[~free])
    for row in np.flatnonzero(free & np.isin(groups, fixed.index)):
        split[row] = fixed.loc[[groups[row]]].iloc[0]
    return split
