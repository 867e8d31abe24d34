import numpy as np
import pytest
from sklearn import metrics as oracle

from cxr.evaluation.bootstrap import resample_weights
from cxr.evaluation.metrics import confusion_matrix, score


def fake(seed: int, *, n: int = 90, n_classes: int = 3, decimals: int = 2):
    """Return targets and rounded probabilities, so that scores tie."""
    rng = np.random.default_rng(seed)
    y_true = rng.integers(n_classes, size=n)
    raw = rng.gamma(1.0, size=(n, n_classes)) + 0.8 * np.eye(n_classes)[y_true]
    y_prob = np.round(raw / raw.sum(axis=1, keepdims=True), decimals) + 1e-3
    return y_true, y_prob / y_prob.sum(axis=1, keepdims=True)


def slow_scores(y_true, y_prob, weights):
    """Compute what scikit-learn gives for one vector of weights."""
    used = weights > 0
    y_true, y_prob, weights = y_true[used], y_prob[used], weights[used]
    labels = np.arange(y_prob.shape[1])
    y_pred = y_prob.argmax(axis=1)
    found = {
        "accuracy": oracle.accuracy_score(y_true, y_pred, sample_weight=weights),
        "balanced_accuracy": oracle.balanced_accuracy_score(y_true, y_pred, sample_weight=weights),
        "macro_f1": oracle.f1_score(y_true, y_pred, average="macro", sample_weight=weights),
        "nll": oracle.log_loss(y_true, y_prob, sample_weight=weights, labels=labels),
    }
    kept = {"zero_division": np.nan, "sample_weight": weights}
    for k in labels:
        t, p = y_true == k, y_pred == k
        found[f"sensitivity@{k}"] = oracle.recall_score(t, p, **kept)
        found[f"specificity@{k}"] = oracle.recall_score(~t, ~p, **kept)
        found[f"ppv@{k}"] = oracle.precision_score(t, p, **kept)
        found[f"npv@{k}"] = oracle.precision_score(~t, ~p, **kept)
        found[f"f1@{k}"] = oracle.f1_score(t, p, **kept)
        found[f"auroc@{k}"] = oracle.roc_auc_score(t, y_prob[:, k], sample_weight=weights)
        found[f"average_precision@{k}"] = oracle.average_precision_score(
            t, y_prob[:, k], sample_weight=weights
        )
    found["macro_auroc"] = np.mean([found[f"auroc@{k}"] for k in labels])
    return found


def test_every_metric_by_hand():
    # true 0 0 0 1 1 2, predicted 0 0 1 1 2 2
    y_true = [0, 0, 0, 1, 1, 2]
    y_prob = np.array(
        [
            [0.8, 0.1, 0.1],
            [0.6, 0.3, 0.1],
            [0.3, 0.5, 0.2],
            [0.2, 0.7, 0.1],
            [0.3, 0.2, 0.5],
            [0.1, 0.3, 0.6],
        ]
    )
    np.testing.assert_array_equal(
        confusion_matrix(y_true, y_prob), [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    )
    found = score(y_true, y_prob)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    np.testing.assert_allclose(found["sensitivity"], [2 / 3, 1 / 2, 1])
    np.testing.assert_allclose(found["specificity"], [1, 3 / 4, 4 / 5])
    np.testing.assert_allclose(found["ppv"], [1, 1 / 2, 1 / 2])
    np.testing.assert_allclose(found["npv"], [3 / 4, 3 / 4, 1])
    np.testing.assert_allclose(found["f1"], [4 / 5, 1 / 2, 2 / 3])
    assert found["macro_f1"] == pytest.approx((4 / 5 + 1 / 2 + 2 / 3) / 3)
    # Class 0: the 0.3 of a positive ties with the 0.3 of a negative, 8.5 of 9 pairs.
    np.testing.assert_allclose(found["auroc"], [8.5 / 9, (4 + 1) / 8, 1])
    assert found["macro_auroc"] == pytest.approx((8.5 / 9 + 5 / 8 + 1) / 3)
    # Class 0: 2/3 of the recall at precision 1, the last third at 3 of 4.
    assert found["average_precision"][0] == pytest.approx(2 / 3 + 3 / 4 / 3)
    assert found["nll"] == pytest.approx(-np.log([0.8, 0.6, 0.3, 0.7, 0.2, 0.6]).mean())


def test_weighted_metrics_equal_scikit_learn():
    y_true, y_prob = fake(0)
    rng = np.random.default_rng(1)
    weights = resample_weights(np.arange(90) // 3, 25, rng)
    for row, weight in enumerate(weights):
        found = score(y_true, y_prob, weight)
        for name, value in slow_scores(y_true, y_prob, weight).items():
            key, _, k = name.partition("@")
            ours = found[key][int(k)] if k else found[key]
            assert ours == pytest.approx(value, abs=1e-12, nan_ok=True), (row, name)


def test_auroc_with_ties_equals_all_pairs():
    y_true, y_prob = fake(2, n=60, decimals=1)
    for k in range(3):
        positive, negative = y_prob[y_true == k, k], y_prob[y_true != k, k]
        pairs = np.sign(positive[:, None] - negative[None]) / 2 + 0.5
        assert score(y_true, y_prob)["auroc"][k] == pytest.approx(pairs.mean())


def test_constant_scores_are_chance():
    found = score([0, 0, 1], np.full((3, 2), 0.5))
    assert np.isnan(found["ppv"][1])
    assert np.isnan(found["npv"][0])
    np.testing.assert_allclose(found["auroc"], 0.5)
    np.testing.assert_allclose(found["average_precision"], [2 / 3, 1 / 3])


def test_class_absent_from_test_is_nan():
    y_true, y_prob = [0, 0, 1], np.array([[0.8, 0.1, 0.1], [0.5, 0.4, 0.1], [0.2, 0.7, 0.1]])
    found = score(y_true, y_prob)
    for name in ("sensitivity", "ppv", "f1", "auroc", "average_precision"):
        assert np.isnan(found[name][2])
        assert not np.isnan(found[name][:2]).any()
    assert found["specificity"][2] == 1
    assert found["balanced_accuracy"] == found["macro_auroc"] == found["macro_f1"] == 1


def test_class_predicted_but_absent_counts_in_macro_f1():
    found = score([0, 1], np.array([[0.8, 0.1, 0.1], [0.1, 0.2, 0.7]]))
    assert found["macro_f1"] == pytest.approx(1 / 3)
