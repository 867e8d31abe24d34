import numpy as np
import pytest

from cxr.evaluation.bootstrap import interval, resample, resample_weights


def draws(hits, groups, *, seed: int = 0, resamples: int = 2000):
    """Return the share of hits on the images and on resamples of their groups."""
    rng = np.random.default_rng(seed)
    share = {"share": lambda weights: weights @ hits / weights.sum(axis=1)}
    return np.concatenate(resample(groups, share, rng=rng, resamples=resamples)["share"])


def test_resamples_draw_whole_groups():
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    weights = resample_weights(groups, 500, np.random.default_rng(0))
    assert weights.shape == (500, 6)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 1], weights[:, 4])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), 3)
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.15)


def test_one_group_gives_an_interval_without_width():
    found = interval(draws(np.arange(90) % 3 == 0, np.zeros(90)))
    assert found["low"] == found["value"] == found["high"]


def test_interval_agrees_with_the_binomial_one():
    found = interval(draws(np.arange(400) < 320, np.arange(400)))
    half = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert found["value"] == 0.8
    assert found["low"] == pytest.approx(0.8 - half, abs=5e-3)
    assert found["high"] == pytest.approx(0.8 + half, abs=5e-3)


def test_images_of_one_patient_widen_the_interval():
    def width(groups):
        found = interval(draws(np.arange(400) < 320, groups))
        return found["high"] - found["low"]

    # Ten equal images per patient: a tenth of the information, sqrt(10) the width.
    assert width(np.arange(400) // 10) == pytest.approx(
        np.sqrt(10) * width(np.arange(400)), rel=0.1
    )


def test_resamples_are_seeded_paired_and_start_with_the_point_value(monkeypatch):
    hits, groups = np.arange(90) % 3 == 0, np.arange(90) // 2
    first = draws(hits, groups, seed=7, resamples=50)
    again = draws(hits, groups, seed=7, resamples=50)
    share = {name: lambda weights: weights @ hits for name in ("a", "twin")}
    pair = resample(groups, share, rng=np.random.default_rng(7), resamples=50)
    monkeypatch.setattr("cxr.evaluation.bootstrap.BLOCK_VALUES", 90 * 7)
    blocks = draws(hits, groups, seed=7, resamples=50)
    assert len(first) == 51
    assert first[0] == hits.mean()
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, blocks)
    np.testing.assert_array_equal(np.concatenate(pair["a"]), np.concatenate(pair["twin"]))


def test_interval_leaves_out_undefined_resamples():
    assert interval([0.5, 0.4, np.nan, 0.4]) == {"value": 0.5, "low": 0.4, "high": 0.4}
    assert np.isnan(interval([np.nan, 0.4])["low"])
    assert np.isnan(interval([0.5, np.nan])["high"])
