"""Batches: which images, in which order, and that an interrupted epoch goes on."""

import numpy as np
import pytest
import torch

from cxr.data.loader import (
    BatchLoader,
    EpochSampler,
    FixedOrder,
    balancing_weights,
    class_shares,
    rows_of,
    source_weights,
)


def images(count: int = 23) -> tuple[np.ndarray, np.ndarray]:
    """Return images that hold their own number, and targets."""
    pixels = np.arange(count, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    return pixels, np.arange(count) % 3


def loader(sampler, batch_size: int = 5, **options) -> BatchLoader:
    return BatchLoader(*images(), sampler, batch_size=batch_size, **options)


def rows_in(batches) -> list[list[int]]:
    return [batch["row"].tolist() for batch in batches]


def test_an_epoch_is_a_permutation_known_by_seed_and_epoch():
    sampler, same, other = (EpochSampler(np.arange(50), seed=s) for s in (7, 7, 8))
    first = sampler.order()
    assert sorted(first) == list(range(50))
    assert first.tolist() == sampler.order().tolist() == same.order().tolist()
    assert first.tolist() != other.order().tolist()
    sampler.set_epoch(1)
    assert first.tolist() != sampler.order().tolist()


def test_weights_draw_classes_alike():
    targets = np.array([0] * 900 + [1] * 100)
    weights = balancing_weights(np.eye(2, dtype=bool)[targets])[targets]
    drawn = targets[EpochSampler(np.arange(1000), weights=weights, seed=0).order()]
    assert len(drawn) == 1000
    assert drawn.mean() == pytest.approx(0.5, abs=0.05)


def test_balancing_weights_by_hand():
    weights = balancing_weights(np.eye(2, dtype=bool)[[0, 0, 0, 1]])
    assert weights.tolist() == pytest.approx([4 / 6, 2.0])
    assert weights[[0, 0, 0, 1]].mean() == pytest.approx(1)
    assert np.isfinite(balancing_weights(np.eye(2, dtype=bool)[[0, 0]])).all()


def test_batches_hold_the_images_of_their_rows():
    batches = list(loader(EpochSampler(np.arange(23), seed=1)))
    assert len(batches) == len(loader(EpochSampler(np.arange(23), seed=1))) == 5
    for batch in batches:
        assert batch["pixels"].shape[1:] == (1, 4, 4)
        assert batch["pixels"].dtype == torch.uint8
        assert batch["target"].dtype == batch["row"].dtype == torch.int64
        assert torch.equal(batch["pixels"][:, 0, 2, 3].long(), batch["row"])
        assert torch.equal(batch["row"] % 3, batch["target"])
    assert sorted(row for rows in rows_in(batches) for row in rows) == list(range(23))


def test_rows_may_repeat_in_a_batch():
    batch = loader(FixedOrder(np.arange(23))).gather(np.array([9, 2, 9, 0]))
    assert batch["pixels"][:, 0, 0, 0].tolist() == [9, 2, 9, 0]


def test_fixed_order_keeps_the_rows_as_they_stand():
    assert rows_in(loader(FixedOrder(np.array([4, 1, 9])), 2)) == [[4, 1], [9]]


def test_drop_last_leaves_out_the_rest():
    kept = loader(FixedOrder(np.arange(23)), drop_last=True)
    assert len(kept) == len(list(kept)) == 4


def test_processes_share_each_batch():
    sampler = FixedOrder(np.arange(23))
    shards = [rows_in(loader(sampler, 3, shard=(rank, 2), drop_last=True)) for rank in (0, 1)]
    whole = rows_in(loader(sampler, 6, drop_last=True))
    assert [sorted(a + b) for a, b in zip(*shards, strict=True)] == whole


def test_an_interrupted_epoch_goes_on_where_it_was():
    whole = rows_in(loader(EpochSampler(np.arange(23), seed=2)))
    broken = loader(EpochSampler(np.arange(23), seed=2))
    broken.batches_done = 2
    resumed = loader(EpochSampler(np.arange(23), seed=2))
    resumed.load_state_dict(broken.state_dict())
    assert rows_in(resumed) == whole[2:]
    assert rows_in(resumed) == whole


def test_a_finished_epoch_begins_the_next_from_the_start():
    resumed = loader(EpochSampler(np.arange(23), seed=2))
    resumed.load_state_dict({"batches_done": 5})
    assert len(list(resumed)) == 5


def test_rows_of_a_split():
    split = ["train", "val", "train", "test"]
    assert rows_of(split, "train").tolist() == [0, 2]
    assert rows_of(split, "other").tolist() == []


def test_a_set_counts_in_parts_for_each_of_its_classes():
    members = np.array([[True, False], [True, False], [True, True], [False, True]])
    assert balancing_weights(members).tolist() == pytest.approx([4 / 5, 4 / 3])
    assert class_shares(members)[2].tolist() == [0.5, 0.5]


def test_sources_are_drawn_alike_within_each_class():
    # Class 0: 90 images of x, 10 of y; class 1: 50 of x; and 10 of y that are of either.
    members = np.repeat(
        [[True, False], [True, False], [False, True], [True, True]], [90, 10, 50, 10], axis=0
    )
    sources = np.repeat(np.array(["x", "y", "x", "y"], object), [90, 10, 50, 10])
    weights = source_weights(members, sources)
    cells = np.array(
        [
            [(weights * class_shares(members)[:, k])[sources == name].sum() for k in (0, 1)]
            for name in ("x", "y")
        ]
    )
    # Images of either class weigh in both, so that only their sum is fixed.
    assert weights.sum() == pytest.approx(2)
    assert weights[sources == "x"].sum() == pytest.approx(1)
    assert cells[0] == pytest.approx([0.5, 0.5])
    drawn = EpochSampler(np.arange(160), weights=weights, seed=0).order()
    assert (sources[drawn] == "x").mean() == pytest.approx(0.5, abs=0.1)


def test_without_gaps_class_and_source_are_independent():
    counts = {(0, "x"): 70, (0, "y"): 5, (1, "x"): 3, (1, "y"): 40}
    labels = np.repeat([k for k, _ in counts], list(counts.values()))
    sources = np.repeat(np.array([name for _, name in counts], object), list(counts.values()))
    weights = source_weights(np.eye(2, dtype=bool)[labels], sources)
    for (k, name), _ in counts.items():
        share = weights[(labels == k) & (sources == name)].sum() / weights.sum()
        assert share == pytest.approx(0.25)


def test_batches_carry_label_sets():
    pixels, _ = images()
    members = np.tile([[True, False, True]], (23, 1))
    batch = next(iter(BatchLoader(pixels, members, FixedOrder(np.arange(23)), batch_size=4)))
    assert batch["target"].dtype == torch.bool
    assert batch["target"].shape == (4, 3)
