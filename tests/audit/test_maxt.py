"""Family-wise error and power of the permuted subgroups, and p-values worked by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cxr.audit.context import AuditContext
from cxr.audit.maxt import adjusted_p, permuted_gaps
from cxr.audit.subgroups import audit_subgroups

LABELS = ("normal", "covid", "bacterial", "viral")


def simulate(rng: np.random.Generator, *, gap: float = 0.0, patients: int = 50):
    """Return test images of patients who are alike; women of covid are ``gap`` less often right."""
    who = np.repeat(np.arange(4 * patients), rng.integers(1, 4, 4 * patients))
    count, targets = 4 * patients, np.arange(4 * patients) % 4
    sex, source = rng.choice(["F", "M"], count), rng.choice(["a", "b", "c"], count)
    age = rng.choice(["25", "50", "70"], count, p=(0.2, 0.4, 0.4))
    # Images of a patient agree: some patients are hard.
    ease = rng.beta(4, 1, count) - gap * ((targets == 1) & (sex == "F"))
    right = rng.random(len(who)) < ease[who]
    predicted = np.where(right, targets[who], (targets[who] + 1) % 4)
    attributes = {
        "sex": sex[who],
        "age": age[who],
        "source": source[who],
        "view": rng.choice(["PA", "AP"], len(who)),
    }
    labels = np.array(LABELS)[targets[who]]
    images = {"label": labels, "group": np.char.add("p", who.astype(str)), "split": "test"}
    return AuditContext(
        table=pd.DataFrame(images | attributes),
        pixels=np.empty((len(who), 0, 0), np.uint8),
        labels=LABELS,
        test_rows=np.arange(len(who)),
        members={},
        ensemble=None,
        probs={"net": np.eye(4)[predicted]},
        resamples=199,
    )


def test_clean_data_alarm_in_at_most_one_run_in_twenty():
    runs = 60
    alarms = sum(
        audit_subgroups(
            replace(simulate(np.random.default_rng(run)), seed=run, resamples=99)
        ).verdict
        == "suspicious"
        for run in range(runs)
    )
    # 0.05 and two standard errors; benchmarks/audit_null.py does 200 runs and more.
    assert alarms <= runs * 0.05 + 2 * np.sqrt(runs * 0.05 * 0.95)


def test_a_planted_gap_is_found_and_named():
    found = [audit_subgroups(simulate(np.random.default_rng(run), gap=0.55)) for run in range(8)]
    named = [result for result in found if "for covid sex F (" in result.sentence]
    assert len(named) >= 7
    rows = named[0].table("groups").records()
    (row,) = [row for row in rows if (row["class"], row["group"]) == ("covid", "F")]
    assert row["p"] < 0.05


def test_a_small_group_that_is_wrong_throughout_is_found():
    context = simulate(np.random.default_rng(0), patients=80)
    patients = np.unique(context.groups[context.targets == 1])[:12]
    chosen = np.isin(context.groups, patients)
    context.table.loc[chosen, "source"] = "d"
    context.probs["net"][chosen] = np.eye(4)[0]
    found = audit_subgroups(context)
    assert "covid source d" in found.sentence.split("Too few")[0]


def test_step_down_p_matches_a_case_worked_by_hand():
    statistics = np.array([[3.0, 1.0, 2.0], [0, 0, 2.5], [4, 0, 0], [0, 1.5, 0]])
    # The largest of all reaches 3 in one permutation, of the last two 2 in one, 1 in one.
    assert adjusted_p(statistics) == pytest.approx([2 / 4, 2 / 4, 2 / 4])
    assert adjusted_p(np.array([[5.0, 0.0], [1, 2], [1, 2], [1, 2]])) == pytest.approx([0.25, 1.0])
    assert adjusted_p(np.empty((11, 0))).shape == (0,)


def test_permutations_keep_patients_whole():
    # Ten patients of two images each, who are right on both or on none.
    groups = np.repeat(np.arange(10), 2).astype(str)
    right = np.repeat([1, 1, 1, 1, 1, 0, 0, 0, 0, 0], 2).astype(bool)
    sex = np.where(np.repeat(np.arange(10) % 2, 2), "F", "M")
    found = permuted_gaps(
        right, sex, groups, ["F", "M"], rng=np.random.default_rng(0), permutations=500
    )
    assert found[:, 0] == pytest.approx(-found[:, 1])
    # Whole patients give 0, 1 .. 5 of five right on a side: six gaps, not eleven.
    assert len(np.unique(np.round(found[:, 0], 6))) <= 6
    # The number right among five of ten is hypergeometric; z = 0.632 is one more than expected.
    assert found[1:, 0].std() == pytest.approx(1 / np.sqrt(0.9), rel=0.1)


@pytest.mark.parametrize("all_right", [True, False])
def test_without_any_spread_nothing_is_lower(all_right):
    right = np.full(30, all_right)
    sex = np.where(np.arange(30) % 2, "F", "M")
    found = permuted_gaps(
        right,
        sex,
        np.arange(30).astype(str),
        ["F", "M"],
        rng=np.random.default_rng(0),
        permutations=20,
    )
    assert not found.any()
    assert adjusted_p(found).tolist() == [1.0, 1.0]


def test_views_that_differ_inside_a_patient():
    # Every patient has one frontal image, right, and one lateral, wrong.
    groups = np.repeat(np.arange(20), 2).astype(str)
    view = np.tile(["PA", "L"], 20)
    found = permuted_gaps(
        view == "PA", view, groups, ["L"], rng=np.random.default_rng(0), permutations=200
    )
    assert adjusted_p(found)[0] < 0.01
