"""How the search for near copies grows from 5,000 to 50,000 hashes.

    python benchmarks/near_duplicates.py [--max-distance 8]

Two kinds of hashes: random bits, and hashes that share bits as chest films do (a common
shape of the thorax plus own variation, tuned so that about as large a part of all pairs lies
within 8 bits as of 6,188 real films, 6 in 10,000). Pairs found among the latter grow with the
square of their number, whatever finds them. A growth exponent of 1 is linear, 2 quadratic.
"""

import argparse
import math
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cxr.data.near import near_pairs

SIZES = (5_000, 15_000, 50_000)


def random_hashes(count: int, rng: np.random.Generator) -> NDArray[np.uint64]:
    """Draw (N, 8) hashes of independent even bits."""
    return rng.integers(0, 2**63, (count, 8), dtype=np.uint64) * np.uint64(2)


def film_like_hashes(count: int, rng: np.random.Generator) -> NDArray[np.uint64]:
    """Draw (N, 8) hashes of cosine coefficients around a common shape.

    Mirroring changes the sign of odd columns, a half turn of odd columns and rows, and a
    quarter turn exchanges rows and columns, as in hashes of real films.
    """
    scale = 1 / (1 + np.add.outer(np.arange(8), np.arange(8)))
    shape = 1.2 * rng.standard_normal((8, 8)) * scale
    waves = shape + rng.standard_normal((count, 8, 8)) * scale
    sign = np.where(np.arange(8) % 2, -1, 1)
    hashes = np.empty((count, 8), np.uint64)
    for column in range(8):
        turned = waves.transpose(0, 2, 1) if column & 1 else waves
        turned = turned * (sign if column & 2 else 1) * (sign[:, None] if column & 4 else 1)
        flat = turned.reshape(count, 64)
        bits = flat > np.median(flat, axis=1, keepdims=True)
        hashes[:, column] = np.packbits(bits, axis=1).view(">u8")[:, 0]
    return hashes


def compare_all(hashes: NDArray[np.uint64], max_distance: int) -> int:
    """Count close pairs by comparing every film with every orientation of every other."""
    pairs = 0
    for row in range(len(hashes) - 1):
        later = hashes[row + 1 :]
        ways = np.bitwise_count(later ^ hashes[row, 0]).min(axis=1)
        back = np.bitwise_count(later[:, :1] ^ hashes[row]).min(axis=1)
        pairs += int((np.minimum(ways, back) <= max_distance).sum())
    return pairs


def measure(
    name: str, draw: Callable[[int, np.random.Generator], NDArray[np.uint64]], max_distance: int
) -> None:
    """Time the search at each size and print the growth between sizes."""
    times: list[float] = []
    for count in SIZES:
        hashes = draw(count, np.random.default_rng(0))
        start = time.process_time()
        found = len(near_pairs(hashes, max_distance=max_distance))
        times.append(time.process_time() - start)
        share = found / (count * (count - 1) / 2)
        print(f"{name:10s} {count:7,d} hashes {times[-1]:8.2f} s {found:10,d} pairs ({share:.1e})")
        if count == SIZES[0]:
            start = time.process_time()
            assert compare_all(hashes, max_distance) == found
            every = time.process_time() - start
            growth = every * (SIZES[-1] / count) ** 2
            print(f"{'':10s} comparing all: {every:.2f} s, at {SIZES[-1]:,d} {growth:.0f} s")
    exponent = math.log(times[-1] / times[0]) / math.log(SIZES[-1] / SIZES[0])
    print(f"{name:10s} growth exponent {exponent:.2f}")


def main() -> None:
    """Print the times of both kinds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max-distance", type=int, default=8)
    distance = parser.parse_args().max_distance
    measure("random", random_hashes, distance)
    measure("film-like", film_like_hashes, distance)


if __name__ == "__main__":
    main()
