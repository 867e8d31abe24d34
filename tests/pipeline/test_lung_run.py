"""A run on crops of the lungs, from training to a prediction, in the image's own coordinates."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr.bundle.batch import predict_images
from cxr.bundle.format import FORMAT, BundleError, read_info, write_info
from cxr.bundle.inputs import find_images
from cxr.bundle.predictor import Predictor
from cxr.data.prepared import Prepared, open_prepared
from cxr.errors import InputError
from cxr.evaluation.evaluate import read_predictions
from cxr.files import read_json
from cxr.imaging.read import read_gray
from cxr.lungs.find import find_lungs
from cxr.pipeline.audit_stage import audit_stage
from cxr.pipeline.config import compose
from cxr.pipeline.ensemble_stage import ensemble_stage
from cxr.pipeline.evaluate_on_stage import evaluate_on_stage
from cxr.pipeline.evaluate_stage import evaluate_stage
from cxr.pipeline.explain_stage import explain_stage
from cxr.pipeline.export_stage import export_stage
from cxr.pipeline.run_folder import find_run
from cxr.pipeline.train_stage import train_stage
from cxr.pipeline.trained_run import TrainedRun

pytestmark = pytest.mark.long
DATA = (
    "data=phantom",
    "data.phantom.size_px=160",
    "data.phantom.patients_per_class=8",
    "data.phantom.images_per_patient=[2,2]",
)


class Run:
    """A run on masked phantoms, letterboxed."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "phantom" / "lungs"

    def where(self, *extra: str) -> list[str]:
        return ["data=phantom", "run=lungs", f"output_root={self.root}", *extra]

    @property
    def prepared(self) -> Prepared:
        return open_prepared(find_run(compose("evaluate", self.where()))[2].folder)

    @property
    def images(self) -> Path:
        return Path(self.prepared.info["root"])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    made = Run(tmp_path_factory.mktemp("outputs"))
    how = ("model.input_size=96", "trainer.max_epochs=1", "trainer.batch_size=8")
    lungs = ("data.size=64", "data.lungs=mask", "data.fit=letterbox", "trainer.progress=false")
    train_stage(compose("train", [*DATA, *made.where(*how, *lungs)[1:], "model=mobilenetv2"]))
    ensemble_stage(compose("ensemble", made.where()))
    evaluate_stage(compose("evaluate", made.where("resamples=20")))
    export_stage(compose("export", made.where("threads=1")))
    return made


@pytest.fixture(scope="module")
def predictor(run) -> Predictor:
    return Predictor(run.folder / "bundle", threads=1)


def test_the_bundle_carries_what_it_was_trained_with(run):
    info = read_info(run.folder / "bundle")
    assert info["format"] == FORMAT
    assert info["preprocess"] == run.prepared.spec.to_dict()
    assert (info["preprocess"]["lungs"], info["preprocess"]["fit"]) == ("mask", "letterbox")
    assert info["files"]["lungs.onnx"]["sha256"] == info["preprocess"]["finder"]


def test_a_file_is_predicted_as_it_was_evaluated(run, predictor):
    table = read_predictions(run.folder / "evaluation" / "predictions.csv")
    probs = [f"prob_ensemble_{label}" for label in predictor.labels]
    results = predictor.predict([run.images / name for name in table["image"]])
    served = np.array([list(one.probs.values()) for one in results])
    assert np.abs(served - table[probs].to_numpy()).max() < 1e-4
    for one, name in zip(results, table["image"], strict=True):
        lungs = find_lungs(read_gray(run.images / name))
        assert one.lungs
        assert one.to_dict()["lungs"] == {
            "count": lungs.count,
            "score": lungs.score,
            "box": lungs.box,
        }


def test_maps_lie_on_the_image_and_not_on_its_crop(run, predictor):
    test = run.prepared.table[run.prepared.table["lungs_count"] == "2"]
    image = read_gray(run.images / test["image"].iloc[0])
    one = predictor.predict(image, maps=True)
    assert one.maps
    values = one.maps.of(one.label)
    assert values.shape == image.shape
    top, left, bottom, right = (
        share * side for share, side in zip(one.maps.placement.source, image.shape * 2, strict=True)
    )
    assert not values[: int(top)].any()
    assert not values[:, : int(left)].any()
    assert not values[int(np.ceil(bottom)) :].any()
    assert not values[:, int(np.ceil(right)) :].any()


def test_a_manifest_undoes_the_stretch_of_its_files(run, predictor, tmp_path):
    name = run.prepared.table["image"].iloc[0]
    Image.fromarray(read_gray(run.images / name)).save(tmp_path / "a.png")
    for width in ("160", "300", "x"):
        with (tmp_path / f"{width}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["image", "width", "height"], ["a.png", width, "160"]])
    rows = {}
    for width in ("160", "300", "x"):
        out = tmp_path / f"out-{width}.csv"
        predict_images(predictor, find_images([str(tmp_path / f"{width}.csv")]), out, workers=1)
        rows[width] = next(csv.DictReader(out.read_text().splitlines()))
    plain = predictor.predict(tmp_path / "a.png")
    first = predictor.labels[0]
    if not plain.refused and rows["160"]["refused"] == "false":
        assert float(rows["160"][f"prob_{first}"]) == pytest.approx(plain.probs[first], abs=1e-6)
    assert rows["160"]["ood_score"] != rows["300"]["ood_score"]
    assert "height and width of a.png are '160' and 'x'" in rows["x"]["error"]


def test_a_bundle_without_its_finder_is_refused(run, tmp_path):
    bundle = Path(shutil.copytree(run.folder / "bundle", tmp_path / "bundle"))
    info = read_info(bundle)
    (bundle / "lungs.onnx").unlink()
    write_info(
        bundle, {k: v for k, v in info.items() if k not in ("files", "fingerprint", "format")}
    )
    with pytest.raises(BundleError, match=r"does not list a file 'lungs\.onnx'"):
        Predictor(bundle)


def test_plots_show_the_whole_image_and_its_lungs(run):
    opened = TrainedRun(compose("explain", run.where()))
    chosen = np.arange(2)
    maps = opened.maps(chosen, np.zeros(2, np.int64))
    example = opened.examples(chosen, maps)[0]
    whole = read_gray(run.images / example.name)
    assert example.image.shape == (64, 64)
    assert abs(float(example.image.mean()) - float(whole.mean())) < 3
    lungs = find_lungs(whole)
    assert example.lungs is not None
    if lungs.count == 2:
        assert abs(example.lungs.mean() - lungs.mask.mean()) < 0.03
    assert all(values.shape == (64, 64) for values in example.maps.values())
    assert (explain_stage(compose("explain", run.where("per_class=1"))) / "explain.json").exists()


def test_the_audit_reads_masks_in_the_crops_frame(run):
    tests = "tests=[leak,attention]"
    values = audit_stage(compose("audit", run.where(tests, "resamples=20")))
    leak, attention = values["results"]
    assert "no longer give the prepared pixels" not in leak["reason"]
    assert "finder" not in attention["reason"], "the phantom's manifest has true masks"


def test_other_data_are_prepared_alike_or_refused(run, monkeypatch):
    overrides = [*DATA, f"output_root={run.root}", "run=phantom/lungs", "data.phantom.seed=7"]
    overrides += ["data.name=other", "resamples=20"]
    evaluate_on_stage(compose("evaluate_on", overrides))
    made = next((run.root / "other" / "prepared").iterdir())
    assert read_json(made / "prepared.json", hint="")["preprocess"] == run.prepared.spec.to_dict()
    with pytest.raises(
        InputError, match=r"data\.lungs is 'crop': the images are prepared as the run's"
    ):
        evaluate_on_stage(compose("evaluate_on", [*overrides, "data.lungs=crop"]))
    monkeypatch.setattr("cxr.data.prepared.finder_digest", lambda: "0" * 64)
    with pytest.raises(InputError, match=r"trained with the lung finder .* installed is 00000000"):
        evaluate_on_stage(compose("evaluate_on", overrides))
