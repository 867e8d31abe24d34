"""Curves of a training: loss, rate and validation of every step, as CSV and PNG."""

import csv
import io
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from cxr.files import atomic_write
from cxr.plotting import GRAYS, OKABE_ITO, new_figure, save_figure, style_axes

VALIDATION = ("val_nll", "val_accuracy", "val_balanced_accuracy")


class Curves(Callback):
    """Keep loss, rate and validation of every step, across resumptions, as CSV and PNG.

    Args:
        folder: receives ``curves.csv`` and ``curves.png``.
        title: of the figure.
        note: drawn below it.
    """

    def __init__(self, folder: Path, *, title: str, note: str) -> None:
        self._folder, self._title, self._note = folder, title, note
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a row per step."""
        self.rows.append(
            {
                "step": trainer.global_step,
                "epoch": trainer.current_epoch + 1,
                "loss": float(outputs["loss"]),
                "lr": pl_module.rate,
            }
        )

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Add validation to the epoch's last row and write both files."""
        if trainer.sanity_checking or not self.rows or not trainer.is_global_zero:
            return
        values = trainer.callback_metrics
        self.rows[-1] |= {name: float(values[name]) for name in VALIDATION}
        text = io.StringIO()
        columns = ["step", "epoch", "loss", "lr", *VALIDATION]
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        with atomic_write(self._folder / "curves.csv") as file:
            file.write(text.getvalue().encode())
        draw_curves(self.rows, self._folder / "curves.png", title=self._title, note=self._note)

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, for the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the rows of the checkpoint."""
        self.rows = list(state["rows"])


def draw_curves(rows: list[dict[str, float]], path: Path, *, title: str, note: str) -> None:
    """Draw loss per step, and validation per epoch below it.

    Args:
        rows: a row per step, see ``Curves``.
        path: PNG.
        title: above the figure.
        note: below it.
    """
    figure = new_figure(8, 6, title=title, note=note)
    above, below = figure.subplots(2, 1, sharex=True)
    steps = [row["step"] for row in rows]
    checked = [row for row in rows if "val_nll" in row]
    at = [row["step"] for row in checked]
    above.plot(steps, [row["loss"] for row in rows], lw=0.8, color=GRAYS[2], label="train loss")
    above.plot(
        at, [row["val_nll"] for row in checked], "o-", color=OKABE_ITO[2], label="validation NLL"
    )
    style_axes(above, y_label="nats per image")
    for name, colour in zip(VALIDATION[1:], OKABE_ITO, strict=False):
        label = name.removeprefix("val_").replace("_", " ")
        below.plot(
            at, [row[name] for row in checked], "o-", color=colour, label=f"validation {label}"
        )
    style_axes(below, x_label="step", y_label="share of images")
    below.set_ylim(0, 1)
    for axes in (above, below):
        axes.legend(fontsize=8, frameon=False)
    save_figure(figure, path)
