"""What an exported graph must do before it may be handed on. Needs torch, the measure of it.

B batch, N films, M members, K classes, S side of prepared pixels.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from cxr.bundle.compare import PROBS_LIMIT, GateError, largest_gap
from cxr.bundle.graph import grid_of
from cxr.bundle.runtimes import Arrays, Runtime
from cxr.explain.gradcam import closed_form_cam, ensemble_cam
from cxr.training.ensemble import WEIGHTED, Ensemble, all_probs
from cxr.training.members import Member

BATCHES = (1, 2, 7)
"""Sizes at which outputs are compared: exporters have fixed the batch, or broken at 1."""
MAPS_LIMIT = 1e-4
"""Largest difference of a map or feature, as a share of its largest value."""


def check_outputs(
    runtime: Runtime,
    members: Mapping[str, Member],
    ensemble: Ensemble,
    pixels: NDArray[np.uint8],
    rng: np.random.Generator,
) -> dict[str, float]:
    """Compare every output with PyTorch's, at batches of 1, 2 and 7, on real and random pixels.

    Args:
        runtime: the exported graph.
        members: as trained, on the processor, in inference mode.
        ensemble: temperatures and weights.
        pixels: (N, S, S) real films, at least one.
        rng: draws the random pixels.

    Returns:
        The largest difference found of ``probs`` and, as shares of the maximum, of ``maps``
        and ``features``.

    Raises:
        GateError: one is above its limit.
    """
    worst = {"probs": 0.0, "maps": 0.0, "features": 0.0}
    for batch in BATCHES:
        real = pixels[np.arange(batch) % len(pixels)]
        noise = rng.integers(0, 256, real.shape, np.uint8)
        for kind, films in (("real", real), ("random", noise)):
            for name, value in _differences(runtime, members, ensemble, films).items():
                limit = PROBS_LIMIT if name == "probs" else MAPS_LIMIT
                # A NaN is refused too.
                if not value <= limit:
                    raise GateError(
                        f"the exported {name} differ from PyTorch's by {value:.2g} on {kind} "
                        f"pixels at a batch of {batch}; {limit:g} is allowed. The former bundle "
                        "stays; try another version of torch or onnxscript"
                    )
                worst[name] = max(worst[name], value)
    return worst


@torch.no_grad()
def _differences(
    runtime: Runtime,
    members: Mapping[str, Member],
    ensemble: Ensemble,
    films: NDArray[np.uint8],
) -> dict[str, float]:
    names = [f"{kind}_{name}" for name in members for kind in ("map", "features")]
    found = runtime.run(films[:, None], ["probs", "member_probs", "map_ensemble", *names])
    logits, maps, features = {}, {}, {}
    for name, member in members.items():
        inputs = member.prepare(torch.from_numpy(films)[:, None])
        logits[name] = member(inputs).numpy()
        layer = member.features(inputs)
        maps[name] = closed_form_cam(layer, member.head.weight).numpy()
        features[name] = layer.mean(dim=(2, 3)).numpy()
    probs = all_probs(logits, ensemble)
    each = np.stack([probs[name] for name in members], axis=1)
    map_gaps = [_share(found[f"map_{name}"], maps[name]) for name in members]
    own = {name: found[f"map_{name}"] for name in members}
    return {
        "probs": max(
            largest_gap(found["probs"], probs[WEIGHTED]), largest_gap(found["member_probs"], each)
        ),
        "maps": max(*map_gaps, _ensemble_gap(found["map_ensemble"], own, ensemble, films)),
        "features": max(_share(found[f"features_{name}"], features[name]) for name in members),
    }


def _ensemble_gap(
    found: NDArray[np.float32],
    maps: Mapping[str, NDArray[np.float32]],
    ensemble: Ensemble,
    films: NDArray[np.uint8],
) -> float:
    """Compare the ensemble's map with the one made of the members' exported maps.

    Not of PyTorch's own: a map that is all but 0 is divided by its maximum, and so would turn
    a rounding error into any difference at all.
    """
    side = grid_of(films.shape[-1])
    gaps = []
    for place in range(len(ensemble.labels)):
        cells = {name: values[:, place] for name, values in maps.items()}
        gaps.append(largest_gap(found[:, place], ensemble_cam(cells, ensemble.weights, side)))
    return max(gaps)


def _share(found: NDArray[np.floating], wanted: NDArray[np.floating]) -> float:
    """Return the largest difference as a share of the largest value."""
    largest = max(float(np.abs(wanted).max()), float(np.finfo(np.float32).tiny))
    return largest_gap(found, wanted) / largest


def run_films(
    runtime: Runtime,
    pixels: NDArray[np.uint8],
    rows: NDArray[np.int64],
    outputs: Sequence[str],
    *,
    batch_size: int = 16,
    on_image: Callable[[], None] | None = None,
) -> Arrays:
    """Return outputs of many films.

    Args:
        runtime: a graph.
        pixels: (P, S, S) uint8.
        rows: (N,) which of them, at least one.
        outputs: names.
        batch_size: films at once.
        on_image: called once a film.
    """
    parts = []
    for films in _batches(pixels, rows, batch_size):
        parts.append(runtime.run(films, outputs))
        for _ in range(len(films) if on_image else 0):
            on_image()  # type: ignore[misc]
    return {name: np.concatenate([part[name] for part in parts]) for name in outputs}


def _batches(
    pixels: NDArray[np.uint8], rows: NDArray[np.int64], batch_size: int
) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(rows), batch_size):
        yield np.asarray(pixels[rows[start : start + batch_size]])[:, None]
