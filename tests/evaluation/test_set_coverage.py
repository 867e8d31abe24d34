from functools import partial

import numpy as np
import pytest
from scipy.stats import norm

from cxr.evaluation.bootstrap import resample
from cxr.evaluation.set_coverage import (
    chance_range,
    fitted_sets,
    mean_sizes,
    measure_sets,
    sets_sentences,
)
from cxr.reliability.conformal import (
    conformal_threshold,
    fit_uncertainty,
    prediction_sets,
    thresholds_of,
)

LABELS = ["normal", "covid", "viral"]


def drawn(rng, n):
    targets = rng.choice(3, size=n, p=[0.5, 0.1, 0.4])
    scores = np.exp(rng.normal(size=(n, 3)) + 1.5 * np.eye(3)[targets])
    return targets, scores / scores.sum(axis=1, keepdims=True)


def measured_sets(targets, probs, names, stored, *, resamples):
    sets = fitted_sets(probs, stored)
    rng = np.random.default_rng(0)
    draws = resample(names, {"sizes": partial(mean_sizes, sets)}, rng=rng, resamples=resamples)
    return measure_sets(targets, probs, names, stored, sets, draws["sizes"])


def measured(n=400, fitted=300):
    rng = np.random.default_rng(0)
    stored = fit_uncertainty(*drawn(rng, fitted)[::-1], LABELS, groups=np.arange(fitted))
    targets, probs = drawn(rng, n)
    return (
        targets,
        probs,
        stored,
        measured_sets(targets, probs, np.arange(n) // 2, stored, resamples=100),
    )


def test_coverage_and_size_are_those_of_the_sets():
    targets, probs, stored, found = measured()
    assert list(found) == ["0.8", "0.9", "0.95"]
    for level, kinds in found.items():
        for kind in ("plain", "per_class"):
            limits = thresholds_of(stored, float(level), per_class=kind == "per_class")
            sets = prediction_sets(probs, limits)
            hit = sets[np.arange(len(targets)), targets]
            values = kinds[kind]
            assert values["coverage"]["value"] == pytest.approx(hit.mean())
            assert values["size"]["value"] == pytest.approx(sets.sum(axis=1).mean())
            assert values["coverage"]["low"] < values["coverage"]["value"]
            assert values["coverage"]["patients"] == 200
            for k, label in enumerate(LABELS):
                own = values["per_class"][label]["value"]
                assert own == pytest.approx(hit[targets == k].mean())
                patients = {i // 2 for i in range(len(targets)) if targets[i] == k}
                assert values["per_class"][label]["patients"] == len(patients)
                assert values["per_class"][label]["images"] == (targets == k).sum()
            assert sum(values["share_of_sizes"].values()) == pytest.approx(1)
            bare = prediction_sets(probs, limits, with_top=False)
            assert values["empty_without_top"] == pytest.approx((~bare.any(axis=1)).mean())
            single = sets.sum(axis=1) == 1
            assert values["accuracy_of_singles"] == pytest.approx(hit[single].mean())


def test_coverage_is_as_promised_within_chance():
    found = measured(n=4000, fitted=2000)[3]
    for level, kinds in found.items():
        low, high = kinds["plain"]["expected"]["all"]
        assert low - 0.02 < kinds["plain"]["coverage_without_top"] < high + 0.02
        assert low < float(level) < high


def test_chance_range_agrees_with_simulation():
    rng = np.random.default_rng(1)
    # Of uniform scores the coverage of a threshold is the threshold.
    thresholds = np.sort(rng.random((20_000, 50)), axis=1)[:, int(np.ceil(51 * 0.9)) - 1]
    expected = np.quantile(thresholds, [0.025, 0.975])
    np.testing.assert_allclose(chance_range(0.9, 50), expected, atol=0.005)
    assert chance_range(0.95, 18) == (1.0, 1.0)


def test_chance_range_holds_for_clusters_where_counting_images_does_not():
    rng = np.random.default_rng(3)
    coverages, images = [], []
    for _ in range(1000):
        sizes = rng.integers(1, 11, 60)
        names = np.repeat(np.arange(60), sizes)
        # Scores are uniform, so the coverage of a threshold is the threshold.
        shared, own = rng.normal(size=60)[names], rng.normal(size=sizes.sum())
        scores = norm.cdf(np.sqrt(0.95) * shared + np.sqrt(0.05) * own)
        coverages.append(conformal_threshold(scores, names, 0.9))
        images.append(len(scores))
    low, high = np.transpose([chance_range(0.9, n) for n in (60, int(np.mean(images)))])
    shares = np.array(coverages)[:, None]
    by_patient, by_image = ((low <= shares) & (shares <= high)).mean(axis=0)
    assert by_patient > 0.94
    assert by_image < 0.75


def test_the_expected_range_counts_the_patients_of_each_class():
    rng = np.random.default_rng(4)
    targets, probs = drawn(rng, 300)
    names = np.arange(300) // 3
    stored = fit_uncertainty(probs, targets, LABELS, groups=names)
    found = measured_sets(targets, probs, names, stored, resamples=5)["0.9"]
    assert found["plain"]["expected"]["all"] == chance_range(0.9, 100)
    for k, label in enumerate(LABELS):
        patients = len({i // 3 for i in range(300) if targets[i] == k})
        assert found["per_class"]["expected"][label] == chance_range(0.9, patients)


def test_a_class_always_covered_has_an_interval_and_what_falls_short_is_named():
    rng = np.random.default_rng(5)
    targets, probs = drawn(rng, 600)
    stored = fit_uncertainty(probs, targets, LABELS, groups=np.arange(600))
    turned = probs.copy()
    turned[targets == 2] = [0.97, 0.02, 0.01]
    turned[targets == 0] = [0.98, 0.01, 0.01]
    found = measured_sets(targets, turned, np.arange(600), stored, resamples=5)
    own = found["0.9"]["per_class"]["per_class"]
    assert own["normal"]["value"] == 1
    assert own["normal"]["low"] < 0.995
    said = sets_sentences({"prediction_sets": found})[1]
    assert said.startswith("sets per class promise to hold the truth of each class with 90%")
    assert said.endswith("viral short of that, by more than chance")


def test_an_absent_class_has_no_coverage():
    targets, probs, stored, _ = measured()
    kept = targets != 1
    found = measured_sets(targets[kept], probs[kept], np.arange(kept.sum()), stored, resamples=5)
    assert np.isnan(found["0.9"]["plain"]["per_class"]["covid"]["value"])
    assert not np.isnan(found["0.9"]["plain"]["coverage"]["value"])


def test_a_validation_too_small_gives_whole_sets_and_says_so():
    rng = np.random.default_rng(2)
    targets, probs = drawn(rng, 12)
    stored = fit_uncertainty(probs, targets, LABELS, groups=np.arange(12))
    found = measured_sets(targets, probs, np.arange(12), stored, resamples=5)
    assert found["0.95"]["plain"]["size"]["value"] == 3
    assert found["0.95"]["plain"]["expected"]["all"] == (1.0, 1.0)
    assert "all classes together (12)" in found["0.95"]["note"]
