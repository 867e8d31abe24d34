"""Where each class comes from: images, patients, ages, sexes and views per class and source.

N images, K classes.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cxr.audit.result import AuditTable, Cell, Column
from cxr.labels import list_words

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


def origin_table(table: pd.DataFrame, labels: Sequence[str]) -> AuditTable:
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


def origin_sentences(table: pd.DataFrame, labels: Sequence[str]) -> str:
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
