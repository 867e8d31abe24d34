"""Insertion and deletion, worked by hand and on a network whose reason is known."""

from dataclasses import replace

import numpy as np
import pytest

from cxr.audit.map_faithfulness import audit_faithfulness
from cxr.errors import InputError
from cxr.explain.faithfulness import (
    area_under,
    blurred,
    edge_maps,
    perturbation_curve,
    perturbed,
    pixel_order,
    to_cells,
)

FRACTIONS = (0.0, 0.25, 0.5, 1.0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_pixels_are_ranked_by_the_map_and_equal_ones_at_random(rng):
    maps = np.zeros((1, 4, 4), np.float32)
    maps[0, 1, 2], maps[0, 3, 0] = 2, 1
    first, second = (pixel_order(maps, rng)[0] for _ in range(2))
    assert first[1, 2] == 0
    assert first[3, 0] == 1
    assert sorted(first.ravel()) == list(range(16))
    assert (first != second).any()


def test_deletion_covers_and_insertion_shows_what_comes_first(rng):
    images = rng.integers(0, 255, (2, 8, 8), dtype=np.uint8)
    maps = np.zeros(images.shape, np.float32)
    maps[:, :2] = 1
    ranks = pixel_order(maps, rng)
    covered = perturbed(images, ranks, 0.25, "deletion")
    assert (covered[:, :2] == np.rint(images.mean(axis=(1, 2)))[:, None, None]).all()
    assert (covered[:, 2:] == images[:, 2:]).all()
    shown = perturbed(images, ranks, 0.25, "insertion")
    assert (shown[:, :2] == images[:, :2]).all()
    assert (shown[:, 2:] == blurred(images)[:, 2:]).all()
    assert (perturbed(images, ranks, 1.0, "insertion") == images).all()
    with pytest.raises(InputError, match="insertion, deletion"):
        perturbed(images, ranks, 0.5, "blurring")


def test_curve_and_area_match_a_case_worked_by_hand(rng):
    images = np.zeros((1, 8, 8), np.uint8)
    images[0, :2] = 200
    maps = np.where(images > 0, 1, 0).astype(np.float32)

    def white(pixels):
        return (pixels == 200).mean(axis=(1, 2))

    curve = perturbation_curve(white, images, maps, "deletion", rng=rng, fractions=FRACTIONS)
    assert curve[0] == pytest.approx([0.25, 0, 0, 0])
    assert area_under(curve, FRACTIONS) == pytest.approx([0.25 * 0.25 / 2])
    worst = perturbation_curve(white, images, 1 - maps, "deletion", rng=rng, fractions=FRACTIONS)
    assert worst[0] == pytest.approx([0.25, 0.25, 0.25, 0])


def test_bad_fractions_and_maps_are_refused(rng):
    images = np.zeros((1, 8, 8), np.uint8)
    maps = np.zeros((1, 8, 8), np.float32)
    with pytest.raises(InputError, match="rising from 0 to 1"):
        perturbation_curve(len, images, maps, "deletion", rng=rng, fractions=(0.0, 0.5))
    with pytest.raises(InputError, match="the same images"):
        perturbation_curve(len, images, maps[:, :4], "deletion", rng=rng)


def test_edges_and_cells():
    image = np.zeros((1, 12, 12), np.uint8)
    image[0, :, 6:] = 200
    edges = edge_maps(image)
    assert (edges[0, :, 5:7] > 0).all()
    assert (edges[0, :, :4] == 0).all()
    cells = to_cells(edges, (3, 3))
    assert cells.shape == (1, 3, 3)
    assert cells[0, 1, 1] == pytest.approx(edges[0, 4:8, 4:8].mean())
    uneven = to_cells(np.ones((2, 10, 10), np.float32), (4, 3))
    assert uneven == pytest.approx(np.ones((2, 4, 3)))


def test_maps_of_a_network_with_a_known_reason_are_faithful(patch_context, tmp_path):
    counted: list[int] = []

    class Bar:
        def __init__(self, _text, total):
            self.total = total

        def __enter__(self):
            return lambda: counted.append(1)

        def __exit__(self, *_):
            assert len(counted) == self.total

    context = patch_context(folder=tmp_path, note="made up", progress=Bar)
    # Images of the class that the network has a reason to name.
    ill = context.test_rows[context.targets[context.test_rows] == 1]
    methods = ("closed_form", "GradCAMPlusPlus")
    result = audit_faithfulness(replace(context, test_rows=ill), count=40, methods=methods)
    maps = [row["map"] for row in result.table("areas").records()]
    assert maps == ["closed_form", "GradCAMPlusPlus", "random", "edges"]
    assert result.statistic.low > result.statistic.chance
    assert "no better than chance" not in result.sentence
    assert (tmp_path / "faithfulness.png").stat().st_size > 10_000


def test_too_few_images_are_skipped_with_the_reason(patch_context):
    result = audit_faithfulness(patch_context(), count=8)
    assert result.verdict == "skipped"
    assert "8 test images are too few, 16 are needed" in result.reason
