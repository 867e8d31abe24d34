"""Results survive the way through JSON, and verdicts go by the lower end of intervals."""

import json

import numpy as np
import pytest

from cxr.audit.result import AuditResult, figure_of, headline, judge, skipped, worst
from cxr.errors import InputError
from cxr.evaluation.tables import Table
from cxr.labels import list_words

FOUND = {"value": 0.9, "low": 0.8, "high": 0.95}


def result(verdict="clear", title="A test") -> AuditResult:
    tables = [Table("t", ("a", "b"), ((1, "x"), (None, 0.5)))]
    return AuditResult("x", title, "what", verdict, "s", figure_of(FOUND, metric="AUROC"), tables)


def test_round_trip_through_json():
    assert AuditResult.from_dict(json.loads(json.dumps(result().to_dict()))) == result()


def test_damaged_result_says_what_to_do():
    with pytest.raises(InputError, match="make audit"):
        AuditResult.from_dict({"name": "x"})


@pytest.mark.parametrize(
    ("low", "verdict"),
    [
        (0.5, "clear"),
        (0.65, "suspicious"),
        (0.79, "suspicious"),
        (0.8, "shortcut"),
        (np.nan, "skipped"),
    ],
)
def test_judge(low, verdict):
    assert judge(low, suspicious=0.65, shortcut=0.8) == verdict


def test_worst():
    assert worst(["clear", "shortcut", "suspicious", "skipped"]) == "shortcut"
    assert worst(["skipped", "clear"]) == "clear"
    assert worst([]) == "skipped"


def test_skipped_says_why():
    found = skipped("x", "t", "w", "no masks")
    assert (found.verdict, found.reason, found.sentence) == (
        "skipped",
        "no masks",
        "Not done: no masks.",
    )


def test_headline_counts_verdicts_worst_first():
    told = headline([result("clear", "A"), result("shortcut", "B"), result("clear", "C")])
    assert told == "Of 3 audit tests: 1 found a shortcut (B), 2 clear (A; C)."
    assert headline([]) == "No audit test was done."


def test_list_words():
    assert [list_words(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
