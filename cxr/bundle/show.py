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
    levels = ", ".join(info["uncertainty"]["conformal"]["levels"])
    return [
        ("bundle", f"{info['data']['name']}/{info['run']}, format {info['format']}"),
        ("fingerprint", info["fingerprint"]),
        ("data", info["data"]["fingerprint"]),
        ("classes", ", ".join(info["labels"])),
        ("members", ", ".join(weights)),
        ("input", f"{preprocess['size_px']} px, {preprocess['fit']}"),
        ("sets", f"levels {levels}"),
        ("referral", f"below {info['uncertainty']['referral']['threshold']:.3f}"),
        *_tests(info["test"]),
        *[("variant", f"{name}: {_variant(values)}") for name, values in info["models"].items()],
        ("files", f"{len(info['files'])}, {size / 1e6:.0f} MB, every digest right"),
        ("exported", str(info["environment"]["time_utc"])),
        ("note", info["note"]),
    ]


def _tests(test: Any) -> list[tuple[str, str]]:
    if isinstance(test, str):
        return [("test", test)]
    shown = [("accuracy", "accuracy"), ("balanced_accuracy", "balanced"), ("macro_auroc", "AUROC")]
    return [(
        "test",
        f"{test['n']} films: " + ", ".join(
            f"{head} {test['ensemble'][key]['value']:.3f} "
            f"({_number(test['ensemble'][key]['low'])} to {_number(test['ensemble'][key]['high'])})"
            for key, head in shown
        ),
    )]  # fmt: skip


def _variant(values: Mapping[str, Any]) -> str:
    return str(values.get("file") or f"not offered, {values.get('reason', 'no reason given')}")


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
