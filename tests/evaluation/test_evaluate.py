import math

import numpy as np
import pandas as pd
import pytest

from cxr.errors import InputError, MissingInputError
from cxr.evaluation.evaluate import (
    TEXT_COLUMNS,
    best_member,
    build_predictions,
    evaluate,
    read_predictions,
    score_validation,
)
from cxr.evaluation.metrics import OVERALL, PER_CLASS, score
from cxr.evaluation.tables import (
    class_tables,
    difference_sentences,
    difference_table,
    few_note,
    partly_known_note,
    show_interval,
    summary_table,
)
from cxr.files import read_json, write_json
from cxr.models.ensemble import Ensemble, softmax

LABELS = ("normal", "covid", "bacterial", "viral")
ENSEMBLE = Ensemble(LABELS, ("a", "b"), {"a": 2.0, "b": 0.5}, {"a": 0.25, "b": 0.75})
ASKED = {"labels": LABELS, "members": ("a", "b"), "best_member": "b"}


def fake_rows(n: int = 120, n_classes: int = 4) -> pd.DataFrame:
    """Return prepared rows with two images per group; patient ids look like numbers."""
    return pd.DataFrame(
        {
            "image": [f"{index}.png" for index in range(n)],
            "split": "test",
            "label": [LABELS[index % n_classes] for index in range(n)],
            "patient_id": [f"{index // 2:03}" for index in range(n)],
            "group": [f"g{index // 2}" for index in range(n)],
            "source": "",
            "age": "4",
        }
    )


def fake_logits(rows: pd.DataFrame, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.eye(4)[[LABELS.index(label) for label in rows["label"]]]
    return {
        name: rng.normal(size=truth.shape) + skill * truth for name, skill in (("a", 1), ("b", 2))
    }


@pytest.fixture
def predictions() -> pd.DataFrame:
    rows = fake_rows()
    return build_predictions(rows, fake_logits(rows), ENSEMBLE)


def test_predictions_hold_the_contract(predictions):
    logits = fake_logits(fake_rows())
    columns = [
        *TEXT_COLUMNS,
        *(f"logit_{name}_{label}" for name in "ab" for label in LABELS),
        *(f"prob_{name}_{label}" for name in ("a", "b", "equal", "ensemble") for label in LABELS),
        "prediction",
    ]
    assert list(predictions.columns) == columns
    member = {name: softmax(logits[name], ENSEMBLE.temperatures[name]) for name in "ab"}
    for name, expected in (
        ("a", member["a"]),
        ("equal", (member["a"] + member["b"]) / 2),
        ("ensemble", 0.25 * member["a"] + 0.75 * member["b"]),
    ):
        found = predictions[[f"prob_{name}_{label}" for label in LABELS]].to_numpy()
        np.testing.assert_allclose(found, expected)
    chosen = expected.argmax(axis=1)
    assert list(predictions["prediction"]) == [LABELS[index] for index in chosen]


def test_predictions_read_back_bit_for_bit(predictions, tmp_path):
    path = tmp_path / "predictions.csv"
    predictions.to_csv(path, index=False)
    pd.testing.assert_frame_equal(read_predictions(path), predictions, check_dtype=False)
    with pytest.raises(MissingInputError, match=r"scripts/evaluate\.py"):
        read_predictions(tmp_path / "none.csv")


def test_rows_keep_their_order_whatever_their_index(predictions):
    rows = fake_rows()
    rows.index = rows.index[::-1]
    pd.testing.assert_frame_equal(build_predictions(rows, fake_logits(rows), ENSEMBLE), predictions)


def test_metrics_hold_every_model_and_metric(predictions):
    metrics = evaluate(predictions, **ASKED, note="synthetic phantom")
    y_true = np.arange(120) % 4
    assert metrics["note"] == "synthetic phantom"
    assert (metrics["n"], metrics["n_groups"]) == (120, 60)
    assert metrics["counts"] == dict.fromkeys(LABELS, 30)
    assert list(metrics["models"]) == ["a", "b", "equal", "ensemble"]
    for name, found in metrics["models"].items():
        probs = predictions[[f"prob_{name}_{label}" for label in LABELS]].to_numpy()
        point = score(y_true, probs)
        for metric in OVERALL:
            assert found[metric]["value"] == pytest.approx(point[metric])
            assert found[metric]["low"] <= found[metric]["value"] <= found[metric]["high"]
        for index, label in enumerate(LABELS):
            for metric in PER_CLASS:
                value = found["per_class"][label][metric]["value"]
                assert value == pytest.approx(point[metric][index])
        assert np.trace(found["confusion"]) == pytest.approx(120 * found["accuracy"]["value"])
    assert metrics["undefined"] == []


def test_same_seed_gives_the_same_metrics(predictions):
    assert evaluate(predictions, **ASKED, seed=3) == evaluate(predictions, **ASKED, seed=3)


def test_ensemble_is_set_against_its_best_member_and_equal_weights(predictions):
    metrics = evaluate(predictions, **ASKED)
    right = {
        name: predictions[[f"prob_{name}_{label}" for label in LABELS]].to_numpy().argmax(axis=1)
        == np.arange(120) % 4
        for name in ("b", "equal", "ensemble")
    }
    assert list(metrics["ensemble_minus"]) == ["b", "equal"]
    for name, found in metrics["ensemble_minus"].items():
        assert found["only_first"] == (right["ensemble"] & ~right[name]).sum()
        assert found["only_second"] == (right[name] & ~right["ensemble"]).sum()
        assert set(found) == {*OVERALL, "only_first", "only_second"}
        for metric in OVERALL:
            models = metrics["models"]
            gap = models["ensemble"][metric]["value"] - models[name][metric]["value"]
            assert found[metric]["value"] == pytest.approx(gap)
            assert found[metric]["low"] <= gap <= found[metric]["high"]
        assert 0 < found["accuracy"]["p"] <= 1
    assert len(difference_table(metrics)) == len(difference_sentences(metrics)) == 2
    assert "p = " in difference_sentences(metrics)[0]


def test_patients_of_a_class_are_counted_and_few_are_marked(predictions):
    metrics = evaluate(predictions, **ASKED)
    assert metrics["patients"] == dict.fromkeys(LABELS, 30)
    first, second = class_tables(metrics)
    assert [row["patients"] for row in first] == ["30†"] * 4
    assert "AUROC" in second[0]
    assert few_note(metrics["patients"]).startswith("† fewer than 50 patients (normal, covid")
    assert few_note({"normal": 50}) == ""


def test_no_interval_loses_its_width_where_all_is_right(predictions):
    sure = predictions.copy()
    for name in ("a", "b", "equal", "ensemble"):
        for label in LABELS:
            right = sure["label"] == label
            sure[f"prob_{name}_{label}"] = np.where(right, 0.97, 0.01)
    metrics = evaluate(sure, **ASKED)
    for row in sum(class_tables(metrics), summary_table(metrics)):
        assert "[1.000, 1.000]" not in " ".join(row.values())
    for label in LABELS:
        for key in PER_CLASS:
            found = metrics["models"]["ensemble"]["per_class"][label][key]
            assert found["low"] < 0.98, (label, key)


def test_some_classes_alone_drop_and_renormalise_the_others(predictions):
    classes = ("normal", "bacterial", "viral")
    metrics = evaluate(predictions, **ASKED, classes=classes)
    kept = predictions[predictions["label"] != "covid"]
    probs = kept[[f"prob_ensemble_{label}" for label in classes]].to_numpy()
    y_true = np.array([classes.index(label) for label in kept["label"]])
    assert metrics["labels"] == list(classes)
    assert metrics["n"] == 90
    found = metrics["models"]["ensemble"]
    assert found["accuracy"]["value"] == pytest.approx((probs.argmax(axis=1) == y_true).mean())
    chosen = probs[np.arange(90), y_true] / probs.sum(axis=1)
    assert found["nll"]["value"] == pytest.approx(-np.log(chosen).mean())
    as_is = metrics["as_they_are"]["ensemble"]["accuracy"]["value"]
    assert as_is == pytest.approx((kept["prediction"] == kept["label"]).mean())
    assert as_is <= found["accuracy"]["value"]
    assert "as_they_are" not in evaluate(predictions, **ASKED)


def test_absent_class_is_nan_named_and_null_in_the_file(tmp_path, caplog):
    rows = fake_rows(n_classes=3)
    metrics = evaluate(build_predictions(rows, fake_logits(rows), ENSEMBLE), **ASKED)
    found = metrics["models"]["ensemble"]
    assert math.isnan(found["per_class"]["viral"]["sensitivity"]["value"])
    assert not math.isnan(found["macro_auroc"]["value"])
    assert "auroc of ensemble for viral" in metrics["undefined"]
    assert "undefined (NaN)" in caplog.text
    write_json(tmp_path / "metrics.json", metrics)
    again = read_json(tmp_path / "metrics.json", hint="")
    assert again["models"]["ensemble"]["per_class"]["viral"]["auroc"]["value"] is None
    assert class_tables(again)[1][3]["AUROC"] == "n/a"
    assert class_tables(again) == class_tables(metrics)


def test_tables_have_a_row_per_model_and_class(predictions):
    metrics = evaluate(predictions, **ASKED)
    rows = summary_table(metrics)
    assert [row["model"] for row in rows] == ["a", "b", "equal", "ensemble"]
    assert rows[0]["accuracy"] == show_interval(metrics["models"]["a"]["accuracy"])
    assert [row["class"] for row in class_tables(metrics)[1]] == list(LABELS)
    assert show_interval({"value": 0.8414, "low": 0.82, "high": 0.861}) == "0.841 [0.820, 0.861]"


def test_validation_scores_choose_the_best_member():
    rows = fake_rows()
    targets = np.arange(120) % 4
    scores = score_validation(fake_logits(rows), targets, ENSEMBLE)
    assert set(scores) == {"a", "b", "equal", "ensemble"}
    probs = softmax(fake_logits(rows)["b"], 0.5)
    assert scores["b"]["accuracy"] == pytest.approx((probs.argmax(axis=1) == targets).mean())
    assert best_member(scores, ENSEMBLE.members) == "b"
    tied = {"a": {"balanced_accuracy": 0.5, "nll": 1.0}, "b": {"balanced_accuracy": 0.5, "nll": 2}}
    assert best_member(tied, ("b", "a")) == "a"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"best_member": "ensemble"}, "allowed are a, b"),
        ({"members": ("a", "b", "c")}, "prob_c_normal"),
        ({"classes": ("normal", "flu")}, "classes name flu"),
        ({"classes": ("normal",)}, "at least two"),
    ],
)
def test_wrong_requests_are_one_line(predictions, change, message):
    with pytest.raises(InputError, match=message) as error:
        evaluate(predictions, **(ASKED | change))
    assert "\n" not in str(error.value)


def test_damaged_predictions_are_refused(predictions):
    with pytest.raises(InputError, match="unknown label 'flu'"):
        evaluate(predictions.assign(label="flu"), **ASKED)
    with pytest.raises(InputError, match="do not sum to 1"):
        evaluate(predictions.assign(prob_a_covid=0.9), **ASKED)
    with pytest.raises(InputError, match="no image"):
        evaluate(predictions.iloc[:0], **ASKED)


def test_logits_of_other_rows_are_refused():
    rows = fake_rows()
    with pytest.raises(InputError, match="same rows"):
        build_predictions(rows.iloc[:5], fake_logits(rows), ENSEMBLE)
    with pytest.raises(InputError, match="lacks the columns group"):
        build_predictions(rows.drop(columns="group"), fake_logits(rows), ENSEMBLE)


def test_a_label_set_counts_in_accuracy_alone(predictions):
    plain = evaluate(predictions, **ASKED)
    rows = fake_rows(140)
    rows.loc[120:, "label"] = "bacterial|viral"
    logits = fake_logits(fake_rows())
    more = {
        name: np.concatenate([own, np.tile([0.0, 0.0, 0.0, 3.0], (20, 1))])
        for name, own in logits.items()
    }
    for values in more.values():
        values[135:] = [9.0, 0.0, 0.0, 0.0]
    found = evaluate(build_predictions(rows, more, ENSEMBLE), **ASKED)
    sets = found["partly_known"]
    assert (sets["images"], sets["groups"]) == (20, 10)
    assert sets["labels"] == {"bacterial|viral": 20}
    assert sets["right"]["a"]["value"] == pytest.approx(15 / 20)
    right = plain["models"]["ensemble"]["accuracy"]["value"] * 120 + 15
    assert found["models"]["ensemble"]["accuracy"]["value"] == pytest.approx(right / 140)
    assert found["n"] == 120
    for key in ("balanced_accuracy", "macro_auroc", "nll", "per_class", "confusion"):
        assert found["models"]["ensemble"][key] == plain["models"]["ensemble"][key]
    assert "partly_known" not in plain
    note = partly_known_note(found)
    assert "20 images more are known only as one of several classes (20 bacterial|viral)" in note
    assert partly_known_note(plain) == ""


def test_sets_alone_cannot_be_evaluated(predictions):
    with pytest.raises(InputError, match=r"all 120 images have a label set, such as normal\|covid"):
        evaluate(predictions.assign(label="normal|covid"), **ASKED)
