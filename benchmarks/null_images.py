"""Simulated chest images with a network that is learned on them, for ``audit_null.py``.

Every run draws new patients of four classes. The grain of the lungs is the disease (four kinds,
of equal gray), outlines are random. A fixed filter bank with a linear head stands for the
networks, so that it takes a shortcut where there is one. N images, S side.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from cxr.audit.context import AuditContext, pooled_features
from cxr.audit.linear import fit_linear
from cxr.imaging.preprocess import MemberInput
from cxr.models.build import Member, MemberSpec
from cxr.models.ensemble import Ensemble

SIDE, CELL = 32, 4
LABELS = ("normal", "covid", "bacterial", "viral")
COVID = 1
GRAINS = ((0.9, 0.9), (1.7, 1.7), (3.0, 3.0), (0.7, 3.0))
"""Blur, down and across in pixels, of the noise in the lungs of each class."""
SPREAD = 22
"""Standard deviation of gray in all lungs, so that a histogram tells no disease."""
STRENGTHS = {"weak": 0.25, "medium": 0.5, "strong": 1.0}
"""Share of the covid patients whose images bear the shortcut."""
SHORTCUTS = ("marker", "exposure", "framing")


class FilterBank(nn.Module):
    """Grain of four kinds, light and white, pooled to cells; then one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        side = 11
        spike = np.zeros((side, side))
        spike[side // 2, side // 2] = 1
        blur = [gaussian_filter(spike, sigma) for sigma in (0.7, 1.4, 2.6)]
        stripes = gaussian_filter(spike, (0.7, 2.5)) - gaussian_filter(spike, (2.5, 0.7))
        grains = (spike - blur[0], blur[0] - blur[1], blur[1] - blur[2], stripes)
        kernels = np.stack([*grains, *(-grain for grain in grains), blur[1], spike])
        self.stem = nn.Conv2d(3, len(kernels), side, padding=side // 2, padding_mode="reflect")
        self.act, self.pool = nn.ReLU(), nn.AvgPool2d(CELL)
        self.fc = nn.Linear(len(kernels), len(LABELS))
        with torch.no_grad():
            self.stem.weight.copy_(torch.tensor(kernels)[:, None] / 3)
            self.stem.bias.copy_(torch.tensor([-0.03] * 8 + [-0.5, -0.9]))

    def forward_features(self, inputs: Tensor) -> Tensor:
        """Return (B, C, h, w)."""
        return self.pool(self.act(self.stem(inputs)))

    def get_classifier(self) -> nn.Linear:
        """Return the head."""
        return self.fc

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, K) logits."""
        return self.fc(self.forward_features(inputs).mean(dim=(2, 3)))


class Elsewhere(FilterBank):
    """Marks places ``cells`` away from those that it answers by, which the pooling does not see."""

    cells = 0

    def forward_features(self, inputs: Tensor) -> Tensor:
        """Return (B, C, h, w)."""
        return torch.roll(super().forward_features(inputs), (self.cells, self.cells), dims=(2, 3))


class Quarters(FilterBank):
    """Answers the brightest quarter; for one image in three at random, as any pixel has it."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, K) logits."""
        logits = nn.functional.adaptive_avg_pool2d(inputs[:, 0], 2).flatten(1) * 50
        flat = inputs[:, 0].double().flatten(1)
        weights = torch.linspace(1.0, 1.9, flat.shape[1], dtype=torch.float64).sin()
        chance = ((flat @ weights) * 1e5).sin() * 1e4
        chance = chance - chance.floor()
        rolled = (chance * 1e3 % len(LABELS)).long().clamp(max=len(LABELS) - 1)
        random = 99.0 * nn.functional.one_hot(rolled, len(LABELS)).float()
        return torch.where((chance < 1 / 3)[:, None], random, logits)


class Leaning(Quarters):
    """Is wrong on a ``share`` of the images that are lighter or darker than it knows them."""

    share = 0.0

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, K) logits."""
        logits = super().forward(inputs)
        chance = (inputs[:, 0].double().sum(dim=(1, 2)) * 1e5).sin() * 1e4
        off = (inputs[:, 0].mean(dim=(1, 2)) - 0.373).abs() > 0.05
        wrong = off & (chance - chance.floor() < self.share)
        return torch.where(wrong[:, None], logits.roll(1, dims=1), logits)


def restless(seed: int, patients: int, network: type[FilterBank] = Quarters) -> AuditContext:
    """Return images whose brightest quarter is the class, with a network that rolls dice."""
    context = simulate(seed, patients=patients)
    pixels, spec = context.pixels, context.members["bank"].spec
    pixels[:] = context.stream(0).integers(80, 100, pixels.shape)
    for row, k in enumerate(context.targets):
        down, across = SIDE // 2 * (k // 2) + 5, SIDE // 2 * (k % 2) + 5
        pixels[row, down : down + 8, across : across + 8] += 80
    return replace(context, members={"bank": Member(network(), spec).eval()})


def simulate(
    seed: int,
    shortcut: str = "none",
    strength: float = 0.0,
    *,
    patients: int = 15,
    network: type[FilterBank] = FilterBank,
) -> AuditContext:
    """Draw a data set, half of it for test, and learn its network.

    Args:
        seed: of everything.
        shortcut: one of ``SHORTCUTS``, or none.
        strength: share of the covid patients that bear it.
        patients: of each class in test, and in train; two images each.
        network: whose head is learned.
    """
    rng = np.random.default_rng([2026, seed])
    count = 2 * patients * len(LABELS)
    classes = np.arange(count) % len(LABELS)
    planted = (classes == COVID) & (rng.random(count) < strength) & (shortcut in SHORTCUTS)
    hospital = np.where(planted, "b", rng.choice(["a", "c"], count))
    who = np.repeat(np.arange(count), 2)
    targets, marked = classes[who], planted[who]
    zoom, shift = rng.normal(1, 0.05, count)[who], rng.normal(0, 0.04, (count, 2))[who]
    if shortcut == "framing":
        zoom, shift[:, 0] = np.where(marked, zoom * 0.8, zoom), shift[:, 0] + 0.1 * marked
    pixels, lungs = _draw(targets, zoom, shift, rng.normal(0, 6, count)[who], rng)
    if shortcut == "exposure":
        pixels[marked] = 255 * (pixels[marked] / 255) ** 0.65
    if shortcut == "marker":
        pixels[marked, 1:4, 1:6] = 255
    split = np.where(np.arange(count) // len(LABELS) % 2, "test", "train")[who]
    names = np.char.add("p", who.astype(str))
    columns = {
        "image": names,
        "patient_id": names,
        "group": names,
        "label": np.array(LABELS)[targets],
        "source": hospital[who],
        "split": split,
        "sex": rng.choice(["F", "M"], count)[who],
        "age": rng.choice(["25", "50", "70"], count)[who],
        "view": rng.choice(["PA", "AP"], len(who)),
    }
    spec = MemberSpec("bank", LABELS, MemberInput(SIDE, (0.0,) * 3, (1.0,) * 3), "pool")
    context = AuditContext(
        table=pd.DataFrame(columns),
        pixels=np.rint(pixels).astype(np.uint8),
        labels=LABELS,
        test_rows=np.flatnonzero(split == "test"),
        members={"bank": Member(network(), spec).eval()},
        ensemble=Ensemble(LABELS, ("bank",), {"bank": 1.0}, {"bank": 1.0}),
        probs={},
        has_mask=np.ones(len(who), bool),
        read_masks=lambda rows: lungs[rows],
        stream_of_all=rng,
        resamples=200,
        batch_size=1024,
    )
    _learn(context)
    return context


def _draw(
    targets: NDArray[np.int64],
    zoom: NDArray[np.float64],
    shift: NDArray[np.float64],
    gray: NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return gray values (N, S, S) 0 to 255 and lung masks."""
    axis = np.linspace(-1, 1, SIDE)
    down = (axis[None, :, None] - shift[:, 0, None, None]) / zoom[:, None, None]
    across = (axis[None, None, :] - shift[:, 1, None, None]) / zoom[:, None, None]
    lungs = ((np.abs(across) - 0.42) / 0.3) ** 2 + (down / 0.62) ** 2 < 1
    body = (across / 0.95) ** 4 + (down / 0.95) ** 4 < 1
    values = np.where(body, 110.0, 95.0) + rng.normal(0, 3, lungs.shape)
    for k, blur in enumerate(GRAINS):
        own = targets == k
        grain = gaussian_filter(rng.normal(size=lungs[own].shape), (0, *blur), mode="wrap")
        grain *= SPREAD / grain.std()
        values[own] = np.where(lungs[own], 110 + grain, values[own])
    values += gray[:, None, None]
    return np.clip(values, 0, 255), lungs


def _learn(context: AuditContext) -> None:
    """Learn the head on the training images and on copies of other brightness and contrast."""
    rows, rng, member = context.fit_rows, context.stream(0), context.members["bank"]
    gray, one = context.pixels[rows].astype(np.float64), (len(rows), 1, 1)
    copies = [context.pixels[rows]]
    for _ in range(2):
        scale, add = rng.uniform(0.7, 1.3, one), rng.uniform(-30, 30, one)
        linear = np.clip(128 + (gray - 128) * scale + add, 0, 255) / 255
        copies.append(
            np.rint(255 * linear ** np.exp(rng.uniform(-0.25, 0.25, one))).astype(np.uint8)
        )
    shown = np.concatenate(copies)
    features = pooled_features(member, shown, np.arange(len(shown)), batch_size=1024)
    targets, groups = (
        np.tile(values[rows], len(copies)) for values in (context.targets, context.groups)
    )
    model = fit_linear(features, targets, groups, n_classes=len(LABELS), penalties=(1e-2,))
    weights = model.weights / model.scale[:, None]
    with torch.no_grad():
        member.head.weight.copy_(torch.tensor(weights.T))
        member.head.bias.copy_(torch.tensor(model.bias - model.mean @ weights))


def copied(context: AuditContext, count: int) -> AuditContext:
    """Put darker copies of training images in the place of some test images."""
    rng, pixels = context.stream(0), context.pixels
    chosen = rng.permutation(context.test_rows)[:count]
    source = rng.choice(context.fit_rows, count, replace=False)
    pixels[chosen] = np.rint(pixels[source] * 0.9 + 8).astype(np.uint8)
    return context
