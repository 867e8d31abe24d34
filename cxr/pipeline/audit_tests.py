"""The nine tests of the audit, and the context in which they see an evaluated run."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.audit.attention import audit_attention
from cxr.audit.baselines import audit_baselines
from cxr.audit.context import AuditContext, Masks, Rows
from cxr.audit.framing import audit_framing
from cxr.audit.leakage import audit_leak
from cxr.audit.map_faithfulness import audit_faithfulness
from cxr.audit.occlusion import audit_lungs
from cxr.audit.result import AUDIT_VERSION, AuditResult
from cxr.audit.robustness import audit_robustness
from cxr.audit.subgroups import audit_subgroups
from cxr.audit.within_class_sources import audit_sources
from cxr.console import images_bar, log
from cxr.data.prepared import Prepared
from cxr.errors import MissingInputError
from cxr.explain.pointing import read_masks
from cxr.files import digest, digest_of
from cxr.labels import partly_known
from cxr.lungs.find import finder_digest
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

NEED_MASKS = {"lungs", "attention", "framing"}
MASKED_SHARE = 0.9
"""Of the images must have a mask in the manifest for the audit to use those."""


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
    prepared, labels, table = run.prepared, run.labels, run.prepared.table
    used = ~partly_known(table["label"]) & (table["split"] != "").to_numpy(bool)
    pixels, rows, predictions = run.prepared.pixels, run.rows, run.predictions
    if not used.all():
        log.info("%d images with a label set, or of no split, are left out", (~used).sum())
        # A copy in memory: every test sees images whose class is known, and no others.
        table, pixels = table[used].reset_index(drop=True), pixels[used]
        predictions = predictions[used[rows]]
        rows = (np.cumsum(used) - 1)[rows[used[rows]]]
    kept = np.flatnonzero(used)
    has_mask, read, outlined_by = _lung_masks(prepared, kept, config.tests or list(TESTS))
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
        has_mask=has_mask,
        read_masks=read,
        outlined_by=outlined_by,
        root=Path(prepared.info["root"]),
        square_of=lambda row, image: prepared.square_of(int(kept[row]), image),
        folder=run.folder / "audit",
        note=run.note,
        seed=config.seed,
        resamples=config.resamples,
        batch_size=config.batch_size,
        progress=images_bar,
        key=audit_key(run, config.seed, config.resamples, outlined_by),
    )


def _lung_masks(
    prepared: Prepared, kept: Rows, tests: Sequence[str]
) -> tuple[NDArray[np.bool_], Callable[[Rows], Masks], str]:
    """Return which kept images' lungs are outlined, what reads the masks, and what outlined them.

    The manifest's masks are taken where nearly all images have one, else the finder's for every
    image: were some outlined by people and others not, the outline's style would tell the source.
    """
    table, root = prepared.table.iloc[kept], Path(prepared.info["root"])
    names = table["mask"].tolist() if "mask" in table else [""] * len(table)
    if any(names) and not (root / next(filter(None, names))).is_file():
        log.warning("the lung masks are not at %s any more: the finder's take their place", root)
        names = [""] * len(table)
    has_mask = np.array([bool(name) for name in names], np.bool_)
    from_manifest = partial(_manifest_masks, prepared, kept, names)
    if has_mask.mean() >= MASKED_SHARE:
        return has_mask, from_manifest, ""
    finder = prepared.spec.finder or finder_digest()
    outlined_by = f"the lungs were outlined by the lung finder ({finder[:8]}), not by people"
    if not NEED_MASKS & set(tests):
        return has_mask & False, from_manifest, outlined_by
    found: list[NDArray[np.uint8]] = []
    with images_bar("find the lungs", len(table)) as done, ThreadPoolExecutor() as pool:
        for mask in pool.map(prepared.lung_mask, kept.tolist()):
            found.append(np.packbits(mask))
            done()
    bits = np.stack(found)
    side = int(prepared.pixels.shape[-1])

    def read(rows: Rows) -> Masks:
        flat = np.unpackbits(bits[rows], axis=1, count=side * side)
        return flat.reshape(len(rows), side, side).astype(np.bool_)

    return np.asarray(bits.any(axis=1)), read, outlined_by


def _manifest_masks(prepared: Prepared, kept: Rows, names: Sequence[str], rows: Rows) -> Masks:
    placements = [prepared.placement(int(row)) for row in kept[rows]]
    root = Path(prepared.info["root"])
    return read_masks(root, [names[row] for row in rows], prepared.spec, placements)


def audit_key(run: TrainedRun, seed: int, resamples: int, outlined_by: str) -> str:
    """Digest what the results depend on: images, weights, predictions, seed, resamples, finder."""
    predictions = hashlib.sha256((run.folder / PREDICTIONS).read_bytes()).hexdigest()
    settings: dict[str, Any] = {"version": AUDIT_VERSION, "seed": seed, "resamples": resamples}
    settings |= {"lungs": outlined_by} if outlined_by else {}
    return digest(run.state, predictions, digest_of(settings))
