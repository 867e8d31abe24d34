"""Test 2: what a straight line tells from inputs that hold little or no anatomy.

N images, n test images, F features, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cxr.audit.baseline_inputs import (
    BORDER,
    FILE,
    GRAY,
    HISTOGRAM,
    SIZE,
    UNSEEN,
    WORDS,
    Inputs,
    read_inputs,
)
from cxr.audit.context import AuditContext, Interval
from cxr.audit.limits import Scored, corrected, judgeable
from cxr.audit.linear import fit_linear
from cxr.audit.result import (
    AuditResult,
    AuditTable,
    AuditTest,
    Cell,
    Column,
    Verdict,
    judge,
    statistic_of,
    worst,
)
from cxr.evaluation.tables import show_interval
from cxr.labels import list_words

TEST = AuditTest(
    "baselines",
    2,
    "Non-anatomical baselines",
    "Plain linear models were given only what no radiologist would diagnose from: the image's "
    "brightness, its border, the size of the original, the file. What they tell of the class, a "
    "network can learn too, without looking at a lung.",
)
LIMITS: dict[str, tuple[float, float]] = {
    **dict.fromkeys((BORDER, SIZE, FILE), (0.65, 0.80)),
    **dict.fromkeys((GRAY, HISTOGRAM), (0.80, 0.90)),
}
"""Lower limit of the AUROC (at 1 - 0.05 / comparisons, one-sided) from which an input is
suspicious, and a shortcut. What cannot show a lung should tell nothing, and 0.80 puts four pairs
of images of five in the right order. Gray may tell a little, since disease whitens lungs. A
thumbnail shows the lungs, coarsely, so it is not judged: it stands there for what a network adds
to it."""


class Judged(NamedTuple):
    """An input judged by its AUROC of a class."""

    verdict: Verdict
    input: str
    k: int
    auroc: Interval


def audit_baselines(context: AuditContext, *, inputs: Inputs | None = None) -> AuditResult:
    """Fit a balanced logistic model on each input and set the trained models beside them.

    The inputs of all images are read from the pixels and files by default.

    Returns:
        The verdict of the worst input and class, by ``LIMITS``, among classes with
        ``MIN_IMAGES`` of ``MIN_PATIENTS`` in test and in fit, and as many of the others.
    """
    targets, groups, labels = context.targets, context.groups, context.labels
    fit, test = context.fit_rows, context.test_rows
    shown, thin = judgeable({"images to fit on": fit, "test images": test}, targets, groups, labels)
    if not shown:
        return TEST.skipped("; ".join(thin))
    if inputs is None:
        size = context.column("width"), context.column("height")
        paths = [context.root / name for name in context.column("image").tolist()]
        inputs = read_inputs(context.pixels, *size, paths, progress=context.progress)
    fitted = {}
    with context.progress("baselines: fit linear models", len(inputs.features)) as done:
        for name, values in inputs.features.items():
            model = fit_linear(
                values[fit], targets[fit], groups[fit], n_classes=len(labels), seed=context.seed
            )
            fitted[name] = model.probs(values[test])
            done()
    tested = Scored(targets[test], groups[test], fitted | dict(context.probs))
    judged = _judge(tested, shown, [name for name in fitted if name in LIMITS])
    best = {k: max(fitted, key=lambda name: tested.auroc(name, k)["value"]) for k in shown}
    if not judged:
        return TEST.skipped("no input without the lungs can be had")
    verdict = worst(part.verdict for part in judged)
    # Of equal verdicts the one that a network can see says more.
    first = max(
        judged,
        key=lambda part: (part.verdict == verdict, part.input not in UNSEEN, part.auroc["low"]),
    )
    reasons = [f"{WORDS[name]}: {reason}" for name, reason in inputs.missing.items()] + thin
    metric = f"AUROC of {labels[first.k]} against the rest, {WORDS[first.input]}"
    return TEST.result(
        verdict,
        _sentence(context, verdict, judged, best, tested),
        statistic_of(first.auroc, "auroc", metric, chance=0.5),
        values={
            "accuracy": {name: tested.accuracy(name) for name in fitted},
            "auroc": {
                name: {label: tested.auroc(name, k) for k, label in enumerate(labels)}
                for name in fitted
            },
        },
        tables=[_table(tested, labels), _gain_table(tested, best, labels, context.model)],
        reason="; ".join(reasons),
    )


def _judge(tested: Scored, shown: Sequence[int], names: Sequence[str]) -> list[Judged]:
    judged = []
    confidence = corrected(len(names) * len(shown))
    for name in names:
        suspicious, shortcut = LIMITS[name]
        for k in shown:
            low = tested.limit(name, k, confidence=confidence)
            verdict = judge(low, suspicious=suspicious, shortcut=shortcut)
            judged.append(Judged(verdict, name, k, tested.auroc(name, k)))
    return judged


def _sentence(
    context: AuditContext,
    verdict: Verdict,
    judged: Sequence[Judged],
    best: Mapping[int, str],
    tested: Scored,
) -> str:
    labels, model = context.labels, context.model
    from_pixels = _best_of([part for part in judged if part.input not in UNSEEN], labels)
    from_file = _best_of([part for part in judged if part.input in UNSEEN], labels)
    names = sorted({part.input for part in judged} | {*best.values()}, key=WORDS.__getitem__)
    first = max(names, key=lambda name: float(tested.hits(name).mean()))
    ours, theirs = (tested.accuracy(name) for name in (model, first))
    added = [f"{labels[k]} {_signed(tested.gain(model, name, k))}" for k, name in best.items()]
    start = {
        "shortcut": "The class can be told without a lung in sight",
        "suspicious": "Something of the class shows where no disease can be",
        "clear": "Brightness, border, size and file tell little of the class",
        "skipped": "No statistic is defined",
    }[verdict]
    file = f" Without even opening the image: {list_words(from_file)}." if from_file else ""
    return (
        f"{start}. AUROC against the rest of the best linear model on brightness or border (0.50 "
        f"is guessing): {list_words(from_pixels)}.{file} A linear model on the {WORDS[first]} is "
        f"right on {show_interval(theirs, digits=2)} of the test images, the trained {model} on "
        f"{show_interval(ours, digits=2)}. Beyond the best linear model the {model} adds, in "
        f"AUROC: {list_words(added)}."
    )


def _signed(interval: Interval) -> str:
    value, low, high = (f"{round(interval[key], 2) + 0.0:+.2f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _best_of(judged: Sequence[Judged], labels: Sequence[str]) -> list[str]:
    """Write each class's best input with its AUROC, the highest first."""
    best: dict[int, Judged] = {}
    for part in judged:
        if part.k not in best or part.auroc["value"] > best[part.k].auroc["value"]:
            best[part.k] = part
    return [
        f"{labels[part.k]} {show_interval(part.auroc, digits=2)} ({WORDS[part.input]})"
        for part in sorted(best.values(), key=lambda part: -part.auroc["value"])
    ]


def _table(tested: Scored, labels: Sequence[str]) -> AuditTable:
    rows: list[tuple[Cell, ...]] = [
        (
            WORDS.get(name, name),
            tested.accuracy(name),
            tested.balanced_accuracy(name),
            *(tested.auroc(name, k) for k in range(len(labels))),
        )
        for name in tested.probs
    ]
    aurocs = (Column(f"auroc_{label}", f"AUROC {label}", "interval") for label in labels)
    scores = (Column(name, kind="interval") for name in ("accuracy", "balanced_accuracy"))
    title = "Linear models on non-anatomical inputs, and the trained models, on the test images"
    first = Column("input", "input of the model")
    return AuditTable("inputs", title, (first, *scores, *aurocs), tuple(rows))


def _gain_table(
    tested: Scored, best: Mapping[int, str], labels: Sequence[str], model: str
) -> AuditTable:
    rows: list[tuple[Cell, ...]] = []
    for k, name in best.items():
        aurocs = tested.auroc(name, k), tested.auroc(model, k)
        rows.append((labels[k], WORDS[name], *aurocs, tested.gain(model, name, k)))
    columns = (
        Column("class"),
        Column("best_input"),
        Column("baseline_auroc", "its AUROC", "interval"),
        Column("trained_auroc", f"AUROC of the {model}", "interval"),
        Column("difference", kind="interval"),
    )
    title = f"What the {model} adds to the best linear model, in AUROC (same images)"
    return AuditTable("gains", title, columns, tuple(rows))
