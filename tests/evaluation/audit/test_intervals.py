"""Differences of shares by hand."""

import numpy as np

from cxr.evaluation.audit.intervals import difference_interval


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
