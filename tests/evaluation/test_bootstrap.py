import numpy as np
import pytest

from cxr.evaluation.bootstrap import bootstrap, interval, resample_weights
from cxr.evaluation.metrics import OVERALL, PER_CLASS, score


def fake(seed: int, *, n: int = 90, n_classes: int = 3, decimals: int = 2):
    """Return targets and rounded probabilities, hard enough for errors."""
    rng = np.random.default_rng(seed)
    y_true = rng.integers(n_classes, size=n)
    raw = rng.gamma(1.0, size=(n, n_classes)) + 0.8 * np.eye(n_classes)[y_true]
    y_prob = np.round(raw / raw.sum(axis=1, keepdims=True), decimals) + 1e-3
    return y_true, y_prob / y_prob.sum(axis=1, keepdims=True)


def test_resamples_draw_whole_groups():
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    weights = resample_weights(groups, 500, np.random.default_rng(0))
    assert weights.shape == (500, 6)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 1], weights[:, 4])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), 3)
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.15)


def test_one_group_gives_an_interval_without_width():
    y_true, y_prob = fake(4)
    draws = bootstrap(y_true, {"a": y_prob}, np.zeros(90), rng=np.random.default_rng(0))
    found = interval(draws["a"]["accuracy"])
    assert found["low"] == found["value"] == found["high"]


def test_interval_agrees_with_the_binomial_one():
    y_true = np.zeros(400, int)
    y_prob = np.where(np.arange(400)[:, None] < 320, [0.9, 0.1], [0.1, 0.9])
    draws = bootstrap(y_true, {"a": y_prob}, np.arange(400), rng=np.random.default_rng(0))
    found = interval(draws["a"]["accuracy"])
    half = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert found["value"] == 0.8
    assert found["low"] == pytest.approx(0.8 - half, abs=5e-3)
    assert found["high"] == pytest.approx(0.8 + half, abs=5e-3)


def test_images_of_one_patient_widen_the_interval():
    y_true = np.zeros(400, int)
    y_prob = np.where(np.arange(400)[:, None] < 320, [0.9, 0.1], [0.1, 0.9])

    def width(groups):
        draws = bootstrap(y_true, {"a": y_prob}, groups, rng=np.random.default_rng(0))
        found = interval(draws["a"]["accuracy"])
        return found["high"] - found["low"]

    # Ten equal images per patient: a tenth of the information, sqrt(10) the width.
    assert width(np.arange(400) // 10) == pytest.approx(
        np.sqrt(10) * width(np.arange(400)), rel=0.1
    )


def test_bootstrap_is_seeded_paired_and_starts_with_the_point_value(monkeypatch):
    y_true, y_prob = fake(5)
    probs = {"a": y_prob, "twin": y_prob}
    groups = np.arange(90) // 2
    first = bootstrap(y_true, probs, groups, rng=np.random.default_rng(7), resamples=50)
    again = bootstrap(y_true, probs, groups, rng=np.random.default_rng(7), resamples=50)
    monkeypatch.setattr("cxr.evaluation.bootstrap.BLOCK_VALUES", 90 * 7)
    blocks = bootstrap(y_true, probs, groups, rng=np.random.default_rng(7), resamples=50)
    point = score(y_true, y_prob)
    for name in (*OVERALL, *PER_CLASS):
        assert len(first["a"][name]) == 51
        np.testing.assert_array_equal(first["a"][name], again["a"][name])
        np.testing.assert_allclose(first["a"][name], blocks["a"][name])
        np.testing.assert_array_equal(first["a"][name], first["twin"][name])
        np.testing.assert_allclose(first["a"][name][0], point[name])


def test_interval_leaves_out_undefined_resamples():
    assert interval([0.5, 0.4, np.nan, 0.4]) == {"value": 0.5, "low": 0.4, "high": 0.4}
    assert np.isnan(interval([np.nan, 0.4])["low"])
    assert np.isnan(interval([0.5, np.nan])["high"])
