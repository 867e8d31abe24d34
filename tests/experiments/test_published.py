"""The published Kermany test images: our figures beside those that others report."""

import json

import numpy as np
import pandas as pd
import pytest

from cxr.errors import InputError
from cxr.evaluation.evaluate import build_predictions, evaluate, read_predictions
from cxr.files import read_json, write_csv, write_json
from cxr.labels import CANONICAL
from cxr.models.ensemble import Ensemble
from cxr.pipeline.config import compose
from experiments.published.__main__ import PublishedConfig, run_published
from experiments.published.compare import CLASSES, compare_published, differences, published_table

MEMBERS = ("a",)
ENSEMBLE = Ensemble(CANONICAL, MEMBERS, {"a": 1.0}, {"a": 1.0})
TRUE = ["normal"] * 4 + ["bacterial"] * 4 + ["viral"] * 2
NAMED = [
    "normal",
    "normal",
    "normal",
    "viral",
    "bacterial",
    "bacterial",
    "covid",
    "viral",
    "viral",
    "normal",
]
"""One bacterial image is called covid, then bacterial once covid is dropped."""


def predictions_of(source: str = "kermany") -> pd.DataFrame:
    logits = 4.0 * np.eye(4)[[CANONICAL.index(name) for name in NAMED]]
    logits[6, CANONICAL.index("bacterial")] = 3.0
    # Of the pair, this image's next best is viral, the other's bacterial.
    logits[9, CANONICAL.index("bacterial")] = 1.0
    rows = pd.DataFrame(
        {
            "image": [f"{i}.png" for i in range(10)],
            "split": "test",
            "label": TRUE,
            "patient_id": "",
            "group": [f"g{i}" for i in range(10)],
            "source": source,
        }
    )
    return build_predictions(rows, {"a": logits}, ENSEMBLE)


def compare(predictions: pd.DataFrame, classes: list[str] = CLASSES):
    three = evaluate(
        predictions, labels=CANONICAL, members=MEMBERS, best_member="a", classes=classes
    )
    return compare_published(predictions, three, labels=CANONICAL, best_member="a")


def figures(found, kind: str) -> dict[tuple[str, str], float]:
    return {(row["task"], row.get("label", "")): row[kind]["value"] for row in found["published"]}


def test_figures_by_hand():
    found = compare(predictions_of())
    assert found["n"] == {"three_classes": 10, "bacterial_viral": 6}
    assert figures(found, "renormalised") == {
        ("three_classes", ""): pytest.approx(7 / 10),
        ("three_classes", "normal"): 3 / 4,
        ("three_classes", "bacterial"): 3 / 4,
        ("three_classes", "viral"): 1 / 2,
        ("bacterial_viral", ""): pytest.approx(4 / 6),
    }
    assert figures(found, "as_they_are") == {
        ("three_classes", ""): pytest.approx(6 / 10),
        ("three_classes", "normal"): 3 / 4,
        ("three_classes", "bacterial"): 2 / 4,
        ("three_classes", "viral"): 1 / 2,
        ("bacterial_viral", ""): pytest.approx(3 / 6),
    }


def test_published_figures_are_those_of_their_authors():
    values = [row["value"] for row in compare(predictions_of())["published"]]
    assert values == [0.9135, 0.983, 0.897, 0.824, 0.907, 0.936]


def test_other_images_are_not_compared():
    assert compare(predictions_of("hannover")) is None
    two = predictions_of()
    assert compare(two[two["label"] != "viral"], ["normal", "bacterial"]) is None


def test_the_table_says_where_a_published_figure_lies():
    found = compare(predictions_of())
    found["published"][0]["renormalised"] = {"value": 0.7, "low": 0.5, "high": 0.9}
    found["published"][1]["renormalised"] = {"value": 0.99, "low": 0.985, "high": 1.0}
    found["published"][2]["renormalised"] = {"value": 0.9, "low": 0.8, "high": 1.0}
    places = [row[-1] for row in published_table(found)["rows"]][:3]
    assert places == ["above our interval", "below our interval", "inside our interval"]


def test_differences_give_their_counts():
    told = " ".join(
        differences(
            compare(predictions_of()),
            train_images=4797,
            opened=2,
            disjoint={"crossing_groups": 170, "test_images_in_crossing_groups": 317},
        )
    )
    for words in (
        "4,797 images",
        "170 patient numbers",
        "317 of our test images",
        "opened 2 time",
        "614 are dropped",
    ):
        assert words in told


def test_a_run_on_other_images_is_refused(own_run):
    config = compose("published", own_run.where(), PublishedConfig)
    with pytest.raises(InputError, match=r"test split of run .* is not the published one"):
        run_published(config)


def test_a_run_is_compared_from_its_files(own_run):
    out = own_run.folder / "evaluation"
    metrics = read_json(out / "metrics.json", hint="")
    table = read_predictions(out / "predictions.csv").assign(source="kermany")
    write_csv(out / "predictions.csv", table)
    part = evaluate(
        table,
        labels=metrics["labels"],
        members=metrics["members"],
        best_member=metrics["best_member"],
        classes=list(CLASSES),
    )
    write_json(out / "metrics.json", metrics | {"published_test": part})
    result = run_published(compose("published", own_run.where(), PublishedConfig))
    written = read_json(out / "published.json", hint="")
    assert written["published"] == json.loads(json.dumps(result["published"]))
    assert written["fingerprint"] == metrics["fingerprint"]
    assert written["shown"]["table"]["rows"]
