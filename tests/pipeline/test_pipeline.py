"""The stages end to end on the tiny phantom, and every file that they leave."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr.errors import InputError, MissingInputError
from cxr.evaluation.evaluate import read_predictions
from cxr.labels import CANONICAL
from cxr.models.ensemble import softmax
from cxr.pipeline.config import compose
from cxr.pipeline.ensemble_stage import ensemble_stage
from cxr.pipeline.evaluate_stage import evaluate_stage
from cxr.pipeline.explain_stage import explain_stage
from cxr.pipeline.export_stage import export_stage
from cxr.pipeline.prepare_stage import prepare_stage
from cxr.pipeline.run_folder import RESEARCH, SYNTHETIC, find_run
from cxr.pipeline.train_stage import train_stage

MEMBERS = ("mobilenetv2", "inceptionv3")
NOTE = f"{SYNTHETIC} · {RESEARCH}"


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def snapshot(folder: Path) -> dict[str, str]:
    """Return every file below a folder with the digest of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def copied(tiny_run, tmp_path: Path):
    """Return a copy of the run that a test may change."""
    shutil.copytree(tiny_run.output_root, tmp_path / "outputs")
    return type(tiny_run)(tmp_path / "outputs")


def prepared_of(run):
    return find_run(compose("evaluate", run.where()))[2]


def test_run_states_what_it_was_made_on(tiny_run):
    info = read(tiny_run.folder / "run.json")
    prepared = prepared_of(tiny_run)
    assert info["labels"] == list(CANONICAL)
    assert info["fingerprint"] == prepared.info["fingerprint"]
    assert info["synthetic"] is True
    assert info["note"] == NOTE
    assert info["data_config"]["size"] == 64
    assert {"git_commit", "versions", "command"} <= set(info["environment"])
    assert prepared.info["synthetic"] is True
    assert prepared.info["disjoint"]["crossing_groups"] == 0


@pytest.mark.parametrize("name", MEMBERS)
def test_member_has_card_weights_predictions_and_curves(tiny_run, name):
    folder = tiny_run.folder / "members" / name
    card, prepared = read(folder / "member.json"), prepared_of(tiny_run)
    assert card["name"] == name
    assert card["architecture"] == {"mobilenetv2": "mobilenetv2_100"}.get(name, "inception_v3")
    assert card["labels"] == list(CANONICAL)
    assert card["input"]["size_px"] == 96
    assert card["data"]["fingerprint"] == prepared.info["fingerprint"]
    assert card["data"]["synthetic"] is True
    assert card["note"] == NOTE
    assert card["pretrained"] == {"source": "none"}
    assert card["training"]["epochs"] == 2
    table = read_predictions(folder / "predictions.csv", CANONICAL)
    val = prepared.table[prepared.table["split"] == "val"]
    assert table["image"].tolist() == val["image"].tolist()
    assert set(table["split"]) == {"val"}
    probs = softmax(table[[f"logit_{k}" for k in CANONICAL]].to_numpy())
    right = np.array(CANONICAL)[probs.argmax(axis=1)] == val["label"].to_numpy()
    assert card["validation"]["accuracy"] == pytest.approx(right.mean())
    curves = pd.read_csv(folder / "logs" / "curves.csv")
    assert curves["epoch"].max() == 2
    assert curves["val_nll"].notna().sum() == 2
    assert list((folder / "logs" / "tensorboard").glob("events*"))
    assert not (folder / "checkpoints").exists()
    with Image.open(folder / "logs" / "curves.png") as figure:
        figure.verify()


def test_ensemble_is_fitted_on_validation(tiny_run):
    found = read(tiny_run.folder / "ensemble.json")
    assert found["members"] == list(MEMBERS)
    assert sum(found["weights"].values()) == pytest.approx(1)
    assert all(value > 0 for value in found["temperatures"].values())
    assert set(found["validation"]) == {"images", *MEMBERS, "equal", "ensemble"}
    assert (found["pool"], found["weight_prior"]) == ("logarithmic", 100)
    assert found["temperature"] > 0
    assert found["fitted_on"] == "validation"
    # Six images are too few to fit on some patients and measure on others, and that is said.
    assert "group(s) of patients, too few" in found["cross_fitted"]["skipped"]
    assert found["best_member"] in MEMBERS
    assert found["validation"]["ensemble"]["nll"] <= found["validation"]["equal"]["nll"] + 1e-6
    assert found["note"] == NOTE
    assert found["synthetic"] is True


def test_metrics_have_intervals_for_members_and_both_averages(tiny_run):
    found = read(tiny_run.folder / "evaluation" / "metrics.json")
    test = prepared_of(tiny_run).table.query("split == 'test'")
    assert found["n"] == len(test)
    assert found["n_groups"] == test["group"].nunique()
    assert found["note"] == NOTE
    assert found["synthetic"] is True
    assert "not a medical device" in found["use"]
    assert set(found["models"]) == {*MEMBERS, "equal", "ensemble"}
    for scores in found["models"].values():
        for metric in ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc"):
            values = scores[metric]
            assert 0 <= values["low"] <= values["value"] <= values["high"] <= 1
        for label in CANONICAL:
            assert {"sensitivity", "specificity", "ppv", "npv", "f1", "auroc"} <= set(
                scores["per_class"][label]
            )
    assert list(found["ensemble_minus"]) == [found["best_member"], "equal"]
    assert set(found["patients"]) == set(found["counts"])
    assert found["test_opened"] >= 1


def test_evaluation_table_holds_all_of_test_and_agrees_with_the_metrics(tiny_run):
    found = read_predictions(tiny_run.folder / "evaluation" / "predictions.csv")
    metrics = read(tiny_run.folder / "evaluation" / "metrics.json")
    test = prepared_of(tiny_run).table.query("split == 'test'")
    assert found["image"].tolist() == test["image"].tolist()
    right = (found["prediction"] == found["label"]).mean()
    assert metrics["models"]["ensemble"]["accuracy"]["value"] == pytest.approx(right)
    ensemble = read(tiny_run.folder / "ensemble.json")
    assert ensemble["pool"] == "logarithmic"
    mixed = 0
    for name in MEMBERS:
        logits = found[[f"logit_{name}_{k}" for k in CANONICAL]].to_numpy()
        mixed += ensemble["weights"][name] * logits / ensemble["temperatures"][name]
    np.testing.assert_allclose(
        found[[f"prob_ensemble_{k}" for k in CANONICAL]].to_numpy(),
        softmax(mixed / ensemble["temperature"]),
        atol=1e-6,
    )


def test_figures_are_png_files(tiny_run):
    figures = tiny_run.folder / "evaluation" / "figures"
    names = {path.name for path in figures.iterdir()}
    assert names >= {
        "confusion.png",
        "roc.png",
        "precision_recall.png",
        "reliability.png",
        "risk_coverage.png",
        "coverage.png",
    }
    for path in figures.iterdir():
        with Image.open(path) as figure:
            assert figure.format == "PNG"
            assert figure.width > 600
            figure.verify()


def test_figures_are_drawn_with_the_note(copied, monkeypatch):
    notes = []

    def new_figure(*args: object, **options: object):
        notes.append(options["note"])
        return original(*args, **options)

    import cxr.evaluation.plots as figures

    original = figures.new_figure
    monkeypatch.setattr(figures, "new_figure", new_figure)
    evaluate_stage(compose("evaluate", [*copied.where(), "resamples=10"]))
    assert len(notes) >= 3
    assert set(notes) == {f"† fewer than 50 patients · {NOTE}"}


@pytest.mark.slow
def test_every_opening_of_test_is_counted_and_said(copied, caplog, capsys):
    before = len(read(copied.folder / "evaluation" / "test_openings.json"))
    with caplog.at_level("INFO"):
        metrics = evaluate_stage(compose("evaluate", [*copied.where(), "resamples=10"]))
    openings = read(copied.folder / "evaluation" / "test_openings.json")
    assert len(openings) == before + 1 == metrics["test_opened"]
    assert all({"time_utc", "command", "git_commit"} <= set(opening) for opening in openings)
    assert f"The test split was opened {before + 1} time(s)" in caplog.text
    shown = capsys.readouterr().out
    assert "synthetic phantom" in shown
    assert "Research use only" in shown


def test_evaluating_again_gives_the_same_figures(copied):
    before = read(copied.folder / "evaluation" / "metrics.json")
    again = evaluate_stage(compose("evaluate", [*copied.where(), "resamples=50"]))
    stored = read(copied.folder / "evaluation" / "metrics.json")
    assert stored["models"] == before["models"]
    assert again["test_opened"] == before["test_opened"] + 1


def test_the_second_call_trains_nothing(tiny_run, monkeypatch, caplog):
    def never(*_args: object, **_options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("cxr.pipeline.train_stage.fit", never)
    before = snapshot(tiny_run.folder)
    with caplog.at_level("INFO"):
        for model in MEMBERS:
            overrides = tiny_run.train(f"model={model}")
            train_stage(compose("train", [*overrides, "trainer.threads=1"]))
    assert snapshot(tiny_run.folder) == before
    assert "mobilenetv2 is trained already, with these settings" in caplog.text
    assert "reusing" in caplog.text


def refused(stage, config) -> str:
    with pytest.raises(InputError) as caught:
        stage(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("trainer.lr=0.5", r"trainer\.lr [\d.]+, now 0\.5"),
        ("seed=9", "seed 0, now 9"),
        ("model.input_size=80", r"model\.input_size 96, now 80"),
        ("trainer.augment.noise=0.7", r"trainer\.augment\.noise [\d.]+, now 0\.7"),
    ],
)
def test_changed_settings_are_refused_and_named(tiny_run, change, said):
    before = snapshot(tiny_run.folder)
    message = refused(train_stage, compose("train", tiny_run.train(change)))
    assert re.search(rf"was trained with other settings \({said}\)", message)
    assert "give another run=NAME" in message
    assert snapshot(tiny_run.folder) == before


def test_other_data_under_the_same_run_is_refused(copied):
    before = snapshot(copied.folder)
    changed = copied.train("data.split_seed=3")
    message = refused(train_stage, compose("train", changed))
    assert "run 'tiny' was made on another prepared set" in message
    assert snapshot(copied.folder) == before


def test_a_start_that_failed_can_be_mended_in_place(copied, monkeypatch):
    wrong = copied.train("run=new", "model.pretrained=gone")
    assert "'gone', which does not exist" in refused(train_stage, compose("train", wrong))
    reached = []
    monkeypatch.setattr(
        "cxr.pipeline.train_stage.fit", lambda *_a, **_o: reached.append(1) or 1 / 0
    )
    for change in ("model.pretrained=none", "data.split_seed=3"):
        right = copied.train("run=new", change)
        with pytest.raises(ZeroDivisionError):
            train_stage(compose("train", right))
    assert reached == [1, 1]


def test_a_train_split_smaller_than_a_batch_is_refused(copied):
    changed = copied.train("run=other", "trainer.batch_size=64")
    message = refused(train_stage, compose("train", changed))
    assert "fewer than one batch of 64: lower trainer.batch_size" in message


def test_ensemble_of_one_member_has_weight_one(copied):
    found = ensemble_stage(compose("ensemble", [*copied.where(), "members=[inceptionv3]"]))
    assert found["members"] == ["inceptionv3"]
    assert found["weights"]["inceptionv3"] == pytest.approx(1)
    message = refused(ensemble_stage, compose("ensemble", [*copied.where(), "members=[third]"]))
    assert "member 'third' is not trained" in message


def test_ensemble_refuses_a_member_of_other_data(copied):
    path = copied.folder / "members" / "mobilenetv2" / "member.json"
    card = read(path)
    card["data"]["fingerprint"] = "other"
    path.write_text(json.dumps(card))
    message = refused(ensemble_stage, compose("ensemble", copied.where()))
    assert "'mobilenetv2' was trained on another prepared set" in message


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("ensemble", ensemble_stage),
        ("evaluate", evaluate_stage),
        ("explain", explain_stage),
        ("export", export_stage),
    ],
)
def test_a_run_that_is_not_there_names_those_that_are(tiny_run, name, stage):
    overrides = [f"output_root={tiny_run.output_root}", "run=other"]
    message = refused(stage, compose(name, overrides))
    assert "there is no run" in message
    assert re.search(r"runs there: .*tiny", message)
    assert "scripts/train.py" in message


def test_evaluating_before_the_ensemble_names_the_command(copied):
    (copied.folder / "ensemble.json").unlink()
    before = snapshot(copied.folder)
    with pytest.raises(MissingInputError, match=r"python3? scripts/ensemble\.py data=phantom"):
        evaluate_stage(compose("evaluate", copied.where()))
    assert snapshot(copied.folder) == before


def test_evaluating_without_a_test_split_says_so(copied):
    prepared = prepared_of(copied)
    prepared.table["split"] = prepared.table["split"].replace("test", "train")
    prepared.table.to_csv(prepared.folder / "table.csv", index=False)
    message = refused(evaluate_stage, compose("evaluate", copied.where()))
    assert "has no test split" in message


@pytest.mark.slow
def test_explain_draws_every_class_with_the_note(copied):
    out = explain_stage(compose("explain", [*copied.where(), "per_class=1"]))
    assert out == copied.folder / "explain"
    found = read(out / "explain.json")
    assert found["note"] == NOTE
    assert "not a medical device" in found["use"]
    assert found["feature_modules"]["inceptionv3"] == "Mixed_7c"
    assert found["pointing"]
    figures = list((out / "figures").glob("*.png"))
    assert figures
    for path in figures:
        with Image.open(path) as figure:
            figure.verify()


def test_export_refuses_weights_that_are_not_those_of_the_predictions(copied):
    (copied.folder / "bundle").mkdir()
    (copied.folder / "bundle" / "former").write_text("")
    before = snapshot(copied.folder / "bundle")
    path = copied.folder / "members" / "mobilenetv2" / "predictions.csv"
    table = pd.read_csv(path)
    table["logit_covid"] += 1
    table.to_csv(path, index=False)
    message = refused(export_stage, compose("export", copied.where()))
    assert "do not give the validation logits stored at training" in message
    assert snapshot(copied.folder / "bundle") == before
    assert not list(copied.folder.glob(".bundle.*"))


def test_preparing_again_reuses_images_and_squares(tiny_run, caplog):
    before = snapshot(tiny_run.output_root)
    overrides = [o for o in tiny_run.train() if o.startswith(("data", "out"))]
    with caplog.at_level("INFO"):
        assert prepare_stage(compose("prepare", overrides)).reused
    assert snapshot(tiny_run.output_root) == before
    assert "reusing" in caplog.text
