import numpy as np
import pytest

from cxr.evaluation.selective import measure_selective, risk_area, risk_curve, risks_at


def slow_area(certainty, wrong):
    """Average, over images, the error among the images at least as confident."""
    return np.mean([wrong[certainty >= value].mean() for value in certainty])


def test_by_hand():
    certainty = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    wrong = np.array([False, True, False, False, True])
    area, _ = risk_area(certainty, wrong)
    risks, _ = risks_at(certainty, wrong, [0.2, 0.4, 0.8, 1.0])
    assert area == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4 + 2 / 5) / 5)
    np.testing.assert_allclose(risks, [0, 1 / 2, 1 / 4, 2 / 5])
    coverage, risk = risk_curve(certainty, wrong)
    np.testing.assert_allclose(coverage, [0.2, 0.4, 0.6, 0.8, 1])
    np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3, 1 / 4, 2 / 5])


def test_images_of_equal_certainty_count_in_part():
    certainty, wrong = np.array([0.9, 0.5, 0.5]), np.array([False, True, False])
    # One sure image that is right, and half of the two others, of which half is wrong.
    assert risks_at(certainty, wrong, [2 / 3])[0][0] == pytest.approx(0.5 / 2)
    area = risk_area(certainty, wrong)[0]
    assert area == pytest.approx((0 + 1 / 3 + 1 / 3) / 3)
    assert risk_area(certainty, wrong[[0, 2, 1]])[0] == area
    assert len(risk_curve(certainty, wrong)[0]) == 2


def test_area_agrees_with_a_loop_and_its_influences_with_repeated_images():
    rng = np.random.default_rng(0)
    certainty, wrong = np.round(rng.random(400), 2), rng.random(400) < 0.3
    area, influences = risk_area(certainty, wrong)
    assert area == pytest.approx(slow_area(certainty, wrong))
    assert influences.sum() == pytest.approx(0, abs=1e-12)
    for row in (0, 50, 399):
        again = np.append(np.arange(400), row)
        change = slow_area(certainty[again], wrong[again]) - area
        assert influences[row] == pytest.approx(change, abs=2e-5)


def test_influences_of_a_risk_give_its_standard_error():
    """The spread over images drawn anew, border and all."""
    rng = np.random.default_rng(0)
    found, errors = [], []
    for _ in range(300):
        certainty = rng.random(500)
        wrong = rng.random(500) < 0.5 * (1 - certainty)
        risk, parts = risks_at(certainty, wrong, [0.8])
        found.append(risk[0])
        errors.append(np.sqrt((parts[0] ** 2).sum()))
    assert np.mean(errors) == pytest.approx(np.std(found), rel=0.12)


def example(n=300):
    rng = np.random.default_rng(1)
    targets = rng.integers(3, size=n)
    scores = np.exp(rng.normal(size=(n, 3)) + 1.5 * np.eye(3)[targets])
    return targets, scores / scores.sum(axis=1, keepdims=True)


def test_referring_the_least_certain_helps():
    targets, probs = example()
    found = measure_selective(targets, probs, np.arange(300), threshold=0.6)
    right = probs.argmax(axis=1) == targets
    assert found["accuracy_all"]["value"] == pytest.approx(right.mean())
    confident = np.argsort(-probs.max(axis=1))[:240]
    assert found["at_coverage"]["accuracy"]["value"] == pytest.approx(right[confident].mean())
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
    found = measure_selective(targets, probs, np.arange(300), threshold=1.1)
    assert found["at_threshold"]["coverage"]["value"] == 0
    assert np.isnan(found["at_threshold"]["accuracy"]["value"])


def test_without_threshold_that_part_is_left_out():
    targets, probs = example()
    assert "at_threshold" not in measure_selective(targets, probs, np.arange(300))
