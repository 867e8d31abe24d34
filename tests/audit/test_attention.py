"""Heat inside the lungs against an even map, and maps without learned weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from cxr.audit.attention import audit_attention, judge_cascade, judge_inside, way_to_lungs
from cxr.audit.heat_inside import Cascade, Inside, energy_inside
from cxr.errors import InputError
from cxr.explain.randomise import cascade_stages, map_similarity, randomise_cascade
from cxr.models.build import build_member


def run(context):
    return audit_attention(replace(context, resamples=50), stages=2)


def test_heat_on_a_disease_inside_the_lungs_is_clear(patch_context, tmp_path):
    result = run(patch_context(inside=True, folder=tmp_path, note="made up"))
    assert result.verdict == "clear"
    # 32 x 48 of 64 x 64 pixels are lung.
    assert result.statistic.chance == pytest.approx(0.375)
    assert result.statistic.low > 0.9
    assert result.values["even_map"]["covid"] == pytest.approx(0.375)
    assert (tmp_path / "attention.png").stat().st_size > 10_000


def test_heat_on_a_corner_is_a_shortcut(patch_context):
    result = run(patch_context(inside=False))
    assert result.verdict == "shortcut"
    assert result.statistic.high < 0.05


def test_without_masks_only_the_weights_are_randomised(patch_context, tmp_path):
    result = run(patch_context(masks=False, folder=tmp_path))
    assert "no test image has a lung mask" in result.reason
    assert [table.id for table in result.tables] == ["cascade_patches"]
    assert result.verdict in ("clear", "suspicious")


def test_energy_matches_a_case_worked_by_hand():
    maps = np.zeros((3, 4, 4), np.float32)
    maps[0, 0, 0], maps[0, 3, 3] = 3, 1
    maps[1] = 1
    masks = np.zeros(maps.shape, bool)
    masks[:, :2] = True
    assert energy_inside(maps, masks) == pytest.approx([0.75, 0.5, np.nan], nan_ok=True)


def flat(value: float, half: float = 0.05) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


@pytest.mark.parametrize(
    ("excess", "verdict"),
    [
        (0.2, "clear"),
        (0.06, "suspicious"),
        (0.0, "suspicious"),
        (-0.08, "suspicious"),
        (-0.25, "shortcut"),
    ],
)
def test_the_verdict_is_by_the_interval_of_the_difference(excess, verdict):
    part = Inside(20, 0, flat(0.3 + excess), flat(0.3), flat(excess), flat(0.8))
    assert judge_inside(part) == verdict
    assert way_to_lungs(part) == pytest.approx(excess / 0.5)


def test_cells_too_coarse_for_the_lungs_are_not_judged():
    part = Inside(20, 0, flat(0.3), flat(0.3), flat(0.0), flat(0.35))
    assert judge_inside(part) == "skipped"


@pytest.mark.parametrize(("end", "verdict"), [(0.1, "clear"), (0.52, "clear"), (0.8, "suspicious")])
def test_maps_that_outlive_the_weights_are_suspicious(end, verdict):
    part = Cascade(["none", "all"], [flat(1.0, 0), flat(end)], flat(0.2))
    assert judge_cascade(part) == verdict


def test_similarity_is_spearmans():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 5, 7, 7)).astype(np.float32)
    first[0, :3] = 0
    second[4] = 0
    expected = [
        spearmanr(a.ravel(), b.ravel()).statistic
        for a, b in zip(first[:4], second[:4], strict=True)
    ]
    found = map_similarity(first, second)
    assert found[:4] == pytest.approx(expected)
    assert np.isnan(found[4])
    with pytest.raises(InputError, match="the same images"):
        map_similarity(first, second[:2])


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_member("mobilenetv2_035", ("a", "b"), input_size_px=64).eval()


def test_the_cascade_begins_with_the_head_and_ends_with_every_layer(network):
    stages = cascade_stages(network, 5)
    assert stages[0] == ["classifier"]
    assert stages[-1][-1] == "conv_stem"
    owners = [
        name
        for name, module in network.network.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    assert sorted(name for names in stages for name in names) == sorted(owners)
    with pytest.raises(InputError, match="at least 2"):
        cascade_stages(network, 1)


def test_randomising_leaves_the_member_alone_and_goes_step_by_step(network):
    before = {key: value.clone() for key, value in network.state_dict().items()}
    images = network.prepare(torch.randint(0, 255, (2, 1, 64, 64), dtype=torch.uint8))
    with torch.no_grad():
        trained = network.features(images)
        steps = [
            (name, random.features(images), random.head.weight.clone())
            for name, random in randomise_cascade(
                network, generator=torch.Generator().manual_seed(0), stages=4
            )
        ]
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert torch.equal(steps[0][1], trained), "the head alone leaves the features"
    assert not torch.equal(steps[0][2], network.head.weight)
    assert all(not torch.equal(found, trained) for _, found, _ in steps[1:])
    assert all(torch.isfinite(found).all() and found.std() > 0 for _, found, _ in steps)
    assert steps[-1][0] == "conv_stem"


def test_one_seed_one_cascade(network):
    def last() -> torch.Tensor:
        generator = torch.Generator().manual_seed(3)
        *_, (_, random) = randomise_cascade(network, generator=generator, stages=3)
        return random.head.weight

    assert torch.equal(last(), last())
