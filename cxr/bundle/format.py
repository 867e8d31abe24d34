"""The folder that is the model: which files it has, what it is, and when it is refused.

``bundle.json`` names every file with its SHA-256 and carries the digest of its own content, so
a bundle in which anything was changed, lost or left half-copied is refused.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cxr.errors import InputError, MissingInputError, reason_of
from cxr.files import current_keys, digest_of, leaves_folder, write_json
from cxr.imaging.preprocess import LUNGS_FILE, PreprocessSpec

FORMAT = 3
"""Number of this layout; raised when a reader of an older number would misread it: one of 1
serves one threshold of prediction sets for all classes, where the cards speak of those per
class; one of 2 neither crops to the lungs nor has the temperature of a recalibration, and a bundle
without both is still written so. All are read, and served per class."""
INFO_FILE = "bundle.json"
OOD_FILE = "ood.npz"
CARD_FILE = "MODEL_CARD.md"
MODEL_FILE = "model.onnx"
"""The graph in float32; ``model-int8.onnx`` of version 0.1's bundles is listed and never loaded."""
REQUIRED = (
    *("labels", "members", "weights", "preprocess", "data", "synthetic", "note", "uncertainty"),
    *("files", "fingerprint"),
)
HINT = "export the run again (scripts/export.py), or copy the whole folder again"


class BundleError(InputError):
    """A folder that is no usable bundle; the message names it."""


def read_info(folder: Path) -> dict[str, Any]:
    """Read a bundle's ``bundle.json`` and check it against itself.

    Raises:
        MissingInputError: no such folder, or no ``bundle.json`` in it.
        BundleError: it is damaged, of a newer format, lacks a key, or was changed.
    """
    path = folder / INFO_FILE
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise MissingInputError(
            f"{folder} is no bundle: {INFO_FILE} is missing; name the folder that an export wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read ({reason_of(error)}): {HINT}") from None
    if not isinstance(info, dict) or not isinstance(info.get("format"), int):
        raise BundleError(f"{path} names no format: {HINT}")
    if info["format"] > FORMAT:
        raise BundleError(
            f"{folder} has bundle format {info['format']}, this version of cxr reads up to "
            f"{FORMAT}: install a newer cxr"
        )
    if missing := [key for key in REQUIRED if key not in info]:
        raise BundleError(f"{path} lacks {', '.join(missing)}: {HINT}")
    if fingerprint_of(info) != info["fingerprint"]:
        raise BundleError(f"{path} was changed after the export: {HINT}")
    return dict(current_keys(info))


def check_files(folder: Path, info: Mapping[str, Any], names: Iterable[str] | None = None) -> None:
    """Check that files of a bundle, by default all, are there as they were exported.

    Raises:
        MissingInputError: a file is missing.
        BundleError: a file has other bytes, or lies outside the folder.
    """
    for name in info["files"] if names is None else names:
        listed = info["files"].get(name)
        if listed is None or leaves_folder(name):
            raise BundleError(f"{folder / INFO_FILE} does not list a file {name!r}: {HINT}")
        try:
            actual = file_digest(folder / name)
        except FileNotFoundError:
            raise MissingInputError(f"the bundle {folder} lacks {name}: {HINT}") from None
        except OSError as error:
            raise BundleError(
                f"{folder / name} cannot be read ({reason_of(error)}): {HINT}"
            ) from None
        if actual != listed["sha256"]:
            raise BundleError(f"{folder / name} was changed after the export: {HINT}")


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_info(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Complete ``bundle.json`` with format, digests and fingerprint; return what was written.

    ``values`` is everything else that it carries; the folder holds every other file already.
    """
    files = {
        path.relative_to(folder).as_posix(): {
            "sha256": file_digest(path),
            "bytes": path.stat().st_size,
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != INFO_FILE
    }
    number = FORMAT if LUNGS_FILE in files or "recalibration" in values else 2
    info: dict[str, Any] = {"format": number, **values, "files": files}
    info["fingerprint"] = fingerprint_of(info)
    write_json(folder / INFO_FILE, info)
    return read_info(folder)


def fingerprint_of(info: Mapping[str, Any]) -> str:
    """Return the digest of ``bundle.json``'s content, and so of every file's digest."""
    return digest_of({key: value for key, value in info.items() if key != "fingerprint"})


def describe(bundle: Path | str) -> str:
    """Check a bundle's folder and describe it in lines ``name  value``; see ``read_info``."""
    folder = Path(bundle)
    info = read_info(folder)
    check_files(folder, info)
    rows = list(_summary(info))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


def _summary(info: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    preprocess, sure = info["preprocess"], info["uncertainty"]
    weights = [f"{name} {info['weights'][name]:.2f}" for name in info["members"]]
    size = sum(entry["bytes"] for entry in info["files"].values())
    yield "bundle", f"{info['data']['name']}/{info['run']}, format {info['format']}"
    yield "fingerprint", info["fingerprint"]
    yield "data", info["data"]["fingerprint"]
    yield "classes", ", ".join(info["labels"])
    yield "members", ", ".join(weights)
    if teacher := info.get("teacher"):
        yield "student of", f"the ensemble of run {teacher['run']}"
    yield "input", f"{preprocess['size_px']} px, {PreprocessSpec(**preprocess).how()}"
    for level in sure["conformal"]["levels"]:
        shares = [
            f"{label} {share['value']:.3f} ({_limits(share)}, {share['patients']} patients, "
            f"{promise_words(share, float(level))})"
            for label, share in set_coverage(info, float(level)).items()
        ]
        yield f"sets {level}", f"per class; on test {', '.join(shares) or 'not measured'}"
    yield "referral", f"below {sure['referral']['threshold']:.3f}"
    yield "test", _tests(info["test"])
    yield "files", f"{len(info['files'])}, {size / 1e6:.0f} MB, every digest right"
    yield "exported", str(info["environment"]["time_utc"])
    if part := info.get("recalibration"):
        yield "recalibrated", recalibration_words(part)
    yield "note", info["note"]


def recalibration_words(part: Mapping[str, Any]) -> str:
    """Say what a bundle's confidence was fitted anew on, and on which bundle it rests."""
    return (
        f"on {part['images']} images of {part['patients']} patients of {part['data']}, "
        f"{part['time_utc'][:10]}, from the bundle {part['parent'][:12]}"
    )


def set_coverage(info: Mapping[str, Any], level: float) -> dict[str, dict[str, Any]]:
    """Return how often sets of a level held the true class on test, by class.

    Each with ``value``, ``low``, ``high``, ``images``, ``patients``; empty where it was not
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


def _tests(test: Any) -> str:
    if isinstance(test, str):
        return test
    shown = {"accuracy": "accuracy", "balanced_accuracy": "balanced", "macro_auroc": "AUROC"}
    scores = [(head, test["ensemble"][key]) for key, head in shown.items()]
    words = [f"{head} {score['value']:.3f} ({_limits(score)})" for head, score in scores]
    return f"{test['n']} images: {', '.join(words)}"


def _limits(entry: Mapping[str, Any]) -> str:
    limits = (entry["low"], entry["high"])
    return " to ".join("undefined" if limit is None else f"{limit:.3f}" for limit in limits)
