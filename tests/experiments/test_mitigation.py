"""The mitigation experiment on two tiny folders of synthetic images: trained, stopped, resumed."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cxr.pipeline.train_stage as train_module
import experiments.mitigation.__main__ as experiment
from cxr.data.phantom.writer import PhantomSettings, write_phantom
from cxr.errors import InputError
from cxr.pipeline.config import compose
from experiments.mitigation.__main__ import MitigationConfig, run_mitigation

pytestmark = pytest.mark.slow

CONFIGURATIONS = {"none": ["data.parts=[cxr4]"], "hospitals": [], "broken": ["data.size=7"]}
SOURCES = {
    "cxr4": {"normal": ["kermany"], "covid": ["hannover", "cohen"], "": ["kermany"]},
    "adults": {"normal": ["nih", "pakistan"], "covid": ["bimcv"], "": ["nih"]},
}


def write_part(root: Path, part: str, seed: int) -> None:
    """Write a part of a data set whose classes come from the sources above."""
    settings = PhantomSettings(
        patients_per_class=12, images_per_patient=[1, 1], size_px=64, seed=seed
    )
    write_phantom(root / part, settings)
    table = pd.read_csv(root / part / "manifest.csv", dtype=str, keep_default_na=False)
    names = [SOURCES[part].get(label, SOURCES[part][""]) for label in table["label"]]
    table["source"] = [own[row % len(own)] for row, own in enumerate(names)]
    table["age"] = ""
    if part == "adults":
        ill = table["label"].isin(["bacterial", "viral"])
        table.loc[ill, "label"] = "bacterial|viral"
    table.to_csv(root / part / "manifest.csv", index=False)


@dataclass(frozen=True)
class Done:
    root: Path
    found: dict

    @property
    def folder(self) -> Path:
        return self.root / "outputs" / "cxr4plus" / "mitigation"


def settings(root: Path, *extra: str, **fields) -> MitigationConfig:
    words = [
        f"data.root={root / 'data'}",
        f"output_root={root / 'outputs'}",
        "data.size=64",
        "data.near_duplicates=false",
        "model.input_size=64",
        "model.pretrained=none",
        "trainer.max_epochs=1",
        "trainer.batch_size=8",
        "trainer.progress=false",
        "sources=[nih,hannover]",
        *extra,
    ]
    config = compose("mitigation", words, MitigationConfig)
    config.configurations = CONFIGURATIONS
    for name, value in fields.items():
        setattr(config, name, value)
    return config


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Done:
    root = tmp_path_factory.mktemp("mitigation")
    write_part(root / "data", "cxr4", 1)
    write_part(root / "data", "adults", 2)
    return Done(root, run_mitigation(settings(root)))


def never(*_args: object, **_options: object) -> None:
    raise AssertionError("trained again")


def test_each_configuration_is_measured_where_it_learned_nothing(done):
    none, hospitals = (done.found["configurations"][name] for name in ("none", "hospitals"))
    # The adults that "none" never saw, and hannover left out; "hospitals" leaves both out in turn.
    for part in (none, hospitals):
        assert set(part["left_out"]["sources"]) == {"nih", "hannover"}
        assert part["left_out"]["accuracy"]["n"] == sum(
            source["n"] for source in part["left_out"]["sources"].values()
        )
    folders = {path.parent.name for path in done.folder.parent.glob("*/run.json")}
    assert folders == {"mitigation-none", "mitigation-hospitals"}
    folds = done.folder.parent.glob("mitigation-*/cv-source/fold-*")
    assert sorted("/".join(path.parts[-3::2]) for path in folds) == [
        "mitigation-hospitals/fold-hannover",
        "mitigation-hospitals/fold-nih",
        "mitigation-none/fold-hannover",
    ]
    seen = pd.read_csv(done.folder.parent / "mitigation-none" / "never-seen.csv")
    assert set(seen["source"]) == {"nih"}
    assert none["left_out"]["adults"]["normal"] == (seen["label"] == "normal").sum()


def test_figures_follow_from_the_predictions(done):
    run = done.folder.parent / "mitigation-hospitals"
    pooled = pd.read_csv(run / "cv-source" / "predictions.csv")
    right = [
        name in label.split("|")
        for name, label in zip(pooled["prediction"], pooled["label"], strict=True)
    ]
    found = done.found["configurations"]["hospitals"]["left_out"]
    assert found["accuracy"]["value"] == pytest.approx(np.mean(right))
    covid = pooled[pooled["label"] == "covid"]
    assert found["adults"]["covid_found"]["value"] == pytest.approx(
        (covid["prediction"] == "covid").mean()
    )


def test_a_failed_configuration_is_one_line_and_keeps_no_other_from_it(done):
    assert "data.size is 7" in done.found["configurations"]["broken"]["error"]
    sentences = done.found["shown"]["sentences"]
    assert sum(sentence.startswith("broken failed: data.size is 7") for sentence in sentences) == 1
    assert [row[0] for row in done.found["shown"]["table"]["rows"]] == ["none", "hospitals"]


def test_the_winner_is_chosen_by_the_sources_left_out(done):
    worth = {
        name: part["left_out"]["adults"]["balanced_accuracy"]["value"]
        for name, part in done.found["configurations"].items()
        if "left_out" in part
    }
    assert done.found["winner"] == max(worth, key=worth.get)
    assert f"By leave-one-source-out {done.found['winner']} wins" in " ".join(
        done.found["shown"]["sentences"]
    )
    text = (done.folder / "mitigation.md").read_text()
    assert text.startswith("| configuration | patient split")


def test_what_is_finished_is_not_done_again_and_the_audit_joins_it(done, monkeypatch):
    monkeypatch.setattr(train_module, "fit", never)
    monkeypatch.setattr(experiment, "_leave_out", never)
    audited = []
    statistic = {"value": 0.93}
    results = [
        {"id": "framing", "verdict": "shortcut", "statistic": statistic},
        {"id": "leak", "verdict": "clear", "statistic": None},
    ]
    monkeypatch.setattr(experiment, "evaluate_stage", lambda config: audited.append(config.run))
    monkeypatch.setattr(experiment, "audit_stage", lambda config: {"results": results})
    config = settings(done.root, output_root=str(done.root / "outputs"), only=["hospitals"])
    again = run_mitigation(config)
    assert json.dumps(again["configurations"]) == json.dumps(done.found["configurations"])
    assert audited == []
    config.audit = True
    found = run_mitigation(config)
    assert audited == ["mitigation-hospitals"]
    rows = {row[0]: row[-1] for row in found["shown"]["table"]["rows"]}
    assert rows == {"none": "", "hospitals": "shortcut: framing 0.93; 1 clear"}


def test_an_unknown_configuration_or_no_source_is_refused(done):
    with pytest.raises(InputError, match="the configurations are none, hospitals, broken"):
        run_mitigation(settings(done.root, only=["mask"]))
    with pytest.raises(InputError, match="none of the sources mars can be left out"):
        run_mitigation(settings(done.root, "run=mars", only=["hospitals"], sources=["mars"]))


def test_what_was_measured_with_other_sources_is_not_compared(done, monkeypatch):
    monkeypatch.setattr(train_module, "fit", never)
    left = done.found["configurations"]["none"]["left_out"]
    monkeypatch.setattr(experiment, "_leave_out", lambda *_: left)
    found = run_mitigation(settings(done.root, only=["none"], sources=["nih"]))
    assert list(found["configurations"]) == ["none"]
    assert found["winner"] == "none"
