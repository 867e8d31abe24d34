import numpy as np
import pytest

from cxr.evaluation.bootstrap import resample_weights
from cxr.evaluation.selective import measure_selective, risk_curve, weighted_risks


def slow_area(certainty, wrong):
    """Average, over films, the error among the films at least as certain."""
    return np.mean([wrong[certainty >= value].mean() for value in certainty])


def test_by_hand():
    certainty = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    wrong = np.array([False, True, False, False, True])
    areas, risks = weighted_risks(certainty, wrong, np.ones((1, 5)), [0.2, 0.4, 0.8, 1.0])
    assert areas[0] == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4 + 2 / 5) / 5)
    np.testing.assert_allclose(risks, [[0, 1 / 2, 1 / 4, 2 / 5]])
    coverage, risk = risk_curve(certainty, wrong)
    np.testing.assert_allclose(coverage, [0.2, 0.4, 0.6, 0.8, 1])
    np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3, 1 / 4, 2 / 5])


def test_films_of_equal_certainty_count_in_part():
    certainty, wrong = np.array([0.9, 0.5, 0.5]), np.array([False, True, False])
    areas, risks = weighted_risks(certainty, wrong, np.ones((1, 3)), [2 / 3])
    # One sure film that is right, and half of the two others, of which half is wrong.
    assert risks[0, 0] == pytest.approx(0.5 / 2)
    assert areas[0] == pytest.approx((0 + 1 / 3 + 1 / 3) / 3)
    swapped = weighted_risks(certainty, wrong[[0, 2, 1]], np.ones((1, 3)), [2 / 3])
    assert swapped[0][0] == areas[0]
    assert len(risk_curve(certainty, wrong)[0]) == 2


def test_area_agrees_with_a_loop_and_weights_with_repeated_films():
    rng = np.random.default_rng(0)
    certainty, wrong = np.round(rng.random(80), 2), rng.random(80) < 0.3
    weights = resample_weights(np.arange(80) // 2, 6, rng)
    areas, risks = weighted_risks(certainty, wrong, weights, [0.5, 1.0])
    for row, weight in enumerate(weights.astype(int)):
        again = np.repeat(np.arange(80), weight)
        assert areas[row] == pytest.approx(slow_area(certainty[again], wrong[again]))
        assert risks[row, 1] == pytest.approx(wrong[again].mean())


def example(n=300):
    rng = np.random.default_rng(1)
    targets = rng.integers(3, size=n)
    scores = np.exp(rng.normal(size=(n, 3)) + 1.5 * np.eye(3)[targets])
    return targets, scores / scores.sum(axis=1, keepdims=True)


def test_referring_the_least_certain_helps():
    targets, probs = example()
    found = measure_selective(targets, probs, np.arange(300), threshold=0.6, resamples=100)
    right = probs.argmax(axis=1) == targets
    assert found["accuracy_all"]["value"] == pytest.approx(right.mean())
    surest = np.argsort(-probs.max(axis=1))[:240]
    assert found["at_coverage"]["accuracy"]["value"] == pytest.approx(right[surest].mean())
    kept = probs.max(axis=1) >= 0.6
    assert found["at_threshold"]["coverage"]["value"] == pytest.approx(kept.mean())
    assert found["at_threshold"]["accuracy"]["value"] == pytest.approx(right[kept].mean())
    assert found["at_coverage"]["accuracy"]["value"] > found["accuracy_all"]["value"]
    for values in (found["aurc"], found["accuracy_all"], found["at_threshold"]["coverage"]):
        assert values["low"] < values["value"] < values["high"]
    assert found["curve"][-1]["coverage"] == 1
    assert found["curve"][-1]["value"] == pytest.approx(1 - right.mean())


def test_a_threshold_that_answers_nothing_is_nan():
    targets, probs = example()
    found = measure_selective(targets, probs, np.arange(300), threshold=1.1, resamples=5)
    assert found["at_threshold"]["coverage"]["value"] == 0
    assert np.isnan(found["at_threshold"]["accuracy"]["value"])


def test_without_threshold_that_part_is_left_out():
    targets, probs = example()
    assert "at_threshold" not in measure_selective(targets, probs, np.arange(300), resamples=5)
