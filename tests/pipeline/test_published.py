"""A published test split that lacks a class is shown by itself."""

from cxr.evaluation.evaluate import evaluate, read_predictions
from cxr.files import read_json
from cxr.pipeline import evaluate_stage as stage


def test_published_part_is_shown(tiny_run, capsys):
    out = tiny_run.folder / "evaluation"
    metrics = read_json(out / "metrics.json", hint="")
    part = evaluate(
        read_predictions(out / "predictions.csv"),
        labels=metrics["labels"],
        members=metrics["members"],
        best_member=metrics["best_member"],
        classes=["normal", "bacterial", "viral"],
    )
    confidence = read_json(out / "calibration.json", hint="")
    stage._show(metrics | {"published_test": part}, confidence)
    assert f"normal, bacterial, viral alone, {part['n']} images" in capsys.readouterr().out
