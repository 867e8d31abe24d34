"""Sources by name, inside a class, and left out of the learning, on made-up features."""

import numpy as np
import pandas as pd

from cxr.audit import limits
from cxr.audit import source_pairs as inside
from cxr.audit.context import AuditContext
from cxr.audit.within_class_sources import audit_sources, source_rows

LABELS = ("normal", "covid")


def table(count: int = 400, *, mixed: bool = False) -> pd.DataFrame:
    """Return images: normal from a, covid from b and c, or all from all."""
    rng = np.random.default_rng(0)
    label = np.where(np.arange(count) % 2 == 0, "normal", "covid")
    source = np.where(label == "normal", "a", np.where(np.arange(count) % 4 == 1, "b", "c"))
    if mixed:
        source = rng.choice(["a", "b"], count)
    age = np.where(label == "covid", rng.integers(40, 80, count).astype(str), "")
    return pd.DataFrame(
        {
            "label": label,
            "source": source,
            "age": age,
            "sex": "",
            "view": "",
            "split": np.where(np.arange(count) % 5 < 2, "test", "train"),
            "group": np.arange(count).astype(str),
        }
    )


def features(images: pd.DataFrame, rows: np.ndarray, *, source: float, label: float = 3.0):
    """Return features that tell the class, and the source as strongly as asked."""
    part = images.iloc[rows]
    found = np.random.default_rng(1).normal(size=(len(rows), 8))
    found[:, 0] += label * (part["label"] == "covid")
    found[:, 1] += source * (part["source"] == "b")
    return {"net": found.astype(np.float32)}


def audit(images: pd.DataFrame, **strengths: float):
    rows = source_rows(images["split"], images["label"], images["source"])
    return audit_features(images, features(images, rows, **strengths), rows)


def audit_features(images: pd.DataFrame, known: dict, rows=None, labels=LABELS):
    context = AuditContext(
        table=images,
        pixels=np.empty((len(images), 0, 0), np.uint8),
        labels=labels,
        test_rows=np.flatnonzero(images["split"] == "test"),
        members={},
        ensemble=None,
        probs={},
    )
    rows = np.empty(0, np.int64) if rows is None else rows
    return audit_sources(context, rows=rows, features=known)


def test_rows_hold_all_of_classes_with_several_sources():
    images = table()
    rows = source_rows(images["split"], images["label"], images["source"])
    chosen = images.iloc[rows]
    assert (chosen["label"] == "covid").sum() == (images["label"] == "covid").sum()
    assert set(chosen[chosen["label"] == "normal"]["split"]) == {"train"}
    one = source_rows(images["split"], images["label"], np.full(len(images), "a"))
    assert len(one) == 0


def test_other_hospitals_and_other_ages_are_said():
    images = table()
    found = audit(images, source=0.0)
    assert found.verdict == "shortcut"
    assert (
        "Every covid image comes from other hospitals than the rest: from b (100 images) and c"
        in found.sentence
    )
    assert (
        "It also comes from other ages: in years, covid patients have the median" in found.sentence
    )
    assert found.statistic.value == 1.0
    assert found.values["auroc"]["covid"]["value"] == 1.0
    assert found.tables[0].rows[0][:4] == ("normal", "a", 200, 200)


def test_shared_sources_tell_nothing():
    found = audit(table(mixed=True), source=0.0)
    assert found.verdict == "clear"
    assert "tells little of the class" in found.sentence


def test_features_that_carry_the_source_are_suspicious():
    found = audit(table(mixed=True), source=4.0)
    assert found.verdict == "suspicious"
    assert "they carry the hospital" in found.sentence


def test_a_source_that_is_lost_unseen():
    # Of source b covid looks the other way round, so c teaches nothing about it.
    images = table()
    rows = source_rows(images["split"], images["label"], images["source"])
    found = features(images, rows, source=0.0)
    part = images.iloc[rows]
    found["net"][(part["source"] == "b").to_numpy(), 0] -= 12
    result = audit_features(images, found, rows)
    row = result.table("left_out_covid").records()[0]
    numbers = ("source", "images", "right_with", "right_without")
    assert [row[name] for name in numbers] == ["b", 40, 40, 0]


def test_skipped_with_the_reason():
    images = table()
    one = audit_features(images.assign(source="a"), {})
    assert one.reason == "all images come from one source, a"
    none = audit_features(images.assign(source=""), {})
    assert none.reason == "the manifest names no source"
    assert none.verdict == "skipped"


def test_few_images_are_named():
    found = audit(table(60), source=0.0)
    assert "too few" in found.reason
    assert "normal has one source (a)" in found.reason


def test_an_image_of_another_source_alarms_nobody():
    clean = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        count = 121
        images = pd.DataFrame(
            {
                "label": ["covid", *rng.choice(["normal"], 60), *["viral"] * 60],
                "source": ["b", *rng.choice(["a", "c"], 120)],
                "age": "",
                "sex": "",
                "view": "",
                "split": np.where(np.arange(count) % 5 < 2, "test", "train"),
                "group": np.arange(count).astype(str),
            }
        )
        extra = images.iloc[[0]].assign(split="train", group="other")
        both = pd.concat([images, extra], ignore_index=True)
        found = audit_features(both, {}, labels=("normal", "viral", "covid"))
        clean += found.verdict == "clear"
        assert "covid (1 images of 1 patients)" in found.reason
    assert clean >= 19


def test_names_pairs_and_sources_left_out_are_one_family(monkeypatch):
    seen = set()

    def record(original):
        def call(*parts, confidence=None, **options):
            if confidence is not None:
                seen.add(confidence)
                options["confidence"] = confidence
            return original(*parts, **options)

        return call

    for module, name in ((limits, "auroc_limit"), (inside, "mean_interval")):
        monkeypatch.setattr(module, name, record(getattr(module, name)))
    audit(table(mixed=True), source=0.0)
    # Two names; in each of two classes one pair of sources, and two that are left out.
    assert seen == {1 - 2 * 0.05 / (2 + 2 * (1 + 2))}
