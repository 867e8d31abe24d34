"""Callbacks of a training: averaged weights, resumption, progress."""

import os
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from rich.progress import TaskID
from torch import Tensor

from cxr.console import log, progress_bar
from cxr.data.loader import BatchLoader
from cxr.files import raise_if_unwritable


def moving_average(decay: float) -> WeightAveraging:
    """Average weights exponentially; the average is what is validated and kept.

    The decay grows as (1 + n) / (10 + n) up to ``decay``, so that a short training does not
    keep its random start.

    Source: the warm-up is TensorFlow's ExponentialMovingAverage(num_updates).
    """

    def blend(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        share = min(decay, (1 + int(count)) / (10 + int(count)))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - share)
        else:
            torch._foreach_copy_(averaged, current)

    return WeightAveraging(multi_avg_fn=torch.no_grad()(blend))


class Shards(Callback):
    """Give every process its share of each batch, once Lightning knows how many there are.

    Args:
        loaders: of training and validation.
    """

    def __init__(self, *loaders: BatchLoader) -> None:
        self._loaders = loaders

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set the shard of each loader, before anything counts their batches."""
        for loader in self._loaders:
            loader.shard = (trainer.global_rank, trainer.world_size)


class ResumeCheckpoint(Callback):
    """Write a checkpoint every few minutes, whole or not at all.

    Args:
        path: the file, always the same.
        minutes: least time between two.
    """

    def __init__(self, path: Path, minutes: float) -> None:
        self._path, self._seconds, self._last = path, minutes * 60, time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time; never at an epoch's last batch, whose validation is to come."""
        due = time.monotonic() - self._last >= self._seconds
        due = trainer.strategy.broadcast(due)
        if due and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Save now."""
        fresh = self._path.with_suffix(".writing")
        try:
            trainer.save_checkpoint(fresh)
            if trainer.is_global_zero:
                os.replace(fresh, self._path)
        except (OSError, RuntimeError) as error:
            fresh.unlink(missing_ok=True)
            # torch.save reports a failed write as RuntimeError with the OSError as its context.
            cause = error if isinstance(error, OSError) else error.__context__
            if isinstance(cause, OSError):
                raise_if_unwritable(cause, self._path)
            raise
        self._last = time.monotonic()


class Progress(Callback):
    """Show images per second, loss, validation and the time left of the whole training.

    Args:
        name: of the member.
        visible: show the bar; a line per epoch is logged either way.
    """

    def __init__(self, name: str, *, visible: bool = True) -> None:
        self._name, self._visible = name, visible
        self._task: TaskID | None = None
        self._last = ""
        self._began = time.monotonic()
        self._images = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar, over the images of all epochs."""
        self._bar = progress_bar()
        self._bar.disable = self._bar.disable or not self._visible or not trainer.is_global_zero
        epochs = trainer.max_epochs or 1
        images = int(trainer.num_training_batches) * epochs * self._batch(trainer)
        self._bar.start()
        done = trainer.global_step * self._batch(trainer)
        self._task = self._bar.add_task(self._name, total=images, completed=done)
        self._began, self._images = time.monotonic(), 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance by a batch."""
        self._images += self._batch(trainer)
        if self._task is not None:
            loss = float(outputs["loss"])
            epoch = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
            text = f"{self._name} epoch {epoch} loss {loss:.3f}{self._last}"
            self._bar.update(self._task, advance=self._batch(trainer), description=text)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log a line per epoch."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        metrics = trainer.callback_metrics
        accuracy = float(metrics["val_balanced_accuracy"])
        self._last = f", val balanced accuracy {accuracy:.3f}"
        rate = self._images / max(1e-9, time.monotonic() - self._began)
        log.info(
            "%s epoch %d/%s: val balanced accuracy %.4f, val accuracy %.4f, val NLL %.4f, "
            "%.0f images/s",
            self._name,
            trainer.current_epoch + 1,
            trainer.max_epochs,
            accuracy,
            float(metrics["val_accuracy"]),
            float(metrics["val_nll"]),
            rate,
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close the bar."""
        self._stop()

    def _stop(self) -> None:
        if self._task is not None:
            self._bar.stop()
            self._task = None

    def _batch(self, trainer: Trainer) -> int:
        module: Any = trainer.lightning_module
        return int(module.settings.batch_size) * trainer.world_size
