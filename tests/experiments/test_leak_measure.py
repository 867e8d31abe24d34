"""What a leak is worth, on predictions made by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from cxr.evaluation.tables import show_interval
from experiments.leak.measure import (
    COPIES_FIRST,
    OTHER_IMAGES,
    OWN_TEST,
    SPLIT_FIRST,
    draw_leak,
    leak_sentences,
    measure_leak,
    percent,
    points,
)

LABELS = ("normal", "viral")
NOTE = "synthetic phantom, not real patients"


def rows(model: str, test: str, right: list[bool], groups: list[str] | None = None):
    """Return predictions of alternating labels that are right where asked."""
    found, place = [], f"{model} {test}" if test == OWN_TEST else test
    for number, good in enumerate(right):
        true = number % 2
        sure = 0.9 if good == bool(true) else 0.1
        found.append(
            {
                "model": model,
                "tested_on": test,
                "label": LABELS[true],
                "image": f"{number}.png",
                "group": groups[number] if groups else f"{place}-{number}",
                "prob_normal": 1 - sure,
                "prob_viral": sure,
            }
        )
    return found


def table(claimed: int, honest: int, other: int, other_split: int, n: int = 40) -> pd.DataFrame:
    """Return predictions with that many right of n in each place."""
    parts = [
        (COPIES_FIRST, OWN_TEST, claimed),
        (SPLIT_FIRST, OWN_TEST, honest),
        (COPIES_FIRST, OTHER_IMAGES, other),
        (SPLIT_FIRST, OTHER_IMAGES, other_split),
    ]
    return pd.DataFrame(
        [row for model, test, k in parts for row in rows(model, test, [i < k for i in range(n)])]
    )


def measured(predictions: pd.DataFrame) -> dict:
    return measure_leak(predictions, labels=LABELS, note=NOTE)


def test_accuracies_and_differences_by_hand():
    found = measured(table(36, 28, 24, 26))
    value = {
        (name, test): found["models"][name][test]["accuracy"]["value"]
        for name in (COPIES_FIRST, SPLIT_FIRST)
        for test in (OWN_TEST, OTHER_IMAGES)
    }
    assert value == pytest.approx(
        {
            (COPIES_FIRST, OWN_TEST): 0.9,
            (COPIES_FIRST, OTHER_IMAGES): 0.6,
            (SPLIT_FIRST, OWN_TEST): 0.7,
            (SPLIT_FIRST, OTHER_IMAGES): 0.65,
        }
    )
    gaps = {name: gap["value"] for name, gap in found["differences"].items()}
    assert gaps == pytest.approx(
        {
            "worth_of_the_leak": 0.2,
            "claimed_minus_honest": 0.3,
            "clean_minus_honest": 0.05,
            "overstated": 0.25,
            "on_the_same_images": -0.05,
        }
    )
    assert found["models"][COPIES_FIRST][OWN_TEST]["n"] == 40
    assert found["models"][COPIES_FIRST][OWN_TEST]["counts"] == {"normal": 20, "viral": 20}
    assert found["note"] == NOTE
    assert "not a medical device" in found["use"]


def test_unpaired_interval_agrees_with_the_normal_approximation():
    n = 400
    found = measured(table(360, 280, 240, 260, n=n))
    gap = found["differences"]["worth_of_the_leak"]
    half = 1.96 * math.sqrt(0.9 * 0.1 / n + 0.7 * 0.3 / n)
    assert (gap["high"] - gap["low"]) / 2 == pytest.approx(half, rel=0.1)
    assert gap["low"] == pytest.approx(0.2 - half, abs=0.01)


def test_the_same_images_are_compared_in_pairs():
    found = measured(table(30, 30, 24, 24))
    gap = found["differences"]["on_the_same_images"]
    assert gap == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_copies_are_drawn_together():
    right = [n < 30 for n in range(40)]
    alone = table(30, 30, 24, 24)
    own = (alone["model"] == COPIES_FIRST) & (alone["tested_on"] == OWN_TEST)
    together = alone.copy()
    # Four images a group, and a group is right or wrong as a whole.
    together.loc[own, "group"] = [f"g{n // 4}" for n in range(len(right))]
    widths = []
    for predictions in (alone, together):
        score = measured(predictions)["models"][COPIES_FIRST][OWN_TEST]["accuracy"]
        widths.append(score["high"] - score["low"])
    assert widths[1] > 1.5 * widths[0]


def test_sentences_say_when_nothing_is_shown():
    clear = leak_sentences(measured(table(39, 20, 24, 26)))
    assert "on 98 % [" in clear[0]
    assert "Difference +48 [" in clear[0]
    assert "neither model has seen" in clear[1]
    assert "holds 0" not in " ".join(clear)
    unclear = leak_sentences(measured(table(31, 30, 24, 26)))
    assert "points, whose interval holds 0." in unclear[0]
    assert "points, whose interval holds 0." in unclear[2]
    assert percent({"value": 0.844, "low": 0.8, "high": 0.9}) == "84 % [80, 90]"
    assert points({"value": 0.11, "low": -0.02, "high": 0.2}) == "+11 [-2, +20]"
    assert show_interval({"value": 0.5, "low": 0.4, "high": 0.6}) == "0.500 [0.400, 0.600]"


@pytest.mark.parametrize("copies", [0, 1, 3, 7])
def test_figure_states_the_note_and_every_figure(copies):
    image = np.zeros((32, 32), np.uint8)
    figure = draw_leak(measured(table(36, 28, 24, 26)), image, [image] * copies)
    words = " ".join(text.get_text() for axes in figure.axes for text in axes.texts)
    for share in ("90 %", "70 %", "60 %", "65 %"):
        assert share in words
    assert "promised\n+30 [" in words
    assert any(NOTE in text.get_text() for text in figure.texts)
    assert "promised 30 points too much, one without 5" in figure.get_suptitle()
    assert len(figure.axes) == 2 + min(copies, 3)
