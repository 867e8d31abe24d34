import numpy as np
import pandas as pd
import pytest

from cxr.errors import InputError
from cxr.models.aligned_logits import align_predictions

LABELS = ("normal", "covid", "bacterial", "viral")


def member_table(order: list[int]) -> pd.DataFrame:
    values = np.arange(16.0).reshape(4, 4)[order]
    table = pd.DataFrame(values, columns=[f"logit_{label}" for label in LABELS])
    table.insert(0, "label", [LABELS[index] for index in order])
    table.insert(0, "split", "val")
    table.insert(0, "image", [f"{index}.png" for index in order])
    return table


def test_tables_are_aligned_by_image():
    aligned = align_predictions(
        {"a": member_table([2, 0, 1]), "b": member_table([0, 1, 2])}, LABELS
    )
    assert aligned.images == ("2.png", "0.png", "1.png")
    np.testing.assert_array_equal(aligned.targets, [2, 0, 1])
    np.testing.assert_array_equal(aligned.logits["a"], aligned.logits["b"])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (member_table([0, 1]), "differ in 1 images"),
        (member_table([0, 1, 2]).assign(label="viral"), "differ in 3 images"),
        (member_table([0, 1, 2, 2]), "2.png twice"),
        (member_table([0, 1, 2]).assign(split="test"), "no image"),
        (member_table([0, 1, 2]).drop(columns="logit_covid"), "lack the columns logit_covid"),
    ],
)
def test_tables_of_other_images_are_refused(table, message):
    with pytest.raises(InputError, match=message):
        align_predictions({"a": member_table([0, 1, 2]), "b": table}, LABELS)
