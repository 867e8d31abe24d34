"""Choose images to explain from a predictions table: by class, right or wrong, confidence."""

import logging
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.errors import InputError
from cxr.labels import in_label
from cxr.models.ensemble import WEIGHTED

logger = logging.getLogger(__name__)

Order = Literal["random", "most_confident", "least_confident"]
FORMER = {"most_certain": "most_confident", "least_certain": "least_confident"}
"""Former names of orders, which are read for one version."""


def confidence(predictions: pd.DataFrame) -> NDArray[np.float64]:
    """Return the ensemble's probability (N,) of the class that it predicts."""
    columns = [f"prob_{WEIGHTED}_{label}" for label in predictions["prediction"]]
    positions = predictions.columns.get_indexer(pd.Index(columns))
    values = predictions.to_numpy(dtype=object)
    return np.asarray(values[np.arange(len(predictions)), positions], np.float64)


def select_images(
    predictions: pd.DataFrame,
    *,
    label: str | None = None,
    right: bool | None = None,
    order: Order = "random",
    count: int = 2,
    rng: np.random.Generator | None = None,
) -> NDArray[np.int64]:
    """Choose at most ``count`` images of evaluation's predictions table, possibly none.

    They have the true class ``label`` and are ``right`` or wrong by the ensemble, where either is
    given. A random order, drawn by ``rng``, shows what is usual, the other two what is extreme.

    Returns:
        Positions in the table.

    Raises:
        InputError: a class that no image has, an unknown order, or a random one without rng.
    """
    if order in FORMER:
        logger.warning("order=%r is now called %r", order, FORMER[order])
    name = FORMER.get(order, order)
    labels = list(dict.fromkeys(predictions["label"]))
    if label is not None and label not in labels:
        raise InputError(f"label is {label!r}: the images have {', '.join(labels)}")
    if name not in get_args(Order):
        raise InputError(f"order is {order!r}: allowed are {', '.join(get_args(Order))}")
    chosen = np.ones(len(predictions), np.bool_)
    if label is not None:
        chosen &= (predictions["label"] == label).to_numpy(bool)
    if right is not None:
        chosen &= in_label(predictions["prediction"], predictions["label"]) == right
    rows = np.flatnonzero(chosen)
    if name == "random":
        if rng is None:
            raise InputError("order is 'random' and no generator is given: pass rng=")
        return np.asarray(rng.permutation(rows)[:count], np.int64)
    sign = -1 if name == "most_confident" else 1
    return rows[np.argsort(sign * confidence(predictions)[rows], kind="stable")][:count]
