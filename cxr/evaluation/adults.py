"""Covid against normal among adults: whether a model tells the disease and not the age.

In ``cxr4`` every adult has covid, so a model may call any adult covid; among adults of several
hospitals it cannot get away with it. N images.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.evaluation.evaluate import columns_of
from cxr.evaluation.intervals import auroc_interval, share_interval, undefined
from cxr.evaluation.summary import summarise
from cxr.evaluation.tables import Row, show_interval
from cxr.labels import SET_MARK, label_indices
from cxr.models.ensemble import WEIGHTED

ADULT_YEARS = 18
CHILDREN = ("kermany",)
"""Sources of children aged one to five (Kermany 2018); every other source shows adults where no age
is given, as data/README.md says of each."""
PNEUMONIA = {"bacterial", "viral"}
SHARES = (
    *("normal_called_covid", "normal_found", "covid_found"),
    *("pneumonia_called_covid", "pneumonia_called_normal"),
)
"""Shares of images, the decision being between all classes."""
NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "two_class_balanced_accuracy": "of the two classes alone",
    "auroc": "AUROC",
    "normal_called_covid": "normal called covid",
    "normal_found": "normal called normal",
    "covid_found": "covid called covid",
    "pneumonia_called_covid": "other pneumonia called covid",
    "pneumonia_called_normal": "called normal",
}
"""Each figure and its head in tables."""


def are_adults(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which images show adults, (N,): by age in years where it is known, else by source.

    An image with neither is not counted as an adult.
    """
    given = table.get("age", pd.Series("", index=table.index))
    age = pd.to_numeric(given, errors="coerce").to_numpy(np.float64)
    source = table["source"].to_numpy(object)
    by_source = (source != "") & ~np.isin(source, CHILDREN)
    return np.where(np.isnan(age), by_source, age >= ADULT_YEARS)


def adult_covid(
    predictions: pd.DataFrame, table: pd.DataFrame, *, model: str = WEIGHTED
) -> dict[str, Any]:
    """Measure how a model tells covid from normal among adults.

    Args:
        predictions: of ``build_predictions``; ``image, label, group, prob_<model>_<class>``.
        table: the prepared set's, with ``image``, ``source``, ``age``; holds every image predicted.
        model: a member, "equal" or "ensemble".

    Returns:
        ``normal``, ``covid``, ``pneumonia``: adult images. As ``value, low, high`` by patient, NaN
        where a class lacks images: ``balanced_accuracy``, the mean of ``normal_found`` and
        ``covid_found`` with all classes in the running; ``two_class_balanced_accuracy``, with these
        two alone; ``auroc`` of p(covid) / (p(covid) + p(normal)), which needs no threshold;
        ``SHARES``. Pneumonia is bacterial, viral or one of both.
    """
    rows = table.set_index("image").loc[predictions["image"]].reset_index()
    adults = predictions[are_adults(rows)]
    head = f"prob_{model}_"
    columns = map(str, predictions.columns)
    labels = [name.removeprefix(head) for name in columns if name.startswith(head)]
    named = np.asarray(labels)[columns_of(adults, "prob", model, labels).argmax(axis=1)]
    truth, groups = adults["label"].to_numpy(object), adults["group"].to_numpy(str)
    ill = np.array([set(label.split(SET_MARK)) <= PNEUMONIA for label in truth], np.bool_)
    normal, covid = truth == "normal", truth == "covid"
    whose = (normal, normal, covid, ill, ill)
    calls = ("covid", "normal", "covid", "covid", "normal")
    found: dict[str, Any] = {
        "normal": int(normal.sum()),
        "covid": int(covid.sum()),
        "pneumonia": int(ill.sum()),
    }
    for key, of, call in zip(SHARES, whose, calls, strict=True):
        found[key] = share_interval(named[of] == call, groups[of])
    return found | _two_classes(adults[normal | covid], labels, model)


def _two_classes(both: pd.DataFrame, labels: list[str], model: str) -> dict[str, Any]:
    """Return what needs images of both classes; undefined where one has none."""
    if set(both["label"]) != {"normal", "covid"}:
        return dict.fromkeys(
            ("balanced_accuracy", "two_class_balanced_accuracy", "auroc"), undefined()
        )
    probs, groups = columns_of(both, "prob", model, labels), both["group"].to_numpy(str)
    pair = probs[:, [labels.index("normal"), labels.index("covid")]]
    pair = pair / np.maximum(pair.sum(axis=1, keepdims=True), 1e-300)
    ill = (both["label"] == "covid").to_numpy(bool)
    key = "balanced_accuracy"
    return {
        key: summarise(label_indices(both["label"], labels), probs, groups, labels)[key],
        f"two_class_{key}": summarise(ill.astype(int), pair, groups, ("normal", "covid"))[key],
        "auroc": auroc_interval(ill, pair[:, 1], groups),
    }


def one_class_note(folds: Mapping[str, Mapping[str, Any]]) -> str:
    """Say that pooled figures are biased where no fold has adults of both classes, else "".

    Each fold then takes from training the class that it is tested on, so that a model that knows
    class shares alone ranks every covid image below every normal one: AUROC 0, not 0.5. ``folds``
    has the name of what was left out and what ``adult_covid`` gave.

    Source: Airola et al. 2011, Comput Stat Data Anal 55:1828-1844 (pooling in leave-one-out).
    """
    tested = [found for found in folds.values() if found["normal"] or found["covid"]]
    if len(tested) < 2 or any(found["normal"] and found["covid"] for found in tested):
        return ""
    return (
        "Every source left out shows adults of one class alone, so training lacks what it is "
        "tested on, and the pooled AUROC and balanced accuracy of adults are biased downwards "
        "(class shares alone have AUROC 0): leave pairs out together, as in sources=[nih+bimcv]"
    )


def measure_adults(
    predictions: pd.DataFrame, table: pd.DataFrame, *, synthetic: bool
) -> dict[str, dict[str, Any]]:
    """Return ``adults``, the ensemble's figures, where the images show real normal adults."""
    found = adult_covid(predictions, table)
    return {"adults": {WEIGHTED: found}} if found["normal"] and not synthetic else {}


def adult_rows(found: Mapping[str, Mapping[str, Any]], head: str) -> list[Row]:
    """Return rows of a table of names, under a head, and what ``adult_covid`` gave for each."""
    return [
        {head: name, "normal": str(values["normal"]), "covid": str(values["covid"])}
        | {text: show_interval(values[key]) for key, text in NAMES.items()}
        for name, values in found.items()
    ]
