"""Metrics with intervals: values and influences against scikit-learn and weighted metrics."""

import numpy as np
import pytest

from benchmarks.coverage import summary_covered
from cxr.evaluation.intervals import mean_interval
from cxr.evaluation.metrics import OVERALL, PER_CLASS, score
from cxr.evaluation.summary import compare, count_patients, measure, summarise


def fake(seed: int, *, n: int = 120, n_classes: int = 4):
    """Return targets and probabilities with ties, hard enough for errors."""
    rng = np.random.default_rng(seed)
    y_true = rng.integers(n_classes, size=n)
    raw = np.round(rng.gamma(1.0, size=(n, n_classes)), 1) + 0.1 + 0.8 * np.eye(n_classes)[y_true]
    return y_true, raw / raw.sum(axis=1, keepdims=True)


def test_influences_are_the_derivatives_by_an_images_weight():
    y_true, y_prob = fake(0)
    values, parts = measure(y_true, y_prob)
    step, rows = 1e-6, (0, 5, 17, 90)
    heavier = [score(y_true, y_prob, 1 + step * (np.arange(120) == row)) for row in rows]
    assert set(parts) == {*OVERALL, "f1", "auroc", "average_precision"}
    for name, influences in parts.items():
        slope = [(scores[name] - values[name]) / step for scores in heavier]
        np.testing.assert_allclose(influences[list(rows)], slope, atol=1e-6)
        np.testing.assert_allclose(influences.sum(axis=0), 0, atol=1e-12)


def test_summary_names_every_metric_and_encloses_its_value():
    y_true, y_prob = fake(1)
    found, point = summarise(y_true, y_prob, np.arange(120) // 2, "wxyz"), score(y_true, y_prob)
    assert set(found) == {*OVERALL, "per_class"}
    for name in OVERALL:
        assert found[name]["value"] == pytest.approx(point[name])
        assert found[name]["low"] < found[name]["value"] < found[name]["high"]
    for place, label in enumerate("wxyz"):
        assert set(found["per_class"][label]) == set(PER_CLASS)
        for name in PER_CLASS:
            values = found["per_class"][label][name]
            assert values["value"] == pytest.approx(point[name][place])
            assert 0 <= values["low"] < values["value"] < values["high"] <= 1


def test_absent_and_never_predicted_classes_are_nan():
    y_true, y_prob = fake(2, n_classes=3)
    wide = np.hstack([y_prob, np.zeros((120, 1))])
    found = summarise(y_true, wide, np.arange(120), "wxyz")
    assert all(
        np.isnan(found["per_class"]["z"][key]["low"])
        for key in ("sensitivity", "ppv", "f1", "auroc", "average_precision")
    )
    narrow = summarise(y_true, y_prob, np.arange(120), "wxy")
    for name in OVERALL:
        assert found[name] == pytest.approx(narrow[name])


def test_images_that_repeat_do_not_narrow_any_interval():
    y_true, y_prob = fake(3)
    once = summarise(y_true, y_prob, np.arange(120), "wxyz")
    again = summarise(
        np.tile(y_true, 3), np.tile(y_prob, (3, 1)), np.tile(np.arange(120), 3), "wxyz"
    )
    for name in OVERALL:
        assert again[name] == pytest.approx(once[name], rel=0.02)
    for name in PER_CLASS:
        assert again["per_class"]["w"][name] == pytest.approx(
            once["per_class"]["w"][name], rel=0.03
        )


def test_a_model_does_not_differ_from_itself():
    y_true, y_prob = fake(4)
    found = compare(y_true, y_prob, y_prob, np.arange(120), rng=np.random.default_rng(0))
    assert found["nll"] == {"value": 0, "low": 0, "high": 0}
    assert found["accuracy"]["p"] == 1
    assert found["only_first"] == found["only_second"] == 0


def test_patients_are_counted_by_class():
    assert count_patients([0, 0, 1, 1], ["a", "a", "a", "b"], 3) == [1, 2, 0]


def test_mean_of_a_loss_agrees_with_the_normal_approximation():
    losses = np.random.default_rng(0).exponential(size=400)
    found = mean_interval(losses, np.arange(400))
    half = 1.966 * losses.std(ddof=1) / 20
    assert found["high"] - found["value"] == pytest.approx(half, rel=0.02)
    assert np.isnan(mean_interval([], [])["value"])


def test_coverage_of_every_metric_in_simulation():
    rng = np.random.default_rng(0)
    rates = [summary_covered(rng, 40, agreement) for agreement in (0.0, 0.8) * 60]
    for name in rates[0]:
        assert np.mean([rate[name] for rate in rates]) >= 0.88, name
