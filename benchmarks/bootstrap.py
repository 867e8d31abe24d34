"""Time 2,000 patient-wise resamples of every metric, and the same with scikit-learn's loop.

Run: python benchmarks/bootstrap.py
"""

import time

import numpy as np
from sklearn.metrics import roc_auc_score

from cxr.evaluation.bootstrap import bootstrap, resample_weights

N_IMAGES, N_CLASSES, N_MODELS, RESAMPLES = 1250, 4, 4, 2000
LOOPED = 20


def main() -> None:
    """Print both times."""
    rng = np.random.default_rng(0)
    y_true = rng.integers(N_CLASSES, size=N_IMAGES)
    groups = rng.integers(800, size=N_IMAGES)
    logits = rng.normal(size=(N_MODELS, N_IMAGES, N_CLASSES)) + 2 * np.eye(N_CLASSES)[y_true]
    probs = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    start = time.perf_counter()
    bootstrap(
        y_true, {str(i): p for i, p in enumerate(probs)}, groups, rng=rng, resamples=RESAMPLES
    )
    print(f"{RESAMPLES} resamples, {N_MODELS} models, all metrics: {_since(start):.2f} s")
    start = time.perf_counter()
    for weights in resample_weights(groups, LOOPED, rng):
        for p in probs:
            for k in range(N_CLASSES):
                roc_auc_score(y_true == k, p[:, k], sample_weight=weights)
    estimate = _since(start) * RESAMPLES / LOOPED
    print(f"a loop over scikit-learn's AUROC alone: about {estimate:.0f} s (from {LOOPED})")


def _since(start: float) -> float:
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
