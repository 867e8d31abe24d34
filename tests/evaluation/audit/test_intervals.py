"""Intervals of shares against scipy, and differences by hand."""

import numpy as np
import pytest
from scipy.stats import binomtest

from cxr.evaluation.audit.intervals import difference_interval, share_interval


@pytest.mark.parametrize(("hits", "count"), [(8, 10), (0, 20), (20, 20), (1, 1)])
def test_share_of_independent_films_is_wilsons(hits, count):
    found = share_interval(np.arange(count) < hits, np.arange(count))
    expected = binomtest(hits, count).proportion_ci(method="wilson")
    assert found["value"] == hits / count
    assert found["low"] == pytest.approx(expected.low, abs=1e-12)
    assert found["high"] == pytest.approx(expected.high, abs=1e-12)


def test_films_of_one_patient_count_once():
    many = share_interval(np.ones(40), np.repeat(np.arange(10), 4))
    assert many == share_interval(np.ones(10), np.arange(10))


def test_no_film_is_nan():
    assert all(np.isnan(value) for value in share_interval([], []).values())


def test_difference():
    chosen = np.arange(40) < 20
    values = np.where(chosen, 0.0, 1.0)
    found = difference_interval(
        values, chosen, np.arange(40), rng=np.random.default_rng(0), resamples=50
    )
    assert found == {"value": -1.0, "low": -1.0, "high": -1.0}
    alone = difference_interval(
        values, np.ones(40, bool), np.arange(40), rng=np.random.default_rng(0), resamples=5
    )
    assert np.isnan(alone["value"])
