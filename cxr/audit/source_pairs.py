"""Sources inside one class: told apart by the features, and left out of the learning.

N images, F features, K classes, R rows whose features are known.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.audit.context import Rows
from cxr.audit.limits import TOO_FEW, auroc_limit, shortage
from cxr.audit.linear import fit_linear, out_of_fold
from cxr.audit.result import Verdict, judge, worst
from cxr.evaluation.intervals import auroc_interval, cluster_interval, share_interval
from cxr.evaluation.tables import Cell, Table, show_interval
from cxr.labels import list_words

INSIDE_SUSPICIOUS = 0.80
"""Lower end of the AUROC with which features tell the sources inside a class. Hospitals do
differ in their patients, so this alone is never called a shortcut."""
LOSS_SUSPICIOUS = 0.10
"""Sensitivity lost on a source that the linear model has not seen, lower end."""

Part = tuple[list[Table], list[Verdict], list[str], list[str]]
"""Tables, verdicts, sentences, reasons for what was skipped."""


def sources_of(label: str, labels: NDArray[np.str_], sources: NDArray[np.str_]) -> list[str]:
    """Return the named sources of a class."""
    return sorted(set(sources[labels == label].tolist()) - {""})


def _pairs(names: Sequence[str]) -> int:
    # With two sources both have the same AUROC.
    return 1 if len(names) == 2 else len(names)


def comparisons(labels: NDArray[np.str_], sources: NDArray[np.str_]) -> int:
    """Count, for one network, the sources told apart and left out in classes with several."""
    several = [sources_of(label, labels, sources) for label in np.unique(labels).tolist()]
    return sum(_pairs(names) + len(names) for names in several if len(names) > 1)


def tell_apart(
    table: pd.DataFrame,
    label: str,
    labels: Sequence[str],
    features: Mapping[str, NDArray[np.float32]],
    rows: Rows,
    seed: int,
    confidence: float,
) -> Part:
    """Tell the sources inside a class apart by a linear model on frozen features."""
    part = table.iloc[rows]
    here = np.flatnonzero((part["label"] == label).to_numpy() & (part["source"] != "").to_numpy())
    names, targets, counts = np.unique(
        part["source"].to_numpy(str)[here], return_inverse=True, return_counts=True
    )
    if len(names) < 2:
        whole = sources_of(label, table["label"].to_numpy(str), table["source"].to_numpy(str))
        named = whole[0] if whole else "no named source"
        return [], [], [], [f"{label} has one source ({named}), so none to tell apart"]
    shown = [f"{name} {count}" for name, count in zip(names.tolist(), counts, strict=True)]
    groups = part["group"].to_numpy(str)[here]
    if counts.min() < TOO_FEW or any(shortage(targets == k, groups) for k in range(len(names))):
        return (
            [],
            [],
            [],
            [f"too few {label} images to tell its sources apart ({', '.join(shown)})"],
        )
    cells: list[tuple[Cell, ...]] = []
    verdicts, told = [], []
    for member, values in features.items():
        probs = out_of_fold(values[here], targets, groups, n_classes=len(names), seed=seed)
        for k in range(_pairs(names.tolist())):
            parts = (targets == k, probs[:, k], groups)
            auroc, low = auroc_interval(*parts), auroc_limit(*parts, confidence=confidence)
            against = names[1] if len(names) == 2 else "the rest"
            cells.append((member, f"{names[k]} against {against}", show_interval(auroc)))
            verdicts.append(judge(low, suspicious=INSIDE_SUSPICIOUS, shortcut=np.inf))
            told.append(f"{show_interval(auroc, digits=2)} ({member})")
    title = f"Sources inside {label} by frozen features ({', '.join(shown)} images), out of fold"
    sentence = (
        f"Inside {label}, where the diagnosis is the same, the network's features tell "
        f"{list_words(names.tolist())} apart with AUROC {list_words(told)}: "
        + ("they carry the hospital." if worst(verdicts) != "clear" else "little of the hospital.")
    )
    return (
        [Table(title, ("features of", "told apart", "AUROC"), tuple(cells))],
        verdicts,
        [sentence],
        [],
    )


def leave_out(
    table: pd.DataFrame,
    label: str,
    labels: Sequence[str],
    features: Mapping[str, NDArray[np.float32]],
    rows: Rows,
    seed: int,
    confidence: float,
) -> Part:
    """Fit a linear head without one source of a class and look whether it is still recognised."""
    part = table.iloc[rows]
    label_of, source_of = part["label"].to_numpy(str), part["source"].to_numpy(str)
    # What the networks have not trained on.
    groups, unseen = part["group"].to_numpy(str), (part["split"] != "train").to_numpy()
    names = sources_of(label, label_of, source_of)
    targets = np.array([list(labels).index(name) for name in label_of])
    own = list(labels).index(label)
    cells: list[tuple[Cell, ...]] = []
    verdicts: list[Verdict] = []
    told, reasons = [], []
    for source in names if len(names) > 1 else []:
        of_source = (label_of == label) & (source_of == source)
        held = np.flatnonzero(of_source & unseen)
        others = (label_of == label) & ~of_source & ~unseen
        thin = shortage(of_source & unseen, groups) or shortage(others, groups)
        if len(held) < TOO_FEW or others.sum() < TOO_FEW or thin:
            reasons.append(
                f"too few images to say whether {label} of {source} is recognised unseen "
                f"({len(held)} outside train, {int(others.sum())} of other sources to learn from)"
            )
            continue
        for member, values in features.items():
            hits = {}
            for kind, left_out in (("with", np.zeros(len(rows), bool)), ("without", of_source)):
                fit = ~unseen & ~left_out
                model = fit_linear(
                    values[fit], targets[fit], groups[fit], n_classes=len(labels), seed=seed
                )
                hits[kind] = model.probs(values[held]).argmax(axis=1) == own
            both = {kind: share_interval(right, groups[held]) for kind, right in hits.items()}
            lost = hits["with"].astype(float) - hits["without"]
            parts = (float(lost.mean()), (lost - lost.mean()) / len(lost), groups[held])
            loss = cluster_interval(*parts)
            any_lost = cluster_interval(*parts, confidence=confidence)["low"] > 0
            low = loss["low"] if any_lost else min(loss["low"], 0.0)
            verdicts.append(judge(low, suspicious=LOSS_SUSPICIOUS, shortcut=np.inf))
            cells.append(
                (
                    source,
                    member,
                    len(held),
                    int(hits["with"].sum()),
                    show_interval(both["with"]),
                    int(hits["without"].sum()),
                    show_interval(both["without"]),
                    show_interval(loss),
                )
            )
            told.append(
                f"{source} {int(hits['without'].sum())} of {len(held)} instead of "
                f"{int(hits['with'].sum())} ({member})"
            )
    if not cells:
        return [], verdicts, [], reasons
    heads = (
        "source left out",
        "features of",
        "images outside train",
        "right with it",
        "sensitivity with it",
        "right without it",
        "sensitivity without it",
        "loss",
    )
    title = f"{label}: a linear model on frozen features that has not seen one source"
    sentence = (
        f"Learned again without one source, {label} images from there are recognised: "
        f"{list_words(told)}. (The features themselves were trained with all sources, so a network "
        "that has really never seen the hospital may lose more.)"
    )
    return [Table(title, heads, tuple(cells))], verdicts, [sentence], reasons
