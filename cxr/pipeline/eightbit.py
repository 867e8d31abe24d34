"""The 8-bit variant of a bundle that is being written: made, measured, offered or not."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.bundle.format import MODEL_FILES
from cxr.bundle.quantise import Setting, quantise, settings_for
from cxr.bundle.runtimes import Arrays
from cxr.console import images_bar, log
from cxr.evaluation.bootstrap import bootstrap, interval
from cxr.evaluation.evaluate import read_predictions
from cxr.labels import label_indices
from cxr.models.build import WEIGHTS_FILE
from cxr.pipeline.exported import Exported, Splits
from cxr.reliability.ood import OodReference

COST_LIMIT = 0.005
"""Most accuracy that 8 bits may cost: half a point."""
REFUSED_LIMIT = 0.02
"""Most validation images that the tests for strange images may refuse through 8 bits."""
CALIBRATION_IMAGES = 128
"""Validation images over which activations' ranges are taken; twice as many change nothing."""
RESAMPLES = 2000


def write_int8(
    exported: Exported, splits: Splits, reference: OodReference | None, *, seed: int = 0
) -> dict[str, Any]:
    """Write ``model-int8.onnx`` where 8 bits cost at most half a point of accuracy.

    The setting is chosen on validation; the decision falls on test, or on validation where
    the run is not evaluated.

    Args:
        exported: with its graph written.
        splits: what the float32 graph answers.
        reference: tests for strange images, whose features 8 bits change too.
        seed: of the choice of calibration images and of the bootstrap.

    Returns:
        The entry of ``bundle.json``: figures, and ``file`` where it is offered, else ``reason``.
    """
    path, rng = exported.fresh / MODEL_FILES["int8"], np.random.default_rng(seed)
    rows = exported.rows(splits.val_images)
    chosen = np.sort(rng.permutation(rows)[:CALIBRATION_IMAGES])
    images = np.asarray(exported.prepared.pixels[chosen])
    setting, tried, found = _best_setting(exported, splits, images, path)
    entry: dict[str, Any] = {
        "setting": setting.to_dict(),
        "tried": tried,
        "calibration_images": len(images),
        "validation": _compare(splits.val_probs, found["probs"], splits.val_targets),
        "refused_on_validation": _refused(exported, splits.val_images, found, reference),
    }
    decided, where = entry["validation"]["difference"], "validation"
    if splits.test is not None:
        entry["test"] = _on_test(exported, splits, path, rng)
        decided, where = entry["test"]["difference"]["value"], "test"
    refused = entry["refused_on_validation"]
    if decided < -COST_LIMIT:
        entry["reason"] = f"costs {-100 * decided:.2f} points of accuracy on {where}"
    elif refused > REFUSED_LIMIT:
        entry["reason"] = f"refuses {refused:.1%} of validation images"
    else:
        entry["file"] = path.name
    if "reason" in entry:
        path.unlink()
    log.info("8 bits: %s", _sentence(entry, where, decided))
    return entry


def _best_setting(
    exported: Exported, splits: Splits, images: NDArray[np.uint8], path: Path
) -> tuple[Setting, list[dict[str, Any]], Arrays]:
    """Write the first setting that costs little on validation, or else the one that costs least.

    Returns:
        The setting, the figures of all that were tried, and validation's outputs.
    """
    tried: list[dict[str, Any]] = []
    settings = settings_for(
        {
            name: (exported.fresh / "members" / name / WEIGHTS_FILE).stat().st_size
            for name in exported.ensemble.members
        }
    )
    for setting in settings:
        found = _try(exported, splits, images, setting, path)
        tried.append(
            setting.to_dict() | _compare(splits.val_probs, found["probs"], splits.val_targets)
        )
        if tried[-1]["difference"] >= -COST_LIMIT:
            return setting, tried, found
    best = settings[int(np.argmax([figures["difference"] for figures in tried]))]
    if best != setting:
        found = _try(exported, splits, images, best, path)
    return best, tried, found


def _try(
    exported: Exported, splits: Splits, images: NDArray[np.uint8], setting: Setting, path: Path
) -> Arrays:
    """Quantise, and return the outputs on validation."""
    _quantise(exported, images, setting, path)
    return exported.run(path.name, splits.val_images, "validation images, 8 bits", features=True)


def _quantise(exported: Exported, images: NDArray[np.uint8], setting: Setting, path: Path) -> None:
    source = exported.fresh / MODEL_FILES["float32"]
    with images_bar(f"calibrating 8 bits, {setting.method}", len(images)) as done:
        quantise(source, path, images, setting, on_image=done)


def _compare(
    wanted: NDArray[Any], found: NDArray[Any], targets: NDArray[np.int64]
) -> dict[str, float]:
    """Return accuracies of float32 and 8 bits, and how far their answers differ."""
    before = float((wanted.argmax(axis=1) == targets).mean())
    after = float((found.argmax(axis=1) == targets).mean())
    return {
        "images": len(targets),
        "float32": before,
        "int8": after,
        "difference": after - before,
        "same_class": float((wanted.argmax(axis=1) == found.argmax(axis=1)).mean()),
        "largest_probability_difference": float(np.abs(wanted - found).max()),
    }


def _on_test(
    exported: Exported, splits: Splits, path: Path, rng: np.random.Generator
) -> dict[str, Any]:
    """Return the comparison on test, its difference with a paired interval by patient."""
    assert splits.test is not None
    table = read_predictions(exported.folder / "evaluation" / "predictions.csv")
    found = exported.run(path.name, table["image"], "test images, 8 bits")
    targets = np.asarray(label_indices(table["label"], exported.ensemble.labels), np.int64)
    probs = {"float32": splits.test["probs"], "int8": found["probs"]}
    exact = {name: _normalised(values) for name, values in probs.items()}
    draws = bootstrap(targets, exact, table["group"].to_numpy(str), rng=rng, resamples=RESAMPLES)
    difference = draws["int8"]["accuracy"] - draws["float32"]["accuracy"]
    return _compare(probs["float32"], found["probs"], targets) | {
        "difference": interval(difference)
    }


def _normalised(probs: NDArray[Any]) -> NDArray[np.float64]:
    values = np.asarray(probs, np.float64)
    return np.asarray(values / values.sum(axis=1, keepdims=True))


def _refused(
    exported: Exported, images: pd.Series, found: Arrays, reference: OodReference | None
) -> float:
    """Return the share of validation images that the tests refuse through 8 bits."""
    if reference is None:
        return 0.0
    pixels = np.asarray(exported.prepared.pixels[exported.rows(images)])
    features = {name: found[f"features_{name}"] for name in exported.ensemble.members}
    return float(np.mean([bool(refusals) for _, refusals in reference.check(pixels, features)]))


def _sentence(entry: dict[str, Any], where: str, decided: float) -> str:
    low_high = ""
    if where == "test":
        difference = entry["test"]["difference"]
        low_high = f" ({100 * difference['low']:+.2f} to {100 * difference['high']:+.2f})"
    figure = f"{100 * decided:+.2f} points of accuracy on {where}{low_high}"
    return f"{figure}; not offered: it {entry['reason']}" if "reason" in entry else figure
