"""Closed-form intervals against scipy, slow oracles, and in simulation."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from benchmarks.coverage import auroc_covered, draw_pair, paired_result, share_covered
from cxr.evaluation.intervals import (
    auroc_influences,
    auroc_interval,
    cluster_interval,
    paired_difference,
    share_interval,
)


def test_no_image_is_nan():
    assert all(np.isnan(value) for value in share_interval([], []).values())
    assert np.isnan(auroc_interval([True, True], [0.1, 0.2], [0, 1])["value"])
    assert np.isnan(paired_difference([], [], [], rng=np.random.default_rng(0))["p"])


@pytest.mark.parametrize(("hits", "count"), [(8, 10), (0, 20), (20, 20), (1, 1)])
def test_share_of_independent_images_is_wilsons(hits, count):
    found = share_interval(np.arange(count) < hits, np.arange(count))
    expected = binomtest(hits, count).proportion_ci(method="wilson")
    assert found["value"] == hits / count
    assert found["low"] == pytest.approx(expected.low, abs=1e-12)
    assert found["high"] == pytest.approx(expected.high, abs=1e-12)


def test_images_of_a_patient_that_agree_count_once_and_others_each():
    groups = np.repeat(np.arange(50), 4)
    agreeing = np.repeat(np.arange(50) < 40, 4)
    once = share_interval(np.arange(50) < 40, np.arange(50))
    assert share_interval(agreeing, groups) == pytest.approx(once)
    differing = np.tile([True, True, True, False], 50)
    apart = binomtest(150, 200).proportion_ci(method="wilson")
    found = share_interval(differing, groups)
    assert found["low"] == pytest.approx(apart.low)
    assert found["high"] == pytest.approx(apart.high)


@pytest.mark.parametrize("value", [0, 1])
def test_share_has_a_width_at_its_ends(value):
    found = share_interval(np.full(120, value), np.repeat(np.arange(40), 3))
    assert found["high"] - found["low"] == pytest.approx(1 - 40 / (40 + 1.96**2), abs=1e-4)


def test_auroc_influences_are_its_derivatives():
    rng = np.random.default_rng(0)
    truth, scores = rng.random(60) < 0.3, rng.integers(8, size=60) + 0.0
    auroc, influences = auroc_influences(truth, scores)
    assert auroc == pytest.approx(roc_auc_score(truth, scores))
    for row in (0, 7, 31):
        weights = np.ones(60)
        weights[row] += 1e-6
        heavier = roc_auc_score(truth, scores, sample_weight=weights)
        assert influences[row] == pytest.approx((heavier - auroc) / 1e-6, abs=1e-6)


def test_auroc_variance_is_obuchowskis():
    """Her sums over clusters, written out, in patients with images of both kinds."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(300), 3)
    truth = rng.random(900) < 0.4
    scores = truth + rng.normal(size=300)[groups] + rng.normal(size=900)
    m, n = truth.sum(), (~truth).sum()
    wins = (scores[truth][:, None] > scores[~truth]) + 0.5 * (
        scores[truth][:, None] == scores[~truth]
    )
    area = wins.mean()
    x, y = np.zeros(300), np.zeros(300)
    np.add.at(x, groups[truth], wins.mean(axis=1) - area)
    np.add.at(y, groups[~truth], wins.mean(axis=0) - area)
    scale = 300 / 299
    variance = scale * (x @ x / m**2 + y @ y / n**2 + 2 * (x @ y) / (m * n))
    found = auroc_interval(truth, scores, groups)
    half = 1.96 * np.sqrt(variance) / (area * (1 - area))
    middle = np.log(area / (1 - area))
    assert found["low"] == pytest.approx(1 / (1 + np.exp(half - middle)), abs=1e-3)
    assert found["high"] == pytest.approx(1 / (1 + np.exp(-half - middle)), abs=1e-3)


def test_perfect_auroc_is_as_sure_as_the_rarer_sides_patients_allow():
    truth = np.arange(200) < 30
    found = auroc_interval(truth, truth + 0.0, np.repeat(np.arange(100), 2))
    assert found["value"] == found["high"] == 1
    assert found["low"] == pytest.approx(15 / (15 + 1.96**2), abs=1e-4)


def test_scales_keep_the_interval_where_the_figure_can_lie():
    values = np.r_[np.zeros(30), np.full(4, 3.0)]
    parts = (values - values.mean()) / 34
    plain = cluster_interval(values.mean(), parts, np.arange(34))
    log = cluster_interval(values.mean(), parts, np.arange(34), scale="log")
    assert 0 < log["low"] < values.mean() < log["high"]
    assert plain["high"] < log["high"]


def test_sign_flips_by_patient_against_every_pattern():
    first = np.array([1, 1, 1, 0, 1, 1, 0, 1], bool)
    second = np.array([0, 0, 1, 1, 0, 1, 0, 0], bool)
    groups = np.array(list("aabbcdde"))
    sums = np.array([2, -1, 1, 0, 1])
    patterns = [abs(np.dot(signs, sums)) >= 3 for signs in product((-1, 1), repeat=5)]
    found = paired_difference(first, second, groups, rng=np.random.default_rng(0))
    assert found["p"] == np.mean(patterns)
    assert found["value"] == pytest.approx(3 / 8)
    assert found["low"] < 3 / 8 < found["high"]


def test_models_that_never_differ():
    right, groups = np.ones(40, bool), np.arange(40)
    found = paired_difference(right, right, groups, rng=np.random.default_rng(0))
    assert found["p"] == 1
    assert found["high"] == -found["low"] == pytest.approx(1.96**2 / (40 + 1.96**2), abs=1e-4)


def test_drawn_flips_agree_with_a_binomial_test():
    """With an image a patient the sum of signs is the binomial test's count."""
    first, second = np.arange(100) < 90, np.arange(100) >= 25
    found = paired_difference(first, second, np.arange(100), rng=np.random.default_rng(0))
    assert found["p"] == pytest.approx(binomtest(25, 35).pvalue, abs=0.005)


def test_coverage_of_shares_and_auroc_in_simulation():
    rng = np.random.default_rng(0)
    for truth in (0.8, 0.97):
        rates = [share_covered(rng, 40, agreement, truth) for agreement in (0.0, 0.8) * 200]
        assert 0.92 <= np.mean(rates) <= 0.99
    for truth in (0.9, 0.99):
        rates = [auroc_covered(rng, 40, agreement, truth) for agreement in (0.0, 0.8) * 200]
        assert 0.92 <= np.mean(rates) <= 0.99


def test_paired_test_keeps_its_size_where_images_of_a_patient_agree():
    rng = np.random.default_rng(0)
    covered, ours, mcnemars = np.mean(
        [paired_result(rng, 80, 0.8, 0.8, 0.8) for _ in range(400)], axis=0
    )
    assert covered >= 0.93
    assert ours <= 0.06
    assert mcnemars > 0.1, "the simulation must show what is corrected"
    one, two, _ = draw_pair(rng, 80, 0.8, 0.97, 0.5)
    assert one.mean() > two.mean()
