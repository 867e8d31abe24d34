"""Augmentation as one batched operation on the device on which the model runs.

B batch, H W side of the member's input. What an image of another patient, tube or table could
look like; no vertical flips and no right angles, since no image is taken so. Horizontal flips
mirror the heart to the wrong side and are off unless asked for.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from cxr.training.trainer_settings import Augmentation

BLUR_TAPS = 5
MOST_ASPECT = 4 / 3
"""Of a random crop, and 3 / 4 the least. Source: torchvision's RandomResizedCrop."""
SEED_STRIDE = 0x9E3779B9
"""Between the first draws of two seeds: 2**32 by the golden ratio (Knuth, TAOCP 3, 6.4)."""


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the generator of one step's draws; of a seed only torch's 32 lower bits count."""
    return torch.Generator().manual_seed((seed * SEED_STRIDE + step) % 2**32)


def augment(
    pixels: Tensor, settings: Augmentation, *, size_px: int, generator: torch.Generator
) -> Tensor:
    """Deviate each image (B, 1, S, S) uint8 of a batch by its own random amounts and resize it.

    The generator is on the processor; it fixes the outcome on any device.

    Returns:
        (B, 1, H, W) float32 on the scale 0 to 1.
    """
    images = pixels.float() / 255
    draws = torch.rand(10, len(images), generator=generator).to(images.device)
    crop = None
    if settings.crop_scale > 0:  # drawn apart, so that without crops the other draws stay
        crop = torch.rand(4, len(images), generator=generator).to(images.device)
    images = _affine(images, draws[:5], settings, size_px, crop)
    images = _gray_values(images, draws[5:8], settings)
    if settings.blur_px > 0:
        images = _blur(images, draws[8] * settings.blur_px)
    if settings.noise > 0:
        seed = int(torch.randint(2**62, (1,), generator=generator))
        on_device = torch.Generator(images.device).manual_seed(seed)
        noise = torch.randn(images.shape, generator=on_device, device=images.device)
        images = images + noise * (draws[9] * settings.noise)[:, None, None, None]
    return images.clamp(0, 1)


def _affine(
    images: Tensor, draws: Tensor, settings: Augmentation, size_px: int, crop: Tensor | None = None
) -> Tensor:
    """Rotate, scale, shift, mirror, crop and resize in one bilinear look-up."""
    signed = draws * 2 - 1
    angle = signed[0] * math.radians(settings.rotation_deg)
    factor = 1 + signed[1] * settings.scale
    mirror = torch.where(draws[4] < settings.horizontal_flip, -1.0, 1.0)
    cosine, sine = torch.cos(angle) / factor, torch.sin(angle) / factor
    # Coordinates run from -1 to 1, so a shift by a share of the side is twice that share.
    across, down = signed[2] * settings.shift * 2, signed[3] * settings.shift * 2
    theta = motion((cosine * mirror, -sine, across), (sine * mirror, cosine, down))
    if crop is not None:
        # What the crop shows is looked up where the rest would have been.
        size, centre = _random_crop(crop, settings.crop_scale)
        moved = theta[:, :, 2:] + theta[:, :, :2] @ centre[:, :, None]
        theta = torch.cat([theta[:, :, :2] * size[:, None, :], moved], dim=2)
    shape = (len(images), 1, size_px, size_px)
    grid = functional.affine_grid(theta, list(shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


def motion(*rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Return affine matrices (B, 2, 3) of their two rows, each entry (B,)."""
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def _random_crop(draws: Tensor, smallest: float) -> tuple[Tensor, Tensor]:
    """Return size (B, 2; across, down; shares) and centre (B, 2; -1 to 1) of random crops.

    The area is uniform, the aspect ratio in its logarithm, and what would be wider than the
    image is cut off, where torchvision draws again.
    """
    area = smallest + draws[0] * (1 - smallest)
    half_log_aspect = (draws[1] * 2 - 1) * math.log(MOST_ASPECT) / 2
    root, stretch = area.sqrt(), half_log_aspect.exp()
    size = torch.stack([root * stretch, root / stretch], dim=1).clamp(max=1)
    return size, (1 - size) * (draws[2:4].T * 2 - 1)


def _gray_values(images: Tensor, draws: Tensor, settings: Augmentation) -> Tensor:
    """Gamma first (the detector's curve), then contrast around the mean, then brightness."""
    signed = (draws * 2 - 1)[:, :, None, None, None]
    images = images.clamp(min=1e-4) ** torch.exp(signed[0] * settings.gamma)
    mean = images.mean(dim=(2, 3), keepdim=True)
    images = (images - mean) * (1 + signed[1] * settings.contrast) + mean
    return images + signed[2] * settings.brightness


def _blur(images: Tensor, sigma_px: Tensor) -> Tensor:
    """Blur each image by its own Gaussian: separable, one group of the convolution an image."""
    offsets = torch.arange(BLUR_TAPS, device=images.device) - BLUR_TAPS // 2
    taps = torch.exp(-0.5 * (offsets / sigma_px.clamp(min=0.05)[:, None]) ** 2)
    taps = taps / taps.sum(dim=1, keepdim=True)
    count, half = len(images), BLUR_TAPS // 2
    stacked = functional.pad(images.transpose(0, 1), (half, half, half, half), mode="replicate")
    rows = functional.conv2d(stacked, taps[:, None, None, :], groups=count)
    both = functional.conv2d(rows, taps[:, None, :, None], groups=count)
    return both.transpose(0, 1)
