"""Batches from a prepared set. The only module of this folder that imports torch.

N rows of the table, B batch, S side in pixels, K classes. Batches are gathered straight from the
memory map, so there are no worker processes to start, and all randomness comes from (seed, epoch),
so a batch is known by its number alone and an interrupted epoch can go on in its middle.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Batch(TypedDict):
    """``pixels`` (B, 1, S, S) uint8, ``row`` (B,) int64 into the table, and ``target``.

    The last is (B,) int64 or, where labels are sets, (B, K) bool.
    """

    pixels: Tensor
    target: Tensor
    row: Tensor


class EpochSampler:
    """The order of rows (N,) in each epoch, from (seed, epoch) alone.

    With ``weights`` (N,), relative chances, rows are drawn with replacement; without them each
    epoch is a permutation.
    """

    def __init__(
        self, rows: NDArray[np.int64], *, weights: NDArray[np.float64] | None = None, seed: int
    ) -> None:
        self._rows, self._weights, self._seed, self.epoch = rows, weights, seed, 0

    def __len__(self) -> int:
        return len(self._rows)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this."""
        self.epoch = epoch

    def order(self) -> NDArray[np.int64]:
        """Return this epoch's (N,) rows."""
        random = np.random.default_rng([self._seed, self.epoch])
        if self._weights is None:
            return random.permutation(self._rows)
        chances = self._weights / self._weights.sum()
        return random.choice(self._rows, size=len(self._rows), p=chances)


class FixedOrder(EpochSampler):
    """The rows (N,) as they stand, in every epoch."""

    def __init__(self, rows: NDArray[np.int64]) -> None:
        super().__init__(rows, seed=0)

    def order(self) -> NDArray[np.int64]:
        """Return the rows."""
        return self._rows


class BatchLoader:
    """Iterate over batches of a prepared set; can be stopped and resumed at any batch.

    ``pixels`` (N, S, S) are usually a memory map, ``targets`` (N,) the class index of every row of
    the table, or (N, K) which it may be of. Of ``shard`` (rank, world size), settable, every
    process sees its share of each global batch of B images per process; ``drop_last`` leaves out
    the images that do not fill one.
    """

    batch_sampler = None
    """Lightning asks for it wherever it finds a sampler."""

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        targets: NDArray[np.int64] | NDArray[np.bool_],
        sampler: EpochSampler,
        *,
        batch_size: int,
        shard: tuple[int, int] = (0, 1),
        drop_last: bool = False,
    ) -> None:
        self._pixels, self._targets, self.sampler = pixels, targets, sampler
        self._batch_size, self.shard, self._drop_last = batch_size, shard, drop_last
        self._start = 0
        self.batches_done = 0

    def __len__(self) -> int:
        images, size = len(self.sampler), self._batch_size * self.shard[1]
        return images // size if self._drop_last else -(-images // size)

    def __iter__(self) -> Iterator[Batch]:
        start, self._start = self._start, 0
        self.batches_done = start
        order = self.sampler.order()
        rank, world = self.shard
        for number in range(start, len(self)):
            size = self._batch_size * world
            rows = order[number * size : (number + 1) * size][rank::world]
            yield self.gather(rows)

    def gather(self, rows: NDArray[np.int64]) -> Batch:
        """Return the batch of the given (B,) rows."""
        # A memory map is read fastest in file order.
        by_place = np.argsort(rows, kind="stable")
        pixels = np.empty((len(rows), *self._pixels.shape[1:]), np.uint8)
        pixels[by_place] = self._pixels[rows[by_place]]
        return {
            "pixels": torch.from_numpy(pixels)[:, None],
            "target": torch.from_numpy(self._targets[rows]),
            "row": torch.from_numpy(np.ascontiguousarray(rows)),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return where the epoch stands, for a checkpoint."""
        return {"batches_done": self.batches_done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration begin behind the batches that a checkpoint had done."""
        self._start = int(state["batches_done"]) % max(1, len(self))


def balancing_weights(memberships: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the (K,) weight of each class that makes all classes count alike.

    n / (K n_k), the weights that scikit-learn calls balanced; their mean over images is 1. An
    image whose label is a set (N, K) counts in parts for each of its classes.
    """
    counts = class_shares(memberships).sum(axis=0)
    return np.asarray(len(memberships) / (memberships.shape[1] * np.maximum(counts, 1)))


def class_shares(memberships: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return each image's (N, K) membership in equal parts that sum to 1."""
    return np.asarray(memberships / memberships.sum(axis=1, keepdims=True))


def source_weights(
    memberships: NDArray[np.bool_], sources: NDArray[np.object_]
) -> NDArray[np.float64]:
    """Return the (N,) chances with which class and source tell least of each other.

    Every class is drawn alike, and within it every source (N,) that has it; of a label set (N, K)
    each class counts in parts. The chance of a class and a source is then a product of both
    wherever the data have such an image, so that what ties a source to a class is only what the
    data lack.

    Source: quasi-independence of an incomplete table, Goodman 1968, J. Am. Stat. Assoc. 63:1091.
    """
    shares = class_shares(memberships)
    names, places = np.unique(sources.astype(str), return_inverse=True)
    cells = np.zeros((len(names), shares.shape[1]))
    np.add.at(cells, places, shares)
    having = np.maximum((cells > 0).sum(axis=0), 1)
    return np.asarray((shares / (np.maximum(cells, 1e-300) * having)[places]).sum(axis=1))


def rows_of(split: Sequence[str], name: str) -> NDArray[np.int64]:
    """Return the rows of one split."""
    return np.flatnonzero(np.asarray(split, dtype=object) == name)
