"""The nine tests of the audit, and the context in which they see an evaluated run."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr.audit.attention import audit_attention
from cxr.audit.baselines import audit_baselines
from cxr.audit.context import AuditContext
from cxr.audit.framing import audit_framing
from cxr.audit.leakage import audit_leak
from cxr.audit.map_faithfulness import audit_faithfulness
from cxr.audit.occlusion import audit_lungs
from cxr.audit.result import AUDIT_VERSION, AuditResult
from cxr.audit.robustness import audit_robustness
from cxr.audit.subgroups import audit_subgroups
from cxr.audit.within_class_sources import audit_sources
from cxr.console import images_bar, log
from cxr.errors import MissingInputError
from cxr.explain.pointing import read_masks
from cxr.files import digest, digest_of
from cxr.imaging.preprocess import PreprocessSpec
from cxr.labels import partly_known
from cxr.models.ensemble import WEIGHTED
from cxr.pipeline.config import AuditConfig
from cxr.pipeline.trained_run import PREDICTIONS, TrainedRun

TESTS: dict[str, Callable[[AuditContext], AuditResult]] = {
    "leak": audit_leak,
    "baselines": audit_baselines,
    "lungs": audit_lungs,
    "attention": audit_attention,
    "sources": audit_sources,
    "robustness": audit_robustness,
    "faithfulness": audit_faithfulness,
    "subgroups": audit_subgroups,
    "framing": audit_framing,
}


def audit_context(run: TrainedRun, config: AuditConfig) -> AuditContext:
    """Return what the tests look at.

    Args:
        run: opened.
        config: of the stage.

    Raises:
        MissingInputError: the run was not evaluated.
    """
    if run.split != "test":
        raise MissingInputError(
            f"{run.folder} was not evaluated, and the audit sets the model's test predictions "
            f"beside its own: first give {run.command('evaluate')}"
        )
    table, info, labels = run.prepared.table, run.prepared.info, run.labels
    used = ~partly_known(table["label"]) & (table["split"] != "").to_numpy(bool)
    pixels, rows, predictions = run.prepared.pixels, run.rows, run.predictions
    if not used.all():
        log.info("%d images with a label set, or of no split, are left out", (~used).sum())
        # A copy in memory: every test sees images whose class is known, and no others.
        table, pixels = table[used].reset_index(drop=True), pixels[used]
        predictions = predictions[used[rows]]
        rows = (np.cumsum(used) - 1)[rows[used[rows]]]
    root, spec = Path(info["root"]), PreprocessSpec(**info["preprocess"])
    masks = table["mask"].tolist() if "mask" in table else [""] * len(table)
    if any(masks) and not (root / next(filter(None, masks))).is_file():
        log.warning("the lung masks are not at %s any more: what needs them is skipped", root)
        masks = [""] * len(table)
    probs = {
        name: predictions[[f"prob_{name}_{label}" for label in labels]].to_numpy(float)
        for name in (*run.ensemble.members, WEIGHTED)
    }
    return AuditContext(
        table=table,
        pixels=pixels,
        labels=labels,
        test_rows=rows,
        members=run.members,
        ensemble=run.ensemble,
        probs=probs,
        has_mask=np.array([bool(name) for name in masks]),
        read_masks=partial(_read_masks, root, masks, spec),
        root=root,
        spec=spec,
        folder=run.folder / "audit",
        note=run.note,
        seed=config.seed,
        resamples=config.resamples,
        batch_size=config.batch_size,
        progress=images_bar,
        key=audit_key(run, config.seed, config.resamples),
    )


def _read_masks(
    root: Path, names: Sequence[str], spec: PreprocessSpec, rows: NDArray[np.int64]
) -> NDArray[np.bool_]:
    return read_masks(root, [names[row] for row in rows], spec)


def audit_key(run: TrainedRun, seed: int, resamples: int) -> str:
    """Digest what the results depend on: images, weights, predictions, seed, resamples."""
    predictions = hashlib.sha256((run.folder / PREDICTIONS).read_bytes()).hexdigest()
    settings = {"version": AUDIT_VERSION, "seed": seed, "resamples": resamples}
    return digest(run.state, predictions, digest_of(settings))
