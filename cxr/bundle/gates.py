"""What an exported graph must do before it may be handed on. Needs torch, the measure of it.

B batch, N images, M members, K classes, S side of prepared pixels.
"""

import copy
import logging
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from cxr.bundle.compare import PROBS_LIMIT, GateError, largest_gap
from cxr.bundle.export import grid_of
from cxr.bundle.runtimes import Arrays, Runtime
from cxr.explain.gradcam import closed_form_cam, ensemble_cam
from cxr.models.build import Member
from cxr.models.ensemble import WEIGHTED, Ensemble, all_probs

log = logging.getLogger(__name__)

BATCHES = (1, 2, 7)
"""Sizes at which outputs are compared: exporters have fixed the batch, or broken at 1."""
MAPS_LIMIT = 1e-4
"""Largest difference of a map: in logits, or as a share of its largest value if above 1."""
FEATURES_LIMIT = 1e-4
"""Largest difference of a feature, as a share of the largest."""
ROUNDINGS = 10.0
"""A difference may be this many times what PyTorch's float32 is off its float64, where that is
more than a limit: a deep network that has hardly been trained magnifies rounding a hundredfold,
and onnxruntime, which folds norms into convolutions, rounded 4 to 8 times as coarsely there."""


def check_outputs(
    runtime: Runtime,
    members: Mapping[str, Member],
    ensemble: Ensemble,
    pixels: NDArray[np.uint8],
    rng: np.random.Generator,
) -> dict[str, dict[str, float]]:
    """Compare every output with PyTorch's, at batches of 1, 2 and 7, on real and random pixels.

    The members are those of the ensemble as trained, on the processor, in inference mode; of
    ``pixels`` (N, S, S), real images, there is at least one.

    Returns:
        For ``probs``, ``maps`` and ``features``, in the units of their limits:
        ``largest_difference`` from PyTorch, and ``pytorch_rounding``, the largest difference of
        PyTorch in float32 from PyTorch in float64.

    Raises:
        GateError: a difference above its limit.
    """
    limits = {"probs": PROBS_LIMIT, "maps": MAPS_LIMIT, "features": FEATURES_LIMIT}
    worst = {name: {"largest_difference": 0.0, "pytorch_rounding": 0.0} for name in limits}
    exact_members = {name: copy.deepcopy(member).double() for name, member in members.items()}
    for batch in BATCHES:
        real = pixels[np.arange(batch) % len(pixels)]
        noise = rng.integers(0, 256, real.shape, np.uint8)
        for kind, images in (("real", real), ("random", noise)):
            trained = _answers(members, ensemble, images)
            roundings = _gaps(trained, _answers(exact_members, ensemble, images))
            exported = runtime.run(images[:, None], [*trained, "map_ensemble"])
            gaps = _gaps(exported, trained)
            together = _ensemble_gap(exported, ensemble, grid_of(images.shape[-1]))
            gaps["maps"] = max(gaps["maps"], together)
            for name, gap in gaps.items():
                allowed = max(limits[name], ROUNDINGS * roundings[name])
                # A NaN is refused too.
                if not gap <= allowed:
                    raise GateError(
                        f"the exported {name} differ from PyTorch's by {gap:.2g} on {kind} "
                        f"pixels at a batch of {batch}; {allowed:.1g} is allowed. The former "
                        "bundle stays; try another version of torch or onnxscript"
                    )
                here = {"largest_difference": gap, "pytorch_rounding": roundings[name]}
                worst[name] = {key: max(here[key], worst[name][key]) for key in here}
    for name, entry in worst.items():
        if entry["largest_difference"] > limits[name]:
            log.warning(
                "the exported %s differ from PyTorch's by up to %.1g, and PyTorch's own are exact "
                "to %.1g only: hardly trained networks are so; train longer, or from pretrained "
                "weights",
                name,
                entry["largest_difference"],
                entry["pytorch_rounding"],
            )
    return worst


@torch.no_grad()
def _answers(
    members: Mapping[str, Member], ensemble: Ensemble, images: NDArray[np.uint8]
) -> Arrays:
    """Return what PyTorch answers, but for the ensemble's map, as the graph's outputs are called.

    In the arithmetic of the members' weights.
    """
    logits, answers = {}, {}
    for name, member in members.items():
        inputs = member.prepare(torch.from_numpy(images)[:, None]).to(member.head.weight.dtype)
        logits[name] = member(inputs).numpy()
        layer = member.features(inputs)
        answers[f"map_{name}"] = closed_form_cam(layer, member.head.weight).numpy()
        answers[f"features_{name}"] = layer.mean(dim=(2, 3)).numpy()
    probs = all_probs(logits, ensemble)
    each = np.stack([probs[name] for name in members], axis=1)
    return {"probs": probs[WEIGHTED], "member_probs": each, **answers}


def _gaps(exported: Arrays, trained: Arrays) -> dict[str, float]:
    """Return the largest difference of each kind, in the units of its limit."""
    gaps = dict.fromkeys(("probs", "maps", "features"), 0.0)
    for name, values in trained.items():
        largest, kind, unit = float(np.abs(values).max()), "probs", 1.0
        if name.startswith("map_"):
            kind, unit = "maps", max(largest, 1.0)
        elif name.startswith("features_"):
            kind, unit = "features", largest
        gap = largest_gap(exported[name], values) / unit
        gaps[kind] = float(np.maximum(gaps[kind], gap))  # a NaN stays one
    return gaps


def _ensemble_gap(exported: Arrays, ensemble: Ensemble, side: int) -> float:
    """Compare the ensemble's map with the one made of the members' exported maps.

    Not of PyTorch's own: a map that is all but 0 is divided by its maximum, and so would turn
    a rounding error into any difference at all.
    """
    gaps = []
    for place in range(len(ensemble.labels)):
        cells = {name: exported[f"map_{name}"][:, place] for name in ensemble.members}
        made = ensemble_cam(cells, ensemble.weights, side)
        gaps.append(largest_gap(exported["map_ensemble"][:, place], made))
    return max(gaps)
