"""Pools of members by hand, and what is fitted against slow searches."""

import dataclasses

import numpy as np
import pytest
from scipy.optimize import minimize

from cxr.errors import InputError
from cxr.models.ensemble import (
    LINEAR,
    LOGARITHMIC,
    POOLS,
    Ensemble,
    all_probs,
    nll,
    pool_logits,
    softmax,
)
from cxr.models.ensemble_fit import cross_fitted, fit_ensemble, fit_temperature, fit_weights

LABELS = ("normal", "covid", "bacterial", "viral")
PLAIN = {"pool": LINEAR, "weight_prior": 0.0}


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


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("skills", [(1.0, 1.2, 0.4), (2.0, 0.0, 0.1), (1.5, 1.5, 1.5)])
def test_weights_equal_those_of_slsqp(skills, pool):
    parts = [fake_logits(seed, skill) for seed, skill in enumerate(skills)]
    targets = parts[0][1]
    log_probs = np.log(np.stack([softmax(logits) for logits, _ in parts]))
    weights = fit_weights(log_probs, targets, pool=pool, prior=0)

    def loss(point: np.ndarray) -> float:
        scores = pool_logits(log_probs, np.maximum(point[:3], 0), pool)
        return nll(softmax(scores, point[3]), targets)

    oracle = minimize(
        loss,
        [1 / 3, 1 / 3, 1 / 3, 1],
        method="SLSQP",
        bounds=[(0, 1)] * 3 + [(0.05, 20)],
        constraints={"type": "eq", "fun": lambda w: w[:3].sum() - 1},
        options={"ftol": 1e-12},
    )
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    temperature = fit_temperature(pool_logits(log_probs, weights, pool), targets)
    assert loss(np.append(weights, temperature)) <= oracle.fun + 1e-7
    np.testing.assert_allclose(weights, oracle.x[:3], atol=5e-3)


def pooled_by_hand(probs: np.ndarray, weight: float, pool: str) -> np.ndarray:
    """Pool two members' probabilities without logarithms of sums."""
    if pool == LINEAR:
        return weight * probs[0] + (1 - weight) * probs[1]
    product = probs[0] ** weight * probs[1] ** (1 - weight)
    return product / product.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("prior", [0.0, 40.0, 4000.0])
@pytest.mark.parametrize("pool", POOLS)
def test_weights_of_two_members_equal_a_grid(pool, prior):
    (first, targets), (second, _) = fake_logits(3, 1.0), fake_logits(4, 1.6)
    probs = np.stack([softmax(first), softmax(second)])
    log_probs = np.log(probs)
    grid = np.linspace(0.005, 0.995, 199)
    losses = []
    for w in grid:
        scores = np.log(pooled_by_hand(probs, w, pool))
        q = softmax(scores, fit_temperature(scores, targets))
        losses.append(400 * nll(q, targets) - prior / 2 * (np.log(w) + np.log(1 - w)))
    best = grid[int(np.argmin(losses))]
    # Half a step of the grid, and a little for how flat the optimum is.
    weight = fit_weights(log_probs, targets, pool=pool, prior=prior)[0]
    assert weight == pytest.approx(best, abs=3e-3)


@pytest.mark.parametrize("pool", POOLS)
def test_the_prior_draws_weights_from_the_likeliest_to_equal(pool):
    (first, targets), (second, _) = fake_logits(3, 0.6), fake_logits(4, 2.0)
    log_probs = np.log(np.stack([softmax(first), softmax(second)]))
    found = [
        fit_weights(log_probs, targets, pool=pool, prior=prior)[0]
        for prior in (0, 10, 1000, 1e5, 1e12)
    ]
    assert found == sorted(found)
    assert found[0] < 0.3
    assert found[-1] == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("pool", POOLS)
def test_weights_of_one_member_and_of_twins(pool):
    logits, targets = fake_logits(0, 1.0)
    one = np.log(softmax(logits))[None]
    np.testing.assert_array_equal(fit_weights(one, targets, pool=pool, prior=5), [1.0])
    twins = fit_weights(np.concatenate([one, one]), targets, pool=pool, prior=0)
    np.testing.assert_allclose(twins, [0.5, 0.5])


def test_pools_by_hand():
    logits = {"a": [[np.log(3.0), 0.0]], "b": [[0.0, 0.0]]}
    linear = Ensemble(
        ("x", "y"),
        ("a", "b"),
        {"a": 1.0, "b": 2.0},
        {"a": 0.6, "b": 0.4},
        LINEAR,
        temperature=0.5,
        equal_temperature=2.0,
    )
    found = all_probs(logits, linear)
    np.testing.assert_allclose(found["a"], [[0.75, 0.25]])
    # 0.65 and 0.35 squared; 0.625 and 0.375 under the root.
    np.testing.assert_allclose(
        found["ensemble"], [[0.65**2 / (0.65**2 + 0.35**2)] * 1 + [0.35**2 / (0.65**2 + 0.35**2)]]
    )
    roots = np.sqrt([0.625, 0.375])
    np.testing.assert_allclose(found["equal"], [roots / roots.sum()])
    found = all_probs(logits, dataclasses.replace(linear, pool=LOGARITHMIC))
    # Odds of 3 to the power of 0.6 / 0.5, and of 0.5 / 2.
    np.testing.assert_allclose(found["ensemble"][0, 0], 3**1.2 / (1 + 3**1.2))
    np.testing.assert_allclose(found["equal"][0, 0], 3**0.25 / (1 + 3**0.25))


def test_a_file_of_version_0_1_is_read_as_the_linear_pool_that_it_was():
    logits = {"a": fake_logits(0, 1)[0], "b": fake_logits(1, 1)[0]}
    old = {
        "labels": list(LABELS),
        "members": ["a", "b"],
        "best_member": "a",
        "temperatures": {"a": 0.7, "b": 1.3},
        "weights": {"a": 0.8, "b": 0.2},
    }
    ensemble = Ensemble.from_dict(old)
    assert (ensemble.pool, ensemble.temperature, ensemble.equal_temperature) == (LINEAR, 1, 1)
    a, b = softmax(logits["a"], 0.7), softmax(logits["b"], 1.3)
    found = all_probs(logits, ensemble)
    np.testing.assert_allclose(found["ensemble"], 0.8 * a + 0.2 * b, rtol=0, atol=1e-14)
    np.testing.assert_allclose(found["equal"], (a + b) / 2, rtol=0, atol=1e-14)


def test_a_linear_pool_of_calibrated_members_is_underconfident_and_the_last_temperature_mends_it():
    # Two independent views of the same class, each member's posterior exact: calibrated, both.
    rng = np.random.default_rng(0)
    targets = np.arange(20000) % 4
    seen = {name: np.eye(4)[targets] + rng.normal(size=(20000, 4)) for name in ("a", "b")}
    ensemble = fit_ensemble(seen, targets, LABELS, **PLAIN)
    assert list(ensemble.temperatures.values()) == pytest.approx([1, 1], abs=0.03)
    before = all_probs(seen, dataclasses.replace(ensemble, temperature=1.0))["ensemble"]
    after = all_probs(seen, ensemble)["ensemble"]
    right = (after.argmax(axis=1) == targets).mean()
    gaps = [right - probs.max(axis=1).mean() for probs in (before, after)]
    assert gaps[0] > 0.06
    assert abs(gaps[1]) < gaps[0] / 4
    assert ensemble.temperature < 0.8
    assert nll(after, targets) < nll(before, targets) - 0.01
    # The product of both posteriors is the true one: a logarithmic pool, with T = 1/2 behind it.
    best = fit_ensemble(seen, targets, LABELS, pool=LOGARITHMIC, weight_prior=0)
    assert best.temperature == pytest.approx(0.5, abs=0.02)
    assert nll(all_probs(seen, best)["ensemble"], targets) < nll(after, targets)


def test_pools_refuse_other_members_and_shapes():
    ensemble = Ensemble(("x", "y"), ("a", "b"), {"a": 1.0, "b": 1.0}, {"a": 0.5, "b": 0.5})
    with pytest.raises(InputError, match="exactly its members"):
        all_probs({"a": [[0.0, 1.0]]}, ensemble)
    with pytest.raises(InputError, match="differ in shape"):
        all_probs({"a": np.zeros((2, 2)), "b": np.zeros((3, 2))}, ensemble)


def test_underflown_probabilities_still_count_behind_a_temperature():
    log_probs = np.array([[[0.0, -800.0, -900.0]], [[0.0, -800.0, -900.0]]])
    for pool in POOLS:
        found = pool_logits(log_probs, [0.5, 0.5], pool)
        np.testing.assert_allclose(found, log_probs[0])


@pytest.mark.parametrize("pool", POOLS)
def test_cross_fitted_images_take_no_part_in_their_own_fit(pool):
    logits = {"a": fake_logits(0, 1, 80)[0], "b": fake_logits(1, 1.4, 80)[0]}
    targets = np.arange(80) % 4
    groups = np.arange(80) // 8  # of two images of each class
    ensemble = fit_ensemble(logits, targets, LABELS, pool=pool, weight_prior=10)
    found = cross_fitted(logits, targets, groups, ensemble)
    assert list(found) == ["a", "b", "equal", "ensemble"]
    # Whatever is measured on a patient is fitted without that patient: other labels of theirs,
    # other logits of theirs or none at all leave the fit behind it as it was.
    for name in ("a", "b"):
        ratio = np.log(found[name][:, :1] / found[name][:, 1:2])[:, 0]
        temperature = (logits[name][:, 0] - logits[name][:, 1]) / ratio
        for group in range(10):
            own = temperature[groups == group]
            np.testing.assert_allclose(own, own[0], rtol=1e-6)
            folds_of = np.isclose(temperature, own[0], rtol=1e-9)
            kept = ~folds_of
            assert own[0] == pytest.approx(fit_temperature(logits[name][kept], targets[kept]))
    with pytest.raises(InputError, match="group"):
        cross_fitted(logits, targets, np.zeros(80), ensemble)


@pytest.mark.parametrize("pool", POOLS)
def test_fitted_ensemble_is_no_worse_than_members_or_equal_on_validation(pool):
    logits = {f"m{seed}": fake_logits(seed, skill)[0] for seed, skill in enumerate((1, 1.5, 0.2))}
    targets = fake_logits(0, 1)[1]
    ensemble = fit_ensemble(logits, targets, LABELS, pool=pool, weight_prior=0)
    losses = {name: nll(p, targets) for name, p in all_probs(logits, ensemble).items()}
    assert list(losses) == ["m0", "m1", "m2", "equal", "ensemble"]
    assert losses["ensemble"] <= min(losses.values()) + 1e-7
    assert sum(ensemble.weights.values()) == pytest.approx(1)


def test_ensemble_round_trip_ignores_added_keys():
    logits, targets = fake_logits(0, 1)
    ensemble = fit_ensemble({"a": logits, "b": -logits}, targets, LABELS, **PLAIN)
    assert Ensemble.from_dict(ensemble.to_dict() | {"note": "x"}) == ensemble


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {"a": 0.5}}, "its members are"),
        ({"weights": {"a": 0.5, "b": 0.6}}, "summing to 1"),
        ({"weights": {"a": 1.5, "b": -0.5}}, "summing to 1"),
        ({"temperatures": {"a": 0.0, "b": 1.0}}, "above 0"),
        ({"temperatures": {"a": float("nan"), "b": 1.0}}, "above 0"),
        ({"temperature": 0.0}, "above 0"),
        ({"equal_temperature": float("inf")}, "above 0"),
        ({"pool": "median"}, "pool is 'median': allowed are linear, logarithmic"),
        ({"weight_prior": -1.0}, "weight_prior is -1.0: allowed are finite numbers from 0"),
        ({"fitted_on": "test"}, "fitted_on is 'test': allowed are validation, cv"),
    ],
)
def test_damaged_ensemble_is_refused(change, message):
    logits, targets = fake_logits(0, 1)
    plain = fit_ensemble({"a": logits, "b": -logits}, targets, LABELS, **PLAIN).to_dict()
    with pytest.raises(InputError, match=message):
        Ensemble.from_dict(plain | change)
    with pytest.raises(InputError, match="lacks weights"):
        Ensemble.from_dict({key: value for key, value in plain.items() if key != "weights"})


def test_class_absent_from_validation_is_one_line():
    logits, targets = fake_logits(0, 1)
    keep = targets != 1
    with pytest.raises(InputError, match="no image of covid") as error:
        fit_ensemble({"a": logits[keep]}, targets[keep], LABELS, **PLAIN)
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
        fit_ensemble({name: logits}, [0, 1, 2, 3], LABELS, **PLAIN)
    with pytest.raises(InputError, match="at least one"):
        fit_ensemble({}, [0, 1, 2, 3], LABELS, **PLAIN)
