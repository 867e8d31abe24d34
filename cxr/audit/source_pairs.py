"""Sources inside one class: told apart by the features, and left out of the learning.

N images, F features, K classes, R rows whose features are known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cxr.audit.context import AuditContext, Masks, Names, Rows
from cxr.audit.limits import TOO_FEW, Scored, firm_limit, shortage
from cxr.audit.linear import fit_linear, out_of_fold
from cxr.audit.result import AuditTable, Cell, Column, Verdict, judge, worst
from cxr.evaluation.intervals import mean_interval, share_interval
from cxr.evaluation.tables import show_interval
from cxr.labels import list_words

INSIDE_SUSPICIOUS = 0.80
"""Lower end of the AUROC with which features tell the sources inside a class. Hospitals do
differ in their patients, so this alone is never called a shortcut."""
LOSS_SUSPICIOUS = 0.10
"""Sensitivity lost on a source that the linear model has not seen, lower end."""
LEFT_OUT = (
    *(Column("source", "source left out"), Column("member", "features of")),
    Column("images", "images outside train", "count"),
    Column("right_with", "right with it", "count"),
    Column("sensitivity_with", "sensitivity with it", "interval"),
    Column("right_without", "right without it", "count"),
    Column("sensitivity_without", "sensitivity without it", "interval"),
    Column("loss", kind="interval"),
)


@dataclass(frozen=True)
class Sources:
    """What the sources inside a class are looked for in: per member (R, F) features of the rows.

    ``confidence`` is that of all comparisons together.
    """

    context: AuditContext
    features: Mapping[str, NDArray[np.float32]]
    rows: Rows
    confidence: float

    def column(self, name: str) -> Names:
        """Return a column of the table at the rows, (R,)."""
        return np.asarray(self.context.column(name)[self.rows])


@dataclass(frozen=True)
class Part:
    """A part of the test's result; see ``AuditResult``."""

    tables: list[AuditTable] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def __add__(self, other: "Part") -> "Part":
        mine, theirs = vars(self), vars(other)
        return Part(**{name: mine[name] + theirs[name] for name in mine})


def sources_of(label: str, labels: Names, sources: Names) -> list[str]:
    """Return the named sources of a class."""
    return sorted(set(sources[labels == label].tolist()) - {""})


def _pairs(names: Sequence[str]) -> int:
    # With two sources both have the same AUROC.
    return 1 if len(names) == 2 else len(names)


def comparisons(labels: Names, sources: Names) -> int:
    """Count, for one network, the sources told apart and left out in classes with several."""
    several = [sources_of(label, labels, sources) for label in np.unique(labels).tolist()]
    return sum(_pairs(names) + len(names) for names in several if len(names) > 1)


def tell_apart(query: Sources, label: str) -> Part:
    """Tell the sources inside a class apart by a linear model on frozen features."""
    labels, sources = query.column("label"), query.column("source")
    here = np.flatnonzero((labels == label) & (sources != ""))
    names, targets, counts = np.unique(sources[here], return_inverse=True, return_counts=True)
    if len(names) < 2:
        column = query.context.column
        whole = sources_of(label, column("label"), column("source")) or ["no named source"]
        return Part(reasons=[f"{label} has one source ({whole[0]}), so none to tell apart"])
    shown = ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True))
    groups = query.column("group")[here]
    if counts.min() < TOO_FEW or any(shortage(targets == k, groups) for k in range(len(names))):
        return Part(reasons=[f"too few {label} images to tell its sources apart ({shown})"])
    rows: list[tuple[Cell, ...]] = []
    verdicts, telling, seed = [], [], query.context.seed
    against = names[1] if len(names) == 2 else "the rest"
    probs = {
        member: out_of_fold(values[here], targets, groups, n_classes=len(names), seed=seed)
        for member, values in query.features.items()
    }
    told = Scored(targets, groups, probs)
    for member in probs:
        for k in range(_pairs(names.tolist())):
            auroc, low = told.auroc(member, k), told.limit(member, k, confidence=query.confidence)
            rows.append((member, f"{names[k]} against {against}", auroc))
            verdicts.append(judge(low, suspicious=INSIDE_SUSPICIOUS, shortcut=np.inf))
            telling.append(f"{show_interval(auroc, digits=2)} ({member})")
    ending = "little of the hospital." if worst(verdicts) == "clear" else "they carry the hospital."
    sentence = (
        f"Inside {label}, where the diagnosis is the same, the network's features tell "
        f"{list_words(names.tolist())} apart with AUROC {list_words(telling)}: {ending}"
    )
    title = f"Sources inside {label} by frozen features ({shown} images), out of fold"
    columns = (
        *(Column("member", "features of"), Column("pair", "told apart")),
        Column("auroc", "AUROC", "interval"),
    )
    table = AuditTable(f"inside_{label}", title, columns, tuple(rows))
    return Part([table], verdicts, [sentence])


def leave_out(query: Sources, label: str) -> Part:
    """Fit a linear head without one source of a class and look whether it is still recognised."""
    labels, sources, groups = (query.column(name) for name in ("label", "source", "group"))
    # What the networks have not trained on.
    unseen = query.column("split") != "train"
    names = sources_of(label, labels, sources)
    rows: list[tuple[Cell, ...]] = []
    verdicts, recognised, reasons = [], [], []
    for source in names if len(names) > 1 else []:
        of_source = (labels == label) & (sources == source)
        held = np.flatnonzero(of_source & unseen)
        others = (labels == label) & ~of_source & ~unseen
        thin = shortage(of_source & unseen, groups) or shortage(others, groups)
        if len(held) < TOO_FEW or others.sum() < TOO_FEW or thin:
            reasons.append(
                f"too few images to say whether {label} of {source} is recognised unseen "
                f"({len(held)} outside train, {int(others.sum())} of other sources to learn from)"
            )
            continue
        for member in query.features:
            hits = [
                _hits(query, member, label, fit, held) for fit in (~unseen, ~unseen & ~of_source)
            ]
            right, right_without = (int(part.sum()) for part in hits)
            shares = [share_interval(part, groups[held]) for part in hits]
            lost = hits[0].astype(float) - hits[1]
            loss = mean_interval(lost, groups[held])
            firm = mean_interval(lost, groups[held], confidence=query.confidence)["low"] > 0
            low = firm_limit(loss, firm, chance=0.0)
            verdicts.append(judge(low, suspicious=LOSS_SUSPICIOUS, shortcut=np.inf))
            told = (right, shares[0], right_without, shares[1], loss)
            rows.append((source, member, len(held), *told))
            recognised.append(
                f"{source} {right_without} of {len(held)} instead of {right} ({member})"
            )
    if not rows:
        return Part(verdicts=verdicts, reasons=reasons)
    title = f"{label}: a linear model on frozen features that has not seen one source"
    sentence = (
        f"Learned again without one source, {label} images from there are recognised: "
        f"{list_words(recognised)}. (The features themselves were trained with all sources, so a "
        "network that has really never seen the hospital may lose more.)"
    )
    table = AuditTable(f"left_out_{label}", title, LEFT_OUT, tuple(rows))
    return Part([table], verdicts, [sentence], reasons)


def _hits(query: Sources, member: str, label: str, fit: Masks, held: Rows) -> Masks:
    """Return which held images a linear model on a member's features calls by their class."""
    context, values, groups = query.context, query.features[member], query.column("group")
    targets, count = context.targets[query.rows], len(context.labels)
    model = fit_linear(
        *(values[fit], targets[fit], groups[fit]), n_classes=count, seed=context.seed
    )
    return np.asarray(model.probs(values[held]).argmax(axis=1) == context.labels.index(label))
