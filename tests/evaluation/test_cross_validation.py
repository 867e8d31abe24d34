"""Pooling of folds, on logits made by hand."""

import numpy as np
import pandas as pd
import pytest

from cxr.errors import InputError
from cxr.evaluation.cross_validation import FoldResult, cross_validation, fold_table
from cxr.evaluation.evaluate import build_predictions
from cxr.models.ensemble import Ensemble

LABELS = ("normal", "viral")
MEMBERS = ("a", "b")
SIZES = {"train": 6, "val": 2, "test": 4}


def result(images: list[str], right: list[bool], *, better: str = "a") -> FoldResult:
    """Return a fold whose members both are right where asked; labels alternate."""
    labels = [LABELS[n % 2] for n in range(len(images))]
    rows = pd.DataFrame(
        {
            "image": images,
            "split": "test",
            "label": labels,
            "patient_id": "",
            "group": images,
            "source": "",
        }
    )
    toward = np.array([(n % 2) == good for n, good in enumerate(right)])
    logits = np.where(toward[:, None], [[0.0, 2.0]], [[2.0, 0.0]]).astype(np.float32)
    ensemble = Ensemble(LABELS, MEMBERS, dict.fromkeys(MEMBERS, 1.0), dict.fromkeys(MEMBERS, 0.5))
    validation = {
        name: {"balanced_accuracy": 0.8 if name == better else 0.7, "nll": 0.5} for name in MEMBERS
    }
    predictions = build_predictions(rows, dict.fromkeys(MEMBERS, logits), ensemble)
    return FoldResult(predictions, ensemble, validation, SIZES)


def pooled(results: list[FoldResult], images: list[str]):
    return cross_validation(
        results, np.array(images, dtype=object), seed=0, note="synthetic phantom"
    )


def test_pooled_and_per_fold_by_hand():
    one = result(["d", "b", "f", "h"], [True, True, True, False])
    two = result(["a", "c", "e", "g"], [True, False, True, False])
    table, found = pooled([one, two], list("abcdefgh"))
    assert table["image"].tolist() == list("abcdefgh")
    assert table["fold"].tolist() == [2, 1, 2, 1, 2, 1, 2, 1]
    assert found["models"]["ensemble"]["accuracy"]["value"] == pytest.approx(5 / 8)
    assert found["n"] == 8
    accuracies = [fold["models"]["ensemble"]["accuracy"] for fold in found["per_fold"]]
    assert accuracies == pytest.approx([0.75, 0.5])
    spread = found["across_folds"]["ensemble"]["accuracy"]
    assert spread == pytest.approx(
        {"mean": 0.625, "sd": np.std([0.75, 0.5], ddof=1), "min": 0.5, "max": 0.75}
    )
    assert found["folds"] == 2
    assert found["per_fold"][0]["images"] == SIZES
    assert found["note"] == "synthetic phantom"


def test_best_member_is_chosen_on_validation_alone():
    results = [result(list("abcd"), [True] * 4, better="b"), result(list("efgh"), [True] * 4)]
    assert pooled(results, list("abcdefgh"))[1]["best_member"] == "a"
    results = [result(list("abcd"), [True] * 4, better="b")] * 2
    results[1] = result(list("efgh"), [True] * 4, better="b")
    assert pooled(results, list("abcdefgh"))[1]["best_member"] == "b"


def test_table_ends_with_mean_and_range():
    one = result(["d", "b", "f", "h"], [True, True, True, False])
    two = result(["a", "c", "e", "g"], [True, False, True, False])
    rows = fold_table(pooled([one, two], list("abcdefgh"))[1])
    assert [row["fold"] for row in rows] == ["1", "2", "mean", "range"]
    assert [row["accuracy"] for row in rows] == ["0.750", "0.500", "0.625", "0.500 to 0.750"]


@pytest.mark.parametrize("images", ["abcdefg", "abcdefgx"])
def test_an_image_that_no_fold_tested_is_refused(images):
    results = [result(list("abcd"), [True] * 4), result(list("efgh"), [True] * 4)]
    with pytest.raises(InputError, match="the folds predict 8 images"):
        pooled(results, list(images))
