"""What every audit test looks at, and how it draws from it.

N images of the prepared set, n test images, S side of prepared pixels, K classes, F features,
R resamples, J columns.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from cxr.audit.result import AuditResult
from cxr.data.decode import ShowProgress, no_progress
from cxr.evaluation.bootstrap import interval, resample_weights
from cxr.files import atomic_write, digest, read_json, write_json
from cxr.labels import label_indices
from cxr.models.build import Member
from cxr.models.ensemble import Ensemble, all_probs
from cxr.plotting import save_figure
from cxr.training.inference import feature_batches, predict_logits

Rows = NDArray[np.int64]
Masks = NDArray[np.bool_]
Names = NDArray[np.str_]
Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Interval = dict[str, float]
CHUNK = 256
"""Images whose masks are held in memory at once."""


@dataclass(frozen=True, kw_only=True)
class AuditContext:
    """A run opened for the audit.

    Attributes:
        table: N rows of the prepared set: ``label``, ``split``, ``group``, and what else is known.
        pixels: (N, S, S), in the table's order.
        labels: K class names.
        test_rows: (n,) images on which everything is measured.
        probs: per trained model (n, K) probabilities of the test images; the last is the model
            that users see.
        has_mask: (N,) whether the image's lungs are outlined; None where no image's are.
        read_masks: from rows to their (n, S, S) lung masks. A function, since the masks of a
            large set do not fit in memory.
        outlined_by: empty where people outlined the lungs, else what did, as a sentence says it.
        root: folder of the original images.
        square_of: from a row and its original (H, W) to the (S, S) square that it was prepared
            to; None where the originals are not at hand.
        folder: receives plots and features; none are written without it.
        note: what the images are.
        stream_of_all: one generator for all draws; None gives each test a stream of its own, so
            that an interrupted audit ends like a whole one.
        resamples: of patients, and permutations.
        key: digest of everything that the results depend on.
    """

    table: pd.DataFrame
    pixels: Pixels
    labels: tuple[str, ...]
    test_rows: Rows
    members: Mapping[str, Member]
    ensemble: Ensemble
    probs: Mapping[str, Floats]
    has_mask: Masks | None = None
    read_masks: Callable[[Rows], Masks] = lambda rows: np.empty((len(rows), 0, 0), bool)
    outlined_by: str = ""
    root: Path = Path()
    square_of: Callable[[int, Pixels], Pixels] | None = None
    folder: Path | None = None
    note: str = ""
    seed: int = 0
    stream_of_all: np.random.Generator | None = None
    resamples: int = 1000
    batch_size: int = 32
    progress: ShowProgress = no_progress
    key: str = ""

    @cached_property
    def targets(self) -> Rows:
        """(N,) class positions."""
        return np.asarray(label_indices(self.table["label"], self.labels), np.int64)

    @cached_property
    def groups(self) -> Names:
        """(N,) patient or group names."""
        return self.column("group")

    @cached_property
    def fit_rows(self) -> Rows:
        """Images that a linear model may learn from: train and validation."""
        return np.flatnonzero(self.column("split") != "test")

    @property
    def side_px(self) -> int:
        """S."""
        return int(self.pixels.shape[-1])

    @property
    def model(self) -> str:
        """The model that users see."""
        return list(self.probs)[-1]

    def column(self, name: str) -> Names:
        """Return a column of the table, all "" where it is missing."""
        known = name in self.table
        return self.table[name].to_numpy(str) if known else np.full(len(self.table), "")

    def stream(self, number: int) -> np.random.Generator:
        """Return the source of a test's draws."""
        return self.stream_of_all or np.random.default_rng([self.seed, number])

    def masked(self, rows: Rows) -> Rows:
        """Return those of the rows that have a mask."""
        return rows[:0] if self.has_mask is None else rows[self.has_mask[rows]]

    def with_lungs(self, rows: Rows) -> Rows:
        """Return those of the rows whose mask holds any lung; a mask may be there and black."""
        rows = self.masked(rows)
        lungs = [self.read_masks(part).any(axis=(1, 2)) for part in chunks(rows)]
        return rows[np.concatenate(lungs)] if lungs else rows

    def mask_notes(self, used: Rows) -> list[str]:
        """Say that test images other than these take no part, and what outlined the lungs."""
        without = len(self.test_rows) - len(used)
        notes = [f"{without} test images without a mask take no part"] if without else []
        return notes + ([self.outlined_by] if self.outlined_by else [])

    def predict(self, pixels: Pixels, on_image: Callable[[], None]) -> dict[str, Floats]:
        """Return probabilities (n, K) of images (n, S, S) by members and ensemble."""
        everyone, size = np.arange(len(pixels)), self.batch_size
        logits = {
            name: predict_logits(member, pixels, everyone, batch_size=size, on_image=on_image)
            for name, member in self.members.items()
        }
        return all_probs(logits, self.ensemble)

    def features(self, name: str, rows: Rows) -> NDArray[np.float32]:
        """Return a member's pooled features, from ``features-<member>.npy`` where they fit."""
        source = {"key": self.key, "rows": digest(np.ascontiguousarray(rows).tobytes())}
        path = (self.folder or Path()) / f"features-{name}.npy"
        card = path.with_suffix(".json")
        known = self.folder and path.exists() and card.exists()
        if known and read_json(card, hint=f"remove {card}") == source:
            stored: NDArray[np.float32] = np.load(path)
            return stored
        with self.progress(f"features, {name}", len(rows)) as done:
            pooled = pooled_features(
                self.members[name], self.pixels, rows, batch_size=self.batch_size, on_image=done
            )
        if self.folder:
            with atomic_write(path) as file:
                np.save(file, pooled)
            write_json(card, source)
        return pooled

    def with_plot(self, result: AuditResult, draw: Callable[[], Figure]) -> AuditResult:
        """Return the result with its plot, which is drawn where there is a folder."""
        if self.folder is not None:
            save_figure(draw(), self.folder / f"{result.id}.png")
            result.plots.append(f"{result.id}.png")
        return result


def chunks(rows: Rows) -> Iterator[Rows]:
    """Yield the rows, at most ``CHUNK`` at a time."""
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]


def pooled_features(
    member: Member,
    pixels: Pixels,
    rows: Rows,
    *,
    batch_size: int = 32,
    on_image: Callable[[], None] | None = None,
) -> NDArray[np.float32]:
    """Return a member's last feature layer of rows of pixels (M, S, S), averaged over the image.

    Returns:
        (N, F) float32; the member's logits are linear in it.
    """
    pooled = [np.empty((0, member.head.in_features), np.float32)]
    for features in feature_batches(member, pixels, rows, batch_size=batch_size):
        pooled.append(features.float().mean(dim=(2, 3)).cpu().numpy())
        for _ in range(len(features)):
            if on_image:
                on_image()
    return np.concatenate(pooled)


def draw_per_class(rows: Rows, targets: Rows, most: int, rng: np.random.Generator) -> Rows:
    """Draw at most so many of the rows of each class, in their order; targets are of all images."""
    drawn = [rng.permutation(rows[targets[rows] == k])[:most] for k in np.unique(targets[rows])]
    return np.sort(np.concatenate(drawn)) if drawn else rows


def draw_alike(rows: Rows, targets: Rows, count: int, rng: np.random.Generator) -> Rows:
    """Draw so many of the rows that the classes keep their shares, and each at least one image.

    All are drawn where there are no more than ``count``, which holds to the rounding of shares.
    """
    share = min(1.0, count / max(len(rows), 1))
    drawn = []
    for k in np.unique(targets[rows]):
        own = rows[targets[rows] == k]
        drawn.append(rng.permutation(own)[: max(1, round(share * len(own)))])
    return np.sort(np.concatenate(drawn)) if drawn else rows


def mean_intervals(
    values: ArrayLike, groups: ArrayLike, *, rng: np.random.Generator, resamples: int
) -> list[Interval]:
    """Average columns over images, with intervals from the same resamples of groups for all.

    An image whose value, of (N, J) or (N,), is NaN does not count.

    Returns:
        Per column an interval; NaN where no image has a value.
    """
    table = np.asarray(values, np.float64)
    table = table[:, None] if table.ndim == 1 else table
    known = ~np.isnan(table)
    weights = [np.ones((1, len(table)))]
    if len(table) and resamples:
        weights.append(resample_weights(np.asarray(groups), resamples, rng))
    draws = np.concatenate(weights)
    over, under = draws @ np.where(known, table, 0.0), draws @ known.astype(np.float64)
    means = np.full(over.shape, np.nan)
    np.divide(over, under, out=means, where=under > 0)
    return [interval(means[:, j]) for j in range(table.shape[1])]
