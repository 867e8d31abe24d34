import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr.errors import InputError
from cxr.pipeline.config import ExplainConfig
from cxr.pipeline.explain_stage import explain_stage
from cxr.pipeline.trained_run import TrainedRun


def config(run, /, **changes) -> ExplainConfig:
    values = {"data": run.data, "run": run.run, "output_root": str(run.output_root)}
    return ExplainConfig(**(values | {"per_class": 1} | changes))


@pytest.fixture
def own_run(tiny_run, tmp_path):
    """Copy the run, so that a test may write into it."""
    source = Path(tiny_run.output_root) / tiny_run.data
    target = tmp_path / tiny_run.data
    target.mkdir()
    for folder in source.iterdir():
        if folder.name != tiny_run.run:
            (target / folder.name).symlink_to(folder.resolve())
    shutil.copytree(source / tiny_run.run, target / tiny_run.run)

    class Own:
        output_root, data, run = tmp_path, tiny_run.data, tiny_run.run
        folder = target / tiny_run.run

    return Own


def test_stage_writes_figures_and_the_pointing_game(own_run, capsys):
    out = explain_stage(config(own_run))
    values = json.loads((out / "explain.json").read_text())
    assert values["split"] == "test"
    assert values["method"] == "closed_form"
    assert "synthetic phantom" in values["note"]
    assert values["examples"]
    for example in values["examples"]:
        with Image.open(out / example["figure"]) as image:
            assert image.width > 600
        assert example["right"] == (example["label"] == example["prediction"])
        assert sum(example["probs"]["ensemble"].values()) == pytest.approx(1)
    pointing = values["pointing"]
    assert "normal" not in pointing["per_class"]
    assert pointing["all"]["images"] > 0
    assert set(pointing["all"]["models"]) == {*values["weights"], "ensemble"}
    for found in pointing["all"]["models"].values():
        assert found["inside"]["hits"] <= found["half_cell"]["hits"]
    printed = capsys.readouterr().out
    assert "Pointing game" in printed
    assert "synthetic phantom" in " ".join(printed.split())


def test_stage_repeats_but_for_rounding(own_run):
    def run() -> dict[str, np.ndarray]:
        folder = explain_stage(config(own_run)) / "figures"
        return {path.name: np.asarray(Image.open(path), np.int16) for path in folder.iterdir()}

    first, second = run(), run()
    assert first.keys() == second.keys()
    for name, figure in first.items():
        # Where memory lies may change the last bit of a sum, and so the last level of a colour.
        assert np.abs(figure - second[name]).max() <= 2, name


def test_explaining_before_evaluating_leaves_the_test_split_closed(own_run):
    shutil.rmtree(own_run.folder / "evaluation")
    opened = TrainedRun(config(own_run))
    assert opened.split == "val"
    assert set(opened.prepared.table["split"].iloc[opened.rows]) == {"val"}
    shown = opened.prepared.table["image"].iloc[opened.rows].tolist()
    assert shown == opened.predictions["image"].tolist()
    assert not (own_run.folder / "evaluation").exists()


def test_maps_of_the_predictions_agree_with_the_networks(own_run):
    opened = TrainedRun(config(own_run))
    chosen = np.array([0, len(opened.rows) - 1])
    maps = opened.maps(chosen, np.array([0, 1]))
    side = opened.prepared.pixels.shape[-1]
    assert all(values.shape == (2, side, side) for values in maps.values())
    blend = sum(opened.ensemble.weights[name] * maps[name] for name in opened.members)
    np.testing.assert_allclose(maps["ensemble"], blend, atol=1e-5)


def test_another_method_at_another_layer_is_named_in_the_result(own_run):
    opened = TrainedRun(config(own_run))
    common = set.intersection(
        *({name for name, _ in m.network.named_modules() if name} for m in opened.members.values())
    )
    layer = "blocks.3" if "blocks.3" in common else None
    out = explain_stage(config(own_run, method="LayerCAM", layer=layer))
    values = json.loads((out / "explain.json").read_text())
    assert values["method"] == "LayerCAM"
    assert values["pointing"]["all"]["images"] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "CAM"}, "method is 'CAM': allowed are closed_form"),
        ({"per_class": 0}, "per_class is 0"),
        ({"run": "other"}, "there is no run"),
        ({"method": "GradCAM", "layer": "layer4"}, "layer is 'layer4'"),
    ],
)
def test_what_cannot_be_explained_is_one_line(own_run, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        explain_stage(config(own_run, **changes))
    assert "\n" not in str(caught.value)


def test_a_run_without_an_ensemble_says_to_fit_one(own_run):
    (own_run.folder / "ensemble.json").unlink()
    with pytest.raises(InputError, match="fit the ensemble first"):
        explain_stage(config(own_run))
