"""Pooled features of trained members: what is frozen while a linear model is fitted on them.

    features = pooled_features(member, pixels, rows, batch_size=32, on_image=done)   # (N, F)

The stage keeps them in ``audit/features-<member>.npy``, so that tests share them.
N images, F features, S side of prepared pixels.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cxr.models.build import Member
from cxr.training.inference import feature_batches


def pooled_features(
    member: Member,
    pixels: NDArray[np.uint8],
    rows: NDArray[np.int64],
    *,
    batch_size: int = 32,
    on_image: Callable[[], None] | None = None,
) -> NDArray[np.float32]:
    """Return a member's last feature layer, averaged over the image.

    Args:
        member: trained.
        pixels: (M, S, S) uint8.
        rows: (N,) which of them, in order.
        batch_size: images at once.
        on_image: called once an image.

    Returns:
        (N, F) float32; the member's logits are linear in it.
    """
    found = [np.empty((0, member.head.in_features), np.float32)]
    for features in feature_batches(member, pixels, rows, batch_size=batch_size):
        found.append(features.float().mean(dim=(2, 3)).cpu().numpy())
        for _ in range(len(features)):
            if on_image:
                on_image()
    return np.concatenate(found)
