"""Subgroups by hand: counts, too few to say, a group that is wronged."""

import numpy as np
import pandas as pd
import pytest

from cxr.audit.context import AuditContext
from cxr.audit.subgroups import _gap_interval, age_bands, audit_subgroups

LABELS = ("normal", "covid")


def audit(wrong_women: int, *, women: int = 30, men: int = 60, **more: np.ndarray):
    """Audit covid images of women, some missed, and of men, all found; and normal ones."""
    count = women + men
    targets = np.r_[np.ones(count, int), np.zeros(40, int)]
    predicted = targets.copy()
    predicted[:wrong_women] = 0
    sex = np.r_[np.repeat(["F", "M"], [women, men]), np.repeat("", 40)]
    return audit_predictions(targets, predicted, {"sex": sex, **more})


def audit_predictions(targets, predicted, attributes):
    rows = np.arange(len(targets))
    labels = {"label": np.array(LABELS)[targets], "group": rows.astype(str), "split": "test"}
    context = AuditContext(
        table=pd.DataFrame(labels | attributes),
        pixels=np.empty((len(rows), 0, 0), np.uint8),
        labels=LABELS,
        test_rows=rows,
        members={},
        ensemble=None,
        probs={"net": np.eye(len(LABELS))[predicted]},
        resamples=200,
    )
    return audit_subgroups(context)


def test_bands():
    found = age_bands(["0", "5", "5.5", "6", "17", "18", "64", "65", "90", "", "old", "-1"])
    assert found.tolist() == [
        "0 to 5",
        "0 to 5",
        "0 to 5",
        "6 to 17",
        "6 to 17",
        "18 to 39",
        "40 to 64",
        "65 and over",
        "65 and over",
        "",
        "",
        "",
    ]


def test_a_group_that_is_wronged():
    found = audit(15)
    assert found.verdict == "suspicious"
    assert "covid sex F (-0.50 [" in found.sentence
    assert found.tables[0].rows[0][:6] == ("covid", "sex", "F", 30, 30, 15)
    assert found.tables[0].rows[0][6]["value"] == 0.5
    assert "sex is known of no normal image" in found.reason


def test_equal_groups_are_clear():
    assert audit(0).verdict == "clear"


def test_too_few_to_say():
    found = audit(5, women=10)
    assert found.verdict == "skipped"
    assert found.tables[0].rows[0][6] == "too few to say"
    assert "Too few to say: covid sex F (10)" in found.sentence


def test_unknown_attributes_are_skipped_by_name():
    count = 130
    found = audit(0, view=np.full(count, ""))
    assert "no test image's view is known" in found.reason
    none = audit_predictions(np.zeros(4, int), np.zeros(4, int), {"sex": np.full(4, "")})
    assert none.verdict == "skipped"
    assert none.reason == "the manifest knows no sex, age, view or source of the test images"


@pytest.mark.parametrize("text", ["nan", "inf"])
def test_ages_that_are_no_numbers(text):
    assert age_bands([text]).tolist() == [""]


def test_the_interval_of_a_gap_is_newcombes():
    # 56 of 70 and 48 of 80, Newcombe 1998, table II, method 10: 0.0524 to 0.3339.
    first = {"value": 56 / 70, "low": 0.6916, "high": 0.8767}
    second = {"value": 48 / 80, "low": 0.4904, "high": 0.7005}
    found = _gap_interval(first, second)
    assert found["value"] == pytest.approx(0.2)
    assert (found["low"], found["high"]) == pytest.approx((0.0524, 0.3339), abs=2e-3)
