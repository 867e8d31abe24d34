"""Logits of images in order, and their table, which keeps every bit."""

import numpy as np
import pandas as pd
import pytest
import torch

from cxr.errors import InputError, MissingInputError
from cxr.evaluation.evaluate import read_predictions
from cxr.models.build import Member, build_member
from cxr.training.inference import feature_batches, predict_logits, write_predictions

LABELS = ("normal", "covid", "viral")


@pytest.fixture(scope="module")
def member() -> Member:
    torch.manual_seed(0)
    member = build_member("mobilenetv2_035", LABELS, input_size_px=64, drop_rate=0.5)
    torch.nn.init.normal_(member.head.weight)
    return member


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, 48, 48), np.uint8)


def test_logits_are_in_the_order_of_the_rows(member, pixels):
    rows = np.array([7, 2, 9, 2, 0])
    found = predict_logits(member, pixels, rows)
    assert found.dtype == np.float32
    assert found.shape == (5, 3)
    whole = predict_logits(member, pixels, np.arange(11))
    np.testing.assert_allclose(found, whole[rows], atol=1e-4)
    assert not np.allclose(whole[0], whole[1], atol=1e-3)


def test_batch_size_does_not_matter_and_the_mode_is_kept(member, pixels):
    member.train()
    one = predict_logits(member, pixels, np.arange(11), batch_size=1)
    assert member.training
    np.testing.assert_allclose(
        one, predict_logits(member, pixels, np.arange(11), batch_size=4), atol=1e-4
    )
    member.eval()
    predict_logits(member, pixels, np.arange(1))
    assert not member.training


def test_the_same_call_gives_the_same_bits(member, pixels):
    first, again = (predict_logits(member, pixels, np.arange(11)) for _ in range(2))
    assert np.array_equal(first, again)


def test_every_image_is_counted(member, pixels):
    counted: list[int] = []
    predict_logits(member, pixels, np.arange(7), batch_size=3, on_image=lambda: counted.append(1))
    assert len(counted) == 7


def test_no_image_gives_no_logits(member, pixels):
    assert predict_logits(member, pixels, np.arange(0)).shape == (0, 3)


def test_features_give_the_logits_in_closed_form(member, pixels):
    features = torch.cat(list(feature_batches(member, pixels, np.arange(11), batch_size=4)))
    with torch.inference_mode():
        closed = member.head(features.mean(dim=(2, 3)))
    found = predict_logits(member, pixels, np.arange(11))
    np.testing.assert_allclose(closed.numpy(), found, atol=1e-3)


def table(rows: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image": [f"{i}.png" for i in range(rows)],
            "split": "val",
            "label": "covid",
            "sha256": "x",
        }
    )


def test_the_table_keeps_every_bit(tmp_path):
    random = np.random.default_rng(0)
    logits = (random.normal(size=(500, 3)) * 10.0 ** random.integers(-30, 30, (500, 3))).astype(
        np.float32
    )
    path = tmp_path / "predictions.csv"
    write_predictions(path, table(500), LABELS, logits)
    found = read_predictions(path, LABELS)
    assert list(found.columns) == ["image", "split", "label", *(f"logit_{k}" for k in LABELS)]
    back = found[[f"logit_{name}" for name in LABELS]].to_numpy().astype(np.float32)
    assert np.array_equal(back, logits)


def test_missing_table_and_missing_column_say_what_to_do(tmp_path):
    path = tmp_path / "predictions.csv"
    with pytest.raises(MissingInputError, match=r"predictions.csv is missing: train it"):
        read_predictions(path, LABELS, hint="train it")
    write_predictions(path, table(2), LABELS[:2], np.zeros((2, 2), np.float32))
    with pytest.raises(InputError, match="lacks the column logit_viral: train it"):
        read_predictions(path, LABELS, hint="train it")
