"""The lung finder's stage on the phantom: files, figures, refusals, and nothing half-written."""

import json
import shutil

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from cxr.bundle.export import store_as_float16
from cxr.errors import InputError
from cxr.lungs.find import find_lungs, finder_digest
from cxr.pipeline import lungs_stage as stage
from cxr.pipeline.config import compose
from cxr.pipeline.lungs_measure import dice, enlarge, hausdorff95
from tests.conftest import TINY


def overrides(root, *extra: str) -> list[str]:
    return [
        *(*TINY, f"output_root={root}", "finder.pretrained=none"),
        *("finder.images=32", "finder.batch_size=8", *extra),
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a finder trained for four steps, and what the stage answered."""
    root = tmp_path_factory.mktemp("outputs")
    facts = stage.lungs_stage(compose("lungs", overrides(root)))
    return root / "phantom" / "default" / "lungs", facts


@pytest.mark.slow
def test_it_leaves_a_network_with_its_figures_and_card(trained):
    folder, facts = trained
    assert json.loads((folder / "lungs.json").read_text())["sha256"] == facts["sha256"]
    assert finder_digest(folder / "lungs.onnx") == facts["sha256"]
    assert (folder / "lungs.onnx").stat().st_size < 1_500_000
    assert facts["sha256"] in (folder / "CARD.md").read_text()
    assert len(list((folder / "overlays").glob("*.png"))) == 20
    measured = facts["measured"]
    assert set(measured) == {"phantom", "all"}
    assert measured["all"]["images"] == facts["images"]["test"] > 0
    assert measured["all"]["dice"]["low"] <= measured["all"]["dice"]["value"]
    assert facts["negatives"]["drawn"]["images"] == 400
    assert facts["synthetic"]


@pytest.mark.slow
def test_what_is_exported_answers_as_an_image_of_any_size(trained):
    random = np.random.default_rng(0).integers(0, 256, (90, 300)).astype(np.uint8)
    lungs = find_lungs(random, trained[0] / "lungs.onnx")
    assert 0 <= lungs.score <= 1
    assert lungs.count in (0, 1, 2)


@pytest.mark.slow
def test_an_interrupted_training_leaves_nothing(tmp_path, monkeypatch):
    def stopped(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "fit_lungs", lambda *args, **kwargs: None)
    monkeypatch.setattr(stage, "measure_chests", stopped)
    with pytest.raises(KeyboardInterrupt):
        stage.lungs_stage(compose("lungs", overrides(tmp_path)))
    run = tmp_path / "phantom" / "default"
    assert not run.exists() or not list(run.iterdir())


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("leave_out=[kermani]", r"leave_out names 'kermani': sources with masks are phantom"),
        ("leave_out=[phantom]", r"0 images with masks are left to train on"),
        ("finder.images=3", r"finder\.images is 3"),
    ],
)
def test_bad_input_is_named(tmp_path, words, error):
    with pytest.raises(Exception, match=error):
        stage.lungs_stage(compose("lungs", overrides(tmp_path, words)))


def test_data_without_masks_are_refused(tmp_path):
    config = compose("lungs", overrides(tmp_path))
    prepared = stage.prepare_stage(config)
    prepared.table["mask"] = ""
    with pytest.raises(InputError, match="has a lung mask"):
        stage._chests(prepared, [])


def test_a_folder_without_images_is_refused(tmp_path):
    chests = np.zeros((1, 2, 128, 128), np.uint8)
    with pytest.raises(InputError, match="there is no image that can be read"):
        stage.measure_negatives(str(tmp_path), stage.FINDER_FILE, chests)


def test_dice_of_hand_worked_masks():
    first, second = np.zeros((2, 4, 4), bool)
    assert dice(first, second) == 1
    first[:2], second[1:3] = True, True
    assert dice(first, second) == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(4))
def test_hausdorff95_agrees_with_all_distances(seed):
    random = np.random.default_rng(seed)
    masks = [enlarge(random.random((6, 6)) > 0.6, 40) for _ in range(2)]
    points = []
    for mask in masks:
        padded = np.pad(mask, 1)
        inner = padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
        points.append(np.argwhere(mask & ~inner))
    apart = cdist(*points)
    expected = np.percentile(np.concatenate([apart.min(axis=1), apart.min(axis=0)]), 95)
    assert hausdorff95(*masks) == pytest.approx(expected)


def test_hausdorff95_of_empty_masks():
    empty, full = np.zeros((30, 40), bool), np.ones((30, 40), bool)
    assert hausdorff95(empty, empty) == 0
    assert hausdorff95(empty, full) == 50


@pytest.mark.slow
def test_storing_weights_as_float16_changes_no_answer_twice(trained, tmp_path):
    path = tmp_path / "lungs.onnx"
    shutil.copy(trained[0] / "lungs.onnx", path)
    store_as_float16(path)  # nothing of float32 is left to store
    assert path.stat().st_size == (trained[0] / "lungs.onnx").stat().st_size
