"""What boxes alone tell: nothing, a class, and a class in train only; on made-up boxes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cxr.audit.box_comparison import JUDGED, Comparison, mask_boxes
from cxr.audit.context import AuditContext
from cxr.audit.framing import audit_framing, lung_boxes
from cxr.audit.maxt import permuted_aurocs
from cxr.evaluation.intervals import auroc_influences

LABELS = ("normal", "covid", "viral")
SIDE = 32


def context(seed: int = 0, patients: int = 90, **options) -> AuditContext:
    """Return images, two a patient: half of the patients train, the others val and test."""
    who = np.repeat(np.arange(patients), 2)
    split = np.array(["train", "test", "train", "test", "train", "val"])[who // 3 % 6]
    columns = {
        "label": np.array(LABELS)[who % 3],
        "group": np.char.add("p", who.astype(str)),
        "split": split,
    }
    parts = {
        "pixels": np.zeros((len(who), SIDE, SIDE), np.uint8),
        "labels": LABELS,
        "test_rows": np.flatnonzero(split == "test"),
        "members": {},
        "ensemble": None,
        "probs": {},
        "resamples": 199,
        "seed": seed,
    }
    return AuditContext(table=pd.DataFrame(columns), **(parts | options))


def draw(run: AuditContext, seed: int = 0, *, taller: float = 0.0, where=("train", "val", "test")):
    """Return boxes of patients who are alike, but for how tall those of covid are."""
    rng = np.random.default_rng(seed)
    people = rng.normal(0, 0.03, (len(run.table), 4))[::2].repeat(2, axis=0)
    sides = np.array([0.2, 0.15, 0.8, 0.85]) + people + rng.normal(0, 0.005, people.shape)
    planted = (run.column("label") == "covid") & np.isin(run.column("split"), where)
    sides[planted, 2] += taller
    return sides


def test_clean_boxes_alarm_in_at_most_one_run_in_twenty():
    runs = 40
    verdicts = [
        audit_framing(context(run), boxes=draw(context(run), run)).verdict for run in range(runs)
    ]
    assert sum(verdict != "clear" for verdict in verdicts) <= runs * 0.05, verdicts


def test_a_class_of_its_own_height_is_a_shortcut_with_advice():
    run = context(patients=240)
    result = audit_framing(run, boxes=draw(run, taller=0.15))
    assert result.verdict == "shortcut"
    assert "covid against the rest" in result.sentence
    assert "height alone" in result.sentence
    assert "data.lungs=crop" in result.sentence
    assert "differs" not in result.sentence
    rows = {row["comparison"]: row for row in result.table("boxes").records()}
    assert len(rows) == 6
    assert rows["normal against covid"]["p_test"] < 0.05 < rows["normal against viral"]["p_test"]
    assert result.values["auroc"]["covid against the rest"]["val"]["value"] > 0.9


def test_what_holds_in_train_alone_is_said_to_shift():
    run = context(patients=240)
    result = audit_framing(run, boxes=draw(run, taller=0.1, where=("train", "val")))
    assert result.verdict == "shortcut"
    assert "It differs between train and test for normal against covid" in result.sentence
    shift = result.values["shift"]["normal against covid"]
    assert shift["low"] > 0.1
    train, test = (result.values["auroc"]["normal against covid"][part]["value"] for part in JUDGED)
    assert shift["value"] == pytest.approx(train - test)


def test_a_shift_turns_suspicious_into_shortcut():
    comparison = Comparison("a against b", True)
    comparison.auroc = {
        part: {"value": 0.75, "low": 0.7, "high": 0.8} for part in ("train", "test")
    }
    comparison.p = {"train": 0.01, "test": 0.01}
    assert comparison.verdict == "suspicious"
    comparison.shift = {"value": -0.2, "low": -0.3, "high": -0.11}
    assert comparison.verdict == "shortcut"
    comparison.p = {"train": 0.2, "test": 0.2}
    assert comparison.verdict == "clear"


def test_two_classes_are_one_comparison_and_images_without_lungs_are_counted():
    run = context()
    two = run.table["label"] != "viral"
    table = run.table[two].reset_index(drop=True)
    test_rows = np.flatnonzero(table["split"] == "test")
    labels = ("normal", "covid")
    run = replace(run, table=table, pixels=run.pixels[two], labels=labels, test_rows=test_rows)
    boxes = draw(run)
    boxes[0] = np.nan
    result = audit_framing(run, boxes=boxes)
    assert list(result.values["auroc"]) == ["normal against covid"]
    assert "1 images without outlined lungs take no part" in result.reason


def test_few_images_are_skipped_or_named():
    few = context(patients=12)
    result = audit_framing(few, boxes=draw(few))
    assert result.verdict == "skipped"
    assert "too few train images with lungs" in result.reason
    run = context()
    boxes = draw(run)
    boxes[(run.column("split") == "test") & (run.column("label") == "viral")] = np.nan
    result = audit_framing(run, boxes=boxes)
    assert "too few images to judge" in result.reason
    assert "normal against viral in test" in result.reason
    assert "normal against viral" not in result.values["shift"]


def test_boxes_are_of_the_masks():
    masks = np.zeros((180, SIDE, SIDE), bool)
    masks[2:, 8:24, 4:28] = True
    has_mask = np.arange(180) > 0
    boxes = lung_boxes(context(has_mask=has_mask, read_masks=lambda rows: masks[rows]))
    assert np.isnan(boxes[:2]).all()
    assert (boxes[2:] == [0.25, 0.125, 0.75, 0.875]).all()
    assert audit_framing(context()).verdict == "skipped"


def test_box_of_a_mask_by_hand():
    masks = np.zeros((2, 4, 8), bool)
    masks[0, 1:3, 2:7] = True
    sides = mask_boxes(masks)
    assert sides[0].tolist() == [0.25, 0.25, 0.75, 0.875]
    assert np.isnan(sides[1]).all()


def test_permuted_aurocs_begin_with_the_observed_and_are_centred():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), rng.integers(1, 4, 40)).astype(str)
    positive, scores = rng.random(len(groups)) < 0.4, rng.normal(size=len(groups))
    drawn = permuted_aurocs(positive, scores, groups, rng=rng, permutations=400)
    n_true, n_false = positive.sum(), (~positive).sum()
    error = np.sqrt((len(groups) + 1) / (12 * n_true * n_false))
    observed = auroc_influences(positive, scores)[0]
    assert drawn.shape == (401, 1)
    assert drawn[0, 0] * error + 0.5 == pytest.approx(observed)
    assert abs(drawn[1:].mean()) < 0.2
    assert 0.7 < drawn[1:].std() < 1.6
