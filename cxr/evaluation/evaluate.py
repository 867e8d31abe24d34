"""The test split opened: predictions to tables of metrics with intervals.

Everything is computed from the predictions table; no model runs here. N samples, K classes.
"""

import logging
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cxr.errors import InputError, MissingInputError, command
from cxr.evaluation.intervals import CONFIDENCE, paired_difference, share_interval
from cxr.evaluation.metrics import MIN_PROB, OVERALL, Floats, confusion_matrix, score
from cxr.evaluation.summary import METHOD, compare, count_images, summarise
from cxr.labels import check_labels, label_indices, label_memberships, partly_known
from cxr.models.ensemble import EQUAL, WEIGHTED, Ensemble, all_probs
from cxr.plotting import RESEARCH_USE

TEXT_COLUMNS = ("image", "split", "label", "patient_id", "group", "source")
"""What the predictions table takes over from the prepared table."""

logger = logging.getLogger(__name__)


def build_predictions(
    rows: pd.DataFrame, logits_by_member: Mapping[str, ArrayLike], ensemble: Ensemble
) -> pd.DataFrame:
    """Put together the evaluation's predictions table.

    Args:
        rows: N rows of the prepared table.
        logits_by_member: per member (N, K), in the order of the rows.
        ensemble: what pools them.

    Returns:
        ``TEXT_COLUMNS``, ``logit_<member>_<class>``, then ``prob_<name>_<class>`` of the
        members (after temperature), "equal" and "ensemble", then ``prediction``.

    Raises:
        InputError: a missing column, or logits of other members, rows or classes.
    """
    _require_columns(rows, TEXT_COLUMNS)
    shape = (len(rows), len(ensemble.labels))
    for name, logits in logits_by_member.items():
        if np.shape(logits) != shape:
            raise InputError(
                f"the logits of {name} have shape {np.shape(logits)}, {shape} is needed: "
                "evaluate the members on the same rows"
            )
    probs = all_probs(logits_by_member, ensemble)
    values = {f"logit_{name}": np.asarray(logits_by_member[name]) for name in ensemble.members}
    values |= {f"prob_{name}": table for name, table in probs.items()}
    table = {name: rows[name].to_numpy() for name in TEXT_COLUMNS}
    for name, columns in values.items():
        table |= {f"{name}_{label}": columns[:, k] for k, label in enumerate(ensemble.labels)}
    table["prediction"] = np.asarray(ensemble.labels)[probs[WEIGHTED].argmax(axis=1)]
    return pd.DataFrame(table)


def read_predictions(
    path: Path,
    labels: Sequence[str] = (),
    *,
    hint: str = f"evaluate the run first ({command('evaluate')})",
) -> pd.DataFrame:
    """Read a predictions table, an evaluation's or a member's own.

    Args:
        path: CSV.
        labels: classes whose ``logit_<class>`` it must hold, as a member's own does.
        hint: what makes it.

    Returns:
        As written: names are text, also "" and "NA", and numbers keep every bit.

    Raises:
        MissingInputError: it is not there.
        InputError: a column is missing.
    """
    if not path.is_file():
        raise MissingInputError(f"{path} is missing: {hint}")
    text = dict.fromkeys((*TEXT_COLUMNS, "prediction"), str)
    table = pd.read_csv(path, dtype=text, keep_default_na=False)
    for name in ("image", "split", "label", *(f"logit_{label}" for label in labels)):
        if name not in table:
            raise InputError(f"{path} lacks the column {name}: {hint}")
    return table


def columns_of(table: pd.DataFrame, kind: str, model: str, labels: Sequence[str]) -> Floats:
    """Return the (N, K) ``prob`` or ``logit`` columns of a model in a predictions table."""
    return table[[f"{kind}_{model}_{label}" for label in labels]].to_numpy(np.float64)


def score_validation(
    logits: Mapping[str, ArrayLike], targets: NDArray[np.int64], ensemble: Ensemble
) -> dict[str, dict[str, float]]:
    """Score members and averages on validation, for the table that ends training.

    The ensemble is fitted on the same rows, so its own figures flatter it a little.

    Returns:
        Per member, "equal" and "ensemble": the point values of every overall metric.
    """
    scores = {name: score(targets, probs) for name, probs in all_probs(logits, ensemble).items()}
    return {name: {key: float(own[key]) for key in OVERALL} for name, own in scores.items()}


def best_member(validation: Mapping[str, Mapping[str, float]], members: Sequence[str]) -> str:
    """Return the member with the best validation balanced accuracy, of equals the lower NLL."""
    return max(
        members, key=lambda name: (validation[name]["balanced_accuracy"], -validation[name]["nll"])
    )


def evaluate(
    predictions: pd.DataFrame,
    *,
    labels: Sequence[str],
    members: Sequence[str],
    best_member: str,
    seed: int = 0,
    note: str = "",
    classes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Compute the content of metrics.json.

    Args:
        predictions: the table of ``build_predictions``.
        labels: in the columns' order.
        members: of the ensemble.
        best_member: what is set against the ensemble; chosen on validation, never here.
        seed: of the paired test's permutations.
        note: what the images are, such as "synthetic phantom"; stands in the result.
        classes: take only images of these classes, drop the other classes' probabilities and
            renormalise the rest. ``as_they_are`` then holds what the images score with every
            class still in the running.

    Returns:
        ``note, labels, members, best_member``; see ``count_images``; ``models``, which for each
        member, "equal" and "ensemble" holds what ``summarise`` gives, and ``confusion``;
        ``ensemble_minus``, the best member and "equal", see ``compare``;
        ``undefined``, the metrics that are NaN and whose. An image whose label is a set of classes
        is right where the class named is in it, which counts in ``accuracy`` alone: all else leaves
        it out, and ``partly_known`` says how many there are, and the share that is right by model.

    Raises:
        InputError: a missing column, an unknown label or class, a member that is not there,
            or no image left.
    """
    names = (*members, EQUAL, WEIGHTED)
    if best_member not in members:
        raise InputError(f"best_member is {best_member!r}: allowed are {', '.join(members)}")
    columns = (f"prob_{name}_{label}" for name in names for label in labels)
    _require_columns(predictions, ("label", "group", *columns))
    everything = _restrict(predictions, labels, classes)
    kept = fully_known(everything)
    if kept.empty:
        raise InputError(
            f"all {len(everything)} images have a label set, such as {everything['label'].iloc[0]}:"
            " nothing to evaluate without an image whose class is known"
        )
    full = probs = {name: _probs_of(kept, name, labels) for name in names}
    shown = check_labels(classes or labels)
    if classes is not None:
        probs = {name: _renormalise(full[name], labels, shown) for name in names}
    y_true = np.asarray(label_indices(kept["label"], shown), np.int64)
    groups = kept["group"].to_numpy(str)
    models = {name: summarise(y_true, values, groups, shown) for name, values in probs.items()}
    result = {
        "note": note,
        "use": RESEARCH_USE,
        "labels": list(shown),
        "members": list(members),
        "best_member": best_member,
        **count_images(y_true, groups, shown),
        "interval": {"level": CONFIDENCE, "method": METHOD},
        "models": {
            name: scores | {"confusion": confusion_matrix(y_true, probs[name]).tolist()}
            for name, scores in models.items()
        },
        "ensemble_minus": {
            name: compare(
                *(y_true, probs[WEIGHTED], probs[name], groups), rng=np.random.default_rng(seed)
            )
            for name in (best_member, EQUAL)
        },
        "undefined": _undefined(models),
    }
    if len(kept) < len(everything):
        _count_sets(result, everything, names, seed)
    if classes is not None:
        result["as_they_are"] = {}
        for name, values in full.items():
            scores = summarise(label_indices(kept["label"], labels), values, groups, labels)
            result["as_they_are"][name] = {
                "accuracy": scores["accuracy"],
                "balanced_accuracy": scores["balanced_accuracy"],
                "sensitivity": {k: scores["per_class"][k]["sensitivity"] for k in shown},
            }
    return result


def fully_known(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose label is one class, not a set of several."""
    partly = partly_known(predictions["label"])
    return predictions[~partly] if partly.any() else predictions


def _count_sets(
    result: dict[str, Any], predictions: pd.DataFrame, names: Sequence[str], seed: int
) -> None:
    """Let label sets count in the accuracies of a result, and say how many there are."""
    labels = list(result["labels"])
    members = label_memberships(predictions["label"].tolist(), labels)
    groups, partly = predictions["group"].to_numpy(str), members.sum(axis=1) > 1
    right = {}
    for name in names:
        named = _probs_of(predictions, name, labels).argmax(axis=1)
        right[name] = members[np.arange(len(members)), named]
        result["models"][name]["accuracy"] = share_interval(right[name], groups)
    for name, found in result["ensemble_minus"].items():
        rng = np.random.default_rng(seed)
        one, two = right[WEIGHTED], right[name]
        found["accuracy"] = paired_difference(one, two, groups, rng=rng)
        found["only_first"], found["only_second"] = int((one & ~two).sum()), int((two & ~one).sum())
    result["partly_known"] = {
        "images": int(partly.sum()),
        "groups": len(np.unique(groups[partly])),
        "labels": predictions["label"][partly].value_counts().to_dict(),
        "right": {
            name: share_interval(hits[partly], groups[partly]) for name, hits in right.items()
        },
    }


def _require_columns(table: pd.DataFrame, columns: Sequence[str]) -> None:
    if missing := [name for name in columns if name not in table]:
        raise InputError(
            f"the table lacks the columns {', '.join(missing)}: evaluate the run again "
            f"({command('evaluate')})"
        )


def _restrict(
    predictions: pd.DataFrame, labels: Sequence[str], classes: Sequence[str] | None
) -> pd.DataFrame:
    if unknown := [name for name in classes or () if name not in labels]:
        raise InputError(f"classes name {', '.join(unknown)}: the run knows {', '.join(labels)}")
    kept = predictions
    if classes is not None:
        kept = predictions[predictions["label"].isin(list(classes))]
    if kept.empty:
        raise InputError(
            f"the test split has no image of {', '.join(classes or labels)}: nothing to "
            "evaluate; prepare the data with a larger test share"
        )
    return kept


def _probs_of(table: pd.DataFrame, name: str, labels: Sequence[str]) -> Floats:
    probs = columns_of(table, "prob", name, labels)
    if not np.allclose(probs.sum(axis=1), 1, atol=1e-6):
        raise InputError(
            f"the probabilities of {name} do not sum to 1 in every row: the predictions table "
            f"is damaged; evaluate the run again ({command('evaluate')})"
        )
    return probs


def _renormalise(probs: Floats, labels: Sequence[str], classes: Sequence[str]) -> Floats:
    part = np.maximum(probs[:, [list(labels).index(name) for name in classes]], MIN_PROB)
    return np.asarray(part / part.sum(axis=1, keepdims=True))


def _undefined(models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Name the values that are NaN, and say so once."""
    values: dict[str, Mapping[str, float]] = {}
    for model, scores in models.items():
        values |= {f"{metric} of {model}": scores[metric] for metric in OVERALL}
        for label, own in scores["per_class"].items():
            values |= {f"{metric} of {model} for {label}": own[metric] for metric in own}
    found = [name for name, interval in values.items() if isnan(interval["value"])]
    if found:
        logger.warning(
            "%d metrics are undefined (NaN), since a class is absent or never predicted, such "
            "as %s; all are listed under undefined",
            len(found),
            found[0],
        )
    return found
