"""Results survive the way through JSON, and verdicts go by the lower end of intervals."""

import json

import numpy as np
import pytest

from cxr.audit.result import (
    AuditResult,
    AuditTable,
    AuditTest,
    Column,
    headline,
    judge,
    statistic_of,
    worst,
)
from cxr.errors import InputError
from cxr.labels import list_words
from cxr.report.wording import show_table

FOUND = {"value": 0.9, "low": 0.8, "high": 0.95}
COLUMNS = (
    *(Column("name"), Column("images", kind="count"), Column("auroc", "AUROC", "interval", 2)),
    *(Column("seen", kind="share"), Column("p", kind="p"), Column("sex", kind="counts")),
    *(Column("age", kind="range"), Column("worse", kind="flag"), Column("loss", "", "number", 1)),
)
CELLS = ("a", 1200, FOUND, 0.5, 0.0123, {"F": 2, "M": 3}, FOUND, True, 0.25)


def result(verdict="clear", title="A test") -> AuditResult:
    tables = [AuditTable("t", "Table", COLUMNS, (CELLS, (None,) * len(CELLS)))]
    statistic = statistic_of(FOUND, "auroc", "AUROC of x")
    return AuditResult("x", title, "what", verdict, "s", statistic, {"n": 3}, tables)


def test_round_trip_through_json():
    assert AuditResult.from_dict(json.loads(json.dumps(result().to_dict()))) == result()


def test_numbers_stay_numbers_and_are_written_by_their_kind():
    table = result().to_dict()["tables"][0]
    assert table["rows"][0] == CELLS
    shown = show_table(table)
    assert shown.columns == ("name", "images", "AUROC", "seen", "p", "sex", "age", "worse", "loss")
    assert shown.rows[0] == (
        *("a", 1200, "0.90 [0.80, 0.95]", "50%", "0.012", "F 2, M 3", "median 1, 1 to 1"),
        *("yes", "0.2"),
    )
    assert shown.rows[1] == (None,) * len(CELLS)
    nothing = dict.fromkeys(("value", "low", "high"))
    rows = [["too few", "too few to say", nothing, float("nan"), 1, {}, "unknown", False, 0.0]]
    assert show_table(table | {"rows": rows}).rows[0][:4] == (
        "too few",
        "too few to say",
        "n/a",
        "n/a",
    )


def test_damaged_result_says_what_to_do():
    with pytest.raises(InputError, match=r"scripts/audit\.py"):
        AuditResult.from_dict({"id": "x"})


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
    found = AuditTest("x", 1, "t", "w").skipped("no masks")
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
