"""The predictor on the tiny run's bundle: same numbers as training, any input, any thread."""

import io
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cxr
from cxr.bundle.format import read_info, write_info
from cxr.bundle.predictor import BATCH, Prediction, Predictor
from cxr.errors import InputError, MissingInputError
from cxr.evaluation.evaluate import read_predictions
from cxr.labels import CANONICAL
from cxr.pipeline.config import compose
from cxr.pipeline.run_folder import RESEARCH, SYNTHETIC, find_run

pytestmark = pytest.mark.long
MEMBERS = ("mobilenetv2", "inceptionv3")


@pytest.fixture(scope="module")
def predictor(tiny_bundle) -> Predictor:
    return Predictor(tiny_bundle, threads=1)


@pytest.fixture(scope="module")
def images(exported_run) -> np.ndarray:
    """Return the test images, (N, S, S), in the order of the evaluation's predictions."""
    prepared = find_run(compose("evaluate", exported_run.where()))[2]
    table = read_predictions(exported_run.folder / "evaluation" / "predictions.csv")
    rows = prepared.table.reset_index().set_index("image").loc[table["image"], "index"]
    return np.array(prepared.pixels[rows.to_numpy()])


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def probs_of(predictions: list[Prediction]) -> np.ndarray:
    return np.array([list(found.probs.values()) for found in predictions])


def test_probabilities_are_those_of_evaluation(exported_run, predictor, images):
    table = read_predictions(exported_run.folder / "evaluation" / "predictions.csv")
    found = predictor.predict(list(images))
    assert len(found) > BATCH
    wanted = table[[f"prob_ensemble_{label}" for label in CANONICAL]].to_numpy()
    # Hardly trained members magnify rounding; tests/stages/test_real.py asks 1e-5 of real ones.
    assert np.abs(probs_of(found) - wanted).max() < 1e-4
    assert [one.label for one in found] == table["prediction"].tolist()
    for name in MEMBERS:
        wanted = table[[f"prob_{name}_{label}" for label in CANONICAL]].to_numpy()
        members = np.array([list(one.member_probs[name].values()) for one in found])
        assert np.abs(members - wanted).max() < 1e-4


def test_says_what_it_is(tiny_bundle, predictor):
    assert predictor.labels == CANONICAL
    assert predictor.members == MEMBERS
    assert predictor.note == f"{SYNTHETIC} · {RESEARCH}"
    assert predictor.info == read_info(tiny_bundle)
    assert len(predictor.fingerprint) == 64
    assert cxr.Predictor is Predictor


def test_a_path_bytes_and_pixels_give_the_same(predictor, images, tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(png(images[0]))
    wanted = predictor.predict(images[0])
    for given in (
        path,
        str(path),
        path.read_bytes(),
        memoryview(path.read_bytes()),
        images[0].astype(np.uint16) * 256,
        np.asfortranarray(images[0]),
    ):
        found = predictor.predict(given)
        assert found.probs == wanted.probs
        assert np.array_equal(found.image, images[0])
    assert predictor.predict(path).name == str(path)
    assert predictor.predict(images[0], names="mine").name == "mine"


def test_a_sequence_gives_a_list(predictor, images):
    found = predictor.predict(list(images[:3]))
    assert isinstance(found, list)
    assert len(found) == 3
    assert predictor.predict([]) == []
    alone = [predictor.predict(image) for image in images[:3]]
    assert np.abs(probs_of(found) - probs_of(alone)).max() < 1e-6


def test_a_image_of_any_size_is_prepared_as_training_did(predictor, images):
    large = np.asarray(Image.fromarray(images[0]).resize((150, 90)))
    square = np.asarray(Image.fromarray(large).resize(images[0].shape, Image.Resampling.BILINEAR))
    found = predictor.predict(large, maps=True)
    assert found.probs == predictor.predict(square).probs
    assert found.image.shape == (90, 150)
    assert found.maps.of("covid").shape == (90, 150)
    assert found.maps.overlay("covid", "inceptionv3").shape == (90, 150, 3)


def test_maps_come_only_when_asked_for(predictor, images):
    assert predictor.predict(images[0]).maps is None
    maps = predictor.predict(images[0], maps=True).maps
    assert maps.classes == CANONICAL
    for name in (None, *MEMBERS):
        values = maps.of("normal", name)
        assert values.dtype == np.float32
        assert values.min() >= 0
        assert values.max() <= 1 + 1e-6


def test_sets_per_class_and_referral_are_those_of_validation(predictor, images):
    uncertainty = predictor.info["uncertainty"]
    for level in (0.8, 0.9, 0.95):
        found = predictor.predict(images[0], level=level)
        limits = uncertainty["conformal"]["levels"][f"{level:g}"]["per_class"]
        probs = found.probs
        inside = [
            label
            for label in CANONICAL
            if limits[label] is None or 1 - probs[label] <= limits[label]
        ]
        assert list(found.prediction_set) == (inside or [found.label])
        assert found.level == level
        assert found.refer == (max(probs.values()) < uncertainty["referral"]["threshold"])


def test_an_unknown_level_names_the_allowed_ones(predictor, images):
    with pytest.raises(InputError, match=r"0\.8, 0\.9, 0\.95"):
        predictor.predict(images[0], level=0.5)
    with pytest.raises(InputError, match="was not fitted"):
        list(predictor.predict_each([], level=0.5))


def test_a_bad_image_is_an_error_in_its_place(predictor, images, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    mixed = [images[0], bad, tmp_path / "absent.png", images[1].astype(float), images, images[1]]
    names = [f"image {index}" for index in range(len(mixed))]
    found = list(predictor.predict_each(mixed, names=names))
    assert [isinstance(one, InputError) for one in found] == [False, True, True, True, True, False]
    assert found[-1].name == "image 5"
    for index, one in enumerate(found[1:5], start=1):
        assert f"image {index}" in str(one)
        assert "\n" not in str(one)
    assert isinstance(found[2], MissingInputError)
    with pytest.raises(InputError, match="is no image"):
        predictor.predict([images[0], bad])


def test_images_are_pulled_a_few_at_a_time(predictor, images):
    pulled = 0

    def endless():
        nonlocal pulled
        while True:
            pulled += 1
            yield images[0]

    next(predictor.predict_each(endless()))
    assert pulled == BATCH


def test_the_old_name_of_the_pixels_still_works_with_a_warning(predictor, images):
    found = predictor.predict(images[0])
    with pytest.deprecated_call(match=r"now Prediction\.image"):
        assert found.film is found.image


def test_many_threads_give_the_same_as_one(predictor, images):
    wanted = [predictor.predict(image).probs for image in images]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda image: predictor.predict(image, maps=True), [*images] * 4))
    for index, one in enumerate(found):
        assert one.probs == wanted[index % len(images)]


def test_a_prediction_is_plain_values_for_json(predictor, images):
    found = predictor.predict(images[0], names="x")
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values["label"] == found.label
    assert values["probs"] == found.probs
    assert values["prediction_set"] == list(found.prediction_set)
    assert values["note"] == predictor.note
    assert "image" not in values


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "tensorrt"}, "allowed are onnxruntime, openvino"),
        ({"variant": "int8"}, "variants of 8 bits and bfloat16 are gone; leave it out"),
        ({"threads": -1}, "threads is -1"),
    ],
)
def test_an_unknown_option_names_the_allowed_ones(tiny_bundle, options, message):
    with pytest.raises(InputError, match=message):
        Predictor(tiny_bundle, **options)


def test_a_spoilt_bundle_is_refused(changeable):
    path = changeable / "model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.onnx was changed"):
        Predictor(changeable)


def test_a_bundle_of_version_0_1_with_an_8_bit_graph_is_read(changeable, predictor, images):
    info = read_info(changeable)
    shutil.copy(changeable / "model.onnx", changeable / "model-int8.onnx")
    values = {key: info[key] for key in info if key not in ("format", "files", "fingerprint")}
    entry = {"file": "model-int8.onnx", "test": {"int8": 0.9}}
    write_info(changeable, values | {"models": {**values["models"], "int8": entry}})
    old = Predictor(changeable, threads=1)
    assert old.predict(images[0]).probs == predictor.predict(images[0]).probs
    with pytest.raises(InputError, match="leave it out"):
        Predictor(changeable, variant="int8")


def test_openvino_gives_the_same(tiny_bundle, predictor, images):
    pytest.importorskip("openvino")
    other = Predictor(tiny_bundle, runtime="openvino", threads=1)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(other.predict, images))
    assert np.abs(probs_of(found) - probs_of(predictor.predict(list(images)))).max() < 1e-4


def test_predicting_needs_no_torch(tiny_bundle, images, tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(png(images[0]))
    code = f"""
import sys
for name in ("torch", "timm", "lightning", "pandas", "scipy", "sklearn", "matplotlib", "hydra",
             "onnx", "safetensors"):
    sys.modules[name] = None
from cxr import Predictor
found = Predictor({str(tiny_bundle)!r}, threads=1).predict({str(path)!r}, maps=True)
found.maps.overlay(found.label)
print(found.label)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() in CANONICAL


@pytest.mark.realdata
def test_two_photometric_versions_of_a_image_agree(tiny_bundle, shared):
    predictor = Predictor(Path(tiny_bundle), threads=1)
    folder = shared / "data" / "dicom"
    first, second = (
        predictor.predict(folder / f"chest-pa-monochrome{kind}-jpeg.dcm") for kind in (1, 2)
    )
    assert first.probs == pytest.approx(second.probs, abs=0.01)
