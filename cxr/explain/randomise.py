"""Weights randomised from the head down: a map that stays the same explains no training.

N images, h w a map's cells.
"""

import copy
import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import nn

from cxr.errors import InputError
from cxr.models.build import Member

STAGES = 8
"""Steps from the trained network to one without any learned weight."""


def cascade_stages(member: Member, stages: int = STAGES) -> list[list[str]]:
    """Divide a network's layers into steps, the head first, then about equal parts downwards.

    Layers are taken in the order in which the network registers them, which for timm's
    networks is that of the forward pass. Return the names of the modules of each of at most
    ``stages`` steps, which are two or more, or an InputError.
    """
    if stages < 2:
        raise InputError(f"stages is {stages}: at least 2 are needed, the head and the rest")
    named = dict(member.network.named_modules())
    head = [name for name, module in named.items() if module is member.head]
    body = [
        name
        for name, module in named.items()
        if module is not member.head and any(True for _ in module.parameters(recurse=False))
    ]
    parts = np.array_split(np.asarray(body[::-1], dtype=object), min(stages - 1, len(body)))
    return [head, *(list(part) for part in parts)]


def randomise_cascade(
    member: Member, *, generator: torch.Generator, stages: int = STAGES
) -> Iterator[tuple[str, Member]]:
    """Yield the network, which stays as it is, with ever more layers at random, from the head down.

    Yields:
        The name of the lowest layer that is random by now, and the network; the same object
        in every step.

    Source: Adebayo et al. 2018, Sanity Checks for Saliency Maps, section 3, cascading
    randomization.
    """
    # A copy, and no longer what a forward pass in inference mode may have made of it.
    random = copy.deepcopy(member).eval()
    named = dict(random.network.named_modules())
    for names in cascade_stages(random, stages):
        for name in names:
            _randomise(named[name], generator)
        yield names[-1], random


@torch.no_grad()
def _randomise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw weights as before training; batch norm passes its input on unchanged.

    Source: He et al. 2015, Delving Deep into Rectifiers, equation 10.
    """
    for name, value in module.named_parameters(recurse=False):
        if value.dim() >= 2:
            std = math.sqrt(2 / value[0].numel())
            value.copy_(torch.randn(value.shape, generator=generator) * std)
        else:
            value.fill_(1.0 if name == "weight" else 0.0)
    for name, buffer in module.named_buffers(recurse=False):
        if name == "running_mean":
            buffer.zero_()
        elif name == "running_var":
            buffer.fill_(1.0)


def map_similarity(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return Spearman's rank correlation (N,) of each image's two maps (N, h, w).

    NaN where one of the two maps is the same everywhere; maps of different images or cells are
    an InputError.

    Source: Adebayo et al. 2018, section 3, of absolute maps; ours are 0 and above.
    """
    if first.shape != second.shape:
        raise InputError(f"maps are {first.shape} and {second.shape}: compare the same images")
    ranks = [rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (first, second)]
    centred = [values - values.mean(axis=1, keepdims=True) for values in ranks]
    spread = [np.sqrt(np.square(values).sum(axis=1)) for values in centred]
    under = spread[0] * spread[1]
    similarity = np.full(len(first), np.nan)
    np.divide((centred[0] * centred[1]).sum(axis=1), under, out=similarity, where=under > 0)
    return similarity
