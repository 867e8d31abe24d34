"""Test 2: what a straight line tells from inputs that hold little or no anatomy.

N images, n test images, F features, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxr.audit.baseline_inputs import BORDER, FILE, GRAY, HISTOGRAM, SIZE, UNSEEN, Inputs
from cxr.audit.limits import (
    Interval,
    auroc_gain,
    auroc_limit,
    balanced_interval,
    corrected,
    shortages,
    too_few,
)
from cxr.audit.linear import fit_linear
from cxr.audit.result import AuditResult, Verdict, figure_of, judge, skipped, worst
from cxr.data.decode import ShowProgress, no_progress
from cxr.evaluation.intervals import auroc_interval, share_interval
from cxr.evaluation.tables import Cell, Table, show_interval
from cxr.labels import list_words

NAME, TITLE = "baselines", "What needs no diagnosis"
WHAT = (
    "Plain linear models were given only what no radiologist would diagnose from: the image's "
    "brightness, its border, the size of the original, the file. What they tell of the class, a "
    "network can learn too, without looking at a lung."
)
LIMITS: dict[str, tuple[float, float]] = {
    BORDER: (0.65, 0.80),
    SIZE: (0.65, 0.80),
    FILE: (0.65, 0.80),
    GRAY: (0.80, 0.90),
    HISTOGRAM: (0.80, 0.90),
}
"""Lower limit of the AUROC (at 1 - 0.05 / comparisons, one-sided) from which an input is
suspicious, and a shortcut. What
cannot show a lung should tell nothing, and 0.80 puts four pairs of images of five in the right
order. Gray may tell a little, since disease whitens lungs. A thumbnail shows the lungs, coarsely,
so it is not judged: it stands there for what a network adds to it."""


@dataclass(frozen=True)
class Tested:
    """The n test images and what every model makes of them.

    Attributes:
        targets: (n,) class positions.
        groups: (n,) patient or group names.
        probs: per input and per trained model (n, K).
    """

    targets: NDArray[np.int64]
    groups: NDArray[np.str_]
    probs: dict[str, NDArray[np.float64]]

    def auroc(self, name: str, k: int) -> Interval:
        """Return a model's AUROC of a class against the rest."""
        return auroc_interval(self.targets == k, self.probs[name][:, k], self.groups)

    def hits(self, name: str) -> NDArray[np.bool_]:
        """Return (n,) which images a model has right."""
        return np.asarray(self.probs[name].argmax(axis=1) == self.targets)


def audit_baselines(
    inputs: Inputs,
    targets: NDArray[np.int64],
    groups: NDArray[np.str_],
    labels: Sequence[str],
    *,
    fit_rows: NDArray[np.int64],
    test_rows: NDArray[np.int64],
    model_probs: Mapping[str, NDArray[np.float64]],
    model: str,
    seed: int = 0,
    progress: ShowProgress = no_progress,
) -> AuditResult:
    """Fit a balanced logistic model on each trivial input and set the network beside them.

    Args:
        inputs: what ``read_inputs`` gave.
        targets: (N,) class positions.
        groups: (N,) patient or group names.
        labels: K class names.
        fit_rows: images to fit on, train and validation.
        test_rows: n images to measure on.
        model_probs: per trained model (n, K) probabilities of the test images.
        model: the one of these that is set beside the best baseline.
        seed: of inner folds.
        progress: see ``ShowProgress``.

    Returns:
        The verdict of the worst input and class, by ``LIMITS``, among classes with
        ``MIN_IMAGES`` of ``MIN_PATIENTS`` in test and in fit, and as many of the others.
    """
    parts = {"images to fit on": fit_rows, "test images": test_rows}
    short = {where: shortages(targets[rows], groups[rows], labels) for where, rows in parts.items()}
    shown = [k for k, label in enumerate(labels) if not any(part[label] for part in short.values())]
    thin = [reason for where, part in short.items() for reason in too_few(part, where)]
    if not shown:
        return skipped(NAME, TITLE, WHAT, "; ".join(thin))
    probs = {}
    with progress("baselines: fit linear models", len(inputs.features)) as done:
        for name, features in inputs.features.items():
            fitted = fit_linear(
                features[fit_rows],
                targets[fit_rows],
                groups[fit_rows],
                n_classes=len(labels),
                seed=seed,
            )
            probs[name] = fitted.probs(features[test_rows])
            done()
    tested = Tested(targets[test_rows], groups[test_rows], probs | dict(model_probs))
    judged = _judge(tested, shown, [name for name in probs if name in LIMITS])
    gains = _gains(tested, list(probs), model, shown)
    if not judged:
        return skipped(NAME, TITLE, WHAT, "no input without the lungs can be had")
    verdict = worst(verdict for verdict, *_ in judged)
    # Of equal verdicts the one that a network can see says more.
    decided = max(
        judged, key=lambda found: (found[0] == verdict, found[1] not in UNSEEN, found[3]["low"])
    )
    reasons = [f"{name}: {reason}" for name, reason in inputs.missing.items()] + thin
    metric = f"AUROC of {labels[decided[2]]} against the rest, {decided[1]}"
    return AuditResult(
        NAME,
        TITLE,
        WHAT,
        verdict,
        _sentence(verdict, judged, gains, labels, tested, model),
        figure_of(decided[3], metric=metric, chance=0.5),
        [_table(tested, labels), _gain_table(gains, labels, model)],
        "; ".join(reasons),
    )


Judged = tuple[Verdict, str, int, Interval]
"""Verdict, input, class, AUROC."""
Gain = tuple[int, str, Interval, Interval, Interval]
"""Class, best input, its AUROC, the network's, the difference."""


def _judge(tested: Tested, shown: Sequence[int], names: Sequence[str]) -> list[Judged]:
    found = []
    confidence = corrected(len(names) * len(shown))
    for name in names:
        suspicious, shortcut = LIMITS[name]
        for k in shown:
            low = auroc_limit(
                tested.targets == k, tested.probs[name][:, k], tested.groups, confidence=confidence
            )
            verdict = judge(low, suspicious=suspicious, shortcut=shortcut)
            found.append((verdict, name, k, tested.auroc(name, k)))
    return found


def _gains(tested: Tested, names: Sequence[str], model: str, shown: Sequence[int]) -> list[Gain]:
    """Return, per class, what the network has beyond the best baseline; the images are paired."""
    gains = []
    for k in shown:
        best = max(names, key=lambda name: tested.auroc(name, k)["value"])
        gain = auroc_gain(
            tested.targets == k, tested.probs[model][:, k], tested.probs[best][:, k], tested.groups
        )
        gains.append((k, best, tested.auroc(best, k), tested.auroc(model, k), gain))
    return gains


def _sentence(
    verdict: Verdict,
    judged: Sequence[Judged],
    gains: Sequence[Gain],
    labels: Sequence[str],
    tested: Tested,
    model: str,
) -> str:
    from_pixels = _best_of([found for found in judged if found[1] not in UNSEEN], labels)
    from_file = _best_of([found for found in judged if found[1] in UNSEEN], labels)
    best = max(
        sorted({found[1] for found in judged} | {gain[1] for gain in gains}),
        key=lambda name: float(tested.hits(name).mean()),
    )
    ours, theirs = (share_interval(tested.hits(name), tested.groups) for name in (model, best))
    added = [
        f"{labels[k]} {_signed(gain['value'])} [{_signed(gain['low'])}, {_signed(gain['high'])}]"
        for k, _, _, _, gain in gains
    ]
    start = {
        "shortcut": "The class can be told without a lung in sight",
        "suspicious": "Something of the class shows where no disease can be",
        "clear": "Brightness, border, size and file tell little of the class",
        "skipped": "No figure is defined",
    }[verdict]
    file = f" Without even opening the image: {list_words(from_file)}." if from_file else ""
    return (
        f"{start}. AUROC against the rest of the best linear model on brightness or border (0.50 "
        f"is guessing): {list_words(from_pixels)}.{file} A linear model on the {best} is right on "
        f"{show_interval(theirs, digits=2)} of the test images, the trained {model} on "
        f"{show_interval(ours, digits=2)}. Beyond the best linear model the {model} adds, in "
        f"AUROC: {list_words(added)}."
    )


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"


def _best_of(judged: Sequence[Judged], labels: Sequence[str]) -> list[str]:
    """Write each class's best input with its AUROC, the highest first."""
    best: dict[int, Judged] = {}
    for found in judged:
        if found[2] not in best or found[3]["value"] > best[found[2]][3]["value"]:
            best[found[2]] = found
    ranked = sorted(best.values(), key=lambda found: -found[3]["value"])
    return [
        f"{labels[k]} {show_interval(auroc, digits=2)} ({name})" for _, name, k, auroc in ranked
    ]


def _table(tested: Tested, labels: Sequence[str]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            show_interval(share_interval(tested.hits(name), tested.groups)),
            show_interval(balanced_interval(tested.hits(name), tested.targets, tested.groups)),
            *(show_interval(tested.auroc(name, k)) for k in range(len(labels))),
        )
        for name in tested.probs
    ]
    heads = ("input of the model", "accuracy", "balanced accuracy")
    return Table(
        "Linear models on trivial inputs, and the trained models, on the test images",
        (*heads, *(f"AUROC {label}" for label in labels)),
        tuple(rows),
    )


def _gain_table(gains: Sequence[Gain], labels: Sequence[str], model: str) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (labels[k], best, show_interval(theirs), show_interval(ours), show_interval(gain))
        for k, best, theirs, ours, gain in gains
    ]
    return Table(
        f"What the {model} adds to the best linear model, in AUROC (same images)",
        ("class", "best input", "its AUROC", f"AUROC of the {model}", "difference"),
        tuple(rows),
    )
