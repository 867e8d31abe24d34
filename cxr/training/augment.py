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
SEED_STRIDE = 0x9E3779B9
"""Between the first draws of two seeds: 2**32 by the golden ratio (Knuth, TAOCP 3, 6.4)."""


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the generator of one step's draws; of a seed only torch's 32 lower bits count."""
    return torch.Generator().manual_seed((seed * SEED_STRIDE + step) % 2**32)


def augment(
    pixels: Tensor, settings: Augmentation, *, size_px: int, generator: torch.Generator
) -> Tensor:
    """Deviate each image of a batch by its own random amounts and resize it.

    Args:
        pixels: (B, 1, S, S) uint8.
        settings: largest deviations.
        size_px: H = W of the result.
        generator: on the processor; it fixes the outcome on any device.

    Returns:
        (B, 1, H, W) float32 on the scale 0 to 1.
    """
    images = pixels.float() / 255
    draws = torch.rand(10, len(images), generator=generator).to(images.device)
    images = _affine(images, draws[:5], settings, size_px)
    images = _gray_values(images, draws[5:8], settings)
    if settings.blur_px > 0:
        images = _blur(images, draws[8] * settings.blur_px)
    if settings.noise > 0:
        seed = int(torch.randint(2**62, (1,), generator=generator))
        on_device = torch.Generator(images.device).manual_seed(seed)
        noise = torch.randn(images.shape, generator=on_device, device=images.device)
        images = images + noise * (draws[9] * settings.noise)[:, None, None, None]
    return images.clamp(0, 1)


def _affine(images: Tensor, draws: Tensor, settings: Augmentation, size_px: int) -> Tensor:
    """Rotate, scale, shift, mirror and resize in one bilinear look-up."""
    signed = draws * 2 - 1
    angle = signed[0] * math.radians(settings.rotation_deg)
    factor = 1 + signed[1] * settings.scale
    mirror = torch.where(draws[4] < settings.horizontal_flip, -1.0, 1.0)
    cosine, sine = torch.cos(angle) / factor, torch.sin(angle) / factor
    # Coordinates run from -1 to 1, so a shift by a share of the side is twice that share.
    across, down = signed[2] * settings.shift * 2, signed[3] * settings.shift * 2
    theta = torch.stack(
        [
            torch.stack([cosine * mirror, -sine, across], dim=1),
            torch.stack([sine * mirror, cosine, down], dim=1),
        ],
        dim=1,
    )
    shape = (len(images), 1, size_px, size_px)
    grid = functional.affine_grid(theta, list(shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


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
