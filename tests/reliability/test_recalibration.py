"""Confidence fitted anew: coverage comes back, absent classes keep their thresholds."""

import numpy as np
import pytest

from cxr.errors import InputError
from cxr.models.ensemble import softmax
from cxr.reliability.conformal import fit_uncertainty, tempered
from cxr.reliability.recalibration import held_out_coverage, recalibrate

LABELS = ("normal", "covid", "viral")


def drawn(rng: np.random.Generator, count: int, *, sharpness: float = 1.0, classes: int = 3):
    """Return probabilities (N, 3), targets and patients of two images each."""
    targets = rng.integers(0, classes, count)
    logits = rng.normal(0, 1, (count, 3))
    logits[np.arange(count), targets] += 1.5
    return softmax(logits * sharpness), targets, np.arange(count) // 2


@pytest.fixture(scope="module")
def former():
    probs, targets, groups = drawn(np.random.default_rng(0), 600)
    return fit_uncertainty(probs, targets, LABELS, groups=groups)


def test_tempering_is_a_softmax_of_logarithms():
    probs = np.array([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(tempered(probs, 2.0)[:1], softmax(np.log(probs[:1]), 2.0))
    np.testing.assert_array_equal(tempered(probs, 2.0)[1], [1, 0, 0])
    assert tempered(probs, 1.0) is probs


def test_overconfident_local_images_are_covered_again(former):
    probs, targets, groups = drawn(np.random.default_rng(1), 400, sharpness=4)
    temperature, anew = recalibrate(probs, targets, groups, former)
    assert 2.5 < temperature < 5
    assert anew["fitted_on"] == "local images"
    assert anew["n"] == 400
    found = held_out_coverage(probs, targets, groups, former, dealings=40)["0.9"]
    assert found["before"]["coverage"]["value"] < 0.85
    for share in [found["after"]["coverage"], *found["after"]["per_class"].values()]:
        assert share["value"] > 0.88
        assert share["low"] <= share["value"] <= share["high"]


def test_images_like_validation_keep_their_temperature_and_coverage(former):
    probs, targets, groups = drawn(np.random.default_rng(2), 400)
    found = held_out_coverage(probs, targets, groups, former, images=100, dealings=40)["0.9"]
    for when in ("before", "after"):
        assert found[when]["coverage"]["value"] == pytest.approx(0.9, abs=0.05)


def test_a_class_without_local_images_keeps_its_threshold_and_a_note(former):
    probs, targets, groups = drawn(np.random.default_rng(3), 100, sharpness=4, classes=2)
    temperature, anew = recalibrate(probs, targets, groups, former)
    level = anew["conformal"]["levels"]["0.9"]
    before = former["conformal"]["levels"]["0.9"]["per_class"]["viral"]
    pair = tempered([[1 - before, before]], temperature)[0]
    assert level["per_class"]["viral"] == pytest.approx(pair[1])
    assert "no local image of viral" in level["note"]
    found = held_out_coverage(probs, targets, groups, former, dealings=3)
    assert found["0.9"]["after"]["per_class"]["viral"] is None


def test_the_same_seed_gives_the_same_coverage(former):
    given = (*drawn(np.random.default_rng(4), 80), former)
    assert held_out_coverage(*given, dealings=5) == held_out_coverage(*given, dealings=5)


def test_one_patient_cannot_be_dealt(former):
    probs, targets, _ = drawn(np.random.default_rng(5), 60)
    with pytest.raises(InputError, match="1 patients with 60 images cannot be dealt"):
        held_out_coverage(probs, targets, np.zeros(60), former, dealings=2)
