"""Stage 6: the weights as a folder to hand on, checked by loading them back."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxr.config import ExportConfig
from cxr.console import log
from cxr.data.loader import rows_of
from cxr.data.prepared import Prepared
from cxr.errors import InputError
from cxr.runlog import environment, raise_if_unwritable, read_json, write_json
from cxr.stages.run import find_run, load_ensemble, relative
from cxr.training.inference import predict_logits, read_predictions
from cxr.training.members import CARD_FILE, WEIGHTS_FILE, load_member

CHECKED_FILMS = 32
"""Validation films whose logits must come back bit for bit."""


def export_stage(config: ExportConfig) -> Path:
    """Write ``bundle/``: each member's weights and card, and the ensemble.

    Returns:
        The folder.

    Raises:
        InputError: nothing trained, or weights that do not give their own logits again.
    """
    folder, info, prepared = find_run(config)
    ensemble = load_ensemble(folder, config)
    bundle = folder / "bundle"
    fresh = Path(tempfile.mkdtemp(dir=folder, prefix=".exporting-"))
    try:
        fresh.chmod(0o755)
        for name in ensemble["members"]:
            _hand_on(folder, fresh, name, _test_metrics(folder, name))
            _check_bit_equal(folder, fresh, name, prepared)
        write_json(fresh / "ensemble.json", ensemble)
        write_json(fresh / "export.json", {
            "labels": info["labels"], "members": ensemble["members"],
            "preprocess": prepared.info["preprocess"], "fingerprint": info["fingerprint"],
            "note": info["note"], "environment": environment(),
        })  # fmt: skip
        if bundle.exists():
            shutil.rmtree(bundle)
        fresh.rename(bundle)
    except OSError as error:
        raise_if_unwritable(error, bundle)
        raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    log.info(
        "exported %s: weights and cards of %s; loading them back gave the same logits bit for bit",
        relative(bundle), ", ".join(ensemble["members"]),
    )  # fmt: skip
    log.info("%s", info["note"])
    return bundle


def _hand_on(folder: Path, fresh: Path, name: str, metrics: dict[str, Any] | None) -> None:
    """Copy a member's weights and write its card with the test metrics, if there are any."""
    source, target = folder / "members" / name, fresh / "members" / name
    target.mkdir(parents=True)
    shutil.copyfile(source / WEIGHTS_FILE, target / WEIGHTS_FILE)
    card = read_json(source / CARD_FILE, mend="train the member again")
    write_json(target / CARD_FILE, card | {"test": metrics or "not evaluated (make evaluate)"})


def _test_metrics(folder: Path, name: str) -> dict[str, Any] | None:
    path = folder / "evaluation" / "metrics.json"
    if not path.exists():
        return None
    found = read_json(path, mend="evaluate again (make evaluate)")
    metrics: dict[str, Any] | None = found["models"].get(name)
    return metrics


def _check_bit_equal(folder: Path, fresh: Path, name: str, prepared: Prepared) -> None:
    """Load the handed-on weights and compare their logits with those of the trained member."""
    rows = rows_of(prepared.table["split"].tolist(), "val")[:CHECKED_FILMS]
    both = []
    for root in (folder, fresh):
        torch.manual_seed(0)
        member = load_member(root / "members" / name)
        both.append(predict_logits(member, prepared.pixels, rows))
    stored = read_predictions(folder / "members" / name / "predictions.csv", prepared.labels)
    kept = stored.set_index("image").loc[prepared.table["image"].iloc[rows]]
    logits = kept[[f"logit_{label}" for label in prepared.labels]].to_numpy(np.float32)
    if not np.array_equal(both[0], both[1]):
        raise InputError(f"the exported weights of {name} give other logits: export again")
    if not np.allclose(both[1], logits, atol=1e-3):
        raise InputError(
            f"the weights of {name} do not give the validation logits stored at training "
            f"(largest difference {np.abs(both[1] - logits).max():.2g}): train the member again"
        )
