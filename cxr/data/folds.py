"""Other splits of images that are prepared: the folds of a cross-validation.

N images. The pixels are shared, only the column ``split`` differs.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.data.prepared import Prepared
from cxr.data.splits import assign_groups
from cxr.errors import InputError
from cxr.files import digest
from cxr.labels import partly_known


def check_folds(folds: int) -> None:
    """Check the number of folds.

    Raises:
        InputError: fewer than two.
    """
    if folds < 2:
        raise InputError(f"folds is {folds}: at least 2 are needed; give FOLDS=5")


def deal_folds(table: pd.DataFrame, *, folds: int, seed: int) -> NDArray[np.int64]:
    """Deal images to folds of like size, stratified by label and disjoint by group.

    Args:
        table: N rows with columns ``label`` and ``group``.
        folds: how many, 2 or more.
        seed: of the order in which groups are dealt.

    Returns:
        (N,) fold of each image, counted from 1.

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
) -> NDArray[np.object_]:
    """Make one fold the test split and take validation from the others by group.

    Args:
        table: N rows with columns ``label`` and ``group``.
        dealt: (N,) of ``deal_folds``.
        fold: which.
        val_share: of validation in what is not test, between 0 and 1.
        seed: of the order in which groups are dealt to train and val.

    Returns:
        (N,) of ``train``, ``val`` and ``test``.

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


def with_split(prepared: Prepared, split: NDArray[np.object_]) -> Prepared:
    """Return the same images under another split, with a fingerprint of its own.

    Args:
        prepared: N images; nothing of it is written or copied.
        split: (N,) what the column ``split`` is to hold.
    """
    table = prepared.table.assign(split=split)
    key = digest(prepared.info["fingerprint"], *(table["image"] + " " + table["split"]))
    return replace(prepared, table=table, info=prepared.info | {"fingerprint": key})
