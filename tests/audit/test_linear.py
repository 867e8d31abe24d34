"""The linear models against scikit-learn, and that no group is on both sides."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cxr.audit import linear
from cxr.audit.linear import fit_linear, out_of_fold
from cxr.errors import InputError


def sample(n_images: int, n_features: int, *, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    targets = rng.choice(3, n_images, p=[0.6, 0.3, 0.1])
    features = rng.normal(size=(n_images, n_features)) * np.geomspace(1, 50, n_features)
    features[:, :3] += np.eye(3)[targets] * 1.5
    return features, targets, np.arange(n_images) // 2


@pytest.mark.parametrize("shape", [(200, 8), (60, 90)])
def test_as_scikit_learn(shape, monkeypatch):
    monkeypatch.setattr(linear, "TOLERANCE", 1e-7)
    features, targets, groups = sample(*shape)
    found = fit_linear(features, targets, groups, n_classes=3, penalties=[1e-2])
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    reference = LogisticRegression(
        C=1 / (1e-2 * len(targets)), class_weight="balanced", tol=1e-8, max_iter=5000
    ).fit(scaled, targets)
    np.testing.assert_allclose(found.probs(features), reference.predict_proba(scaled), atol=2e-4)


def test_default_tolerance_is_near_enough():
    features, targets, groups = sample(200, 8)
    found = fit_linear(features, targets, groups, n_classes=3)
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    reference = LogisticRegression(
        C=1 / (found.penalty * len(targets)), class_weight="balanced", tol=1e-8, max_iter=5000
    ).fit(scaled, targets)
    np.testing.assert_allclose(found.probs(features), reference.predict_proba(scaled), atol=5e-3)


def test_noise_gets_a_stronger_penalty_than_signal():
    rng = np.random.default_rng(1)
    targets, groups = rng.integers(0, 2, 200), np.arange(200)
    noise = rng.normal(size=(200, 50))
    signal = noise[:, :3] + 3 * targets[:, None]
    strong = fit_linear(noise, targets, groups, n_classes=2).penalty
    weak = fit_linear(signal, targets, groups, n_classes=2).penalty
    assert strong > weak


def test_groups_are_held_out_whole():
    # The group tells the class and nothing else does: seen groups would give every image away.
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(40), 5)
    targets = rng.integers(0, 2, 40)[groups]
    features = np.eye(40)[groups]
    probs = out_of_fold(features, targets, groups, n_classes=2)
    assert np.isfinite(probs).all()
    assert ((probs.argmax(axis=1) == targets).mean()) < 0.7


def test_constant_features_say_nothing():
    features, targets, groups = sample(100, 4)
    constant = np.column_stack([features, np.full(100, 7.0)])
    np.testing.assert_allclose(
        fit_linear(constant, targets, groups, n_classes=3).probs(constant),
        fit_linear(features, targets, groups, n_classes=3).probs(features),
        atol=1e-6,
    )


def test_classes_without_images_get_next_to_nothing():
    features, targets, groups = sample(200, 8)
    probs = fit_linear(features, targets, groups, n_classes=4).probs(features)
    assert probs[:, 3].max() < 0.05


def test_refusals():
    features, targets, groups = sample(50, 4)
    with pytest.raises(InputError, match="not finite"):
        fit_linear(np.full((50, 4), np.nan), targets, groups, n_classes=3)
    with pytest.raises(InputError, match="two classes"):
        fit_linear(features, np.zeros(50, int), groups, n_classes=3)
    with pytest.raises(InputError, match="fewer than two groups"):
        out_of_fold(features, targets, np.zeros(50, int), n_classes=3)
