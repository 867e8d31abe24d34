"""Covid against normal among adults, against figures worked out by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from cxr.evaluation.adults import NAMES, adult_covid, adult_rows, are_adults, measure_adults

LABELS = ("normal", "covid", "bacterial", "viral")
# label, source, age, probabilities
ROWS = [
    ("normal", "nih", "40", (0.6, 0.4, 0, 0)),
    ("normal", "nih", "12", (0.0, 1.0, 0, 0)),  # a child of a source of adults
    ("normal", "pakistan", "", (0.3, 0.2, 0.5, 0)),  # called bacterial, yet not covid
    ("normal", "kermany", "", (0.0, 1.0, 0, 0)),  # a child by its source
    ("normal", "", "", (0.0, 1.0, 0, 0)),  # nobody knows
    ("normal", "pakistan", "18", (0.1, 0.9, 0, 0)),
    ("covid", "bimcv", "", (0.2, 0.8, 0, 0)),
    ("covid", "cohen", "60", (0.5, 0.4, 0.1, 0)),
    ("bacterial|viral", "nih", "50", (0.1, 0.6, 0.3, 0)),
    ("viral", "cohen", "", (0.1, 0.3, 0.1, 0.5)),
    ("covid|viral", "nih", "50", (0, 1, 0, 0)),
]


@pytest.fixture
def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return predictions, and the prepared table in another order with an image more."""
    labels, sources, ages, probs = zip(*ROWS, strict=True)
    images = [f"{n}.png" for n in range(len(ROWS))]
    table = pd.DataFrame({"image": images, "source": sources, "age": ages})
    predictions = pd.DataFrame({"image": images, "label": labels, "group": images})
    for k, label in enumerate(LABELS):
        predictions[f"prob_ensemble_{label}"] = np.array(probs)[:, k]
    other = pd.DataFrame({"image": ["x.png"], "source": ["nih"], "age": [""]})
    return predictions, pd.concat([table[::-1], other])


def test_who_is_an_adult(tables):
    table = tables[1].iloc[:-1][::-1]
    expected = [True, False, True, False, False, True, True, True, True, True, True]
    assert are_adults(table).tolist() == expected
    assert (
        are_adults(table.drop(columns="age")).tolist()
        == [True, True, True, False, False] + [True] * 6
    )


def test_figures_by_hand(tables):
    found = adult_covid(*tables)
    assert (found["normal"], found["covid"], found["pneumonia"]) == (3, 2, 2)
    values = {key: found[key]["value"] for key in NAMES}
    assert values == pytest.approx(
        {
            "normal_called_covid": 1 / 3,
            "normal_found": 1 / 3,
            "covid_found": 1 / 2,
            "pneumonia_called_covid": 1 / 2,
            "pneumonia_called_normal": 0,
            "balanced_accuracy": (1 / 3 + 1 / 2) / 2,
            # Alone, the pneumonia that is named of a normal no longer counts.
            "two_class_balanced_accuracy": (2 / 3 + 1 / 2) / 2,
            # 0.4, 0.4, 0.9 of normals; 0.8 and 4 / 9 of covid.
            "auroc": 4 / 6,
        }
    )
    for key in NAMES:
        assert found[key]["low"] <= found[key]["value"] <= found[key]["high"]
    assert adult_rows({"x": found}, "model")[0]["normal called covid"].startswith("0.333 [")


def test_a_class_that_is_absent_leaves_its_figures_undefined(tables):
    predictions, table = tables
    found = adult_covid(predictions[predictions["label"] != "covid"], table)
    assert found["normal_called_covid"]["value"] == pytest.approx(1 / 3)
    for key in ("balanced_accuracy", "auroc", "covid_found"):
        assert math.isnan(found[key]["value"])
    assert adult_rows({"x": found}, "model")[0]["AUROC"] == "n/a"


def test_only_real_adults_with_normal_images_are_measured(tables):
    predictions, table = tables
    assert set(measure_adults(predictions, table, synthetic=False)["adults"]) == {"ensemble"}
    assert not measure_adults(predictions, table, synthetic=True)
    ill = predictions[predictions["label"] != "normal"]
    assert not measure_adults(ill, table, synthetic=False)
