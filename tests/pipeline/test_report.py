"""The report of the tiny run, as evaluate leaves it."""

import base64
import json
import re
import shutil
from pathlib import Path

import pytest

from cxr.audit.result import AUDIT_VERSION
from cxr.evaluation.metrics import OVERALL
from cxr.evaluation.tables import show_interval
from cxr.files import write_json
from cxr.pipeline.config import compose
from cxr.pipeline.explain_stage import explain_stage
from cxr.pipeline.report_stage import card_of, refresh_report, refresh_reports, write_report
from cxr.pipeline.run_folder import RESEARCH, SYNTHETIC
from cxr.pipeline.trained_run import TrainedRun

NOTE = f"{SYNTHETIC} · {RESEARCH}"


@pytest.fixture
def copied(tiny_run, tmp_path: Path):
    """Return a copy of the run that a test may change."""
    shutil.copytree(tiny_run.output_root, tmp_path / "outputs")
    return type(tiny_run)(tmp_path / "outputs")


def test_evaluate_leaves_report_and_cards(tiny_run):
    page = (tiny_run.folder / "report.html").read_text()
    metrics = json.loads((tiny_run.folder / "evaluation" / "metrics.json").read_text())
    shown = show_interval(metrics["models"]["ensemble"]["balanced_accuracy"])
    assert shown in re.sub(r"<[^>]*>", "", page)
    assert page.count(f'<p class="note">{NOTE}</p>') == page.count("<h2 id=") + 1
    assert "data:image/png;base64," in page
    assert "The most confident mistakes" in page
    assert not re.search(r"<script|<link|https?://|url\(", page)
    assert str(Path(__file__).parents[2]) not in page
    for name in ("MODEL_CARD.md", "DATA_CARD.md"):
        card = (tiny_run.folder / name).read_text()
        assert NOTE in card
        assert "not measured: run " in card


def test_an_audit_of_an_earlier_state_is_not_shown(copied, caplog):
    write_json(
        copied.folder / "audit" / "audit.json",
        {
            "version": AUDIT_VERSION,
            "key": "of another day",
            "seed": 0,
            "resamples": 1,
            "complete": True,
            "results": [],
            "headline": "All is well.",
        },
    )
    with caplog.at_level("INFO"):
        path = write_report(TrainedRun(compose("report", copied.where())))
    assert "All is well." not in path.read_text()
    assert "of an earlier state" in path.read_text()
    assert "not in the report, shortcut audit" in caplog.text


def test_report_shows_what_a_leak_is_worth(copied):
    table = {"title": "Two ways to split", "columns": ["accuracy"], "rows": [["0.9"]]}
    shown = {"title": "A leak", "sentences": ["Overstated by 12 points."], "table": table}
    found = {"note": NOTE, "shown": shown}
    root = copied.output_root
    write_json(root / "phantom" / "leak" / "leak.json", found)
    write_json(root / "a" / "leak" / "leak.json", found | {"note": "real images"})
    figure = copied.folder / "evaluation" / "figures" / "roc.png"
    shutil.copy(figure, root / "phantom" / "leak" / "leak.png")
    page = write_report(TrainedRun(compose("report", copied.where()))).read_text()
    assert "Overstated by 12 points." in page
    assert page.count(base64.b64encode(figure.read_bytes()).decode()) == 2
    assert "real images" not in page


def test_a_run_that_was_not_evaluated_has_a_card(copied):
    shutil.rmtree(copied.folder / "evaluation")
    card = card_of(TrainedRun(compose("report", copied.where())))
    assert "not measured: run python scripts/evaluate.py data=phantom run=tiny" in card
    assert not (copied.folder / "evaluation").exists()


def test_the_report_follows_explain(own_run):
    (own_run.folder / "report.html").unlink()
    explain_stage(compose("explain", [*own_run.where(), "per_class=1"]))
    page = (own_run.folder / "report.html").read_text()
    assert "Do the maps find the lesion?" in page
    ensemble = own_run.folder / "ensemble.json"
    values = json.loads(ensemble.read_text())
    write_json(ensemble, values | {"temperature": 2.0})
    page = write_report(TrainedRun(compose("report", own_run.where()))).read_text()
    assert "Do the maps find the lesion?" not in page
    assert "of earlier weights or another ensemble" in page


def test_the_report_follows_a_cross_validation(own_run):
    """As ``make cv`` in the run's own folder ends."""
    found = json.loads((own_run.folder / "evaluation" / "metrics.json").read_text())
    spread = {"mean": 0.5, "sd": 0.1, "min": 0.4, "max": 0.6}
    scores = {name: {key: 0.5 for key in OVERALL} for name in found["models"]}
    fold = {"fold": 1, "n": 3, "models": scores}
    across = {name: {key: spread for key in OVERALL} for name in found["models"]}
    pooled = found | {"folds": 2, "per_fold": [fold, fold], "across_folds": across}
    write_json(own_run.folder / "cv-2" / "cv.json", pooled)
    refresh_report(own_run.folder)
    assert "2-fold cross-validation" in (own_run.folder / "report.html").read_text()
    write_json(own_run.folder / "cv-2" / "cv.json", pooled | {"fingerprint": "0" * 64})
    refresh_report(own_run.folder)
    page = (own_run.folder / "report.html").read_text()
    assert "2-fold cross-validation" not in page
    assert "measured on other images" in page


def test_all_reports_follow_the_leak_experiment(own_run, caplog):
    table = {"title": "By the way of splitting", "columns": ["split"], "rows": [["by image"]]}
    shown = {"title": "What a leak is worth", "sentences": ["A sentence of its own."]}
    leak = {"note": "synthetic", "shown": shown | {"table": table}}
    root = own_run.folder.parents[1]
    write_json(root / "phantom" / "leak" / "leak.json", leak)
    (root / "phantom" / "broken").mkdir()
    (root / "phantom" / "broken" / "report.html").write_text("kept")
    for name in ("run.json", "ensemble.json"):
        (root / "phantom" / "broken" / name).write_text("{")
    refresh_reports(root)
    assert "A sentence of its own." in (own_run.folder / "report.html").read_text()
    assert (root / "phantom" / "broken" / "report.html").read_text() == "kept"
    assert "stays as it was" in caplog.text


def test_a_folder_that_holds_no_run_gets_no_report(tmp_path):
    refresh_report(tmp_path / "phantom" / "cv")
    assert not (tmp_path / "phantom").exists()
