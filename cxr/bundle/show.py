"""Say what a bundle is, in lines for the terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxr.bundle.format import check_files, read_info


def describe(bundle: Path | str) -> str:
    """Check a bundle and describe it.

    Args:
        bundle: its folder.

    Returns:
        Lines ``name  value``, without a line feed at the end.

    Raises:
        InputError: no bundle, or one that was changed or is of a newer format.
    """
    folder = Path(bundle)
    info = read_info(folder)
    check_files(folder, info)
    rows = summary(info)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


def summary(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return name and value of what is worth knowing about a bundle."""
    size = sum(entry["bytes"] for entry in info["files"].values())
    preprocess = info["preprocess"]
    weights = [f"{name} {info['weights'][name]:.2f}" for name in info["members"]]
    return [
        ("bundle", f"{info['data']['name']}/{info['run']}, format {info['format']}"),
        ("fingerprint", info["fingerprint"]),
        ("data", info["data"]["fingerprint"]),
        ("classes", ", ".join(info["labels"])),
        ("members", ", ".join(weights)),
        ("input", f"{preprocess['size_px']} px, {preprocess['fit']}"),
        *[
            (f"sets {name}", _sets(info, float(name)))
            for name in info["uncertainty"]["conformal"]["levels"]
        ],
        ("referral", f"below {info['uncertainty']['referral']['threshold']:.3f}"),
        *_tests(info["test"]),
        *[("variant", f"{name}: {_variant(values)}") for name, values in info["models"].items()],
        ("files", f"{len(info['files'])}, {size / 1e6:.0f} MB, every digest right"),
        ("exported", str(info["environment"]["time_utc"])),
        ("note", info["note"]),
    ]


def set_coverage(info: Mapping[str, Any], level: float) -> dict[str, dict[str, Any]]:
    """Return how often sets of a level held the true class on test, by class.

    Args:
        info: content of ``bundle.json``.
        level: of the prediction sets.

    Returns:
        Label to ``value``, ``low``, ``high``, ``images``, ``patients``; empty where it was not
        measured for these sets, as in every bundle of version 0.1.
    """
    test = info.get("test")
    sets = test.get("prediction_sets") if isinstance(test, Mapping) else None
    if not isinstance(sets, Mapping) or f"{level:g}" not in sets:
        return {}
    return dict(sets[f"{level:g}"]["per_class"])


def promise_words(share: Mapping[str, Any], level: float) -> str:
    """Tell whether a class is covered as promised: ``kept``, ``within chance`` or ``short``."""
    if share["value"] >= level:
        return "kept"
    return "short" if share["high"] < level else "within chance"


def _sets(info: Mapping[str, Any], level: float) -> str:
    found = [
        f"{label} {share['value']:.3f} ({_number(share['low'])} to {_number(share['high'])}, "
        f"{share['patients']} patients, {promise_words(share, level)})"
        for label, share in set_coverage(info, level).items()
    ]
    return f"per class; on test {', '.join(found) or 'not measured'}"


def _tests(test: Any) -> list[tuple[str, str]]:
    if isinstance(test, str):
        return [("test", test)]
    shown = [("accuracy", "accuracy"), ("balanced_accuracy", "balanced"), ("macro_auroc", "AUROC")]
    return [
        (
            "test",
            f"{test['n']} images: "
            + ", ".join(
                f"{head} {test['ensemble'][key]['value']:.3f} "
                f"({_number(test['ensemble'][key]['low'])} to "
                f"{_number(test['ensemble'][key]['high'])})"
                for key, head in shown
            ),
        )
    ]


def _variant(values: Mapping[str, Any]) -> str:
    return str(values.get("file") or f"not offered, {values.get('reason', 'no reason given')}")


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
