"""Test 5: whether the hospital tells the class, and the features tell the hospital.

N images, F features, K classes, n test images of a source.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cxr.audit.context import Rows
from cxr.audit.limits import Interval, auroc_limit, corrected, shortages, too_few
from cxr.audit.origins import origin_sentences, origin_table
from cxr.audit.result import AuditResult, figure_of, judge, skipped, worst
from cxr.audit.source_pairs import Part, comparisons, leave_out, sources_of, tell_apart
from cxr.data.decode import ShowProgress, no_progress
from cxr.evaluation.intervals import auroc_interval
from cxr.evaluation.tables import Cell, Table, show_interval
from cxr.labels import list_words

NAME, TITLE = "sources", "The hospital behind the class"
WHAT = (
    "It was counted which class comes from which hospital, and how well the hospital's name alone "
    "would tell the class. Inside a class with several sources the network's features were asked "
    "for the source, and a class was learned again without one of its sources."
)
NAME_SUSPICIOUS, NAME_SHORTCUT = 0.65, 0.80
"""Lower limit of the AUROC with which the source's name alone tells the class."""
FIT_IMAGES = 300
"""Images of each class outside test on which the linear heads are fitted, beside all images of
the classes with several sources."""


def source_rows(split: ArrayLike, labels: ArrayLike, sources: ArrayLike, *, seed: int = 0) -> Rows:
    """Choose the images whose features this test needs.

    Args:
        split: (N,) train, val or test.
        labels: (N,) class names.
        sources: (N,) source names, "" where unknown.
        seed: of the choice.

    Returns:
        All images of classes with several sources, and ``FIT_IMAGES`` of the others outside
        test, ascending; none where no class has several.
    """
    parts, names, origin = (np.asarray(column, str) for column in (split, labels, sources))
    several = [k for k in np.unique(names).tolist() if len(sources_of(k, names, origin)) > 1]
    if not several:
        return np.empty(0, np.int64)
    rng = np.random.default_rng(seed)
    chosen = [np.flatnonzero(np.isin(names, several))]
    for label in np.unique(names).tolist():
        if label not in several:
            here = np.flatnonzero((names == label) & (parts != "test"))
            chosen.append(rng.permutation(here)[:FIT_IMAGES])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def audit_sources(
    table: pd.DataFrame,
    labels: Sequence[str],
    features: Mapping[str, NDArray[np.float32]],
    rows: Rows,
    *,
    seed: int = 0,
    progress: ShowProgress = no_progress,
) -> AuditResult:
    """Measure what sources tell of classes, and what features tell of sources.

    Args:
        table: N rows of the prepared table.
        labels: K class names.
        features: per member (R, F) pooled features of the chosen rows.
        rows: (R,) what ``source_rows`` chose.
        seed: of folds.
        progress: see ``ShowProgress``.

    Returns:
        ``shortcut`` where the source's name alone tells a class; else ``suspicious`` where
        features tell the sources of a class, or one is lost when it was not learned from;
        all by lower limits at one confidence, ``corrected`` for the comparisons of the test.
    """
    sources = table["source"].to_numpy(str)
    if not (sources != "").any():
        return skipped(NAME, TITLE, WHAT, "the manifest names no source")
    if len(np.unique(sources)) == 1:
        reason = f"all images come from one source, {sources[0]}"
        return skipped(NAME, TITLE, WHAT, reason)
    # Names of all classes and, per network, sources told apart and left out: one family.
    inside = comparisons(table["label"].to_numpy(str), sources)
    confidence = corrected(len(labels) + inside * len(features))
    tables, verdicts, sentences, reasons = _by_name(table, labels, confidence)
    figure = _figure_by_name(table, labels, confidence)
    steps = max(1, len(rows) and 2 * len(features) * len(labels))
    with progress("sources: fit linear models", steps) as done:
        for label in labels:
            for part in (tell_apart, leave_out):
                found = part(table, label, labels, features, rows, seed, confidence)
                tables += found[0]
                verdicts += found[1]
                sentences += found[2]
                reasons += found[3]
                for _ in features:
                    done()
    return AuditResult(
        NAME,
        TITLE,
        WHAT,
        worst(verdicts),
        " ".join(part for part in sentences if part),
        figure,
        tables,
        "; ".join(dict.fromkeys(reasons)),
    )


def _name_scores(
    table: pd.DataFrame, labels: Sequence[str], confidence: float
) -> tuple[dict[str, Interval], dict[str, float], list[str]]:
    """Return, per class, the AUROC of guessing by the source's name, and what is judged of it.

    These are the lower limits of the classes with enough images, and who has too few.

    A test image's score for a class is the class's share among the fit images of its source.
    """
    test = (table["split"] == "test").to_numpy()
    names = list(labels)
    targets = np.array([names.index(label) for label in table["label"]])
    sources, place = np.unique(table["source"].to_numpy(str), return_inverse=True)
    counts = np.zeros((len(sources), len(names)))
    np.add.at(counts, (place[~test], targets[~test]), 1)
    # A source without fit images says nothing, so each class keeps its overall share there.
    overall = counts.sum(axis=0) / max(counts.sum(), 1)
    total = counts.sum(axis=1, keepdims=True)
    shares = np.where(total > 0, counts / np.maximum(total, 1), overall)
    scores, groups = shares[place[test]], table["group"].to_numpy(str)
    short = {
        label: shortages(targets[test], groups[test], names)[label]
        or shortages(targets[~test], groups[~test], names)[label]
        for label in names
    }
    found, lows = {}, {}
    for k, label in enumerate(names):
        parts = (targets[test] == k, scores[:, k], groups[test])
        found[label] = auroc_interval(*parts)
        if not short[label]:
            lows[label] = auroc_limit(*parts, confidence=confidence)
    return found, lows, too_few(short, "images outside or inside test")


def _figure_by_name(
    table: pd.DataFrame, labels: Sequence[str], confidence: float
) -> dict[str, object] | None:
    found, lows, _ = _name_scores(table, labels, confidence)
    if not lows:
        return None
    first = max(lows, key=lambda label: lows[label])
    metric = f"AUROC of {first} against the rest, from the source's name alone"
    return figure_of(found[first], metric=metric, chance=0.5)


def _by_name(table: pd.DataFrame, labels: Sequence[str], confidence: float) -> Part:
    """Count the sources of each class, and what a source's name tells of it."""
    found, lows, thin = _name_scores(table, labels, confidence)
    verdicts = [
        judge(low, suspicious=NAME_SUSPICIOUS, shortcut=NAME_SHORTCUT) for low in lows.values()
    ]
    told = [
        f"{label} {show_interval(found[label], digits=2)}"
        for label, low in lows.items()
        if low >= NAME_SUSPICIOUS
    ]
    sentence = origin_sentences(table, labels)
    sentence += (
        f" Who knows the source's name alone tells the class with AUROC {list_words(told)} "
        "(0.50 is guessing)."
        if told
        else " The source's name alone tells little of the class."
    )
    rows: list[tuple[Cell, ...]] = [(label, show_interval(score)) for label, score in found.items()]
    names = Table(
        "What the source's name alone tells, test images",
        ("class", "AUROC against the rest"),
        tuple(rows),
    )
    return [origin_table(table, labels), names], verdicts, [sentence.strip()], thin
