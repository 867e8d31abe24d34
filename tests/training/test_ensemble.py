import numpy as np
import pytest
from scipy.optimize import minimize

from cxr.errors import InputError
from cxr.training.ensemble import (
    Ensemble,
    all_probs,
    combine,
    fit_ensemble,
    fit_temperature,
    fit_weights,
    nll,
    softmax,
)

LABELS = ("normal", "covid", "bacterial", "viral")


def fake_logits(seed: int, skill: float, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Return targets that depend on n alone, and logits of the given skill."""
    targets = np.arange(n) % 4
    noise = np.random.default_rng(seed).normal(size=(n, 4))
    return noise + skill * np.eye(4)[targets], targets


def test_softmax_by_hand():
    probs = softmax([[np.log(3.0), 0.0], [1e4, 0.0]])
    np.testing.assert_allclose(probs, [[0.75, 0.25], [1.0, 0.0]])
    np.testing.assert_allclose(softmax([[np.log(9.0), 0.0]], 2.0), [[0.75, 0.25]])


def test_nll_by_hand():
    probs = np.array([[0.5, 0.5], [0.25, 0.75]])
    assert nll(probs, np.array([0, 1])) == pytest.approx(-(np.log(0.5) + np.log(0.75)) / 2)
    assert np.isfinite(nll(np.array([[0.0, 1.0]]), np.array([0])))


def test_temperature_by_hand():
    # Three of four right at a margin of m: the best T makes sigmoid(m / T) = 3/4.
    logits = np.array([[2.0, 0.0]] * 4)
    assert fit_temperature(logits, [0, 0, 0, 1]) == pytest.approx(2 / np.log(3), rel=1e-5)


@pytest.mark.parametrize("stretch", [0.3, 1.0, 5.0])
def test_temperature_beats_a_grid(stretch):
    logits, targets = fake_logits(1, 1.5)
    logits = logits * stretch
    grid = np.exp(np.linspace(np.log(0.05), np.log(20), 2001))
    losses = [nll(softmax(logits, t), targets) for t in grid]
    found = fit_temperature(logits, targets)
    assert nll(softmax(logits, found), targets) <= min(losses) + 1e-10
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=5e-3)


def test_temperature_of_logits_without_information_is_one():
    assert fit_temperature(np.zeros((6, 3)), [0, 1, 2, 0, 1, 2]) == 1.0


def test_temperature_without_a_wrong_image_stays_one_and_is_said(caplog):
    assert fit_temperature(4 * np.eye(3), [0, 1, 2]) == 1.0
    assert "no temperature can be fitted" in caplog.text


def test_temperature_at_the_end_of_its_range_is_said(caplog):
    assert fit_temperature(100 * np.eye(3), [1, 2, 0]) == pytest.approx(20, rel=1e-2)
    assert "end of the range" in caplog.text


@pytest.mark.parametrize("skills", [(1.0, 1.2, 0.4), (2.0, 0.0, 0.1), (1.5, 1.5, 1.5)])
def test_weights_equal_those_of_slsqp(skills):
    parts = [fake_logits(seed, skill) for seed, skill in enumerate(skills)]
    targets = parts[0][1]
    probs = np.stack([softmax(logits) for logits, _ in parts])
    weights = fit_weights(probs, targets)
    oracle = minimize(
        lambda w: nll(np.tensordot(w, probs, 1), targets),
        np.full(3, 1 / 3),
        method="SLSQP",
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12},
    )
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert nll(np.tensordot(weights, probs, 1), targets) <= oracle.fun + 1e-7
    np.testing.assert_allclose(weights, oracle.x, atol=2e-3)


def test_weights_of_two_members_equal_a_grid():
    (first, targets), (second, _) = fake_logits(3, 1.0), fake_logits(4, 1.3)
    probs = np.stack([softmax(first), softmax(second)])
    grid = np.linspace(0, 1, 2001)
    losses = [nll(w * probs[0] + (1 - w) * probs[1], targets) for w in grid]
    assert fit_weights(probs, targets)[0] == pytest.approx(grid[int(np.argmin(losses))], abs=1e-3)


def test_weights_of_one_member_and_of_twins():
    logits, targets = fake_logits(0, 1.0)
    probs = softmax(logits)
    np.testing.assert_array_equal(fit_weights(probs[None], targets), [1.0])
    np.testing.assert_allclose(fit_weights(np.stack([probs, probs]), targets), [0.5, 0.5])


def test_weights_survive_a_zero_probability():
    probs = np.array([[[0.0, 1.0], [0.5, 0.5]], [[0.9, 0.1], [0.5, 0.5]]])
    np.testing.assert_allclose(fit_weights(probs, [0, 0]), [0.0, 1.0], atol=1e-6)


def test_combine_by_hand():
    logits = {"a": [[np.log(3.0), 0.0]], "b": [[0.0, 0.0]]}
    probs = combine(logits, {"a": 1.0, "b": 2.0}, {"a": 0.6, "b": 0.4})
    np.testing.assert_allclose(probs, [[0.65, 0.35]])


def test_combine_refuses_other_members_and_shapes():
    with pytest.raises(InputError, match="exactly its members"):
        combine({"a": [[0.0, 1.0]]}, {"b": 1.0}, {"b": 1.0})
    with pytest.raises(InputError, match="differ in shape"):
        combine(
            {"a": np.zeros((2, 2)), "b": np.zeros((3, 2))},
            {"a": 1.0, "b": 1.0},
            {"a": 0.5, "b": 0.5},
        )


def test_fitted_ensemble_is_no_worse_than_members_or_equal_on_validation():
    logits = {f"m{seed}": fake_logits(seed, skill)[0] for seed, skill in enumerate((1, 1.5, 0.2))}
    targets = fake_logits(0, 1)[1]
    ensemble = fit_ensemble(logits, targets, LABELS)
    losses = {name: nll(p, targets) for name, p in all_probs(logits, ensemble).items()}
    assert list(losses) == ["m0", "m1", "m2", "equal", "ensemble"]
    assert losses["ensemble"] <= min(losses.values()) + 1e-7
    assert sum(ensemble.weights.values()) == pytest.approx(1)


def test_ensemble_round_trip_ignores_added_keys():
    logits, targets = fake_logits(0, 1)
    ensemble = fit_ensemble({"a": logits, "b": -logits}, targets, LABELS)
    assert Ensemble.from_dict(ensemble.to_dict() | {"note": "x"}) == ensemble


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {"a": 0.5}}, "its members are"),
        ({"weights": {"a": 0.5, "b": 0.6}}, "summing to 1"),
        ({"weights": {"a": 1.5, "b": -0.5}}, "summing to 1"),
        ({"temperatures": {"a": 0.0, "b": 1.0}}, "above 0"),
        ({"temperatures": {"a": float("nan"), "b": 1.0}}, "above 0"),
    ],
)
def test_damaged_ensemble_is_refused(change, message):
    logits, targets = fake_logits(0, 1)
    plain = fit_ensemble({"a": logits, "b": -logits}, targets, LABELS).to_dict()
    with pytest.raises(InputError, match=message):
        Ensemble.from_dict(plain | change)
    with pytest.raises(InputError, match="lacks weights"):
        Ensemble.from_dict({key: value for key, value in plain.items() if key != "weights"})


def test_class_absent_from_validation_is_one_line():
    logits, targets = fake_logits(0, 1)
    keep = targets != 1
    with pytest.raises(InputError, match="no image of covid") as error:
        fit_ensemble({"a": logits[keep]}, targets[keep], LABELS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "logits", "message"),
    [
        ("ensemble", np.zeros((4, 4)), "rename it"),
        ("a", np.zeros((3, 4)), "shape"),
        ("a", np.zeros((4, 3)), "shape"),
        ("a", np.full((4, 4), np.nan), "not finite"),
    ],
)
def test_bad_logits_are_refused(name, logits, message):
    with pytest.raises(InputError, match=message):
        fit_ensemble({name: logits}, [0, 1, 2, 3], LABELS)
    with pytest.raises(InputError, match="at least one"):
        fit_ensemble({}, [0, 1, 2, 3], LABELS)
