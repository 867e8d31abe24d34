"""Test 5: whether the hospital tells the class, and the features tell the hospital.

N images, F features, K classes, n test images.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cxr.audit.context import AuditContext, Interval, Rows
from cxr.audit.limits import Scored, corrected, shortages, too_few
from cxr.audit.result import (
    AuditResult,
    AuditTable,
    AuditTest,
    Cell,
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
POPULATIONS = {
    "kermany": "children aged one to five, one hospital in Guangzhou",
    "hannover": "covid patients of Hannover Medical School",
    "cohen": "images out of publications from many hospitals, mostly adults",
    "montgomery": "adults of a county's tuberculosis control, without tuberculosis",
    "shenzhen": "adults of one hospital in Shenzhen, without tuberculosis",
    "covidgr": "patients of one hospital in Granada, tested for covid",
}
"""What the public sources say of themselves where their tables do not.

Source: Kermany et al. 2018, Cell 172; Winther et al. 2020, figshare 12275009; Cohen et al.
2020, arXiv:2006.11988; Jaeger et al. 2014, doi:10.3978/j.issn.2223-4292.2014.11.20; Tabik et al.
2020, arXiv:2006.01409.
"""
UNKNOWN = "unknown"
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
    tables = [_origin_table(context.table, labels), table]
    reasons = too_few(short, "images outside or inside test")
    sentences = [_origin_sentences(context.table, labels), sentence]
    return Part(tables, verdicts, sentences, reasons), statistic, aurocs


def _origin_table(table: pd.DataFrame, labels: Sequence[str]) -> AuditTable:
    """Count images and patients of each class and source, with what is known of the patients."""
    rows: list[tuple[Cell, ...]] = []
    for label in labels:
        of_class = table[table["label"] == label]
        for source, images in of_class.groupby(of_class["source"].replace("", UNKNOWN)):
            name, patients = str(source), int(images["group"].nunique())
            known, age = _age_range(images)
            people = (age if known else UNKNOWN, *(_counts(images[key]) for key in ("sex", "view")))
            rows.append((label, name, len(images), patients, *people, POPULATIONS.get(name, "")))
    columns = (
        *(Column("class"), Column("source"), Column("images", kind="count")),
        Column("patients", "patients or groups", "count"),
        Column("age", "age in years", "range"),
        *(Column("sex", kind="counts"), Column("view", kind="counts")),
        Column("population", "as the source says"),
    )
    return AuditTable("origins", "Where each class comes from", columns, tuple(rows))


def _origin_sentences(table: pd.DataFrame, labels: Sequence[str]) -> str:
    """Say which classes share no source with the others, and whose ages are known."""
    sentences = []
    for label in labels:
        own, rest = table[table["label"] == label], table[table["label"] != label]
        theirs, others = set(own["source"]) - {""}, set(rest["source"]) - {""}
        if not theirs or not others or theirs & others:
            continue
        images = [
            f"{source} ({int((own['source'] == source).sum())} images)" for source in sorted(theirs)
        ]
        sentences.append(
            f"Every {label} image comes from other hospitals than the rest: from "
            f"{list_words(images)}, and no other class has an image from there."
        )
        sentences.append(_ages_sentence(label, own, rest))
    return " ".join(part for part in sentences if part)


def _ages_sentence(label: str, own: pd.DataFrame, rest: pd.DataFrame) -> str:
    """Say how old the patients of a class are beside those of the others."""
    (known_own, ours), (known_rest, theirs) = (_age_range(images) for images in (own, rest))
    words = "median {value:.0f}, {low:.0f} to {high:.0f}"
    if not known_own:
        return ""
    first = (
        f"It also comes from other ages: in years, {label} patients have the "
        f"{words.format(**ours)} (known of {known_own} of {len(own)} images)"
    )
    if known_rest:
        return f"{first}, the others {words.format(**theirs)} (of {known_rest} of {len(rest)})."
    described = [
        f"{source} describes its images as {POPULATIONS[source]}"
        for source in sorted(set(rest["source"]))
        if source in POPULATIONS
    ]
    but = f", but {list_words(described)}" if described else ""
    return f"{first}; of the others no image's age is known{but}."


def _age_range(images: pd.DataFrame) -> tuple[int, dict[str, float]]:
    """Return of how many images the age is known, and its median, least and largest."""
    years = pd.to_numeric(images["age"], errors="coerce")
    known = years[np.isfinite(years)].astype(float)
    ends = {"value": known.median(), "low": known.min(), "high": known.max()}
    return len(known), {key: float(end) for key, end in ends.items()}


def _counts(values: pd.Series) -> Cell:
    """Count how often each value occurs: {"M": 61, "F": 40, "unknown": 16}."""
    counts = values.replace("", UNKNOWN).value_counts()
    if list(counts.index) == [UNKNOWN]:
        return UNKNOWN
    return {str(value): int(count) for value, count in counts.items()}
