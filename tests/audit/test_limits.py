"""Who is judged and how surely: counts by hand, excess against its formula and by simulation."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from cxr.audit.limits import (
    auroc_excess,
    auroc_gain,
    auroc_limit,
    balanced_interval,
    corrected,
    shortage,
    shortages,
    too_few,
)
from cxr.evaluation.intervals import auroc_interval


def test_ten_images_of_ten_patients_are_needed():
    chosen = np.arange(40) < 12
    each = np.arange(40).astype(str)
    assert shortage(chosen, each) == ""
    assert shortage(chosen & (np.arange(40) > 2), each) == "9 images of 9 patients"
    assert shortage(chosen, (np.arange(40) // 2).astype(str)) == "12 images of 6 patients"
    found = shortages(np.r_[np.zeros(30, int), 1, 1], np.arange(32).astype(str), ("a", "b"))
    assert found == {"a": "all others: 2 images of 2 patients", "b": "2 images of 2 patients"}
    assert too_few({"a": ""}, "test images") == []
    (reason,) = too_few(found, "test images")
    assert reason.endswith("b (2 images of 2 patients): 10 images of 10 patients are needed")


def test_the_correction_is_bonferronis():
    z = norm.ppf(0.5 + corrected(20) / 2)
    assert norm.sf(z) == pytest.approx(0.05 / 20)


def test_an_auroc_is_judged_by_its_own_interval_once_chance_is_excluded_by_all():
    positive, groups = np.arange(60) < 15, np.arange(60).astype(str)
    rng, all_together = np.random.default_rng(3), corrected(20)
    near = 2.9 * positive + rng.normal(size=60)
    found = auroc_interval(positive, near, groups)
    assert found["value"] > 0.95
    assert auroc_limit(positive, near, groups, confidence=all_together) == found["low"] > 0.65
    # At that confidence the interval itself would hold nearly everything.
    assert auroc_interval(positive, near, groups, confidence=all_together)["low"] < found["low"]
    alarms = 0
    for _ in range(200):
        chance = rng.normal(size=(20, 60))
        limits = [auroc_limit(positive, s, groups, confidence=all_together) for s in chance]
        alarms += max(limits) > 0.5
    assert alarms <= 16  # 5 %, and two standard errors


def sample(seed: int, *, patients: int = 60, told: float = 0.0):
    """Return classes, a control that tells them, scores of it and what is told beside, groups."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(2 * patients), 2)
    positive = groups % 2 == 0
    own = rng.normal(size=(2 * patients, 2))[groups]
    control = positive + 0.8 * own[:, 0] + 0.6 * rng.normal(size=len(groups))
    return positive, control, control + told * positive + 0.3 * own[:, 1], groups.astype(str)


def test_point_values_follow_their_formulas():
    positive, control, scores, groups = sample(0, told=1.0)
    a, c = roc_auc_score(positive, scores), roc_auc_score(positive, control)
    assert auroc_gain(positive, scores, control, groups)["value"] == pytest.approx(a - c)
    found = auroc_excess(positive, scores, control, groups)
    assert found["value"] == pytest.approx((a - c) / (1 - c))
    assert found["low"] < found["value"] < found["high"] <= 1
    # A control worse than guessing is no control.
    worse = auroc_excess(positive, scores, -control, groups)
    assert worse["value"] == pytest.approx(2 * a - 1)
    perfect = auroc_excess(positive, positive, control, groups)
    assert (perfect["value"], perfect["high"]) == (1, 1)
    assert perfect["low"] < 1
    assert np.isnan(auroc_excess(positive, scores, positive, groups)["value"])
    hits = np.random.default_rng(0).random(len(positive)) < 0.7
    predicted = np.where(hits, positive, ~positive)
    assert balanced_interval(hits, positive, groups)["value"] == pytest.approx(
        balanced_accuracy_score(positive, predicted)
    )


@pytest.mark.parametrize("told", [0.0, 1.0])
def test_the_interval_of_the_excess_covers_the_truth(told):
    truth = np.mean(
        [
            auroc_excess(*shuffle(sample(900 + k, patients=2000, told=told)))["value"]
            for k in range(5)
        ]
    )
    found = [auroc_excess(*shuffle(sample(seed, told=told))) for seed in range(200)]
    covered = np.mean([part["low"] <= truth <= part["high"] for part in found])
    # 0.95 within three standard errors of 200 runs.
    assert 0.90 <= covered <= 0.995


def shuffle(parts):
    positive, control, scores, groups = parts
    return positive, scores, control, groups
