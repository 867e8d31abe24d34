import json

import numpy as np
import pytest
from scipy.stats import norm

from cxr.errors import InputError
from cxr.reliability.conformal import (
    LEVELS,
    conformal_threshold,
    fit_referral,
    fit_uncertainty,
    patients_needed,
    prediction_sets,
    refer,
    referral_threshold,
    thresholds_of,
)

LABELS = ["normal", "covid", "viral"]


def fit(probs, targets, groups, *, level, per_class=True):
    labels = [str(k) for k in range(np.shape(probs)[1])]
    stored = fit_uncertainty(probs, targets, labels, groups=groups, levels=[level])
    return thresholds_of(stored, level, per_class=per_class)


def drawn(rng, n, *, n_classes=3, shares=None):
    """Return calibrated-looking probabilities and classes that are exchangeable."""
    targets = rng.choice(n_classes, size=n, p=shares)
    scores = np.exp(rng.normal(size=(n, n_classes)) + 1.5 * np.eye(n_classes)[targets])
    return scores / scores.sum(axis=1, keepdims=True), targets


def clustered(rng, patients, *, agree=0.95):
    """Return scores and patients: 1 to 10 images each, whose scores agree strongly.

    Scores are uniform, so the coverage of a threshold t for a new patient's image is t.
    """
    images = rng.integers(1, 11, patients)
    names = np.repeat(np.arange(patients), images)
    own, shared = rng.normal(size=images.sum()), rng.normal(size=patients)[names]
    return norm.cdf(np.sqrt(agree) * shared + np.sqrt(1 - agree) * own), names


@pytest.mark.parametrize(
    ("n", "level", "rank"),
    [(9, 0.9, 9), (10, 0.9, 10), (19, 0.9, 18), (19, 0.95, 19), (4, 0.8, 4), (99, 0.8, 80)],
)
def test_threshold_is_the_finite_sample_quantile(n, level, rank):
    # ceil((n + 1) level), by hand.
    assert conformal_threshold(np.arange(1, n + 1)[::-1], np.arange(n), level) == rank


@pytest.mark.parametrize(("level", "fewest"), [(0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_too_few_patients_give_no_threshold(level, fewest):
    assert patients_needed(level) == fewest
    names = np.repeat(np.arange(fewest), 5)
    assert conformal_threshold(np.zeros(len(names)), names, level) == 0
    assert conformal_threshold(np.zeros(len(names) - 5), names[5:], level) is None


def test_an_image_weighs_one_by_the_images_of_its_patient():
    # By hand: a has 4 images of 1/4, b and c one each; at 0.5 patients must weigh 4 * 0.5 = 2.
    scores, names = [0.1, 0.2, 0.3, 0.4, 0.35, 0.9], list("aaaabc")
    assert conformal_threshold(scores, names, 0.5) == 0.4
    assert conformal_threshold(scores, names, 0.4) == 0.35  # 1.6 <= 3/4 + 1
    assert conformal_threshold(scores, names, 0.75) == 0.9


def test_the_threshold_is_that_of_p_values_averaged_over_one_image_per_patient():
    rng = np.random.default_rng(6)
    scores, names = clustered(rng, 30, agree=0.5)
    pools = [scores[names == name] for name in range(30)]
    draws = np.array([[rng.choice(pool) for pool in pools] for _ in range(4000)])
    for level in LEVELS:
        limit = conformal_threshold(scores, names, level)
        for score in np.linspace(0.6, 0.999, 40):
            mean_p = np.mean((1 + (draws >= score).sum(axis=1)) / 31)
            if abs(mean_p - (1 - level)) > 0.004:  # The mean of 4,000 draws is not exact.
                assert (mean_p > 1 - level) == (score <= limit)


def test_clusters_are_covered_as_promised_where_images_counted_as_patients_are_not_sure_to_be():
    rng = np.random.default_rng(7)
    held, as_images = [], []
    for _ in range(2000):
        scores, names = clustered(rng, 12)
        held.append(conformal_threshold(scores, names, 0.9))
        as_images.append(conformal_threshold(scores, np.arange(len(scores)), 0.9))
    # 12 patients of a class: the promise is 0.9; 66 images that count as patients give less.
    assert np.mean(held) > 0.9 - 3 * np.std(held) / np.sqrt(2000)
    assert np.mean(as_images) < 0.885


@pytest.mark.parametrize("level", [0, 1, -0.2, 90])
def test_a_level_outside_0_to_1_is_refused(level):
    with pytest.raises(InputError, match="between 0 and 1"):
        conformal_threshold([0.1], ["a"], level)


def test_sets_by_hand():
    probs = np.array([[0.6, 0.3, 0.1], [0.5, 0.45, 0.05], [0.4, 0.35, 0.25]])
    found = prediction_sets(probs, (0.55, 0.55, 0.55))
    np.testing.assert_array_equal(found, [[1, 0, 0], [1, 1, 0], [1, 0, 0]])
    # No class of the last image is sure enough: bare, its set is empty.
    bare = prediction_sets(probs, (0.55, 0.55, 0.55), with_top=False)
    np.testing.assert_array_equal(bare[2], [0, 0, 0])
    np.testing.assert_array_equal(bare[:2], found[:2])


def test_the_most_probable_class_is_in_every_set_and_sets_grow_with_the_level():
    rng = np.random.default_rng(5)
    probs, targets = drawn(rng, 200)
    probs[:, 0] = probs[:, 0] ** 3  # A model that errs on one class, as on images from elsewhere.
    probs /= probs.sum(axis=1, keepdims=True)
    before = np.zeros((200, 3), bool)
    for level in (0.5, 0.8, 0.9, 0.95):
        for per_class in (False, True):
            limits = fit(probs, targets, np.arange(200), level=level, per_class=per_class)
            sets = prediction_sets(probs, limits)
            assert sets[np.arange(200), probs.argmax(axis=1)].all()
            if per_class:
                assert (sets >= before).all()
                before = sets


def test_a_class_without_threshold_is_in_every_set():
    probs = np.array([[0.98, 0.01, 0.01], [0.01, 0.01, 0.98]])
    found = prediction_sets(probs, (0.5, None, 0.5))
    np.testing.assert_array_equal(found, [[1, 1, 0], [0, 1, 1]])
    assert prediction_sets(probs, (None, None, None)).all()


def test_thresholds_must_fit_the_classes():
    with pytest.raises(InputError, match="2 thresholds do not go with"):
        prediction_sets(np.full((1, 3), 1 / 3), (0.5, 0.5))


def test_per_class_thresholds_come_from_the_own_images():
    probs, targets = drawn(np.random.default_rng(0), 300)
    found = fit(probs, targets, np.arange(300), level=0.9)
    for k in range(3):
        own = np.sort(1 - probs[targets == k, k])
        assert found[k] == own[int(np.ceil((len(own) + 1) * 0.9)) - 1]
    plain = fit(probs, targets, np.arange(300), level=0.9, per_class=False)
    assert len(set(plain)) == 1
    assert plain[0] == conformal_threshold(1 - probs[np.arange(300), targets], np.arange(300), 0.9)


@pytest.mark.parametrize("per_class", [False, True])
def test_coverage_over_many_validations_is_as_promised(per_class):
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(400):
        probs, targets = drawn(rng, 80, shares=[0.6, 0.1, 0.3])
        new, truth = drawn(rng, 100, shares=[0.6, 0.1, 0.3])
        limits = fit(probs, targets, np.arange(80), level=0.8, per_class=per_class)
        sets = prediction_sets(new, limits, with_top=False)
        covered.append(sets[np.arange(100), truth])
    # Theory: at least 0.8, and at most 1 / (n + 1) above it where the threshold is shared.
    mean, error = np.mean(covered), np.std(np.mean(covered, axis=1)) / 20
    assert mean > 0.8 - 3 * error
    assert per_class or mean < 0.8 + 1 / 81 + 3 * error


def test_per_class_thresholds_cover_the_rare_class():
    rng = np.random.default_rng(2)
    shares = [0.8, 0.05, 0.15]
    probs, targets = drawn(rng, 4000, shares=shares)
    names = np.arange(4000)
    new, truth = drawn(rng, 20_000, shares=shares)
    for per_class in (False, True):
        limits = fit(probs, targets, names, level=0.9, per_class=per_class)
        sets = prediction_sets(new, limits, with_top=False)
        rare = sets[truth == 1, 1].mean()
        assert rare == pytest.approx(0.9, abs=0.05) or not per_class
    probs[:, 1] *= 0.3  # A model that is shy of the rare class.
    probs /= probs.sum(axis=1, keepdims=True)
    shared = fit(probs, targets, names, level=0.9, per_class=False)
    plain = prediction_sets(probs, shared, with_top=False)
    own = fit(probs, targets, names, level=0.9)
    assert plain[targets == 1, 1].mean() < 0.75
    assert prediction_sets(probs, own, with_top=False)[targets == 1, 1].mean() >= 0.9


def test_referral_by_hand():
    probs = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6], [0.5, 0.5]])
    threshold = fit_referral(probs, coverage=0.8)
    assert threshold == 0.6
    np.testing.assert_array_equal(refer(probs, threshold), [0, 0, 0, 0, 1])
    assert fit_referral(probs, coverage=1) == 0.5
    # A part of an image more needs the next one.
    np.testing.assert_array_equal(refer(probs, fit_referral(probs, coverage=0.61)).sum(), 1)


def test_referral_answers_at_least_the_wished_share_where_images_tie():
    probs = np.array([[0.9, 0.1]] * 2 + [[0.6, 0.4]] * 8)
    assert not refer(probs, fit_referral(probs, coverage=0.5)).any()


@pytest.mark.parametrize(("n", "coverage"), [(0, 0.8), (3, 0), (3, 1.2)])
def test_referral_refuses(n, coverage):
    with pytest.raises(InputError, match="cannot fit referral"):
        fit_referral(np.full((n, 2), 0.5), coverage=coverage)


def test_what_is_stored_is_plain_and_read_again():
    probs, targets = drawn(np.random.default_rng(3), 200)
    names = np.arange(200) // 2
    found = fit_uncertainty(probs, targets, LABELS, groups=names)
    stored = json.loads(json.dumps(found, allow_nan=False))
    assert stored == found
    assert stored["fitted_on"] == "validation"
    assert stored["n"] == 200 == sum(stored["counts"].values())
    assert stored["n_patients"] == 100
    assert stored["images_per_patient"] == {"mean": 2, "largest": 2}
    for k, label in enumerate(LABELS):
        assert stored["patients"][label] == len({i // 2 for i in range(200) if targets[i] == k})
    assert list(stored["conformal"]["levels"]) == ["0.8", "0.9", "0.95"]
    for level in LEVELS:
        assert thresholds_of(stored, level) == fit(probs, targets, names, level=level)
        plain = fit(probs, targets, names, level=level, per_class=False)
        assert thresholds_of(stored, level, per_class=False) == plain
    assert referral_threshold(stored) == fit_referral(probs)
    assert stored["referral"]["answered"] == pytest.approx(0.8, abs=0.006)
    assert stored["warning"] == ""
    with pytest.raises(InputError, match=r"level 0\.7 .* choose one of 0\.8, 0\.9, 0\.95"):
        thresholds_of(stored, 0.7)


def test_a_small_validation_is_named():
    probs, targets = drawn(np.random.default_rng(4), 80)
    targets[:] = [0] * 50 + [1] * 20 + [2] * 10
    found = fit_uncertainty(probs, targets, LABELS, groups=np.arange(80) // 2)
    assert "40 patients, fewer than 100" in found["warning"]
    levels = found["conformal"]["levels"]
    assert levels["0.8"]["note"] == ""
    assert levels["0.9"]["per_class"]["viral"] is None
    assert "too small to cover at 0.9, which takes 9 patients: viral (5)" in levels["0.9"]["note"]
    assert "covid (10), viral (5)" in levels["0.95"]["note"]
    assert None not in (levels["0.95"]["plain"], levels["0.95"]["per_class"]["normal"])


@pytest.mark.parametrize(
    ("probs", "targets", "said"),
    [
        (np.full((2, 3), 1 / 3), [0], "do not belong together"),
        (np.full((1, 3), 1 / 3), [3], "allowed are 0 to 2"),
        (np.array([[np.nan, 0.5, 0.5]]), [0], "not finite"),
    ],
)
def test_what_does_not_fit_is_refused(probs, targets, said):
    with pytest.raises(InputError, match=said):
        fit(probs, targets, np.arange(len(targets)), level=0.9)
