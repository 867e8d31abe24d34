"""calibration.json as a whole, its tables and its figures."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr.evaluation.confidence import (
    TOP,
    calibration_table,
    measure_confidence,
    probs_before_and_after,
    referral_sentences,
    sets_table,
)
from cxr.evaluation.confidence_plots import (
    draw_coverage,
    draw_reliability,
    draw_risk_coverage,
    save_plots,
)
from cxr.evaluation.evaluate import build_predictions, evaluate
from cxr.files import write_json
from cxr.models.ensemble import all_probs
from cxr.models.ensemble_fit import fit_ensemble
from cxr.reliability.conformal import fit_uncertainty

LABELS = ("normal", "covid", "bacterial", "viral")
NOTE = "synthetic phantom"


def images(rng, n, *, classes=4):
    """Return the rows of images and the logits of two members that are too sure."""
    index = np.arange(n) % classes
    rows = pd.DataFrame(
        {
            "image": [f"{i}.png" for i in range(n)],
            "split": "test",
            "patient_id": "",
            "source": "",
            "label": np.array(LABELS)[index],
            "group": [str(i // 2) for i in range(n)],
        }
    )
    logits = {name: 3 * rng.normal(size=(n, 4)) + 4 * np.eye(4)[index] for name in ("a", "b")}
    return rows, logits, index


def opened(n=200, *, fitted=200, classes=4):
    """Return predictions, ensemble, what validation gave, and the content of calibration.json."""
    rng = np.random.default_rng(0)
    _, logits, index = images(rng, fitted)
    ensemble = fit_ensemble(logits, index, LABELS, pool="linear", weight_prior=0)
    uncertainty = fit_uncertainty(
        all_probs(logits, ensemble)["ensemble"], index, LABELS, groups=np.arange(fitted)
    )
    rows, logits, _ = images(rng, n, classes=classes)
    predictions = build_predictions(rows, logits, ensemble)
    found = measure_confidence(
        predictions, ensemble=ensemble, uncertainty=uncertainty, resamples=30, note=NOTE
    )
    return predictions, ensemble, uncertainty, found


def words(figure) -> str:
    texts = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        texts += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel()]
        texts += [text.get_text() for text in axes.texts]
        if axes.get_legend():
            texts += [text.get_text() for text in axes.get_legend().get_texts()]
    return "\n".join(texts)


def test_after_is_what_the_predictions_table_holds_and_before_has_no_temperature():
    predictions, ensemble, _, _ = opened()
    found = probs_before_and_after(predictions, ensemble)
    for name in ("a", "b", "equal", "ensemble"):
        table = predictions[[f"prob_{name}_{label}" for label in LABELS]].to_numpy()
        np.testing.assert_allclose(found[name]["after"], table)
    logits = predictions[[f"logit_a_{label}" for label in LABELS]].to_numpy()
    plain = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found["a"]["before"], plain)
    mixed = sum(ensemble.weights[name] * found[name]["before"] for name in "ab")
    np.testing.assert_allclose(found["ensemble"]["before"], mixed)


def test_content_agrees_with_metrics_and_is_plain(tmp_path):
    predictions, ensemble, _, found = opened()
    metrics = evaluate(predictions, labels=LABELS, members=ensemble.members, best_member="a")
    for name in ("a", "b", "equal", "ensemble"):
        assert found["calibration"][name]["after"]["nll"] == pytest.approx(
            metrics["models"][name]["nll"]
        )
        accuracy = found["referral"][name]["accuracy_all"]
        assert accuracy["value"] == pytest.approx(metrics["models"][name]["accuracy"]["value"])
    assert found["note"] == NOTE
    assert "not a medical device" in found["use"]
    assert found["skipped"] == {}
    assert set(found["reliability"]["after"]) == {TOP, *LABELS}
    assert "at_threshold" in found["referral"]["ensemble"]
    assert "at_threshold" not in found["referral"]["a"]
    # Too sure before, hence better after.
    scores = found["calibration"]["a"]
    assert scores["after_minus_before"]["nll"]["high"] < 0
    assert scores["after"]["ece"]["value"] < scores["before"]["ece"]["value"]
    write_json(tmp_path / "calibration.json", found)
    assert json.loads((tmp_path / "calibration.json").read_text())["n"] == 200


def test_tables_and_sentences():
    _, _, _, found = opened()
    assert [row["model"] for row in calibration_table(found, "after")] == [
        "a",
        "b",
        "equal",
        "ensemble",
    ]
    rows = sets_table(found)
    assert [row["sets"] for row in rows][:2] == ["80%, one threshold", "80%, per class"]
    assert {f"{label}, 50 patients" for label in LABELS} < set(rows[0])
    whole, fixed = referral_sentences(found)
    assert "80% of images of which it is most confident" in whole
    assert "fixed on validation" in fixed


def test_absent_classes_are_named_and_skipped(caplog):
    predictions, _, _, found = opened(classes=2)
    assert set(found["skipped"]) == {"class bacterial", "class viral"}
    assert "class bacterial: no image of it" in caplog.text
    assert set(found["calibration"]["ensemble"]["after"]["per_class"]) == {"normal", "covid"}
    assert set(found["prediction_sets"]["0.9"]["plain"]["per_class"]) == {"normal", "covid"}
    heads = {"sets", "coverage", "mean size", "normal, 100 patients", "covid, 100 patients"}
    assert set(sets_table(found)[0]) == heads
    assert "viral" not in words(draw_reliability(found))
    draw_coverage(found)
    draw_risk_coverage(predictions, found)


def test_too_few_images_are_named_and_the_error_is_nan(caplog):
    predictions, _, uncertainty, found = opened(12, fitted=12)
    assert "12 images are too few" in found["skipped"]["calibration error"]
    assert "too small to cover at 0.95" in found["skipped"]["sets at 0.95"]
    assert "12 patients, fewer than 100" in uncertainty["warning"]
    assert np.isnan(found["calibration"]["ensemble"]["after"]["ece"]["value"])
    assert calibration_table(found, "after")[0]["ECE"] == "n/a"
    assert "too few" in caplog.text
    draw_coverage(found)
    draw_risk_coverage(predictions, found)
    assert "error n/a" in words(draw_reliability(found))


def test_figures_are_written_and_say_what_they_are_of(tmp_path):
    predictions, ensemble, _, found = opened()
    metrics = evaluate(predictions, labels=LABELS, members=ensemble.members, best_member="a")
    paths = save_plots(predictions, metrics, found, tmp_path / "figures")
    names = "confusion", "roc", "precision_recall", "reliability", "risk_coverage", "coverage"
    assert [path.stem for path in paths] == list(names)
    assert sorted(tmp_path.glob("figures/*")) == sorted(paths)
    for path in paths:
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert min(image.size) > 600
    for figure in (
        draw_reliability(found),
        draw_risk_coverage(predictions, found),
        draw_coverage(found),
    ):
        assert NOTE in words(figure)
        assert "Research use only" in words(figure)
    assert "the class it names" in words(draw_reliability(found))
    assert "promised" in words(draw_coverage(found))
