"""Run a trained member over images, in float32 and in order.

N images, K classes, S side of prepared pixels.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cxr.data.loader import BatchLoader, FixedOrder
from cxr.files import write_csv
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
    """Return the logits (N, K) float32 of the rows (N,) of pixels (M, S, S), in order.

    The member may be in any mode; inference mode is used and the mode kept. ``on_image`` is called
    once an image.
    """
    was_training = member.training
    found = [np.empty((0, len(member.spec.labels)), np.float32)]
    with torch.inference_mode():
        for batch in _batches(member, pixels, rows, batch_size):
            # A processor takes parts of ``AT_ONCE`` images, the last of below twice that.
            size = AT_ONCE if batch.device.type == "cpu" else max(len(batch), 1)
            for part in torch.tensor_split(batch, tuple(range(size, len(batch) - size + 1, size))):
                inputs = member.prepare(part).contiguous(memory_format=torch.channels_last)
                found.append(member(inputs).float().cpu().numpy())
                for _ in range(len(part) if on_image else 0):
                    on_image()  # type: ignore[misc]
    member.train(was_training)
    return np.concatenate(found)


def feature_batches(
    member: Member, pixels: NDArray[np.uint8], rows: NDArray[np.int64], *, batch_size: int = 32
) -> Iterator[torch.Tensor]:
    """Yield the last feature layer (B, C, h, w) of images in order, without gradients."""
    with torch.inference_mode():
        for batch in _batches(member, pixels, rows, batch_size):
            inputs = member.prepare(batch).contiguous(memory_format=torch.channels_last)
            yield member.features(inputs)


def _batches(
    member: Member, pixels: NDArray[np.uint8], rows: NDArray[np.int64], batch_size: int
) -> Iterator[torch.Tensor]:
    """Yield (B, 1, S, S) pixels on the device to which the member is moved."""
    device = inference_device()
    # In inference mode a moved parameter could never take part in a backward pass again.
    with torch.inference_mode(False):
        member.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    targets = np.zeros(len(pixels), np.int64)
    for batch in BatchLoader(pixels, targets, FixedOrder(rows), batch_size=batch_size):
        THREADS.adapt()
        yield batch["pixels"].to(device)


def write_predictions(
    path: Path, table: pd.DataFrame, labels: tuple[str, ...], logits: NDArray[np.float32]
) -> None:
    """Write a member's predictions table of N rows with ``image``, ``split`` and ``label``.

    Nine significant digits keep every bit of the float32 logits (N, K).
    """
    columns = {f"logit_{name}": logits[:, k].astype(float) for k, name in enumerate(labels)}
    rows = table[["image", "split", "label"]].reset_index(drop=True).assign(**columns)
    write_csv(path, rows, float_format="%.9g")
