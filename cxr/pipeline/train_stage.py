"""Stage 2: one member, from prepared set to weights and validation predictions."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss

from cxr.console import log
from cxr.data.loader import (
    BatchLoader,
    EpochSampler,
    FixedOrder,
    balancing_weights,
    class_shares,
    rows_of,
    source_weights,
)
from cxr.data.prepared import UNSURE, Prepared
from cxr.errors import InputError
from cxr.files import digest_of, environment, read_json, run_folder, write_json
from cxr.models.build import (
    CARD_FILE,
    WEIGHTS_FILE,
    Member,
    build_member,
    freeze,
    load_pretrained,
    save_weights,
)
from cxr.models.ensemble import softmax
from cxr.pipeline.config import TrainConfig
from cxr.pipeline.prepare_stage import prepare_stage
from cxr.pipeline.run_folder import has_work, note_of, open_run
from cxr.training.fit import MemberModule
from cxr.training.inference import predict_logits, write_predictions
from cxr.training.teacher import Teacher
from cxr.training.trainer import FitResult, fit, forget_checkpoints
from cxr.training.trainer_settings import UNESSENTIAL, TeacherSettings


@dataclass(frozen=True)
class Teaching:
    """A trained ensemble that a member learns from."""

    teacher: Teacher  # gives its probabilities
    settings: TeacherSettings  # how it is learned from
    run: str  # its name
    state: str  # digest of its data, weights and ensemble

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"run": self.run, "state": self.state, **asdict(self.settings)}


def train_stage(config: TrainConfig) -> Path:
    """Train one member, go on where a killed training was, or reuse a finished one."""
    check_name(config)
    prepared = prepare_stage(config)
    return train_member(config, prepared, open_run(config, prepared))


def check_name(config: TrainConfig) -> None:
    """Refuse a member's name that is no folder's, before any image is read."""
    run_folder(Path("x"), config.model.name, config.model.name)


def train_member(
    config: TrainConfig,
    prepared: Prepared,
    run: Path,
    *,
    train_rows: NDArray[np.int64] | None = None,
    teaching: Teaching | None = None,
) -> Path:
    """Train one member below ``run``, on images that are prepared; go on or reuse as above.

    The column ``split`` says which images are train and val; ``train_rows`` are the rows of an
    epoch, where an image is to come more than once. With ``teaching`` an ensemble is learned from
    too. The configuration's data is not looked at.
    """
    name = config.model.name
    folder = run / "members" / name
    digest = _claim(folder, config, prepared, teaching)
    if (folder / CARD_FILE).exists():
        log.info("%s is trained already, with these settings: reusing %s", name, folder)
        return folder
    # The head is drawn by its own generator, so that dropout and data order do not change it.
    lightning.seed_everything(config.seed, verbose=False)
    member = build_member(
        config.model.architecture,
        prepared.labels,
        input_size_px=config.model.input_size,
        output_stride=config.model.output_stride,
        drop_rate=config.model.drop_rate,
        generator=torch.Generator().manual_seed(config.seed),
    )
    origin = load_pretrained(member, config.model.pretrained)
    freeze(member, config.model.freeze)
    train, val = _loaders(prepared, config, train_rows)
    weights = None
    if config.trainer.imbalance == "loss":
        rows = rows_of(prepared.table["split"].tolist(), "train")
        balanced = balancing_weights(prepared.memberships[rows])
        weights = torch.tensor(balanced, dtype=torch.float32)
    module = MemberModule(
        member,
        config.trainer,
        class_weights=weights,
        names=prepared.table["image"].tolist(),
        seed=config.seed,
        frozen=config.model.freeze,
        random_start=config.model.pretrained == "none",
        teacher=(teaching.teacher, teaching.settings) if teaching else None,
    )
    result = fit(module, train, val, folder, note=note_of(prepared))
    if getattr(rank_zero_only, "rank", 0):
        return folder
    extra = {"pretrained": origin, "config_digest": digest}
    extra |= {"teacher": teaching.to_dict()} if teaching else {}
    _keep(folder, member, prepared, config, result, extra)
    return folder


def _keep(
    folder: Path,
    member: Member,
    prepared: Prepared,
    config: TrainConfig,
    result: FitResult,
    extra: dict[str, Any],
) -> None:
    """Write weights, validation predictions and, last, the card that says it is finished."""
    save_weights(member, folder / WEIGHTS_FILE)
    rows = rows_of(prepared.table["split"].tolist(), "val")
    logits = predict_logits(member, prepared.pixels, rows, batch_size=config.trainer.batch_size)
    write_predictions(
        folder / "predictions.csv", prepared.table.iloc[rows], prepared.labels, logits
    )
    card = {
        "name": config.model.name,
        **member.spec.to_dict(),
        **extra,
        "data": {
            "name": config.data.name,
            "fingerprint": prepared.info["fingerprint"],
            "synthetic": config.data.synthetic,
            "train_images": len(rows_of(prepared.table["split"].tolist(), "train")),
            "preprocess": prepared.info["preprocess"],
        },
        "validation": _validation_metrics(logits, prepared.targets[rows]),
        "training": asdict(result) | {"seed": config.seed, "frozen": config.model.freeze},
        "trainer": asdict(config.trainer),
        "environment": environment(),
        "note": note_of(prepared),
    }
    write_json(folder / CARD_FILE, card)
    forget_checkpoints(folder)
    log.info(
        "%s: kept epoch %d of %d, %.0f s, weights in %s",
        *(config.model.name, result.best_epoch, result.epochs, result.seconds, folder),
    )


def _validation_metrics(
    logits: NDArray[np.float32], targets: NDArray[np.int64]
) -> dict[str, float | int]:
    """Return accuracy, balanced accuracy and NLL of (N, K) logits, without label sets."""
    known = targets != UNSURE
    logits, targets = logits[known], targets[known]
    probs, classes = softmax(logits), list(range(logits.shape[1]))
    predicted = probs.argmax(axis=1)
    return {
        "images": len(targets),
        "accuracy": float(accuracy_score(targets, predicted)),
        "balanced_accuracy": float(balanced_accuracy_score(targets, predicted)),
        "nll": float(log_loss(targets, probs, labels=classes)),
    }


def _claim(folder: Path, config: TrainConfig, prepared: Prepared, teaching: Teaching | None) -> str:
    """Make the member's folder this configuration's, or refuse if it is another's."""
    trainer = {k: v for k, v in asdict(config.trainer).items() if k not in UNESSENTIAL}
    values = {"model": asdict(config.model), "trainer": trainer, "seed": config.seed}
    values |= {"fingerprint": prepared.info["fingerprint"]}
    values |= {"teacher": teaching.to_dict()} if teaching else {}
    digest, path = digest_of(values), folder / "settings.json"
    if path.exists():
        before = read_json(path, hint=f"remove {folder}")
        if before["digest"] == digest:
            return digest
        # A start that failed before its first checkpoint is free to be corrected.
        if has_work(folder):
            changed = _changed(before["settings"], values)
            raise InputError(
                f"{folder} was trained with other settings ({changed}): give another run=NAME, "
                "or remove that folder to train it anew"
            )
    if folder.exists():
        shutil.rmtree(folder)
    write_json(path, {"digest": digest, "settings": values})
    return digest


def _changed(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> str:
    parts = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            parts.append(_changed(old, new, f"{prefix}{key}."))
        elif old != new:
            shown = [str(value)[:24] for value in (old, new)]
            parts.append(f"{prefix}{key} {shown[0]}, now {shown[1]}")
    return ", ".join(part for part in parts if part)


def _loaders(
    prepared: Prepared, config: TrainConfig, train_rows: NDArray[np.int64] | None
) -> tuple[BatchLoader, BatchLoader]:
    split, targets, settings = prepared.table["split"].tolist(), prepared.targets, config.trainer
    rows = rows_of(split, "train") if train_rows is None else train_rows
    members, weights = prepared.memberships, None
    if settings.imbalance == "sampler":
        weights = class_shares(members[rows]) @ balancing_weights(members[rows])
    if settings.imbalance == "class_source":
        sources = prepared.table["source"].to_numpy(object)
        weights = source_weights(members[rows], sources[rows])
    batch = settings.batch_size * settings.devices * settings.num_nodes
    if len(rows) < batch:
        raise InputError(
            f"the train split has {len(rows)} images, fewer than one batch of {batch}: "
            "lower trainer.batch_size"
        )
    order = EpochSampler(rows, weights=weights, seed=config.seed)
    size, val = settings.batch_size, FixedOrder(rows_of(split, "val"))
    truth = members if (targets == UNSURE).any() else targets
    return (
        BatchLoader(prepared.pixels, truth, order, batch_size=size, drop_last=True),
        BatchLoader(prepared.pixels, truth, val, batch_size=size),
    )
