"""Images per second of a training step, and what makes it fast on a processor.

    python benchmarks/training_speed.py [--seconds 8] [--threads 2]

Prints a row per setting; settings are taken in turn, so that a noisy machine hits all alike.
"""

import argparse
import itertools
import time

import torch

from cxr.labels import CANONICAL
from cxr.models.build import Member, build_member, freeze
from cxr.pipeline.config import compose
from cxr.training.trainer import reuse_freed_memory

BATCH = 32


def steps(member: Member, frozen: list[str], *, bf16: bool, seconds: float) -> float:
    """Return images per second over a few seconds of training steps on noise."""
    member.train().to(memory_format=torch.channels_last)
    modules = dict(member.network.named_modules())
    for name in frozen:
        modules[name].eval()
    trained = [parameter for parameter in member.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    side = member.spec.input.size_px
    pixels = torch.randint(0, 256, (BATCH, 1, side, side), dtype=torch.uint8)
    inputs = member.prepare(pixels).contiguous(memory_format=torch.channels_last)
    targets = torch.arange(BATCH) % len(CANONICAL)
    began, count = 0.0, -2
    while count < 1 or time.perf_counter() - began < seconds:
        if count == 0:
            began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = member(inputs)
        loss = torch.nn.functional.cross_entropy(logits.float(), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        count += 1
    return count * BATCH / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{'architecture':18}{'memory':>10}{'arithmetic':>12}{'frozen':>8}{'images/s':>10}")
    # Kept memory cannot be given back within a process, so the plain rows come first.
    for kept, name in itertools.product((False, True), ("mobilenetv2", "inceptionv3")):
        if kept:
            reuse_freed_memory()
        config = compose("train", ["data=cxr4", f"model={name}"])
        for frozen, bf16 in itertools.product(([], config.model.freeze), (False, True)):
            member = build_member(config.model.architecture, CANONICAL, input_size_px=224)
            freeze(member, frozen)
            rate = steps(member, frozen, bf16=bf16, seconds=options.seconds)
            words = ["kept" if kept else "returned", "bf16" if bf16 else "float32"]
            print(
                f"{config.model.architecture:18}{words[0]:>10}{words[1]:>12}"
                f"{'yes' if frozen else 'no':>8}{rate:>10.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
