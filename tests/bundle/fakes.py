"""A predictor without a network, for tests of what is built on one."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from cxr.errors import InputError
from cxr.imaging.read import read_gray

NOTE = "Research use only, not a medical device"


@dataclass
class FakeMaps:
    image: np.ndarray

    def overlay(self, label: str) -> np.ndarray:
        return np.repeat(self.image[:, :, None], 3, axis=2)


@dataclass
class FakePrediction:
    image: np.ndarray
    maps: FakeMaps | None
    label: str = "covid"
    probs: dict[str, float] = field(default_factory=lambda: {"normal": 0.25, "covid": 0.75})
    member_probs: dict[str, dict[str, float]] = field(
        default_factory=lambda: {"first": {"normal": 0.25, "covid": 0.75}}
    )
    prediction_set: tuple[str, ...] = ("normal", "covid")
    refer: bool = True
    ood_score: float = 0.5
    refused: bool = False
    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    note: str = NOTE


class FakePredictor:
    """Refuses what is brighter than 200, fails on what no image is, breaks where told to."""

    labels = ("normal", "covid")
    members = ("first",)
    note = NOTE
    info = MappingProxyType({})  # a bundle that has no reference of drift

    def __init__(self, fingerprint: str = "abc", breaks_on: str = "", stop_after: int = -1) -> None:
        self.fingerprint, self.breaks_on, self.left = fingerprint, breaks_on, stop_after
        self.seen: list[str] = []
        self._lock = threading.Lock()

    def predict_each(
        self,
        images: Sequence[Path],
        *,
        level: float,
        maps: bool,
        names: Sequence[str],
        originals: Sequence[tuple[int, int] | None] = (),
    ) -> Iterator[Any]:
        if level not in (0.8, 0.9, 0.95):
            raise InputError(f"level {level} is not in the bundle")
        for path, name in zip(images, names, strict=True):
            with self._lock:
                self.seen.append(name)
                self.left -= 1
                if self.left == -1:
                    raise KeyboardInterrupt
            if self.breaks_on and self.breaks_on in name:
                raise RuntimeError("planted")
            try:
                image = read_gray(path)
            except InputError as error:
                yield error
                continue
            bright = bool(image.mean() > 200)
            yield FakePrediction(
                image,
                FakeMaps(image) if maps else None,
                refused=bright,
                refusals=("Too bright.",) if bright else (),
            )
