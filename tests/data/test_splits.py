"""Splits: disjoint by group, stratified, seeded; and what a published split forces."""

import hashlib
from itertools import product

import numpy as np
import pandas as pd
import pytest

from cxr.data.splits import (
    SPLITS,
    check_disjoint,
    check_fractions,
    crossing_groups,
    lost_classes,
    split_images,
)
from cxr.errors import InputError

SHARES = (0.7, 0.1, 0.2)
TINY = 300
"""Tiny sets that are tried, of each kind; none of 4,000 others failed."""


def images(
    per_label: dict[str, int], *, seed: int = 0, mixed: bool = False, published: str = ""
) -> pd.DataFrame:
    """Return images in groups of one to six, each group of one label or, mixed, of any."""
    random = np.random.default_rng(seed)
    rows = []
    for label, groups in per_label.items():
        for number in range(groups):
            name = f"g{number}" if mixed else f"{label}-{number}"
            rows += [(label, name, published)] * int(random.integers(1, 7))
    return pd.DataFrame(rows, columns=["label", "group", "published_split"])


def crossing(table: pd.DataFrame, split: np.ndarray) -> int:
    return len(crossing_groups(table.assign(split=split)))


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_groups_stay_together_and_shares_are_met(seed, mixed):
    table = images({"a": 200, "b": 60, "c": 400}, seed=seed, mixed=mixed)
    split = split_images(table, "patient", fractions=SHARES, seed=seed)
    assert crossing(table, split) == 0
    for _, part in table.assign(split=split).groupby("label"):
        shares = part["split"].value_counts(normalize=True)
        for name, wanted in zip(SPLITS, SHARES, strict=True):
            # A group of several labels goes where it helps most, not each of them exactly.
            assert shares[name] == pytest.approx(wanted, abs=0.06 if mixed else 7 / len(part))


def test_same_seed_same_split_and_another_seed_another():
    table = images({"a": 50, "b": 50})
    one, again, other = (
        split_images(table, "patient", fractions=SHARES, seed=s) for s in (1, 1, 2)
    )
    assert one.tolist() == again.tolist()
    assert one.tolist() != other.tolist()


def test_split_does_not_depend_on_the_order_of_rows():
    table = images({"a": 30, "b": 30})
    shuffled = table.sample(frac=1, random_state=0)
    one = pd.Series(split_images(table, "patient", fractions=SHARES, seed=0), table["group"])
    split = split_images(shuffled, "patient", fractions=SHARES, seed=0)
    other = pd.Series(split, shuffled["group"])
    assert one.groupby(level=0).first().equals(other.groupby(level=0).first())


def test_every_split_gets_every_label_however_rare():
    table = images({"common": 300, "rare": 3})
    found = table.assign(split=split_images(table, "patient", fractions=SHARES, seed=0))
    assert set(found.loc[found["label"] == "rare", "split"]) == set(SPLITS)


def test_one_huge_group_does_not_starve_a_split():
    rows = [("a", "huge", "")] * 500 + [("a", f"g{i}", "") for i in range(4)]
    table = pd.DataFrame(rows, columns=["label", "group", "published_split"])
    found = table.assign(split=split_images(table, "patient", fractions=SHARES, seed=0))
    assert crossing(table, found["split"].to_numpy()) == 0
    assert set(found["split"]) == set(SPLITS)


def tiny(random: np.random.Generator) -> pd.DataFrame:
    """Return three to seven groups with images of one to three labels each."""
    labels = int(random.integers(1, 4))
    has = random.random((int(random.integers(3, 8)), labels)) < random.uniform(0.3, 0.8)
    has[~has.any(axis=1), 0] = True
    rows = [
        ("abc"[label], f"g{group}")
        for group, label in np.argwhere(has)
        for _ in range(int(random.integers(1, 4)))
    ]
    return pd.DataFrame(rows, columns=["label", "group"])


def can_be_split(table: pd.DataFrame, parts: int) -> bool:
    """Tell by trying every deal whether each part can have a group of every label."""
    has = pd.crosstab(table["group"], table["label"]).to_numpy() > 0
    deals = np.array(list(product(range(parts), repeat=len(has))))
    owned = [((deals == part)[:, :, None] & has).any(axis=1).all(axis=1) for part in range(parts)]
    return bool(np.logical_and.reduce(owned).any())


def lacks(table: pd.DataFrame, split: np.ndarray, parts: int) -> bool:
    counts = pd.crosstab(table["label"], split)
    return counts.shape[1] < parts or bool((counts == 0).any(axis=None))


@pytest.mark.parametrize("fractions", [SHARES, (0.8, 0.2, 0.0)])
def test_tiny_sets_are_split_whenever_they_can_be(fractions):
    random = np.random.default_rng(12)
    parts = sum(share > 0 for share in fractions)
    refused = 0
    for seed in range(TINY):
        table = tiny(random)
        try:
            split = split_images(table, "patient", fractions=fractions, seed=seed)
        except InputError:
            assert not can_be_split(table, parts), table.to_dict()
            refused += 1
        else:
            assert crossing(table, split) == 0
            assert not lacks(table, split, parts), table.to_dict()
    assert TINY / 10 < refused < TINY


def test_groups_of_several_classes_that_cannot_be_dealt_are_said():
    # Each class has three groups, but only six places for what needs more.
    rows = [
        (label, group)
        for group, labels in {"p": "ab", "q": "bc", "r": "ca", "s": "abc"}.items()
        for label in labels
    ]
    table = pd.DataFrame(rows, columns=["label", "group"])
    assert not can_be_split(table, 3)
    with pytest.raises(
        InputError, match=r"no deal of 4 group\(s\).*train, val, test.*add patients"
    ):
        split_images(table, "patient", fractions=SHARES, seed=0)


def test_a_rare_class_in_a_large_set_is_dealt_at_once():
    table = images({"a": 3000, "rare": 3}, seed=1)
    split = split_images(table, "patient", fractions=(0.98, 0.01, 0.01), seed=0)
    assert set(split[table["label"] == "rare"]) == set(SPLITS)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("seed", "digest"), [(0, "0d681c54a1fe7bb2"), (1, "71ae3437bfca358a"), (2, "6881e1ab9a7854f5")]
)
def test_the_splits_of_cxr4_are_those_of_version_0_1(shared, seed, digest):
    names = {"label": "label", "patient_id": "group"}
    table = pd.read_csv(shared / "data/cxr4/manifest.csv", dtype=str, keep_default_na=False)
    split = split_images(table.rename(columns=names), "patient", fractions=SHARES, seed=seed)
    assert hashlib.sha256(" ".join(split).encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize("seed", range(6))
def test_rare_labels_in_shared_groups_reach_every_split(seed):
    rows = [(label, f"{label}{i}", "") for label in "ab" for i in range(4)]
    rows += [(label, f"both{i}", "") for label in "ab" for i in range(2)]
    table = pd.DataFrame(rows, columns=["label", "group", "published_split"])
    found = table.assign(split=split_images(table, "patient", fractions=SHARES, seed=seed))
    assert (pd.crosstab(found["label"], found["split"])[list(SPLITS)] > 0).all(axis=None)


def test_a_share_of_zero_leaves_its_split_empty():
    table = images({"a": 20, "b": 20})
    assert set(split_images(table, "patient", fractions=(0.8, 0.2, 0.0), seed=0)) == {
        "train",
        "val",
    }


@pytest.mark.parametrize("fractions", [(0.7, 0.1, 0.1), (1.2, -0.4, 0.2), (0.0, 0.0, 1.0)])
def test_fractions_that_are_no_shares_are_refused(fractions):
    with pytest.raises(InputError, match=r"data.fractions is .*sum to 1, and train needs one"):
        check_fractions(fractions)


def test_class_with_fewer_groups_than_splits_is_named():
    table = images({"a": 20, "b": 2})
    with pytest.raises(InputError, match=r"class 'b' has 2 group\(s\).*train, val, test need"):
        split_images(table, "patient", fractions=SHARES, seed=0)


def published_images() -> pd.DataFrame:
    """Return 40 groups per label, of which every fourth is published as test."""
    table = images({"a": 40, "b": 40})
    number = table["group"].str.split("-").str[1].astype(int)
    return table.assign(published_split=np.where(number % 4 == 0, "test", "train"))


def test_published_test_stays_and_validation_comes_from_train():
    table = published_images()
    table.loc[table["group"] == "a-1", "published_split"] = "val"
    found = table.assign(split=split_images(table, "published", fractions=SHARES, seed=0))
    assert (found["split"].eq("test") == found["published_split"].eq("test")).all()
    rest = found[found["split"] != "test"]
    assert rest["split"].eq("val").mean() == pytest.approx(1 / 8, abs=0.02)
    assert crossing(found, found["split"].to_numpy()) == 0


def test_images_without_a_published_split_are_split_by_patient():
    free = images({"c": 60})
    table = pd.concat([published_images(), free], ignore_index=True)
    found = table.assign(split=split_images(table, "published", fractions=SHARES, seed=0))
    shares = found.loc[found["label"] == "c", "split"].value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.2, abs=0.03)
    assert crossing(found, found["split"].to_numpy()) == 0


def test_a_free_image_follows_its_group():
    table = published_images()
    free = pd.DataFrame(
        {
            "label": ["a"] * 30,
            "published_split": [""] * 30,
            "group": ["a-0", *(f"new{i}" for i in range(29))],
        }
    )
    table = pd.concat([table, free], ignore_index=True)
    found = table.assign(split=split_images(table, "published", fractions=SHARES, seed=0))
    assert set(found.loc[found["group"] == "a-0", "split"]) == {"test"}


def test_without_a_validation_share_all_of_published_train_is_train():
    table = published_images()
    split = split_images(table, "published", fractions=(0.8, 0.0, 0.2), seed=0)
    assert set(split) == {"train", "test"}


def test_without_published_test_images_the_mend_is_named():
    table = images({"a": 10, "b": 10}, published="train")
    with pytest.raises(InputError, match=r"no image is marked.*use data.split=patient"):
        split_images(table, "published", fractions=SHARES, seed=0)


def test_proof_counts_groups_and_finds_none_crossing():
    table = images({"a": 30, "b": 30})
    proof = check_disjoint(
        table.assign(split=split_images(table, "patient", fractions=SHARES, seed=0)), forced=False
    )
    assert proof["groups"] == 60
    assert proof["crossing_groups"] == 0
    assert proof["crossing_forced_by_published_split"] is False
    assert proof["crossing_group_names"] == []


def crossed() -> pd.DataFrame:
    return pd.DataFrame({"group": ["x", "x", "y", "x"], "split": ["train", "test", "val", "test"]})


def test_forced_crossings_are_counted_and_named():
    proof = check_disjoint(crossed(), forced=True)
    assert proof["crossing_groups"] == 1
    assert proof["test_images_in_crossing_groups"] == 2
    assert proof["crossing_forced_by_published_split"] is True
    assert proof["crossing_group_names"] == ["x"]


def test_a_crossing_that_nothing_forced_is_a_bug():
    with pytest.raises(AssertionError, match="1 groups cross a split, first x"):
        check_disjoint(crossed(), forced=False)
    inner = pd.DataFrame({"group": ["x", "x"], "split": ["train", "val"]})
    with pytest.raises(AssertionError):
        check_disjoint(inner, forced=True)


def of_sources() -> pd.DataFrame:
    """Return three sources; only ``home`` has class c, and one group is of two sources."""
    table = images({"a": 30, "b": 30, "c": 10})
    number = table["group"].str.rpartition("-")[2].astype(int)
    away = np.where(number % 3 == 0, "away", "far")
    table["source"] = np.where((table["label"] == "c") | (number % 2 == 0), "home", away)
    table.loc[table["group"] == "a-3", "source"] = ["away", *["home"] * 9][
        : (table["group"] == "a-3").sum()
    ]
    return table


def split_of(table: pd.DataFrame, *leave_out: str) -> np.ndarray:
    return split_images(table, "source", fractions=SHARES, seed=0, leave_out=leave_out)


def test_sources_left_out_are_test_and_nothing_else_is():
    table = of_sources()
    assert (table["group"] == "a-3").sum() > 1
    split = split_of(table, "away")
    assert (split == "test").tolist() == (table["source"] == "away").tolist()
    # A patient of test is nowhere else, not even with images of another source.
    unused = (table["group"] == "a-3") & (table["source"] != "away")
    assert (split == "").tolist() == unused.tolist()
    assert crossing(table[~unused], split[~unused]) == 0
    rest = table[np.isin(split, ["train", "val"])].assign(
        split=split[np.isin(split, ["train", "val"])]
    )
    assert rest.groupby("split")["label"].nunique().to_dict() == {"train": 3, "val": 3}
    assert (rest["split"] == "val").mean() == pytest.approx(0.1 / 0.8, abs=0.06)
    assert (split_of(table, "away", "far") == "test").sum() > (split == "test").sum()


@pytest.mark.parametrize(
    ("leave_out", "message"),
    [
        (["moon"], "names the source 'moon': the images have away, far, home"),
        (["home"], r"no other source has an image of c, so nothing could learn it"),
        (["home", "far", "away"], "no other source has an image of a, b and c"),
    ],
)
def test_a_source_that_cannot_be_left_out_is_refused(leave_out, message):
    with pytest.raises(InputError, match=message):
        split_of(of_sources(), *leave_out)


def test_a_label_set_is_no_class_that_every_part_must_have():
    table = images({"a": 20, "b": 20, "a|b": 1})
    split = split_images(table, "patient", fractions=SHARES, seed=0)
    assert set(split) == set(SPLITS)
    assert len(set(split[table["label"] == "a|b"])) == 1
    assert lost_classes(table.assign(source="x"), ["x"]) == ["a", "b"]
