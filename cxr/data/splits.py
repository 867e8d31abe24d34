"""Splits that are disjoint by group, and the folds of a cross-validation.

N images. A group is what must stay together: one patient, and every copy of an image. Every
function takes a table of N rows with the columns ``label`` and ``group``.
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

SplitKind = Literal["patient", "published", "whole", "source"]
SPLITS = ("train", "val", "test")
Split = NDArray[np.object_]
"""(N,) of ``SPLITS``."""


def check_fractions(fractions: Sequence[float]) -> None:
    """Refuse shares that are not three, of which one is below 0, or that leave train none."""
    if len(fractions) != len(SPLITS):
        raise InputError(
            f"data.fractions is {list(fractions)}: three shares are needed, of train, val and test"
        )
    if abs(sum(fractions) - 1) > 1e-6 or min(fractions) < 0 or not fractions[0]:
        raise InputError(
            f"data.fractions is {list(fractions)}: shares of train, val and test must be at "
            "least 0 and sum to 1, and train needs one"
        )


def split_images(
    table: pd.DataFrame,
    kind: SplitKind,
    *,
    fractions: Sequence[float],
    seed: int,
    leave_out: Sequence[str] = (),
) -> Split:
    """Split images into train, val and test, stratified by label and disjoint by group.

    patient: see ``assign_groups``. published: the source's own test split stays, validation comes
    from its train part by group, and what has no published split is split as by patient.
    source: images of the sources ``leave_out`` are test, the others are split by group; one of
    another source whose group lies in test too is in no split (""). whole: all are test.

    Raises:
        InputError: a label with fewer groups than there are splits to fill, no published test
            image, a source that no image has, or a class that only the sources left out have.
    """
    random, split = np.random.default_rng(seed), np.full(len(table), "test", dtype=object)
    if kind == "whole":
        return split
    if kind == "source":
        split[~in_sources(table, leave_out)] = ""
        rest, free = _outside(table, leave_out), np.zeros(len(table), np.bool_)
    else:
        published = table["published_split"] if kind == "published" else pd.Series("", table.index)
        if kind == "published" and not (published == "test").any():
            raise InputError(
                "data.split=published, but no image is marked published_split=test: "
                "use data.split=patient or fill the column"
            )
        free = (published == "").to_numpy(bool)
        rest = published.isin(["train", "val"]).to_numpy(bool)
    if free.any():
        shares = {name: share for name, share in zip(SPLITS, fractions, strict=True) if share > 0}
        split[free] = assign_groups(table[free], shares, random)
        random = np.random.default_rng(seed)
    if rest.any():
        whole = fractions[0] + fractions[1]
        shares = {"train": fractions[0] / whole, "val": fractions[1] / whole}
        wanted = {name: share for name, share in shares.items() if share > 0}
        split[rest] = assign_groups(table[rest], wanted, random)
    # Images without a published split follow those of their group that have one.
    fixed = pd.Series(split[~free], index=table["group"][~free])
    fixed = fixed[~fixed.index.duplicated()]
    follow = free & table["group"].isin(fixed.index).to_numpy(bool)
    split[follow] = fixed.loc[table["group"][follow]]
    return split


def _outside(table: pd.DataFrame, leave_out: Sequence[str]) -> NDArray[np.bool_]:
    """Return which images share no group with the sources left out; refuse what cannot be."""
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
    return ~table["group"].isin(table["group"][in_sources(table, leave_out)]).to_numpy(bool)


def in_sources(table: pd.DataFrame, sources: Sequence[str]) -> NDArray[np.bool_]:
    """Return which images are of one of the sources, (N,)."""
    return np.asarray(table["source"].isin(list(sources)).to_numpy(bool))


def lost_classes(table: pd.DataFrame, leave_out: Sequence[str]) -> list[str]:
    """Return the classes of which only these sources have an image with a known class."""
    plain = table[~partly_known(table["label"])]
    left = set(plain["label"][~in_sources(plain, leave_out)])
    return [label for label in dict.fromkeys(plain["label"]) if label not in left]


def check_folds(folds: int) -> None:
    """Refuse fewer than two folds."""
    if folds < 2:
        raise InputError(f"folds is {folds}: at least 2 are needed; give FOLDS=5")


def deal_folds(table: pd.DataFrame, *, folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of each image, (N,) from 1: of like size, stratified, disjoint by group.

    Raises:
        InputError: fewer than two folds, or a label with too few groups for each fold to have
            one and for the others to have two, for train and validation.
    """
    check_folds(folds)
    counts = table[~partly_known(table["label"])].groupby("label")["group"].nunique()
    label, groups = str(counts.idxmin()), int(counts.min())
    # Two folds leave half of a label's groups for train and validation.
    if groups < max(folds, 4 if folds == 2 else 3):
        most = f"at most FOLDS={groups} here" if groups > 3 else "that is too few for any folds"
        raise InputError(
            f"class {label!r} has {groups} group(s) of patients, too few for {folds} folds that "
            f"each need one beside one for train and one for val: {most}; or add patients"
        )
    wanted = {str(fold): 1 / folds for fold in range(1, folds + 1)}
    return assign_groups(table, wanted, np.random.default_rng(seed)).astype(np.int64)


def fold_split(
    table: pd.DataFrame, dealt: NDArray[np.int64], fold: int, *, val_share: float, seed: int
) -> Split:
    """Make one fold of ``deal_folds`` the test split, and take validation's share of the rest.

    Raises:
        InputError: no share for validation, or a label with fewer than two groups outside.
    """
    if not 0 < val_share < 1:
        raise InputError(
            f"data.fractions gives validation {val_share:g} of what is not test: each fold needs "
            "a share above 0 and below 1, such as data.fractions=[0.7,0.1,0.2]"
        )
    split = np.full(len(table), "test", dtype=object)
    rest = dealt != fold
    shares = {"train": 1 - val_share, "val": val_share}
    split[rest] = assign_groups(table[rest], shares, np.random.default_rng([seed, fold]))
    return split


def crossing_groups(table: pd.DataFrame) -> pd.DataFrame:
    """Return the groups with images in several splits, and how many in each of ``SPLITS``."""
    counts = pd.crosstab(table["group"], table["split"]).reindex(columns=list(SPLITS), fill_value=0)
    return counts[(counts > 0).sum(axis=1) > 1]


def check_disjoint(table: pd.DataFrame, *, forced: bool) -> dict[str, Any]:
    """Prove that no group crosses a split, or count what a published split forces.

    ``forced`` says that the test split is the source's own, so a group may lie in it and elsewhere;
    between train and validation none may even then. Returns plain values for ``prepared.json``.

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

    Dealing the largest first would balance the labels better still, but leave validation with small
    groups alone: easier or harder patients than those of the test split. ``wanted`` is the name of
    each part to its share.

    Returns:
        (N,) names of parts; each part has a group of every class, of label sets where it falls so.

    Raises:
        InputError: a label with fewer groups than there are parts, or no deal gives each part
            a group of every label.
    """
    sizes = pd.crosstab(table["group"], table["label"])
    known = ~partly_known(sizes.columns)
    for label, groups in (sizes.loc[:, known] > 0).sum().items():
        if groups < len(wanted):
            raise InputError(
                f"class {label!r} has {groups} group(s) of patients, but {', '.join(wanted)} need "
                "one each: add patients or set a share in data.fractions to 0"
            )
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


def _fill_gaps(
    chosen: NDArray[np.int64], counts: NDArray[np.float64], names: Sequence[str]
) -> NDArray[np.int64]:
    """Give each part a group of every label by moving as few images as can be.

    ``chosen`` (G,) is the part of each group, ``counts`` (G, K) its images of each label. An
    integer programme, solved exactly (SciPy's HiGHS): group g lies in part s where x_gs is 1;
    each group in one part, at least one group of each label in each.
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
