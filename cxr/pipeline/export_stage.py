"""Stage 6: the run as one folder to hand on, which must answer as the trained members do."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxr.bundle.export import BundleGraph, export_onnx
from cxr.bundle.format import CARD_FILE as MODEL_CARD
from cxr.bundle.format import MODEL_FILE, OOD_FILE, write_info
from cxr.bundle.gates import check_outputs
from cxr.bundle.runtimes import open_runtime, run_images
from cxr.console import images_bar, log
from cxr.data.loader import rows_of
from cxr.data.prepared import Prepared
from cxr.errors import InputError
from cxr.evaluation.evaluate import read_predictions
from cxr.evaluation.tables import few_note
from cxr.files import atomic_write, environment, read_json, replacing_folder, write_json
from cxr.imaging.preprocess import LUNGS_FILE
from cxr.lungs.find import FINDER_FILE
from cxr.models.build import CARD_FILE, WEIGHTS_FILE, Member, load_member
from cxr.models.ensemble import WEIGHTED, Ensemble
from cxr.pipeline.config import ExportConfig
from cxr.pipeline.exported import (
    NOT_EVALUATED,
    Exported,
    check_splits,
    lungs_of,
    read_metrics,
    read_set_coverage,
    seen_by,
)
from cxr.pipeline.report_stage import card_of
from cxr.pipeline.run_folder import relative
from cxr.pipeline.trained_run import TrainedRun
from cxr.reliability.drift import drift_reference
from cxr.reliability.ood_fit import fit_reference, with_lungs
from cxr.training.inference import predict_logits
from cxr.training.thread_count import THREADS

CHECKED_IMAGES = 32
"""Validation images whose logits must come back bit for bit."""
GATE_IMAGES = 7
"""Real images on which every output is compared; the largest batch of the gates."""
MOST_TRAIN, MOST_VAL = 700, 1000
"""Images to which the tests for strange images are fitted; more of them change nothing."""


def export_stage(config: ExportConfig) -> Path:
    """Write ``bundle/``: graph, weights, cards and what goes with them.

    The former bundle stays until the new one has passed every check.

    Returns:
        The folder.

    Raises:
        InputError: nothing trained, weights that do not give their own logits again, or a
            graph that does not answer as the members do.
    """
    if config.int8 is not None:
        raise InputError(
            f"int8={str(config.int8).lower()} is gone: a bundle has its float32 graph alone; "
            "leave int8 out"
        )
    THREADS.fix(config.threads)
    run = TrainedRun(config)
    folder, info, prepared = run.folder, run.info, run.prepared
    ensemble, uncertainty = run.ensemble, run.uncertainty
    metrics = read_metrics(folder, info["fingerprint"])
    bundle = folder / "bundle"
    with replacing_folder(bundle) as fresh:
        members = {}
        for name in ensemble.members:
            _hand_on(folder, fresh, name, metrics)
            members[name] = _check_bit_equal(folder, fresh, name, prepared)
        log.info("exporting the graph of %s", ", ".join(members))
        gates = _write_graph(fresh, members, ensemble, prepared, info["note"])
        exported = Exported(folder, fresh, prepared, ensemble, config.threads)
        gates |= check_splits(exported, metrics)
        if prepared.spec.lungs != "none":
            shutil.copyfile(prepared.folder / LUNGS_FILE, fresh / LUNGS_FILE)
        values = _values(info, prepared, ensemble) | {
            "uncertainty": uncertainty,
            "test": _test_part(metrics, read_set_coverage(folder, uncertainty)),
            "gates": gates,
            "models": {"float32": {"file": MODEL_FILE}},  # version 0.1 reads it
            "environment": environment(),
        }
        values |= _write_reference(exported)
        with atomic_write(fresh / MODEL_CARD) as file:
            file.write(card_of(run).encode())
        written = write_info(fresh, values)
    log.info("exported %s, fingerprint %s", relative(bundle), written["fingerprint"][:12])
    log.info("%s", info["note"])
    return bundle


def _write_graph(
    fresh: Path, members: dict[str, Member], ensemble: Ensemble, prepared: Prepared, note: str
) -> dict[str, Any]:
    """Write ``model.onnx`` and compare its outputs with PyTorch's."""
    path, side = fresh / MODEL_FILE, int(prepared.pixels.shape[-1])
    graph = BundleGraph(members, ensemble, side)
    export_onnx(graph, path, size_px=side, note=note, outputs=graph.outputs)
    rows = rows_of(prepared.table["split"].tolist(), "val")[:GATE_IMAGES]
    worst = check_outputs(
        open_runtime(path),
        members,
        ensemble,
        np.asarray(prepared.pixels[rows]),
        np.random.default_rng(0),
    )
    log.info(
        "the graph answers as PyTorch does: probabilities within %.1g, maps within %.1g",
        worst["probs"]["largest_difference"],
        worst["maps"]["largest_difference"],
    )
    return {"outputs": worst}


def _write_reference(exported: Exported) -> dict[str, Any]:
    """Fit and write the tests for strange images; return its keys ``ood`` and ``drift``."""
    split = exported.prepared.table["split"].tolist()
    train, val = rows_of(split, "train"), rows_of(split, "val")
    runtime = exported.runtime()
    total = min(len(train), MOST_TRAIN) + min(len(val), MOST_VAL)
    try:
        with images_bar("what images look like", total) as done:
            reference = fit_reference(
                lambda images: exported.features_of(images, runtime),
                exported.prepared.pixels,
                train,
                val,
                most_train=MOST_TRAIN,
                most_val=MOST_VAL,
                on_image=done,
            )
    except InputError as error:
        log.warning("no tests for strange images: %s", error)
        return {"ood": {"note": f"none: {error}"}}
    prepared = exported.prepared
    rows = val[:: len(val) // MOST_VAL + 1]
    lungs = lungs_of(prepared, rows)
    reference = with_lungs(reference, lungs)
    if "lungs" in reference.limits and not (exported.fresh / LUNGS_FILE).exists():
        shutil.copyfile(FINDER_FILE, exported.fresh / LUNGS_FILE)
    reference.save(exported.fresh / OOD_FILE)
    log.info("tests for strange images: %s", reference.info["note"])
    names = [f"features_{name}" for name in exported.ensemble.members]
    arrays = run_images(runtime, prepared.pixels, rows, ["probs", *names])
    drift = seen_by(reference, np.asarray(prepared.pixels[rows]), arrays, lungs)
    return {
        "ood": {"limits": dict(reference.limits), **reference.info},
        "drift": drift_reference(drift),
    }


def _values(info: dict[str, Any], prepared: Prepared, ensemble: Ensemble) -> dict[str, Any]:
    """Return what ``bundle.json`` says of the run, its data and its ensemble."""
    splits = prepared.table["split"].value_counts()
    return ensemble.to_dict() | {
        "run": info["run"],
        **({"teacher": info["teacher"]} if "teacher" in info else {}),
        "note": info["note"],
        "synthetic": info["synthetic"],
        "preprocess": prepared.info["preprocess"],
        "data": {
            "name": info["data"],
            "fingerprint": info["fingerprint"],
            "images": {name: int(splits.get(name, 0)) for name in ("train", "val", "test")},
        },
    }


def _test_part(metrics: dict[str, Any] | None, sets: dict[str, Any] | str) -> dict[str, Any] | str:
    """Return the test metrics and the coverage of sets, with intervals, or that there are none."""
    if metrics is None:
        return NOT_EVALUATED
    keys = ("n", "n_groups", "counts", "patients", "interval")
    return {key: metrics[key] for key in keys if key in metrics} | {
        "few": few_note(metrics.get("patients", {})),
        "ensemble": metrics["models"][WEIGHTED],
        "prediction_sets": sets,
    }


def _hand_on(folder: Path, fresh: Path, name: str, metrics: dict[str, Any] | None) -> None:
    """Copy a member's weights and write its card with the test metrics, if there are any."""
    source, target = folder / "members" / name, fresh / "members" / name
    target.mkdir(parents=True)
    shutil.copyfile(source / WEIGHTS_FILE, target / WEIGHTS_FILE)
    card = read_json(source / CARD_FILE, hint="train the member again")
    test = metrics["models"].get(name) if metrics else None
    write_json(target / CARD_FILE, card | {"test": test or NOT_EVALUATED})


def _check_bit_equal(folder: Path, fresh: Path, name: str, prepared: Prepared) -> Member:
    """Load the handed-on weights and compare their logits with those of the trained member."""
    rows = rows_of(prepared.table["split"].tolist(), "val")[:CHECKED_IMAGES]
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
    # Other batches sum in another order, so large logits differ in their last digits.
    if not np.allclose(both[1], logits, rtol=1e-4, atol=1e-3):
        raise InputError(
            f"the weights of {name} do not give the validation logits stored at training "
            f"(largest difference {np.abs(both[1] - logits).max():.2g}): train the member again"
        )
    return member.cpu().eval()
