"""One bundle's prediction sets on the same logits, from everything that gives any."""

import csv
import io
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr.bundle import predictor as predictor_module
from cxr.bundle.format import FORMAT, describe, fingerprint_of, read_info, write_info
from cxr.bundle.predictor import Predictor
from cxr.cli import main
from cxr.evaluation.confidence import measure_confidence
from cxr.evaluation.evaluate import build_predictions
from cxr.evaluation.set_coverage import sets_sentences
from cxr.files import write_json
from cxr.models.ensemble import Ensemble, softmax
from cxr.serve import create_app
from cxr.serve.serving import serving, utc_now
from cxr.serve.settings import Settings
from cxr.serve.store.users import create_token

LABELS = ("normal", "covid", "viral")
LEVEL = 0.9
LIMITS = {"normal": 0.35, "covid": 0.85, "viral": 0.75}
PLAIN = 0.5
N = 12
TARGETS = np.arange(N) % 3
LOGITS = np.random.default_rng(0).normal(size=(N, 3)) + 1.2 * np.eye(3)[TARGETS]
NOTE = "Research use only, not a medical device"


class FakeRuntime:
    """Answers with the logits of the image whose number is its brightness less 40."""

    def run(self, pixels, outputs):
        probs = softmax(LOGITS[(pixels[:, 0, 0, 0].astype(int) - 40) % N])
        maps = np.ones((len(pixels), 3, 4, 4), np.float32)
        return {"probs": probs, "member_probs": probs[:, None], "map_only": maps}


def uncertainty() -> dict:
    level = {"plain": PLAIN, "per_class": LIMITS, "note": ""}
    return {
        "fitted_on": "validation",
        "n": 90,
        "n_patients": 60,
        "labels": list(LABELS),
        "counts": dict.fromkeys(LABELS, 30),
        "patients": dict.fromkeys(LABELS, 20),
        "warning": "",
        "conformal": {"levels": {"0.9": level}},
        "referral": {"threshold": 0.4, "coverage": 0.8},
    }


@pytest.fixture(scope="module")
def certainty() -> dict:
    """What make evaluate measures of these logits."""
    rows = pd.DataFrame(
        {
            "image": [f"{i}.png" for i in range(N)],
            "split": "test",
            "label": [LABELS[k] for k in TARGETS],
            "group": [f"p{i // 2}" for i in range(N)],
            "patient_id": "",
            "source": "",
            "sha256": "",
        }
    )
    ensemble = Ensemble(LABELS, ("only",), {"only": 1.0}, {"only": 1.0})
    return measure_confidence(
        build_predictions(rows, {"only": LOGITS}, ensemble),
        ensemble=ensemble,
        uncertainty=uncertainty(),
        resamples=5,
        note=NOTE,
    )


@pytest.fixture
def bundle(tmp_path, monkeypatch, certainty):
    """A bundle without a network; what it says was measured is what was measured above."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"no graph")
    sets = certainty["prediction_sets"]["0.9"]["per_class"]
    kept = {"0.9": {key: sets[key] for key in ("coverage", "size", "per_class")}}
    figure = {"value": 0.5, "low": 0.3, "high": 0.7}
    metrics = dict.fromkeys(("accuracy", "balanced_accuracy", "macro_auroc"), figure)
    write_info(
        folder,
        {
            "labels": list(LABELS),
            "members": ["only"],
            "weights": {"only": 1.0},
            "run": "r",
            "preprocess": {"size_px": 64, "fit": "stretch"},
            "data": {"name": "d", "fingerprint": "f"},
            "synthetic": False,
            "note": NOTE,
            "uncertainty": uncertainty(),
            "models": {},
            "environment": {"time_utc": ""},
            "test": {"n": N, "ensemble": metrics, "prediction_sets": kept},
        },
    )
    monkeypatch.setattr(predictor_module, "open_runtime", lambda *_, **__: FakeRuntime())
    return folder


def as_format_1(folder) -> None:
    """Make it what version 0.1 wrote: no patients, no coverage of sets."""
    info = read_info(folder)
    info["format"] = 1
    del info["test"]["prediction_sets"]
    for key in ("patients", "n_patients"):
        del info["uncertainty"][key]
    info["fingerprint"] = fingerprint_of(info)
    write_json(folder / "bundle.json", info)


def images() -> list[bytes]:
    found = []
    for number in range(N):
        stream = io.BytesIO()
        Image.fromarray(np.full((80, 80), 40 + number, np.uint8)).save(stream, "PNG")
        found.append(stream.getvalue())
    return found


def expected(limits: dict[str, float]) -> list[list[str]]:
    """The sets, image by image and class by class."""
    sets = []
    for scores in LOGITS:
        probs = np.exp(scores) / np.exp(scores).sum()
        top = LABELS[int(np.argmax(probs))]
        sets.append(
            [
                name
                for name, prob in zip(LABELS, probs, strict=True)
                if 1 - prob <= limits[name] or name == top
            ]
        )
    return sets


def of_predictor(bundle, tmp_path) -> list[list[str]]:
    return [list(found.prediction_set) for found in Predictor(bundle).predict(images())]


def of_command(bundle, tmp_path) -> list[list[str]]:
    folder = tmp_path / "films"
    folder.mkdir()
    for number, image in enumerate(images()):
        (folder / f"{number:02}.png").write_bytes(image)
    out = tmp_path / "out.csv"
    assert main(["predict", str(folder), "--out", str(out), "--bundle", str(bundle)]) == 0
    with out.open(newline="") as table:
        rows = sorted(csv.DictReader(table), key=lambda row: row["image"])
    assert {row["set_thresholds"] for row in rows} == {"per class"}
    return [row["set"].split("|") for row in rows]


@pytest.mark.parametrize("old", [False, True])
def test_every_way_to_a_prediction_gives_the_sets_per_class(
    bundle, tmp_path, config, kit, certainty, old
):
    if old:
        as_format_1(bundle)
    wanted = expected(LIMITS)
    assert wanted != expected(dict.fromkeys(LABELS, PLAIN))
    measured = certainty["prediction_sets"]["0.9"]["per_class"]
    held = [LABELS[k] in found for k, found in zip(TARGETS, wanted, strict=True)]
    assert measured["size"]["value"] == pytest.approx(np.mean([len(found) for found in wanted]))
    assert measured["coverage"]["value"] == pytest.approx(np.mean(held))
    for k, label in enumerate(LABELS):
        share = measured["per_class"][label]
        assert share["value"] == pytest.approx(np.mean(held[k::3]))
        assert (share["images"], share["patients"]) == (4, 4)
    assert of_predictor(bundle, tmp_path) == wanted
    assert of_command(bundle, tmp_path) == wanted
    app = create_app(Settings.load(config | {"bundle": bundle}, environ={}))
    app.testing = True
    try:
        _check_server(app, kit, wanted, measured["per_class"], old)
    finally:
        app.extensions["cxr"].queue.stop(1.0)
        serving(app).database.close()


def _check_server(app, kit, wanted, coverage, old) -> None:
    client, account = app.test_client(), kit.add_account(app, "ann")
    kit.sign_in(client, account)
    token = kit.csrf_of(client.get("/"))
    for image, names in zip(images(), wanted, strict=True):
        form = {"csrf_token": token, "image": [(io.BytesIO(image), "a.png")]}
        place = client.post("/", data=form).headers["Location"]
        found = client.get(f"{place}download.json").json
        assert found["prediction_set"] == names
        assert found["set_coverage"] == ({} if old else coverage)
        page = client.get(place).get_data(as_text=True).replace("\u00a0", " ")
        shown = re.search(r"<h2>Prediction set</h2>\s*<p><strong>(.*), 90 %<", page)[1].lower()
        assert re.split(r", | or ", shown) == names
        assert "at least 90 % of each class" in page
        for share in coverage.values():
            assert (f"{100 * share['value']:.1f} % (" in page) is not old
        assert ("not measured" in page) is old
    with app.app_context(), serving().database.write() as session:
        secret = create_token(session, account.id, "tests", now=utc_now())[0]
    for image, names in zip(images(), wanted, strict=True):
        rest = client.post(
            "/api/v1/predictions",
            data=image,
            content_type="image/png",
            headers={"Authorization": f"Bearer {secret}"},
        ).json
        assert rest["prediction_set"] == names
        assert rest["set_coverage"] == ({} if old else coverage)
    page = client.get("/model").get_data(as_text=True)
    for share in coverage.values():
        assert (f"{100 * share['value']:.1f}\u00a0% (" in page) is not old
    assert ("not measured" in page) is old


def test_the_bundle_shows_coverage_per_class_and_what_falls_short(bundle, certainty):
    assert read_info(bundle)["format"] == 2 < FORMAT
    line = next(line for line in describe(bundle).splitlines() if line.startswith("sets 0.9"))
    own = certainty["prediction_sets"]["0.9"]["per_class"]["per_class"]
    for label, share in own.items():
        assert f"{label} {share['value']:.3f} ({share['low']:.3f} to {share['high']:.3f}" in line
    assert "4 patients" in line
    assert LABELS[0] in sets_sentences(certainty)[0]
    as_format_1(bundle)
    assert "on test not measured" in describe(bundle)
