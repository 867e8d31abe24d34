"""The card that lies beside a model: what it is, what it was measured on, what it is not for."""

from collections.abc import Mapping
from typing import Any


def model_card(info: Mapping[str, Any]) -> str:
    """Return ``MODEL_CARD.md``.

    Args:
        info: what ``bundle.json`` will carry.
    """
    films = info["data"]["films"]
    lines = [
        f"# {info['data']['name']}/{info['run']}",
        "",
        f"{info['note']}.",
        "",
        "An ensemble of convolutional networks that sorts frontal chest films into "
        f"{', '.join(info['labels'])}.",
        "",
        "## What it is",
        *[f"- {name}, weight {info['weights'][name]:.3f}, temperature "
          f"{info['temperatures'][name]:.3f}" for name in info["members"]],
        f"- input: gray film, {info['preprocess']['fit']} to {info['preprocess']['size_px']} "
        "pixels; everything else is inside the graph",
        "",
        "## What it was trained on",
        f"- {films['train']} films, {films['val']} for validation, {films['test']} for the test",
        f"- data fingerprint {info['data']['fingerprint']}",
        *(["- synthetic phantom: it has never seen a real film"] if info["synthetic"] else []),
        "",
        "## What was measured",
        *_test_lines(info["test"]),
        "",
        "## What it is not for",
        "It is no medical device, and no diagnosis may rest on it. A figure above holds for "
        "films from the same sources; on films from elsewhere it can be far lower. Where each "
        "class comes from its own source, a network may have learnt to tell sources apart.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _test_lines(test: Any) -> list[str]:
    if isinstance(test, str):
        return [f"The test split was {test}."]
    lines = [f"On {test['n']} test films of {test['n_groups']} patients or groups, with 95 % "
             "intervals by resampling patients:", "", "| metric | value | interval |",
             "| --- | --- | --- |"]  # fmt: skip
    for key in ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc"):
        lines.append(_row(key.replace("_", " "), test["ensemble"][key]))
    for label, values in test["ensemble"]["per_class"].items():
        lines.append(_row(f"sensitivity, {label}", values["sensitivity"]))
        lines.append(_row(f"specificity, {label}", values["specificity"]))
    return lines


def _row(name: str, entry: Mapping[str, float | None]) -> str:
    value, low, high = (
        "undefined" if entry[key] is None or entry[key] != entry[key] else f"{entry[key]:.3f}"
        for key in ("value", "low", "high")
    )
    return f"| {name} | {value} | {low} to {high} |"
