"""Run a trained member over images, in float32 and in order.

N images, K classes, S side of prepared pixels.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cxr.data.loader import BatchLoader, FixedOrder
from cxr.files import atomic_write
from cxr.models.build import Member
from cxr.training.thread_count import THREADS

AT_ONCE = 16
"""Images that a processor takes at once: activations of more no longer fit what the allocator keeps
between batches (half the time at 128 pixels went into page faults), fewer sum in another order."""


def inference_device() -> torch.device:
    """Return the GPU if there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def predict_logits(
    member: Member,
    pixels: NDArray[np.uint8],
    rows: NDArray[np.int64],
    *,
    batch_size: int = 32,
    on_image: Callable[[], None] | None = None,
) -> NDArray[np.float32]:
    """Return a member's logits.

    Args:
        member: in any mode; inference mode is used and the mode kept.
        pixels: (M, S, S) uint8.
        rows: (N,) which of them, in order.
        batch_size: images at once.
        on_image: called once an image.

    Returns:
        (N, K) float32.
    """
    device = inference_device()
    was_training = member.training
    member.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    found = [np.empty((0, len(member.spec.labels)), np.float32)]
    targets = np.zeros(len(pixels), np.int64)
    # The parameters are moved before, or they could never take part in a backward pass again.
    with torch.inference_mode():
        for batch in BatchLoader(pixels, targets, FixedOrder(rows), batch_size=batch_size):
            THREADS.adapt()
            for part in _parts(batch["pixels"].to(device)):
                inputs = member.prepare(part).contiguous(memory_format=torch.channels_last)
                found.append(member(inputs).float().cpu().numpy())
                for _ in range(len(part)):
                    if on_image:
                        on_image()
    member.train(was_training)
    return np.concatenate(found)


def _parts(batch: torch.Tensor) -> Sequence[torch.Tensor]:
    """Split a processor's batch into parts of ``AT_ONCE`` images, the last of below twice that."""
    if batch.device.type != "cpu":
        return [batch]
    starts = range(0, max(len(batch) - AT_ONCE, 0) + 1, AT_ONCE)
    return [batch[start : start + AT_ONCE] for start in starts[:-1]] + [batch[starts[-1] :]]


def write_predictions(
    path: Path, table: pd.DataFrame, labels: tuple[str, ...], logits: NDArray[np.float32]
) -> None:
    """Write a member's predictions table.

    Args:
        path: CSV.
        table: N rows with columns ``image``, ``split`` and ``label``.
        labels: the K classes.
        logits: (N, K) float32; nine significant digits keep every bit.
    """
    columns = {f"logit_{name}": logits[:, k].astype(float) for k, name in enumerate(labels)}
    rows = table[["image", "split", "label"]].reset_index(drop=True).assign(**columns)
    with atomic_write(path) as file:
        file.write(rows.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode())


def feature_batches(
    member: Member, pixels: NDArray[np.uint8], rows: NDArray[np.int64], *, batch_size: int = 32
) -> Iterator[torch.Tensor]:
    """Yield the last feature layer (B, C, h, w) of images in order, without gradients."""
    device = inference_device()
    member.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    targets = np.zeros(len(pixels), np.int64)
    with torch.inference_mode():
        for batch in BatchLoader(pixels, targets, FixedOrder(rows), batch_size=batch_size):
            THREADS.adapt()
            inputs = member.prepare(batch["pixels"].to(device))
            yield member.features(inputs.contiguous(memory_format=torch.channels_last))
