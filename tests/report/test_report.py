"""The report and the cards: what they say equals the files, and nothing in them can break out."""

import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.audit.baseline_inputs import BORDER, THUMBNAIL
from cxr.audit.result import AUDIT_VERSION, AuditResult, AuditTable, Column, Statistic
from cxr.evaluation.confidence import measure_confidence
from cxr.evaluation.evaluate import build_predictions, evaluate
from cxr.evaluation.tables import show_interval
from cxr.files import digest, digest_of, write_json
from cxr.models.ensemble import Ensemble, all_probs
from cxr.reliability.conformal import fit_uncertainty
from cxr.report.outside import draw_outside, outside_alt, outside_bars, outside_sentences
from cxr.report.page import Picture, css_string, data_card, model_card, render_report
from cxr.report.results import read_results
from cxr.report.wording import one_line, percent, split_interval

LABELS = ("normal", "covid", "viral")
HOSTILE = ("<script>alert('a')</script>", "ab](http://x.example)", "'\"><img src=x onerror=1>")
MEMBERS = ("mobilenetv2", "inceptionv3")
MADE = {
    "time_utc": "2026-01-01T00:00:00+00:00",
    "command": "evaluate.py",
    "git_commit": "abc",
    "versions": {"numpy": "2.0"},
}
EVALUATE = "python scripts/evaluate.py"
PNG = b"\x89PNG\r\n\x1a\n not really"


class Reader(HTMLParser):
    """Collects the elements of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def logits_of(n: int, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    targets = np.arange(n) % 3
    found = {name: rng.normal(size=(n, 3)) + 2 * np.eye(3)[targets] for name in MEMBERS}
    return targets, found


def table_of(labels: tuple[str, ...], n: int) -> pd.DataFrame:
    names = np.array(labels)[np.arange(n) % 3]
    return pd.DataFrame(
        {
            "image": [f"images/{i}.png" for i in range(n)],
            "label": names,
            "patient_id": "",
            "source": np.where(np.arange(n) % 3 == 1, "elsewhere", "here"),
            "license": "CC BY 4.0",
            "split": np.array(["train", "val", "test"])[np.arange(n) % 3],
            "group": [f"g{i // 6}" for i in range(n)],
            "mask": "",
        }
    )


def write_run(folder: Path, labels: tuple[str, ...] = LABELS, note: str = "a note", **run) -> None:
    """Write what prepare, train, ensemble and evaluate leave, with planted figures."""
    rng = np.random.default_rng(0)
    targets, logits = logits_of(120, rng)
    ensemble = Ensemble(
        labels, MEMBERS, dict.fromkeys(MEMBERS, 1.5), {"mobilenetv2": 0.75, "inceptionv3": 0.25}
    )
    rows = table_of(labels, 120).assign(split="test", label=np.array(labels)[targets])
    predictions = build_predictions(rows, logits, ensemble)
    metrics = evaluate(
        predictions, labels=labels, members=MEMBERS, best_member="mobilenetv2", note=note
    )
    val_targets, val = logits_of(90, rng)
    fitted = fit_uncertainty(
        all_probs(val, ensemble)["ensemble"], val_targets, labels, groups=np.arange(90)
    )
    certainty = measure_confidence(
        predictions, ensemble=ensemble, uncertainty=fitted, resamples=40, note=note
    )
    write_json(
        folder / "run.json",
        {
            "data": "set",
            "run": folder.name,
            "fingerprint": "f" * 64,
            "labels": labels,
            "synthetic": False,
            "note": note,
        }
        | run,
    )
    write_json(folder / "ensemble.json", ensemble.to_dict() | {"environment": MADE})
    for name in MEMBERS:
        write_json(folder / "members" / name / "member.json", {"architecture": name})
    write_json(
        folder / "evaluation" / "metrics.json",
        metrics | {"fingerprint": "f" * 64, "test_opened": 3, "environment": MADE},
    )
    write_json(folder / "evaluation" / "calibration.json", certainty)


def prepared_of(labels: tuple[str, ...], crossing: int = 0) -> dict:
    images = {label: {"train": 30, "val": 10, "test": 40} for label in labels}
    return {
        "fingerprint": "f" * 64,
        "labels": list(labels),
        "preprocess": {"size_px": 64, "fit": "letterbox"},
        "environment": MADE,
        "settings": {
            "split": "patient",
            "seed": 0,
            "fractions": [0.7, 0.1, 0.2],
            "near_duplicates": True,
        },
        "counts": {
            "rows": 250,
            "kept": 240,
            "dropped_copies": 7,
            "dropped_identical": 5,
            "dropped_near": 2,
            "dropped_conflicting": 2,
            "dropped_unreadable": 1,
            "images": images,
            "patients_or_groups": 40,
        },
        "disjoint": {
            "groups": 40,
            "crossing_groups": crossing,
            "test_images_in_crossing_groups": 2 * crossing,
        },
    }


def interval_of(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def write_audit(folder: Path, labels: tuple[str, ...] = LABELS, verdict: str = "shortcut") -> None:
    """Write an audit of two tests, with the values that the first page reads."""
    aurocs = [interval_of(0.7, 0.6, 0.8), interval_of(0.99, 0.97, 1.0), interval_of(*[np.nan] * 3)]
    inputs = {BORDER: interval_of(0.612, 0.5, 0.7), THUMBNAIL: interval_of(0.702, 0.6, 0.8)}
    columns = (Column("input"), Column("accuracy", "accuracy of the linear model", "interval"))
    results = [
        AuditResult(
            "baselines",
            "Non-anatomical baselines",
            "What was done.",
            verdict,
            "The finding.",
            Statistic("auroc", "AUROC of x", 0.99, 0.97, 1.0, 0.5),
            {"accuracy": inputs, "auroc": {BORDER: dict(zip(labels, aurocs, strict=True))}},
            [AuditTable("inputs", "Inputs", columns, tuple(inputs.items()))],
        ),
        AuditResult(
            "lungs",
            "Without lungs",
            "Lungs occluded.",
            "clear",
            "Another finding.",
            None,
            {"accuracy": {"lungs_black": interval_of(0.65, 0.55, 0.75)}},
            reason="no mask on 3",
            plots=["lungs.png"],
        ),
    ]
    write_json(
        folder / "audit" / "audit.json",
        {
            "version": AUDIT_VERSION,
            "results": [result.to_dict() for result in results],
            "key": "now",
            "complete": False,
            "headline": "Of 2 audit tests: one.",
            "environment": MADE,
            "seed": 0,
            "resamples": 9,
        },
    )


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs") / "set" / "default"
    write_run(folder)
    return folder


@pytest.fixture
def folder(planted: Path, tmp_path: Path) -> Path:
    """Return a planted run that a test may change."""
    return shutil.copytree(planted, tmp_path / "set" / "default")


STAGES = ("evaluate", "audit", "explain", "evaluate_on", "cv", "leak")
COMMANDS = {stage: f"python scripts/{stage}.py" for stage in STAGES}


def results_of(folder: Path, labels: tuple[str, ...] = LABELS, **options):
    commands = COMMANDS | options.pop("commands", {})
    return read_results(folder, prepared_of(labels), table_of(labels, 240), commands, **options)


def words(page: str) -> str:
    return " ".join("".join(Reader(page).text).split())


def test_every_figure_of_metrics_and_calibration_stands_in_the_report(folder):
    page = words(render_report(results_of(folder), {}))
    metrics = json.loads((folder / "evaluation" / "metrics.json").read_text())
    for scores in metrics["models"].values():
        for key in ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "nll"):
            assert show_interval(scores[key]) in page
    for scores in metrics["models"]["ensemble"]["per_class"].values():
        for value in scores.values():
            assert show_interval(value) in page
    assert f"accuracy of the ensemble {percent(metrics['models']['ensemble']['accuracy'])}" in page
    certainty = json.loads((folder / "evaluation" / "calibration.json").read_text())
    for level in certainty["prediction_sets"].values():
        assert show_interval(level["plain"]["coverage"]) in page
    assert show_interval(certainty["calibration"]["ensemble"]["before"]["ece_debiased"]) in page
    assert "7 copies of other images, 2 with conflicting labels, 1 unreadable" in page
    assert "f" * 64 in page
    assert "3 time(s) by this run" in page


def test_every_number_of_the_scores_comes_from_the_file(folder):
    page = render_report(results_of(folder), {})
    found = set(re.findall(r"-?\d\.\d{3} <span class=\"ci\">\[[^<]*\]", page))
    known = set()

    def collect(values):
        if isinstance(values, dict) and {"value", "low", "high"} <= set(values):
            known.add(show_interval(values))
        for inner in (
            values.values()
            if isinstance(values, dict)
            else (values if isinstance(values, list) else ())
        ):
            collect(inner)

    for name in ("metrics", "calibration"):
        collect(json.loads((folder / "evaluation" / f"{name}.json").read_text()))
    assert found
    assert {re.sub(r" <[^>]*>", " ", shown) for shown in found} <= known


def test_report_needs_nothing_from_outside(folder):
    write_audit(folder)
    page = render_report(results_of(folder), {"roc": [Picture(PNG, "curves")]})
    read = Reader(page)
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in read.tags}
    assert all(image["src"].startswith("data:image/png;base64,") for image in read.all("img"))
    assert all(link["href"].startswith("#s") for link in read.all("a"))
    assert not re.search(r"url\(|@import|https?://", page)
    assert page.startswith("<!DOCTYPE html>")


def test_report_can_be_read_without_eyes(folder):
    write_audit(folder)
    pictures = {"audit/lungs": [Picture(PNG, "lungs hidden")], "roc": [Picture(PNG, "curves")]}
    page = render_report(results_of(folder), pictures)
    read = Reader(page)
    assert read.all("html")[0]["lang"] == "en"
    assert len(read.all("h1")) == 1
    assert [image["alt"] for image in read.all("img")] == ["curves", "lungs hidden"]
    assert all(cell["scope"] in ("col", "row") for cell in read.all("th"))
    levels = [int(tag[1]) for tag, _ in read.tags if re.fullmatch(r"h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    names = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(names) == len(set(names))


def test_the_note_stands_on_every_page(tmp_path):
    folder = tmp_path / "set" / "default"
    write_run(folder, note="synthetic phantom, not real patients", synthetic=True)
    page = render_report(results_of(folder), {})
    note = "synthetic phantom, not real patients · Research use only, not a medical device."
    assert page.count(f'<p class="note">{note}</p>') == page.count("<h2 id=") + 1
    assert f'@bottom-left {{ content: "{css_string(note)}"' in page
    for card in (model_card(results_of(folder)), data_card(results_of(folder))):
        assert note in card
        assert "ynthetic phantom: " in card


def test_hostile_names_stay_text(tmp_path):
    folder = tmp_path / "set" / "default"
    note = '"; } </style><script>alert(1)</script>'
    write_run(folder, HOSTILE, note, data='"><script>x</script>')
    write_audit(folder, HOSTILE)
    results = results_of(folder, HOSTILE)
    page = render_report(results, {"roc": [Picture(PNG, '"><script>')]})
    read = Reader(page)
    assert not {"script", "b>", "iframe"} & {tag for tag, _ in read.tags}
    assert not any(name.startswith("on") for _, found in read.tags for name in found)
    assert len(read.all("img")) == 1
    assert HOSTILE[0] in "".join(read.text)
    for card in (model_card(results), data_card(results)):
        assert "<script" not in card
        assert "](http" not in card
        rows = [line for line in card.splitlines() if line.startswith("|")]
        for before, after in pairwise(rows):
            if re.fullmatch(r"[| -]+", after):
                assert before.count("|") == after.count("|")


def test_what_was_not_measured_is_named_with_its_command(folder):
    (folder / "evaluation" / "calibration.json").unlink()
    results = results_of(folder, commands={"audit": "make audit RUN=mine"})
    page, card = words(render_report(results, {})), model_card(results)
    story = "How much of the score is not in the lungs was not measured: run make audit RUN=mine"
    assert story in page
    assert "shortcut audit not done yet: make audit RUN=mine" in page
    assert f"calibration, prediction sets, referral not done yet: {EVALUATE}" in page
    assert "Are its probabilities true?" not in page
    assert "not measured: run make audit RUN=mine" in card
    assert f"not measured: run {EVALUATE}." in card
    assert "not measured: run make audit" in data_card(results)


def test_a_run_without_test_figures_still_has_cards_and_report(folder):
    (folder / "evaluation" / "metrics.json").unlink()
    results = results_of(folder)
    assert f"not measured: run {EVALUATE}" in words(render_report(results, {}))
    assert f"## What was measured on the test split\nnot measured: run {EVALUATE}." in (
        model_card(results)
    )


def test_results_of_another_state_are_left_out(folder):
    write_audit(folder)
    assert results_of(folder, audit_key="now").audit is not None
    results = results_of(folder, audit_key="later")
    assert results.audit is None
    assert "of an earlier state" in results.missing["shortcut audit"]
    path = folder / "evaluation" / "metrics.json"
    write_json(path, json.loads(path.read_text()) | {"fingerprint": "0" * 64})
    results = results_of(folder)
    assert results.metrics is None
    assert "other images" in results.missing["evaluation"]


def test_first_page_says_how_much_is_not_in_the_lungs(folder):
    write_audit(folder)
    first, second = outside_sentences(results_of(folder))
    assert "one of 3 classes on 61 % [50, 70] of the test images" in first
    assert "65 % [55, 75] when it sees a thumbnail with the lungs blacked out" in first
    assert "commonest class is right on 33 %" in first
    assert "a good part of what any network scores on these images is not in the lungs" in second
    assert "covid is told from the rest by the border alone (AUROC 0.99 [0.97, 1.00]" in second
    assert "Not every test was done yet" in words(render_report(results_of(folder), {}))


def test_first_page_does_not_accuse_a_clear_audit(folder):
    write_audit(folder, verdict="clear")
    first, second = outside_sentences(results_of(folder))
    assert "61 %" in first
    assert second.startswith("The audit finds no shortcut")


def test_the_first_figure_goes_from_nothing_to_the_ensemble(folder):
    write_audit(folder)
    bars = outside_bars(results_of(folder))
    assert [bar.picture for bar in bars] == ["", BORDER, "lungs_black", THUMBNAIL, "whole"]
    assert [bar.found["value"] for bar in bars[1:4]] == [0.612, 0.65, 0.702]
    image = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    for mask in (None, image > 100):
        figure = draw_outside(bars, image, mask, note="a note")
        assert "95 % interval" in figure.axes[0].get_xlabel()
        assert any("a note" in text.get_text() for text in figure.texts)
    assert "61 %" in outside_alt(bars)
    assert not outside_bars(results_of(folder, audit_key="other"))


def test_audit_verdicts_stand_on_the_first_page_and_in_full(folder):
    write_audit(folder)
    page = render_report(results_of(folder), {})
    first = page[: page.index('<h2 id="s1">')]
    assert "✗ shortcut" in first
    assert "0.99 [0.97, 1.00] AUROC of x" in words(first)
    assert "The statistic that decides: AUROC of x, 0.990 [0.970, 1.000]; chance is 0.5." in page
    assert "Skipped in part: no mask on 3." in page
    assert "| Non-anatomical baselines | ✗ shortcut |" in model_card(results_of(folder))


def test_limits_name_the_source_that_gives_a_class_away(folder):
    results = read_results(folder, prepared_of(LABELS, crossing=4), table_of(LABELS, 240), COMMANDS)
    for text in (words(render_report(results, {})), model_card(results)):
        assert "Every covid image comes from elsewhere, and no other class does" in text
        assert "4 patients or groups lie on both sides of the split" in text


def test_cards_leave_no_blank(folder):
    write_audit(folder)
    for card in (model_card(results_of(folder)), data_card(results_of(folder))):
        assert not re.search(r"\bNone\b|\bnan\b|TODO|\{|\}|\| *\|", card)
        assert card.endswith("\n")


def test_intervals_and_cells_are_read_as_written():
    assert split_interval("0.69 [0.66, 0.72]") == ("0.69", "[0.66, 0.72]")
    assert split_interval(None) == ("–", "")
    assert split_interval(1234) == ("1,234", "")
    assert split_interval("a [b] c") == ("a [b] c", "")
    assert percent({"value": 0.5, "low": None, "high": 0.75}) == "50.0 % [n/a, 75.0]"
    assert percent({"value": None, "low": None, "high": None}) == "n/a"


def test_text_cannot_leave_its_cell_nor_its_string():
    assert one_line("a|b\n<c> `d` *e* [f](g)") == "a&#124;b &lt;c&gt; 'd' \\*e\\* [f]\\(g)"
    assert css_string('a"}</style>\\') == "a\\22 \\7d \\3c /style\\3e \\5c "


def test_metrics_of_version_0_1_are_left_out_with_the_command(folder):
    path = folder / "evaluation" / "metrics.json"
    old = json.loads(path.read_text())
    del old["ensemble_minus"]
    path.write_text(json.dumps(old))
    results = results_of(folder)
    assert results.metrics is None
    assert "version 0.1" in results.missing["evaluation"]
    assert EVALUATE in results.missing["evaluation"]


def test_report_and_card_count_patients_and_say_who_is_few(folder):
    results = results_of(folder)
    for text in (render_report(results, {}), model_card(results)):
        assert "patients" in text
        assert "fewer than 50 patients" in text
        assert "Paired differences" in text


def test_headings_and_titles_are_for_people_alone(folder):
    """Whatever they are called, the first page has its statistics: they are read by their ids."""
    write_audit(folder)
    before = results_of(folder)
    path = folder / "audit" / "audit.json"
    audit = json.loads(path.read_text())
    for result in audit["results"]:
        result |= {key: f"renamed {key}" for key in ("title", "what", "sentence")}
        if result["statistic"]:
            result["statistic"]["metric"] = "renamed metric"
        for number, table in enumerate(result["tables"]):
            table["title"] = f"renamed table {number}"
            for place, column in enumerate(table["columns"]):
                column["heading"] = f"renamed column {place}"
    write_json(path, audit)
    after = results_of(folder)
    assert str(outside_bars(after)) == str(outside_bars(before))
    assert outside_sentences(after) == outside_sentences(before)
    for text in (words(render_report(after, {})), model_card(after)):
        assert "61 % [50, 70]" in text
        assert "0.99 [0.97, 1.00] renamed metric" in text
    page = words(render_report(after, {}))
    assert "0.702 [0.600, 0.800]" in page
    assert "renamed column 1" in page
    assert "accuracy of the linear model" not in page


STALE = {
    "evaluation/metrics.json": "metrics",
    "explain/explain.json": "explain",
    "evaluated_on/other/metrics.json": "elsewhere",
}


@pytest.mark.parametrize("name", STALE)
def test_what_speaks_of_earlier_weights_is_not_shown(folder, name):
    own = json.loads((folder / "evaluation" / "metrics.json").read_text())
    values = own if "metrics" in name else {"pointing": None}
    if name.startswith("evaluated_on"):
        values = own | {"run": {"fingerprint": "f" * 64}, "measured_on": {}}
    write_json(folder / name, values | {"state": "now"})
    assert getattr(results_of(folder, state="now"), STALE[name])
    later = results_of(folder, state="later")
    assert not getattr(later, STALE[name])
    assert any("of earlier weights or another ensemble" in why for why in later.missing.values())


def test_an_evaluation_that_was_cut_short_is_not_shown(folder):
    """Its predictions are new and its metrics are those of the one before."""
    path = folder / "evaluation" / "metrics.json"
    (folder / "evaluation" / "predictions.csv").write_text("new")
    write_json(path, json.loads(path.read_text()) | {"predictions": digest(b"old")})
    results = results_of(folder)
    assert results.metrics is None
    assert "of other predictions" in results.missing["evaluation"]


def test_calibration_of_earlier_thresholds_is_not_shown(folder):
    path = folder / "evaluation" / "calibration.json"
    write_json(folder / "uncertainty.json", {"fitted": 1})
    write_json(path, json.loads(path.read_text()) | {"uncertainty": digest_of({"fitted": 1})})
    assert results_of(folder).calibration
    write_json(folder / "uncertainty.json", {"fitted": 2})
    assert results_of(folder).calibration is None


def test_a_comparison_with_published_results_is_of_the_evaluation_shown(folder):
    shown = {"sentences": ["Alike."], "table": {"title": "T", "columns": ["a"], "rows": [["1"]]}}
    values = {"shown": shown, "fingerprint": "f" * 64, "test_opened": 3}
    path = folder / "evaluation" / "published.json"
    write_json(path, values)
    assert "Alike." in words(render_report(results_of(folder), {}))
    write_json(path, values | {"test_opened": 2})
    assert "Alike." not in words(render_report(results_of(folder), {}))
