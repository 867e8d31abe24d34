"""The members' prediction tables brought to the same images in the same order.

N samples, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.errors import InputError
from cxr.labels import label_indices


@dataclass(frozen=True)
class AlignedLogits:
    """The members' logits on the same images in the same order.

    Attributes:
        images: the manifest's image names, N of them.
        targets: (N,) int64 positions among the labels.
        logits: per member (N, K) float64.
    """

    images: tuple[str, ...]
    targets: NDArray[np.int64]
    logits: dict[str, NDArray[np.float64]]


def align_predictions(
    tables: Mapping[str, pd.DataFrame], labels: Sequence[str], *, split: str = "val"
) -> AlignedLogits:
    """Bring the members' prediction tables to the same images in the first table's order.

    Args:
        tables: per member, columns ``image, split, label, logit_<class>...``.
        labels: class names, in the order wanted.
        split: which rows to take.

    Raises:
        InputError: no table, a missing column, an image twice, no row, other images or other labels
            than the first member's.
    """
    if not tables:
        raise InputError("no member's predictions are given: train a member first (make train)")
    columns = [f"logit_{label}" for label in labels]
    kept = {name: _rows_of(table, columns, split, name) for name, table in tables.items()}
    first_name, first = next(iter(kept.items()))
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
        logits[name] = table[columns].to_numpy(np.float64)
    targets = np.asarray(label_indices(first["label"], labels), np.int64)
    return AlignedLogits(tuple(first.index), targets, logits)


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
