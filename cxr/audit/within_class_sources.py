"""Test 5: whether the hospital tells the class, and the features tell the hospital.

N images, F features, K classes, n test images.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cxr.audit.context import AuditContext, Interval, Rows
from cxr.audit.limits import Scored, corrected, shortages, too_few
from cxr.audit.origins import origin_sentences, origin_table
from cxr.audit.result import (
    AuditResult,
    AuditTable,
    AuditTest,
    Column,
    Statistic,
    judge,
    statistic_of,
    worst,
)
from cxr.audit.source_pairs import Part, Sources, comparisons, leave_out, sources_of, tell_apart
from cxr.evaluation.tables import show_interval
from cxr.labels import list_words

TEST = AuditTest(
    "sources",
    5,
    "Within-class sources",
    "It was counted which class comes from which hospital, and how well the hospital's name alone "
    "would tell the class. Inside a class with several sources the network's features were asked "
    "for the source, and a class was learned again without one of its sources.",
)
NAME_SUSPICIOUS, NAME_SHORTCUT = 0.65, 0.80
"""Lower limit of the AUROC with which the source's name alone tells the class."""
FIT_IMAGES = 300
"""Images of each class outside test on which the linear heads are fitted, beside all images of
the classes with several sources."""


def source_rows(split: ArrayLike, labels: ArrayLike, sources: ArrayLike, *, seed: int = 0) -> Rows:
    """Choose the images whose features this test needs by split, class and source, each (N,).

    Returns:
        All images of classes with several sources, and ``FIT_IMAGES`` of the others outside
        test, ascending; none where no class has several.
    """
    parts, names, origin = (np.asarray(column, str) for column in (split, labels, sources))
    classes = np.unique(names).tolist()
    several = [label for label in classes if len(sources_of(label, names, origin)) > 1]
    if not several:
        return np.empty(0, np.int64)
    rng = np.random.default_rng(seed)
    chosen = [np.flatnonzero(np.isin(names, several))]
    for label in classes:
        if label not in several:
            here = np.flatnonzero((names == label) & (parts != "test"))
            chosen.append(rng.permutation(here)[:FIT_IMAGES])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def audit_sources(
    context: AuditContext,
    *,
    rows: Rows | None = None,
    features: dict[str, NDArray[np.float32]] | None = None,
) -> AuditResult:
    """Measure what sources tell of classes, and what features tell of sources.

    By default the features, per member (R, F), are those that the networks have of the images,
    (R,) rows, of ``source_rows``.

    Returns:
        ``shortcut`` where the source's name alone tells a class; else ``suspicious`` where
        features tell the sources of a class, or one is lost when it was not learned from;
        all by lower limits at one confidence, ``corrected`` for the comparisons of the test.
    """
    labels, sources, split = (context.column(name) for name in ("label", "source", "split"))
    if not (sources != "").any():
        return TEST.skipped("the manifest names no source")
    if len(np.unique(sources)) == 1:
        return TEST.skipped(f"all images come from one source, {sources[0]}")
    if rows is None:
        rows = source_rows(split, labels, sources, seed=context.seed)
    if features is None:
        features = {name: context.features(name, rows) for name in context.members if len(rows)}
    # Names of all classes and, per network, sources told apart and left out: one family.
    family = len(context.labels) + comparisons(labels, sources) * len(features)
    query = Sources(context, features, rows, corrected(family))
    whole, statistic, aurocs = _by_name(query)
    steps = max(1, len(rows) and 2 * len(features) * len(context.labels))
    with context.progress("sources: fit linear models", steps) as done:
        for label in context.labels:
            for measure in (tell_apart, leave_out):
                whole += measure(query, label)
                for _ in features:
                    done()
    return TEST.result(
        worst(whole.verdicts),
        " ".join(sentence for sentence in whole.sentences if sentence),
        statistic,
        values={"auroc": aurocs},
        tables=whole.tables,
        reason="; ".join(dict.fromkeys(whole.reasons)),
    )


def _by_name(query: Sources) -> tuple[Part, Statistic | None, dict[str, Interval]]:
    """Count the sources of each class, and what a source's name tells of it.

    A test image's score for a class is the class's share among the fit images of its source.
    """
    context, labels, groups = query.context, query.context.labels, query.context.groups
    test, targets = context.column("split") == "test", context.targets
    sources, place = np.unique(context.column("source"), return_inverse=True)
    counts = np.zeros((len(sources), len(labels)))
    np.add.at(counts, (place[~test], targets[~test]), 1)
    # A source without fit images says nothing, so each class keeps its overall share there.
    overall = counts.sum(axis=0) / max(counts.sum(), 1)
    total = counts.sum(axis=1, keepdims=True)
    scores = np.where(total > 0, counts / np.maximum(total, 1), overall)[place[test]]
    inside, outside = (shortages(targets[side], groups[side], labels) for side in (test, ~test))
    short = {label: inside[label] or outside[label] for label in labels}
    named = Scored(targets[test], groups[test], {"name": scores})
    aurocs = {label: named.auroc("name", k) for k, label in enumerate(labels)}
    lows = {
        label: named.limit("name", k, confidence=query.confidence)
        for k, label in enumerate(labels)
        if not short[label]
    }
    limits = {"suspicious": NAME_SUSPICIOUS, "shortcut": NAME_SHORTCUT}
    verdicts = [judge(low, **limits) for low in lows.values()]
    sentence = "The source's name alone tells little of the class."
    if telling := [
        f"{label} {show_interval(aurocs[label], digits=2)}"
        for label, low in lows.items()
        if low >= NAME_SUSPICIOUS
    ]:
        sentence = (
            f"Who knows the source's name alone tells the class with AUROC {list_words(telling)} "
            "(0.50 is guessing)."
        )
    columns = (Column("class"), Column("auroc", "AUROC against the rest", "interval"))
    title = "What the source's name alone tells, test images"
    table = AuditTable("names", title, columns, tuple(aurocs.items()))
    statistic = None
    if lows:
        first = max(lows, key=lambda label: lows[label])
        metric = f"AUROC of {first} against the rest, from the source's name alone"
        statistic = statistic_of(aurocs[first], "auroc", metric, chance=0.5)
    tables = [origin_table(context.table, labels), table]
    reasons = too_few(short, "images outside or inside test")
    sentences = [origin_sentences(context.table, labels), sentence]
    return Part(tables, verdicts, sentences, reasons), statistic, aurocs
