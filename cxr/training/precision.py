"""float32 or bfloat16: whichever the machine trains this network faster in, by trying both."""

import copy
import time
from typing import Literal

import torch
from torch.nn import functional

from cxr.console import log
from cxr.models.build import Member

TRIED_PX = 2 * 224**2
"""Pixels of a step that is timed: with fewer the cost of each call hides the arithmetic's."""
ROUNDS = 4
EMULATED = 3.0
"""Times slower from which no chance could make bfloat16 win."""
LEAST_GAIN = 1.35
"""Times faster that bfloat16 must be: a network that gains less than chance moves a measurement
would get another arithmetic from one training to the next. By AVX-512 BF16 InceptionV3 gains 1.5
to 1.8, MobileNetV2 0.8 to 1.25."""


def choose_precision(
    precision: str, member: Member, device: torch.device, *, processes: int = 1
) -> Literal["32-true", "bf16-mixed"]:
    """Choose the arithmetic of a training, as Lightning calls it.

    ``auto`` times a few steps of both, a second in all; several processes, which must agree,
    and each might measure something else, take bfloat16 where the hardware multiplies it.

    Args:
        precision: auto, 32 or bf16.
        member: what is to be trained; neither it nor any random state changes.
        device: where.
        processes: of the training.
    """
    if precision != "auto":
        return "bf16-mixed" if precision == "bf16" else "32-true"
    if device.type == "mps":
        return "32-true"
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_amx_tile_supported()
    if processes > 1:
        return "bf16-mixed" if native else "32-true"
    if device.type == "cuda" and not native:
        return "32-true"
    exact, short = step_seconds(member, device)
    log.info("a step takes bfloat16 %.2f of the time of float32", short / exact)
    return "bf16-mixed" if short * LEAST_GAIN < exact else "32-true"


def step_seconds(member: Member, device: torch.device) -> tuple[float, float]:
    """Return the seconds of a step in float32 and in bfloat16, the least of a few each."""
    trial = copy.deepcopy(member).train().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    side = member.spec.input.size_px
    count = max(2, round(TRIED_PX / side**2))
    inputs = torch.zeros(count, 3, side, side, device=device)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    targets = torch.zeros(count, dtype=torch.int64, device=device)
    times: tuple[list[float], list[float]] = ([], [])
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for _ in range(ROUNDS):
            for short, taken in enumerate(times):
                began = time.perf_counter()
                with torch.autocast(device.type, torch.bfloat16, enabled=bool(short)):
                    loss = functional.cross_entropy(trial(inputs).float(), targets)
                loss.backward()  # type: ignore[no-untyped-call]
                if device.type == "cuda":
                    torch.cuda.synchronize()
                taken.append(time.perf_counter() - began)
            if times[1][-1] > EMULATED * times[0][-1]:
                break
    return min(times[0]), min(times[1])
