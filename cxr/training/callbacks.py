"""Callbacks of a training: averaged weights, resumption, curves."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from cxr.console import log
from cxr.data.loader import BatchLoader
from cxr.errors import InputError
from cxr.files import raise_if_unwritable, write_csv
from cxr.plotting import GRAYS, OKABE_ITO, new_figure, save_figure, style_axes

VALIDATION = ("val_nll", "val_accuracy", "val_balanced_accuracy")


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


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a full disk into one line; what was written before stays."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch.save reports a failed write as RuntimeError with the OSError as its context.
        cause = error if isinstance(error, OSError) else error.__context__
        if isinstance(cause, OSError):
            raise_if_unwritable(cause, path)
        raise


class Shards(Callback):
    """Give every process its share of each batch, once Lightning knows how many there are."""

    def __init__(self, *loaders: BatchLoader) -> None:
        self._loaders = loaders

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set the shard of each loader, before anything counts their batches."""
        for loader in self._loaders:
            loader.shard = (trainer.global_rank, trainer.world_size)


class ResumeCheckpoint(Callback):
    """Write a checkpoint to a path at most every few minutes, whole or not at all."""

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
            with storage_errors(self._path):
                trainer.save_checkpoint(fresh)
                if trainer.is_global_zero:
                    os.replace(fresh, self._path)
        except (OSError, RuntimeError, InputError):
            fresh.unlink(missing_ok=True)
            raise
        self._last = time.monotonic()


class Curves(Callback):
    """Log a line per epoch, and keep each step's loss and rate: ``curves.csv`` and ``curves.png``.

    Lightning's CSVLogger deletes at a resumption what was logged before it; these rows are part
    of the checkpoint.
    """

    def __init__(self, folder: Path, *, name: str, title: str, note: str) -> None:
        self._folder, self._name, self._title, self._note = folder, name, title, note
        self.rows: list[dict[str, float]] = []
        self._began, self._images = time.monotonic(), 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock."""
        self._began, self._images = time.monotonic(), 0

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a row per step."""
        self._images += pl_module.settings.batch_size * trainer.world_size
        step, epoch = trainer.global_step, trainer.current_epoch + 1
        row = {"step": step, "epoch": epoch, "loss": float(outputs["loss"]), "lr": pl_module.rate}
        self.rows.append(row)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Add validation to the epoch's last row, log it and write both files."""
        if not self.rows or not trainer.is_global_zero:
            return
        values = {name: float(trainer.callback_metrics[name]) for name in VALIDATION}
        self.rows[-1] |= values
        rate = self._images / max(1e-9, time.monotonic() - self._began)
        log.info(
            "%s epoch %d/%s: val balanced accuracy %.4f, val accuracy %.4f, val NLL %.4f, "
            "%.0f images/s",
            *(self._name, trainer.current_epoch + 1, trainer.max_epochs),
            *(*(values[name] for name in reversed(VALIDATION)), rate),
        )
        table = pd.DataFrame(self.rows, columns=["step", "epoch", "loss", "lr", *VALIDATION])
        write_csv(self._folder / "curves.csv", table)
        draw_curves(table, self._folder / "curves.png", title=self._title, note=self._note)

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, for the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the rows of the checkpoint."""
        self.rows = list(state["rows"])


def draw_curves(table: pd.DataFrame, path: Path, *, title: str, note: str) -> None:
    """Draw loss per step, and validation per epoch below it, of a table with a row per step."""
    figure = new_figure(8, 6, title=title, note=note)
    above, below = figure.subplots(2, 1, sharex=True)
    checked = table.dropna()
    above.plot(table["step"], table["loss"], lw=0.8, color=GRAYS[2], label="train loss")
    style = {"marker": "o", "linestyle": "-"}
    above.plot(
        checked["step"], checked["val_nll"], color=OKABE_ITO[2], label="validation NLL", **style
    )
    for name, colour in zip(VALIDATION[1:], OKABE_ITO, strict=False):
        label = name.replace("val_", "validation ").replace("_", " ")
        below.plot(checked["step"], checked[name], color=colour, label=label, **style)
    style_axes(above, y_label="nats per image")
    style_axes(below, x_label="step", y_label="share of images")
    below.set_ylim(0, 1)
    for axes in (above, below):
        axes.legend(fontsize=8, frameon=False)
    save_figure(figure, path)
