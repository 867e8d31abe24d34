"""Run a training to its best weights: Lightning's Trainer, resumption and curves."""

import contextlib
import ctypes
import logging
import platform
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException  # type: ignore[attr-defined]

from cxr.data.loader import BatchLoader
from cxr.errors import InputError
from cxr.training.callbacks import Curves, ResumeCheckpoint, Shards, moving_average, storage_errors
from cxr.training.fit import MemberModule
from cxr.training.precision import choose_precision
from cxr.training.thread_count import THREADS
from cxr.training.trainer_settings import TrainerSettings

log = logging.getLogger(__name__)

RESUME_FILE, BEST_FILE = "resume.ckpt", "best.ckpt"
BEFORE_MEASURED = "32-true"
"""Arithmetic of a checkpoint that does not name its own: as ``auto`` chose it then, AMX aside."""


@dataclass(frozen=True)
class FitResult:
    """What a training found."""

    best_epoch: int  # whose weights are kept, counted from 1
    epochs: int  # how many were run
    seconds: float  # of this process, not of one that was killed before
    precision: str  # arithmetic that was used
    threads: list[int]  # each count of processor threads that was in force, see ThreadCount
    resumed_at_step: int  # 0 if it began anew


def fit(
    module: MemberModule,
    train: BatchLoader,
    val: BatchLoader,
    folder: Path,
    *,
    note: str = "",
    extra_callbacks: tuple[Callback, ...] = (),
) -> FitResult:
    """Train, and leave the weights of the epoch that ``monitor`` keeps in the module.

    Killed and called again with the same arguments, it goes on from its last checkpoint. The
    member's ``folder`` receives ``checkpoints/`` and ``logs/``; ``note`` is drawn below the curves.

    Raises:
        NonFiniteLossError: the loss became NaN or infinite.
        InputError: the disk is full, or the accelerator is not there.
    """
    began = time.monotonic()
    reuse_freed_memory()
    settings, checkpoints = module.settings, folder / "checkpoints"
    THREADS.fix(settings.threads)
    module.train_batches = train
    monitor = None if settings.monitor == "last" else f"val_{settings.monitor}"
    mode = "min" if settings.monitor == "nll" else "max"
    best = ModelCheckpoint(
        checkpoints, Path(BEST_FILE).stem, monitor, mode=mode, enable_version_counter=False
    )
    stopping = [EarlyStopping(monitor, mode=mode, patience=settings.patience)] if monitor else []
    title = module.member.spec.architecture
    visible = settings.progress and sys.stderr.isatty()
    bar = [RichProgressBar(refresh_rate=1, console_kwargs={"stderr": True})] if visible else []
    averaging = [moving_average(settings.ema_decay)] if settings.ema_decay else []
    callbacks: list[Callback] = [
        Shards(train, val),
        *averaging,
        Curves(folder / "logs", name=folder.name, title=title, note=note),
        best,
        *stopping,
        *bar,
        ResumeCheckpoint(checkpoints / RESUME_FILE, settings.checkpoint_minutes),
        *extra_callbacks,
    ]
    with quiet(), storage_errors(folder):
        resume, step, kept = checkpoints / RESUME_FILE, 0, None
        if resume.exists():
            before = torch.load(resume, map_location="cpu", weights_only=False)
            unnamed = BEFORE_MEASURED if settings.precision == "auto" else None
            step, kept = int(before["global_step"]), before.get("precision", unnamed)
            log.info("%s: going on from step %d", folder.name, step)
        precision = kept or _precision(module)
        board = TensorBoardLogger(folder / "logs", name="", version="tensorboard")
        trainer = _trainer(settings, precision, callbacks, board)
        module.to(memory_format=torch.channels_last)
        trainer.fit(module, train, val, ckpt_path=resume if step else None, weights_only=False)
        found = torch.load(checkpoints / BEST_FILE, map_location="cpu", weights_only=False)
    module.load_state_dict(found["state_dict"])
    return FitResult(
        best_epoch=int(found["epoch"]) + 1,
        epochs=int(trainer.current_epoch),
        seconds=time.monotonic() - began,
        precision=precision,
        threads=THREADS.used,
        resumed_at_step=step,
    )


def forget_checkpoints(folder: Path) -> None:
    """Remove a finished member's checkpoints; its weights are kept beside them."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def reuse_freed_memory() -> None:
    """Let glibc keep large freed blocks instead of asking the system for fresh pages each step.

    MobileNetV2 at 224 pixels in float32 trained 1.4 times faster on two cores
    (docs/experiments.md). Elsewhere than on glibc nothing happens.

    Source: mallopt(3), M_TRIM_THRESHOLD = -1 and M_MMAP_THRESHOLD = -3.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-1, 2**31 - 1)
        libc.mallopt(-3, 2**30)


def _precision(module: MemberModule) -> str:
    settings, device = module.settings, torch.device("cpu")
    if settings.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        device = torch.device("cuda")
    elif settings.accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        device = torch.device("mps")
    processes = settings.devices * settings.num_nodes
    return choose_precision(settings.precision, module.member, device, processes=processes)


def _trainer(
    settings: TrainerSettings, precision: Any, callbacks: list[Callback], logger: TensorBoardLogger
) -> lightning.Trainer:
    try:
        return lightning.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            precision=precision,
            max_epochs=settings.max_epochs,
            callbacks=callbacks,
            logger=logger,
            gradient_clip_val=settings.clip_norm or None,
            deterministic=settings.deterministic,
            enable_progress_bar=any(isinstance(item, RichProgressBar) for item in callbacks),
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            use_distributed_sampler=False,
        )
    except (RuntimeError, ValueError, MisconfigurationException) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"trainer.accelerator={settings.accelerator} with {settings.devices} device(s) cannot "
            f"be used here ({reason}): use trainer.accelerator=auto"
        ) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's advice that does not hold here, by its exact words."""
    loud = logging.getLogger("lightning.pytorch")
    level = loud.level
    loud.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Batches are gathered from a memory map, so there are no workers to add.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
        # Lightning 2.6.6 with torch 2.15; nothing of ours uses it.
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
        warnings.filterwarnings("ignore", message=".*Checkpoint directory .* is not empty.*")
        yield
    loud.setLevel(level)
