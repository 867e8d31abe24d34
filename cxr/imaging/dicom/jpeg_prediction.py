"""The seven predictors of lossless JPEG, undone on whole rows and diagonals. H W pixels."""

import itertools

import numpy as np
from numpy.typing import NDArray


def undo_prediction(image: NDArray[np.uint16], predictor: int) -> NDArray[np.uint16]:
    """Sum the differences of a lossless JPEG to values, in place.

    Args:
        image: (H, W) differences modulo 2 ** 16, the first with the middle value added.
        predictor: 1 to 7.

    Returns:
        (H, W) values modulo 2 ** 16.

    Source: T.81, H.1.2.1.
    """
    kind = np.uint16
    if predictor == 1:
        image[:, 0] = np.cumsum(image[:, 0], dtype=kind)
        return np.cumsum(image, axis=1, dtype=kind, out=image)
    if predictor == 4:
        np.cumsum(image, axis=1, dtype=kind, out=image)
        return np.cumsum(image, axis=0, dtype=kind, out=image)
    image[0] = np.cumsum(image[0], dtype=kind)
    if predictor == 2:
        return np.cumsum(image, axis=0, dtype=kind, out=image)
    if predictor in (3, 5):
        for above, row in itertools.pairwise(image):
            row[:1] += above[:1]
            if predictor == 3:
                row[1:] += above[:-1]
            else:
                row[1:] += (np.diff(above.astype(np.int32)) >> 1).astype(kind)
                np.cumsum(row, dtype=kind, out=row)
        return image
    image[:, 0] = np.cumsum(image[:, 0], dtype=kind)
    _undo_by_diagonals(image, predictor)
    return image


def _undo_by_diagonals(image: NDArray[np.uint16], predictor: int) -> None:
    """Undo predictors 6 and 7, whose left and upper neighbours lie on an earlier diagonal."""
    rows, columns = image.shape
    flat = image.reshape(-1)
    step = columns - 1
    for diagonal in range(2, rows + columns - 1):
        first, last = max(1, diagonal - columns + 1), min(rows - 1, diagonal - 1)
        if first > last:
            continue
        start, stop = diagonal + first * step, diagonal + last * step + 1
        left = flat[start - 1 : stop - 1 : step].astype(np.int32)
        above = flat[start - columns : stop - columns : step].astype(np.int32)
        if predictor == 6:
            corner = flat[start - columns - 1 : stop - columns - 1 : step].astype(np.int32)
            guess = above + ((left - corner) >> 1)
        else:
            guess = (left + above) >> 1
        flat[start:stop:step] += guess.astype(np.uint16)
