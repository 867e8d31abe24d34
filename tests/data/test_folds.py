"""Folds: disjoint by group, stratified, seeded; and folds that cannot be dealt."""

import numpy as np
import pandas as pd
import pytest

from cxr.data.splits import crossing_groups, deal_folds, fold_split
from cxr.errors import InputError


def images(per_label: dict[str, int], *, seed: int = 0) -> pd.DataFrame:
    """Return images in groups of one to six, each group of one label."""
    random = np.random.default_rng(seed)
    rows = [
        (label, f"{label}-{number}")
        for label, groups in per_label.items()
        for number in range(groups)
        for _ in range(int(random.integers(1, 7)))
    ]
    return pd.DataFrame(rows, columns=["label", "group"])


def crossing(table: pd.DataFrame, split: np.ndarray) -> int:
    return len(crossing_groups(table.assign(split=split)))


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_folds_are_disjoint_by_group_and_stratified(folds):
    table = images({"a": 60, "b": 20, "c": 100}, seed=3)
    dealt = deal_folds(table, folds=folds, seed=0)
    assert set(dealt) == set(range(1, folds + 1))
    assert table.assign(fold=dealt).groupby("group")["fold"].nunique().max() == 1
    for _, part in table.assign(fold=dealt).groupby("label"):
        shares = part["fold"].value_counts(normalize=True)
        for fold in range(1, folds + 1):
            assert shares[fold] == pytest.approx(1 / folds, abs=7 / len(part))
    assert dealt.tolist() == deal_folds(table, folds=folds, seed=0).tolist()
    assert dealt.tolist() != deal_folds(table, folds=folds, seed=1).tolist()


def test_a_fold_is_test_and_the_others_give_validation_by_group():
    table = images({"a": 60, "b": 20, "c": 100}, seed=3)
    dealt = deal_folds(table, folds=4, seed=0)
    validated = []
    for fold in range(1, 5):
        split = fold_split(table, dealt, fold, val_share=0.125, seed=0)
        assert ((split == "test") == (dealt == fold)).all()
        assert crossing(table, split) == 0
        assert (split == "val").sum() == pytest.approx(0.125 * (split != "test").sum(), abs=15)
        validated.append(frozenset(table["group"][split == "val"]))
    assert len(set(validated)) == 4


@pytest.mark.parametrize(
    ("groups", "folds", "said"),
    [
        (9, 1, "folds is 1: at least 2"),
        (9, 0, "folds is 0: at least 2"),
        (4, 5, r"'rare' has 4 group\(s\).*too few for 5 folds.*at most FOLDS=4"),
        (3, 2, "too few for 2 folds"),
        (2, 3, "too few for any folds"),
    ],
)
def test_folds_that_cannot_be_dealt(groups, folds, said):
    with pytest.raises(InputError, match=said):
        deal_folds(images({"a": 30, "rare": groups}), folds=folds, seed=0)


def test_the_most_folds_that_are_offered_can_be_had():
    table = images({"a": 30, "rare": 3})
    dealt = deal_folds(table, folds=3, seed=0)
    for fold in (1, 2, 3):
        split = fold_split(table, dealt, fold, val_share=0.1, seed=0)
        assert table.assign(split=split).groupby("split")["label"].nunique().tolist() == [2, 2, 2]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_folds_need_a_share_for_validation(share):
    table = images({"a": 10, "b": 10})
    dealt = deal_folds(table, folds=2, seed=0)
    with pytest.raises(InputError, match="gives validation"):
        fold_split(table, dealt, 1, val_share=share, seed=0)
