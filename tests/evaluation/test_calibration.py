import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import brier_score_loss, log_loss

from cxr.evaluation.bootstrap import resample, resample_weights
from cxr.evaluation.calibration import (
    bin_gaps,
    bins_for,
    equal_mass_bins,
    error_interval,
    events,
    gap_statistics,
    image_losses,
    measure_calibration,
    reliability_curve,
)
from cxr.evaluation.summary import summarise
from cxr.models.ensemble import softmax
from cxr.models.ensemble_fit import fit_temperature


def drawn(rng, n, *, n_classes=4, sharpness=1.0):
    """Return probabilities, calibrated at sharpness 1, and classes drawn from calibrated ones."""
    logits = rng.normal(size=(n, n_classes)) * 2
    truth = softmax(logits)
    targets = (rng.random((n, 1)) > truth.cumsum(axis=1)).sum(axis=1).clip(max=n_classes - 1)
    return softmax(logits * sharpness), targets


def once(n):
    return np.ones((1, n))


def slow_ece(prob, truth, bins):
    """Sort, cut into equal parts, and loop."""
    order = np.argsort(prob)
    total = 0.0
    for part in np.array_split(order, bins):
        total += len(part) / len(prob) * abs(truth[part].mean() - prob[part].mean())
    return total


def test_losses_by_hand():
    probs = np.array([[0.7, 0.2, 0.1], [0.5, 0.5, 0.0]])
    found = image_losses([0, 2], probs)
    first, second = 0.3**2 + 0.2**2 + 0.1**2, 0.5**2 + 0.5**2 + 1
    assert found["brier"] == pytest.approx([first, second])
    assert found["nll"] == pytest.approx([-np.log(0.7), -np.log(1e-300)])


def test_losses_agree_with_scikit_learn():
    probs, targets = drawn(np.random.default_rng(0), 120)
    found = image_losses(targets, probs)
    assert found["nll"].mean() == pytest.approx(log_loss(targets, probs))
    expected = brier_score_loss(targets, probs, scale_by_half=False)
    assert found["brier"].mean() == pytest.approx(expected)


def test_calibration_error_by_hand():
    prob = np.array([0.1, 0.2, 0.8, 0.9])
    truth = np.array([False, True, True, True])
    # Two bins: |1/2 - 0.15| and |1 - 0.85|, two images each.
    found = bin_gaps(prob, truth, once(4), bins=2)
    assert found.error[0] == pytest.approx((0.35 + 0.15) / 2)
    np.testing.assert_allclose(found.gap, [[0.35, 0.15]])
    # Weighted, the first image counts three times: |1/4 - 0.125| of 4, |1 - 0.85| of 2.
    heavy = bin_gaps(prob, truth, np.array([[3, 1, 1, 1]]), bins=2)
    assert heavy.error[0] == pytest.approx(0.125 * 4 / 6 + 0.15 * 2 / 6)


@pytest.mark.parametrize("bins", [2, 5, 15])
def test_calibration_error_agrees_with_a_loop_and_with_scikit_learn(bins):
    probs, targets = drawn(np.random.default_rng(1), 300, sharpness=1.4)
    for prob, truth in events(targets, probs):
        found = bin_gaps(prob, truth, once(300), bins=bins).error[0]
        assert found == pytest.approx(slow_ece(prob, truth, bins))
        frequency, said = calibration_curve(truth, prob, n_bins=bins, strategy="quantile")
        assert found == pytest.approx(np.abs(frequency - said).mean())


def test_weights_are_the_same_as_repeating_images():
    rng = np.random.default_rng(2)
    probs, targets = drawn(rng, 200, sharpness=1.3)
    prob, truth = probs[:, 0], targets == 0
    weights = rng.integers(0, 3, 200)
    place = equal_mass_bins(prob, 5)
    by_hand = 0.0
    for index in range(5):
        rows = np.repeat(np.flatnonzero(place == index), weights[place == index])
        by_hand += len(rows) / weights.sum() * abs(truth[rows].mean() - prob[rows].mean())
    assert bin_gaps(prob, truth, weights[None], bins=5).error[0] == pytest.approx(by_hand)


def test_debiased_error_agrees_with_draws():
    """The draws are what normal_debiased_ce of Kumar's library does."""
    rng = np.random.default_rng(3)
    probs, targets = drawn(rng, 600, sharpness=1.5)
    prob, truth = probs.max(axis=1), probs.argmax(axis=1) == targets
    place = equal_mass_bins(prob, 15)
    size = np.bincount(place)
    frequency = np.bincount(place, truth) / size
    said = np.bincount(place, prob) / size
    plain = (size / 600) @ np.abs(frequency - said)
    spread = np.sqrt(frequency * (1 - frequency) / size)
    draws = rng.normal(frequency, spread, size=(200_000, 15))
    expected = 2 * plain - (np.abs(draws - said) @ (size / 600)).mean()
    found = bin_gaps(prob, truth, once(600), bins=15)
    assert found.debiased[0] == pytest.approx(expected, abs=2e-4)
    assert found.error[0] == pytest.approx(plain)


def test_debiased_error_is_nearer_to_the_truth():
    rng = np.random.default_rng(4)
    plain, corrected = [], []
    for _ in range(100):
        probs, targets = drawn(rng, 500)
        found = bin_gaps(*events(targets, probs)[0], once(500), bins=15)
        plain.append(found.error[0])
        corrected.append(found.debiased[0])
    # The truth is 0.
    assert 0 <= np.mean(corrected) < 0.7 * np.mean(plain)


def test_equal_values_share_a_bin():
    np.testing.assert_array_equal(equal_mass_bins([0.5] * 6, 3), 0)
    np.testing.assert_array_equal(equal_mass_bins([0.3, 0.1, 0.1, 0.9], 2), [1, 0, 0, 1])


@pytest.mark.parametrize(
    ("n", "bins"), [(1237, 15), (150, 15), (149, 14), (20, 2), (19, 0), (0, 0)]
)
def test_few_images_have_few_bins_and_very_few_no_error(n, bins):
    assert bins_for(n) == bins


def test_without_bins_the_error_is_nan():
    found = bin_gaps([0.5, 0.6], [True, False], np.ones((3, 2)), bins=0)
    assert np.isnan(found.error).all()
    assert np.isnan(found.debiased).all()
    assert np.isnan(error_interval(found)).all()


@pytest.mark.parametrize("sharpness", [1.0, 1.6])
def test_interval_holds_the_true_error(sharpness):
    rng = np.random.default_rng(5)
    many, classes = drawn(rng, 200_000, sharpness=sharpness)
    truth = bin_gaps(*events(classes, many)[0], once(200_000), bins=15).error[0]
    held = []
    for _ in range(40):
        probs, targets = drawn(rng, 400, sharpness=sharpness)
        weights = np.vstack([once(400), resample_weights(np.arange(400), 150, rng)])
        low, high = error_interval(bin_gaps(*events(targets, probs)[0], weights, bins=15))
        held.append(low <= truth + 2e-3 and truth <= high)
    assert np.mean(held) >= 0.9


def measured(targets, stages, groups, *, resamples):
    rng = np.random.default_rng(0)
    gaps = resample(groups, gap_statistics(targets, stages), rng=rng, resamples=resamples)
    return measure_calibration(targets, stages, groups, list("abcd"), gaps)


def test_interval_of_equal_groups_has_no_width_beyond_the_value():
    probs, targets = drawn(np.random.default_rng(6), 100, sharpness=2)
    found = measured(targets, {"before": probs, "after": probs}, ["one"] * 100, resamples=20)
    values = found["before"]["ece"]
    assert values["high"] == pytest.approx(values["value"])


def test_measured_before_and_after_a_temperature():
    probs, targets = drawn(np.random.default_rng(7), 800, sharpness=2.5)
    logits = np.log(probs)
    after = softmax(logits, fit_temperature(logits, targets))
    stages = {"before": probs, "after": after}
    found = measured(targets, stages, np.arange(800) // 2, resamples=200)
    for key in ("nll", "brier", "ece", "ece_debiased"):
        assert found["after"][key]["value"] < found["before"][key]["value"]
    for key in ("nll", "brier"):
        change = found["after_minus_before"][key]
        assert change["low"] <= change["value"] <= change["high"] < 0
    assert set(found["after"]["per_class"]) == set("abcd")
    low, value, high = (found["before"]["ece"][key] for key in ("low", "value", "high"))
    assert 0 < low < value < high
    nll = summarise(targets, probs, np.arange(800) // 2, "abcd")["nll"]
    assert found["before"]["nll"] == pytest.approx(nll), "as metrics.json has it"


def test_temperature_agrees_with_scikit_learn():
    class Logits(ClassifierMixin, BaseEstimator):
        def fit(self, inputs, targets):
            self.classes_ = np.unique(targets)
            return self

        def decision_function(self, inputs):
            return inputs

        def predict(self, inputs):
            return inputs.argmax(axis=1)

    probs, targets = drawn(np.random.default_rng(8), 500, sharpness=2)
    logits = np.log(probs)
    oracle = CalibratedClassifierCV(
        FrozenEstimator(Logits().fit(logits, targets)), method="temperature"
    ).fit(logits, targets)
    found = fit_temperature(logits, targets)
    assert found == pytest.approx(2, rel=0.15)
    np.testing.assert_allclose(softmax(logits, found), oracle.predict_proba(logits), atol=2e-4)


def test_temperature_agrees_with_torch():
    import torch

    probs, targets = drawn(np.random.default_rng(9), 500, sharpness=0.6)
    logits = torch.tensor(np.log(probs))
    log_temperature = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def loss():
        search.zero_grad()
        value = torch.nn.functional.cross_entropy(
            logits / log_temperature.exp(), torch.tensor(targets)
        )
        value.backward()
        return value

    search.step(loss)
    expected = float(log_temperature.exp().detach()[0])
    assert fit_temperature(logits.numpy(), targets) == pytest.approx(expected, rel=1e-4)


def test_curve_by_hand():
    prob = np.array([0.05] * 10 + [0.52] * 6 + [0.58] * 4 + [0.95] * 3)
    truth = np.array([True] + [False] * 9 + [True] * 5 + [False] * 5 + [True] * 3)
    rows = reliability_curve(prob, truth, np.arange(23) // 2)
    # The three images at 0.95 are too few for a point of their own.
    assert [row["images"] for row in rows] == [10, 13]
    assert rows[0]["from"] == 0
    assert rows[-1]["to"] == 1
    assert rows[0]["frequency"] == pytest.approx(0.1)
    assert rows[0]["mean_prob"] == pytest.approx(0.05)
    assert rows[0]["groups"] == 5
    assert rows[0]["low"] < 0.1 < rows[0]["high"]


def test_curve_of_few_images_is_one_point():
    rows = reliability_curve([0.1, 0.9], [False, True], ["a", "b"])
    assert [(row["images"], row["from"], row["to"]) for row in rows] == [(2, 0, 1)]
