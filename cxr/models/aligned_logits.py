"""The members' logits checked and brought to the same images in the same order.

N samples, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cxr.errors import InputError, command
from cxr.labels import label_indices, partly_known


@dataclass(frozen=True)
class AlignedLogits:
    """The members' logits on the same images in the same order."""

    images: tuple[str, ...]  # the manifest's names, N of them
    targets: NDArray[np.int64]  # (N,) positions among the labels
    logits: dict[str, NDArray[np.float64]]  # per member (N, K)


def align_predictions(
    tables: Mapping[str, pd.DataFrame], labels: Sequence[str], *, split: str = "val"
) -> AlignedLogits:
    """Bring the members' prediction tables to the same images in the first table's order.

    A table has the columns ``image, split, label, logit_<class>...``; the rows of ``split`` are
    taken. Images whose label is a set of classes are left out: nothing is fitted on them.

    Raises:
        InputError: no table, a missing column, an image twice, no row, other images or other labels
            than the first member's.
    """
    if not tables:
        raise InputError(
            f"no member's predictions are given: train a member first ({command('train')})"
        )
    columns = [f"logit_{label}" for label in labels]
    kept = {name: _rows_of(table, columns, split, name) for name, table in tables.items()}
    first_name, first = next(iter(kept.items()))
    known = ~partly_known(first["label"])
    logits = {}
    for name, table in kept.items():
        differing = sorted(set(first.index) ^ set(table.index))
        if not differing:
            table = table.loc[first.index]
            differing = list(first.index[first["label"] != table["label"]])
        if differing:
            raise InputError(
                f"the {split} predictions of {first_name} and {name} differ in {len(differing)} "
                f"images or their labels, such as {differing[0]}: train both on the same data"
            )
        logits[name] = table[columns].to_numpy(np.float64)[known]
    targets = np.asarray(label_indices(first["label"][known], labels), np.int64)
    return AlignedLogits(tuple(first.index[known]), targets, logits)


def _rows_of(table: pd.DataFrame, columns: list[str], split: str, name: str) -> pd.DataFrame:
    missing = [key for key in ("image", "split", "label", *columns) if key not in table]
    if missing:
        raise InputError(
            f"the predictions of {name} lack the columns {', '.join(missing)}: train it again"
        )
    rows = table[table["split"] == split].set_index("image")
    if rows.empty or rows.index.has_duplicates:
        fault = "no image" if rows.empty else f"{rows.index[rows.index.duplicated()][0]} twice"
        raise InputError(
            f"the predictions of {name} hold {fault} in {split}: each image of {split} must "
            "stand there once; train it again"
        )
    return rows


def check_logits(
    logits: ArrayLike, targets: ArrayLike, name: str, *, n_classes: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return logits (N, K) of a member as float64 and targets (N,) as int64, checked.

    Raises:
        InputError: shapes that do not fit, no row, a target out of range, or a logit that is
            not finite.
    """
    scores, classes = np.asarray(logits, np.float64), np.asarray(targets, np.int64)
    wanted = n_classes or (scores.shape[-1] if scores.ndim else 0)
    if not len(classes) or scores.shape != (len(classes), wanted):
        raise InputError(
            f"the logits of {name} have shape {scores.shape}: {len(classes)} images of {wanted} "
            "classes need one row each, and at least one image; train it again on this data"
        )
    if classes.min() < 0 or classes.max() >= wanted:
        raise InputError(
            f"targets run from {classes.min()} to {classes.max()}: 0 to {wanted - 1} are allowed"
        )
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(bad):
        raise InputError(
            f"{len(bad)} logit rows of {name} are not finite, the first is row {bad[0]}: "
            "its training diverged; train it again with a lower rate"
        )
    return scores, classes
