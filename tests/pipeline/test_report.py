"""The report of the tiny run, as evaluate leaves it."""

import base64
import json
import re
import shutil
from pathlib import Path

import pytest

from cxr.evaluation.tables import show_interval
from cxr.files import write_json
from cxr.pipeline.config import compose
from cxr.pipeline.report_stage import card_of, write_report
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
    assert "The mistakes of which it is surest" in page
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
    score = {"n": 10, "accuracy": {"value": 0.9, "low": 0.8, "high": 0.95}}
    score["balanced_accuracy"] = score["accuracy"]
    gap = {"value": 0.125, "low": 0.03, "high": 0.2}
    tests = {"own_test": score, "other_images": score}
    found = {
        "note": NOTE,
        "models": {"copies_first": tests, "split_first": tests},
        "differences": dict.fromkeys(
            (
                "worth_of_the_leak",
                "claimed_minus_honest",
                "clean_minus_honest",
                "overstated",
                "on_the_same_images",
            ),
            gap,
        ),
    }
    root = copied.output_root
    write_json(root / "phantom" / "leak" / "leak.json", found)
    write_json(root / "a" / "leak" / "leak.json", found | {"note": "real images"})
    figure = copied.folder / "evaluation" / "figures" / "roc.png"
    shutil.copy(figure, root / "phantom" / "leak" / "leak.png")
    page = write_report(TrainedRun(compose("report", copied.where()))).read_text()
    assert "overstated by +12 [+3, +20] points" in page
    assert page.count(base64.b64encode(figure.read_bytes()).decode()) == 2
    assert "real images" not in page


def test_a_run_that_was_not_evaluated_has_a_card(copied):
    shutil.rmtree(copied.folder / "evaluation")
    card = card_of(TrainedRun(compose("report", copied.where())))
    assert "not measured: run python scripts/evaluate.py data=phantom run=tiny" in card
    assert not (copied.folder / "evaluation").exists()
