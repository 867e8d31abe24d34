"""Augmentation: bounded, seeded, per image, and never upside down."""

from dataclasses import replace

import pytest
import torch

from cxr.errors import InputError
from cxr.training.augment import augment, step_generator
from cxr.training.trainer_settings import Augmentation

OFF = Augmentation(0, 0, 0, 0, 0, 0, 0, 0)


def images(count: int = 6, side: int = 32) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, side, side), generator=draw, dtype=torch.uint8)


def run(pixels: torch.Tensor, settings: Augmentation, *, size_px: int = 32, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    return augment(pixels, settings, size_px=size_px, generator=generator)


def with_spot(count: int, row: int, column: int, side: int = 65) -> torch.Tensor:
    pixels = torch.zeros(count, 1, side, side, dtype=torch.uint8)
    pixels[:, :, row - 2 : row + 3, column - 2 : column + 3] = 255
    return pixels


def centres(images: torch.Tensor) -> torch.Tensor:
    """Return the (B, 2) centre of brightness, row and column, as shares from the middle."""
    side = images.shape[-1]
    axis = (torch.arange(side) + 0.5) / side - 0.5
    mass = images.sum(dim=(1, 2, 3))
    rows = (images.sum(dim=(1, 3)) * axis).sum(dim=1) / mass
    columns = (images.sum(dim=(1, 2)) * axis).sum(dim=1) / mass
    return torch.stack([rows, columns], dim=1)


def test_all_off_leaves_the_images_alone():
    pixels = images()
    found = run(pixels, OFF)
    assert found.dtype == torch.float32
    assert torch.allclose(found, pixels.float() / 255, atol=2e-4)


@pytest.mark.parametrize("size_px", [16, 48, 75])
def test_defaults_give_images_of_the_members_side_between_0_and_1(size_px):
    found = run(images(), Augmentation(), size_px=size_px)
    assert found.shape == (6, 1, size_px, size_px)
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.isfinite(found).all()


def test_the_generator_fixes_the_outcome():
    one, again, other = (run(images(), Augmentation(), seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    "name",
    ["rotation_deg", "shift", "scale", "brightness", "contrast", "gamma", "noise", "blur_px"],
)
def test_each_image_draws_its_own_amount(name):
    same = images(1).expand(5, -1, -1, -1)
    size = {"rotation_deg": 20.0, "blur_px": 2.0}.get(name, 0.3)
    found = run(same, replace(OFF, **{name: size}))
    for one in range(5):
        for other in range(one):
            assert not torch.allclose(found[one], found[other], atol=1e-3)


def test_rotation_stays_within_its_bound_and_goes_both_ways():
    found = centres(run(with_spot(64, 12, 32), replace(OFF, rotation_deg=15), size_px=65))
    angles = torch.rad2deg(torch.atan2(found[:, 1], -found[:, 0]))
    assert angles.abs().max() <= 15.5
    assert angles.max() > 8
    assert angles.min() < -8


def test_shift_stays_within_its_bound_on_both_axes():
    found = centres(run(with_spot(64, 32, 32), replace(OFF, shift=0.1), size_px=65))
    assert found.abs().max() <= 0.102
    assert (found.amax(dim=0) > 0.05).all()
    assert (found.amin(dim=0) < -0.05).all()


def test_scale_stays_within_its_bound_and_goes_both_ways():
    found = centres(run(with_spot(64, 16, 32), replace(OFF, scale=0.2), size_px=65))
    ratio = found[:, 0] / centres(with_spot(1, 16, 32).float())[0, 0]
    assert ratio.min() >= 0.79
    assert ratio.max() <= 1.21
    assert ratio.min() < 0.9
    assert ratio.max() > 1.1


def test_nothing_turns_upside_down_or_mirrors_by_default():
    found = centres(run(with_spot(64, 12, 14), Augmentation(), size_px=65))
    assert (found < 0).all()


def test_a_certain_flip_mirrors_exactly():
    pixels = images()
    found = run(pixels, replace(OFF, horizontal_flip=1.0))
    assert torch.allclose(found, pixels.flip(-1).float() / 255, atol=2e-4)


def test_half_of_the_images_flip_at_a_chance_of_half():
    found = centres(run(with_spot(400, 32, 14), replace(OFF, horizontal_flip=0.5), size_px=65))
    assert (found[:, 1] > 0).float().mean() == pytest.approx(0.5, abs=0.08)


def test_brightness_and_contrast_by_their_bounds():
    gray = torch.full((64, 1, 32, 32), 128, dtype=torch.uint8)
    brighter = run(gray, replace(OFF, brightness=0.1)).mean(dim=(1, 2, 3)) - 128 / 255
    assert 0.05 < brighter.abs().max() <= 0.1001
    assert torch.allclose(run(gray, replace(OFF, contrast=0.5)), gray.float() / 255, atol=1e-5)


def test_gamma_keeps_black_and_white():
    pixels = torch.zeros(8, 1, 32, 32, dtype=torch.uint8)
    pixels[:, :, :16] = 255
    found = run(pixels, replace(OFF, gamma=0.5))
    assert found[:, :, 2:14].min() > 0.999
    assert found[:, :, 18:30].max() < 0.01


def test_blur_smooths_and_keeps_the_mean():
    pixels = images(8)
    found = run(pixels, replace(OFF, blur_px=1.5))
    before, after = pixels.float() / 255, found
    assert (after.std(dim=(1, 2, 3)) <= before.std(dim=(1, 2, 3)) + 1e-3).all()
    assert after.std() < 0.8 * before.std()
    assert torch.allclose(after.mean(dim=(2, 3)), before.mean(dim=(2, 3)), atol=0.02)


def test_noise_stays_within_its_bound():
    gray = torch.full((32, 1, 64, 64), 128, dtype=torch.uint8)
    spread = run(gray, replace(OFF, noise=0.05), size_px=64).std(dim=(1, 2, 3))
    assert spread.max() < 0.053
    assert spread.max() > 0.03
    assert spread.min() < 0.02


def test_batch_is_not_changed_in_place():
    pixels = images()
    before = pixels.clone()
    run(pixels, Augmentation(horizontal_flip=0.5))
    assert torch.equal(pixels, before)


def test_every_seed_and_every_step_draws_its_own():
    draws = {
        float(torch.rand(1, generator=step_generator(seed, step)))
        for seed in range(4)
        for step in range(50)
    }
    assert len(draws) == 200


def ramps(count: int, side: int = 64) -> torch.Tensor:
    """Return images that grow from 0 to 252 to the right."""
    return (torch.arange(side) * 4).to(torch.uint8).expand(count, 1, side, side).contiguous()


def test_random_crops_stay_inside_and_in_their_bounds():
    across = run(ramps(400), replace(OFF, crop_scale=0.25), size_px=64)
    down = run(ramps(400).transpose(2, 3), replace(OFF, crop_scale=0.25), size_px=64)
    # Inside, where nothing of the black beside the image is blended in: 16 of 63 steps.
    wide = (across[:, 0, 32, 40] - across[:, 0, 32, 24]) * 255 / 252 * 63 / 16
    tall = (down[:, 0, 40, 32] - down[:, 0, 24, 32]) * 255 / 252 * 63 / 16
    area, aspect = wide * tall, (wide / tall).log()
    assert 0.2 < area.min() < 0.35
    assert area.max() > 0.9
    assert aspect.abs().max() < 0.3
    assert (across[:, 0, 0, 0] < 0.02).any(), "a crop may touch the border, and never passes it"
    assert across.diff(dim=3).min() >= -1e-5


def test_a_crop_of_everything_changes_nothing_but_the_aspect():
    pixels = images()
    whole = run(pixels, replace(OFF, crop_scale=1.0))
    assert whole.shape == (6, 1, 32, 32)
    assert (whole - pixels.float() / 255).abs().mean() < 0.35


def test_without_crops_the_other_draws_stay_as_they_were():
    generator = torch.Generator().manual_seed(1)
    augment(images(), Augmentation(), size_px=32, generator=generator)
    after = torch.rand(1, generator=generator)
    generator = torch.Generator().manual_seed(1)
    torch.rand(10, 6, generator=generator)
    torch.randint(2**62, (1,), generator=generator)
    assert torch.equal(after, torch.rand(1, generator=generator))


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_a_crop_out_of_range_is_refused(value):
    with pytest.raises(InputError, match=f"crop_scale is {value}: allowed are 0 to 1"):
        Augmentation(crop_scale=value)
