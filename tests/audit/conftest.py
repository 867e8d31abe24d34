"""A network that sees bright patches, and images with such a patch inside or outside the lungs."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from cxr.audit.context import AuditContext
from cxr.imaging.preprocess import MemberInput
from cxr.models.build import Member, MemberSpec
from cxr.models.ensemble import Ensemble

SIDE, CELL = 64, 8
LABELS = ("normal", "covid")


class Patches(nn.Module):
    """Features: how much brighter, and darker, than 0.6 each patch of 8 x 8 pixels is."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 2, CELL, stride=CELL)
        self.act = nn.ReLU()
        self.fc = nn.Linear(2, len(LABELS))
        with torch.no_grad():
            self.stem.weight[0], self.stem.weight[1] = 1 / (3 * CELL**2), -1 / (3 * CELL**2)
            self.stem.bias.copy_(torch.tensor([-0.6, 0.05]))
            self.fc.weight.copy_(torch.tensor([[0.0, 0.1], [400.0, 0.0]]))
            self.fc.bias.copy_(torch.tensor([2.0, 0.0]))

    def forward_features(self, inputs: Tensor) -> Tensor:
        return self.act(self.stem(inputs))

    def get_classifier(self) -> nn.Linear:
        return self.fc

    def forward(self, inputs: Tensor) -> Tensor:
        return self.fc(self.forward_features(inputs).mean(dim=(2, 3)))


@pytest.fixture
def patch_context() -> Callable[..., AuditContext]:
    """Build a context; its covid images have a white patch inside the lungs, or in a corner."""

    def build(
        *, inside: bool = True, masks: bool = True, count: int = 120, **options: object
    ) -> AuditContext:
        rng = np.random.default_rng(0)
        pixels = rng.integers(60, 100, (count, SIDE, SIDE), dtype=np.uint8)
        targets = np.arange(count, dtype=np.int64) % 2
        lungs = np.zeros(pixels.shape, bool)
        lungs[:, 16:48, 8:56] = True
        for row in np.flatnonzero(targets):
            place = rng.integers(2, 4, 2) * CELL if inside else np.zeros(2, np.int64)
            pixels[row, place[0] : place[0] + 12, place[1] : place[1] + 12] = 255
        if not masks:
            lungs[:] = False
        rows = np.arange(count)
        table = pd.DataFrame(
            {
                "label": np.array(LABELS)[targets],
                "group": np.char.add("p", (rows // 2).astype(str)),
                "split": np.where(rows < count // 2, "train", "test"),
            }
        )
        spec = MemberSpec("patches", LABELS, MemberInput(SIDE, (0.0,) * 3, (1.0,) * 3), "act")
        parts = {
            "table": table,
            "pixels": pixels,
            "labels": LABELS,
            "test_rows": rows[count // 2 :],
            "members": {"patches": Member(Patches(), spec).eval()},
            "ensemble": Ensemble(LABELS, ("patches",), {"patches": 1.0}, {"patches": 1.0}),
            "probs": {},
            "has_mask": lungs.any(axis=(1, 2)),
            "read_masks": lambda rows: lungs[rows],
            "resamples": 200,
        }
        return AuditContext(**(parts | options))

    return build
