"""Splits that are disjoint by group.

N images. A group is what must stay together: one patient, and every copy of an image.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, eye_array, kron

from cxr.errors import InputError
from cxr.labels import list_words, partly_known

SplitKind = Literal["patient", "published", "source", "whole"]
SPLITS = ("train", "val", "test")


def check_fractions(fractions: Sequence[float]) -> None:
    """Check the shares of train, val and test.

    Raises:
        InputError: not three, one below 0, a sum other than 1, or none for train.
    """
    if len(fractions) != len(SPLITS):
        raise InputError(
            f"data.fractions is {list(fractions)}: three shares are needed, of train, val and test"
        )
    if abs(sum(fractions) - 1) > 1e-6 or min(fractions) < 0 or not fractions[0]:
        raise InputError(
            f"data.fractions is {list(fractions)}: shares of train, val and test must be at "
            "least 0 and sum to 1, and train needs one"
        )


def patient_split(
    table: pd.DataFrame, *, fractions: Sequence[float], seed: int
) -> NDArray[np.object_]:
    """Split images into train, val and test, stratified by label and disjoint by group.

    Groups are dealt in random order, each to the split that relative to its share lacks most
    images of the labels that the group brings.

    Args:
        table: N rows with columns ``label`` and ``group``.
        fractions: shares of train, val and test, summing to 1.
        seed: of the order.

    Returns:
        (N,) of ``train``, ``val`` and ``test``.

    Raises:
        InputError: fractions that do not sum to 1 or leave train none, or a label with fewer
            groups than there are splits to fill.
    """
    check_fractions(fractions)
    wanted = {name: share for name, share in zip(SPLITS, fractions, strict=True) if share > 0}
    return assign_groups(table, wanted, np.random.default_rng(seed))


def published_split(
    table: pd.DataFrame, *, fractions: Sequence[float], seed: int
) -> NDArray[np.object_]:
    """Keep the source's own test split and take validation from its train part by group.

    Images whose source publishes no split are split as ``patient_split`` does.

    Args:
        table: N rows with columns ``label``, ``group`` and ``published_split``.
        fractions: shares of train, val and test; of the published train part, validation
            gets its share of train and validation together.
        seed: of the order.

    Returns:
        (N,) of ``train``, ``val`` and ``test``.

    Raises:
        InputError: fractions as in ``patient_split``, a label with too few groups, or no
            image of the table has a published test split.
    """
    check_fractions(fractions)
    published = table["published_split"].to_numpy(dtype=object)
    if not (published == "test").any():
        raise InputError(
            "data.split=published, but no image is marked published_split=test: "
            "use data.split=patient or fill the column"
        )
    split = np.full(len(table), "test", dtype=object)
    free = published == ""
    if free.any():
        split[free] = patient_split(table[free], fractions=fractions, seed=seed)
    rest = (published == "train") | (published == "val")
    if rest.any():
        whole = fractions[0] + fractions[1]
        shares = {"train": fractions[0] / whole, "val": fractions[1] / whole}
        wanted = {name: share for name, share in shares.items() if share > 0}
        split[rest] = assign_groups(table[rest], wanted, np.random.default_rng(seed))
    return _mend_free_groups(table["group"].to_numpy(dtype=object), split, free)


def source_split(
    table: pd.DataFrame, *, fractions: Sequence[float], seed: int, leave_out: Sequence[str]
) -> NDArray[np.object_]:
    """Make the images of some sources the test split and split the others by group.

    An image of another source whose group lies in test too is in no split ("").

    Args:
        table: N rows with columns ``label``, ``group`` and ``source``.
        fractions: shares of train, val and test; validation gets its share of train and
            validation together.
        seed: of the order.
        leave_out: the sources that are test.

    Returns:
        (N,) of ``train``, ``val``, ``test`` and "".

    Raises:
        InputError: fractions as in ``patient_split``, a source that no image has, a class that
            the other sources lack, or one with too few groups there.
    """
    check_fractions(fractions)
    known = sorted(set(table["source"]) - {""})
    if unknown := [name for name in leave_out if name not in known]:
        raise InputError(
            f"data.leave_out names the source {unknown[0]!r}: the images have "
            f"{', '.join(known) or 'none (the column source is empty)'}"
        )
    if lost := lost_classes(table, leave_out):
        raise InputError(
            f"data.leave_out is {list(leave_out)}, and no other source has an image of "
            f"{list_words(lost)}, so nothing could learn it: leave out other sources, or leave "
            "the class out of data.labels"
        )
    tested = in_sources(table, leave_out)
    split = np.where(tested, "test", "").astype(object)
    rest = ~table["group"].isin(set(table["group"][tested])).to_numpy(bool)
    wanted = {name: share for name, share in zip(SPLITS[:2], fractions, strict=False) if share > 0}
    whole = sum(wanted.values())
    shares = {name: share / whole for name, share in wanted.items()}
    split[rest] = assign_groups(table[rest], shares, np.random.default_rng(seed))
    return split


def in_sources(table: pd.DataFrame, sources: Sequence[str]) -> NDArray[np.bool_]:
    """Return which images are of one of the sources, (N,)."""
    return np.asarray(table["source"].isin(list(sources)).to_numpy(bool))


def lost_classes(table: pd.DataFrame, leave_out: Sequence[str]) -> list[str]:
    """Return the classes of which only these sources have an image with a known class."""
    plain = table[~partly_known(table["label"])]
    left = set(plain["label"][~in_sources(plain, leave_out)])
    return [label for label in dict.fromkeys(plain["label"]) if label not in left]


def whole_split(
    table: pd.DataFrame, *, fractions: Sequence[float], seed: int
) -> NDArray[np.object_]:
    """Make every image a test image, for a set that only measures what was trained elsewhere.

    Args:
        table: N rows.
        fractions: not used.
        seed: not used.

    Returns:
        (N,) of ``test``.
    """
    return np.full(len(table), "test", dtype=object)


def crossing_groups(table: pd.DataFrame) -> pd.DataFrame:
    """List the groups that have images in more than one split.

    Args:
        table: N rows with columns ``group`` and ``split``.

    Returns:
        One row a crossing group, columns ``train``, ``val``, ``test`` with its images in each.
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
        "test_images_in_crossing_groups": int((touched & (table["split"] == "test")).sum()),
        "crossing_group_names": sorted(map(str, crossing.index)),
    }


def assign_groups(
    table: pd.DataFrame, wanted: dict[str, float], random: np.random.Generator
) -> NDArray[np.object_]:
    """Deal groups in random order, each to the part that lacks most of what it brings.

    Args:
        table: N rows with columns ``label`` and ``group``.
        wanted: name of each part to its share.
        random: of the order.

    Returns:
        (N,) names of parts; each part has a group of every class, of label sets where it falls so.

    Raises:
        InputError: a label with fewer groups than there are parts, or no deal gives each part
            a group of every label.

    Dealing the largest first would balance the labels better still, but leave validation with
    small groups alone: easier or harder patients than those of the test split.
    """
    sizes = pd.crosstab(table["group"], table["label"])
    known = ~partly_known(sizes.columns)
    _check_enough(sizes.loc[:, known], list(wanted))
    counts = sizes.to_numpy(dtype=np.float64)
    shares = counts / counts.sum(axis=0)
    target = np.array(list(wanted.values()))[:, None]
    have = np.zeros((len(wanted), shares.shape[1]))
    chosen = np.empty(len(sizes), np.int64)
    for group in random.permutation(len(sizes)):
        lacking = (target - have) / target @ shares[group]
        chosen[group] = lacking.argmax()
        have[chosen[group]] += shares[group]
    chosen = _fill_gaps(chosen, counts[:, known], list(wanted))
    names = np.array(list(wanted), dtype=object)[chosen]
    return table["group"].map(dict(zip(sizes.index, names, strict=True))).to_numpy(dtype=object)


def _check_enough(sizes: pd.DataFrame, names: list[str]) -> None:
    for label in sizes.columns:
        groups = int((sizes[label] > 0).sum())
        if groups < len(names):
            raise InputError(
                f"class {label!r} has {groups} group(s) of patients, but {', '.join(names)} need "
                "one each: add patients or set a share in data.fractions to 0"
            )


def _fill_gaps(
    chosen: NDArray[np.int64], counts: NDArray[np.float64], names: Sequence[str]
) -> NDArray[np.int64]:
    """Give each part a group of every label by moving as few images as can be.

    Args:
        chosen: (G,) part of each group.
        counts: (G, K) its images of each label.
        names: of the parts.

    Raises:
        InputError: it cannot be done.

    Source: an integer programme, solved exactly (SciPy's HiGHS): group g lies in part s where
    x_gs is 1; each group in one part, at least one group of each label in each.
    """
    groups, parts = len(chosen), len(names)
    stays = np.eye(parts)[chosen]
    has = csr_array(counts > 0, dtype=np.float64)
    if (has.T @ stays > 0).all():
        return chosen
    # Of groups of one size the last one dealt moves.
    costs = counts.sum(axis=1) + np.linspace(0.5, 0, groups)
    once = kron(eye_array(groups), np.ones((1, parts)))
    found = milp(
        (costs[:, None] * (1 - stays)).ravel(),
        integrality=np.ones(groups * parts),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(once, 1, 1),
            LinearConstraint(kron(has.T, eye_array(parts)), lb=1),
        ],
    )
    if found.x is None:
        raise InputError(
            f"no deal of {groups} group(s) of patients gives {', '.join(names)} each one of every "
            "class, as groups with several classes are too few: add patients or set a share in "
            "data.fractions to 0"
        )
    return np.asarray(found.x.reshape(groups, parts).argmax(axis=1))


def _mend_free_groups(
    groups: NDArray[np.object_], split: NDArray[np.object_], free: NDArray[np.bool_]
) -> NDArray[np.object_]:
    """Let images without a published split follow the images of their group that have one."""
    fixed = pd.Series(split[~free], index=groups[~free])
    for row in np.flatnonzero(free & np.isin(groups, fixed.index)):
        split[row] = fixed.loc[[groups[row]]].iloc[0]
    return split
