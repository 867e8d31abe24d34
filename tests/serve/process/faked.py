"""For gunicorn in tests: the application with a model whose speed and words a file decides."""

import json
import time
from pathlib import Path

import numpy as np
from flask import Flask

from cxr.bundle.maps import HeatMaps
from cxr.bundle.predictor import Prediction
from cxr.errors import InputError
from cxr.serve import create_app

LABELS = ("normal", "bacterial")


class FilePredictor:
    """Reads ``bundle.json`` {"name", "delay_s", "bad"}; marks a call, answers after the delay."""

    labels, members = LABELS, ("m",)

    def __init__(self, bundle: Path) -> None:
        self.info = json.loads((bundle / "bundle.json").read_text())
        if self.info.get("bad"):
            raise InputError("a digest of the bundle does not match")
        self.fingerprint, self.note = self.info["name"], ""
        self.calls = bundle.parent / "calls"

    def predict_each(self, images, *, level, maps, names):
        for image, name in zip(images, names, strict=True):
            image = getattr(image, "pixels", image)
            if name != "trial":
                with self.calls.open("a") as calls:
                    calls.write(".")
                time.sleep(self.info["delay_s"])
            share = float(np.mean(image)) / 255
            probs = {"normal": share, "bacterial": 1 - share}
            grids = {"m": np.ones((2, 4, 4), np.float32)}
            drawn = HeatMaps(LABELS, grids, {"m": 1.0}, image)
            yield Prediction(
                label=max(probs, key=probs.get),
                probs=probs,
                member_probs={"m": probs},
                level=level,
                prediction_set=LABELS,
                refer=False,
                ood_score=0.0,
                refused=False,
                refusals=(),
                image=image,
                maps=drawn if maps else None,
                name=name,
                note="",
            )


def create() -> Flask:
    return create_app(load=FilePredictor)
