"""Train the lung finder: a small U-Net on MobileNetV2's first five stages.

B batch, G side of the finder's grid. All randomness of a step comes from (seed, step).
"""

import logging
import math
from typing import Any

import lightning.pytorch as lightning
import segmentation_models_pytorch as smp
import torch
from lightning.pytorch import LightningModule
from segmentation_models_pytorch.base import SegmentationHead
from torch import Tensor, nn
from torch.nn import functional

from cxr.data.loader import Batch, BatchLoader
from cxr.errors import NonFiniteLossError
from cxr.models.build import build_member, load_pretrained
from cxr.training.augment import augment, motion, step_generator
from cxr.training.callbacks import moving_average
from cxr.training.thread_count import THREADS
from cxr.training.trainer import quiet, reuse_freed_memory
from cxr.training.trainer_settings import LungSettings

log = logging.getLogger(__name__)

ENCODER = "mobilenetv2_100"
STAGES = 5
"""Of the encoder's seven; the last two hold two thirds of its weights and see no more detail."""
DECODER = (64, 32, 16)
"""Channels at strides 8, 4 and 2; logits are then enlarged, since a block at stride 1 would take
as long as all others and outlines are smooth."""
LOG_EVERY = 100
"""Steps."""


class LungNetwork(nn.Module):
    """From gray pixels to lungs, and to whether there is a pair of them.

    An image is standardised by its own mean and deviation, so that exposure tells nothing.
    """

    def __init__(self, pretrained: str = "none") -> None:
        super().__init__()
        self.unet = smp.Unet(
            f"tu-{ENCODER}",
            encoder_weights=None,
            encoder_depth=len(DECODER) + 1,
            decoder_channels=(*DECODER, 1),
            aux_params={"classes": 1},
        )
        self.unet.decoder.blocks = self.unet.decoder.blocks[: len(DECODER)]
        self.unet.segmentation_head = SegmentationHead(DECODER[-1], 1, upsampling=2)
        encoder = self.unet.encoder.model
        encoder.blocks = encoder.blocks[:STAGES]
        self.origin = {"source": "none"}
        if pretrained != "none":
            member = build_member(ENCODER, ("lungs", "none"))
            self.origin = load_pretrained(member, pretrained)
            state = member.network.state_dict()
            encoder.load_state_dict({key: state[key] for key in encoder.state_dict()})
        self.calibration: Tensor
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))

    def forward(self, gray: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, 1, G, G) of lung and (B,) of a pair, of (B, 1, G, G) pixels 0 to 1."""
        mean = gray.mean(dim=(2, 3), keepdim=True)
        deviation = ((gray - mean) ** 2).mean(dim=(2, 3), keepdim=True).sqrt()
        standard = (gray - mean) / deviation.clamp_min(0.02)
        lung, pair = self.unet(standard.expand(-1, 3, -1, -1))
        return lung, pair[:, 0]


class LungGraph(nn.Module):
    """What is exported: pixels to probabilities."""

    def __init__(self, network: LungNetwork) -> None:
        super().__init__()
        self.network = network
        self.eval()

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``lung_probs`` (B, G, G) and ``score`` (B,) of (B, 1, G, G) uint8 pixels."""
        lung, pair = self.network(pixels.to(torch.float32) / 255)
        slope, offset = self.network.calibration.unbind()
        return lung[:, 0].sigmoid(), (slope * pair + offset).sigmoid()


class LungModule(LightningModule):
    """What Lightning trains."""

    def __init__(self, network: LungNetwork, settings: LungSettings, *, seed: int) -> None:
        super().__init__()
        self.network, self.settings, self._seed = network, settings, seed
        self._dice = smp.losses.DiceLoss("binary")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch: Dice and cross-entropy of the lungs, and of the pair."""
        THREADS.adapt()
        step = self.trainer.global_step
        generator = step_generator(self._seed, step)
        images, masks = distort(batch["pixels"][:, 0], self.settings, generator=generator)
        lung, pair = self.network(images.contiguous(memory_format=torch.channels_last))
        cross = functional.binary_cross_entropy_with_logits
        loss: Tensor = self._dice(lung, masks) + cross(lung, masks)
        loss = loss + self.settings.pair_weight * cross(pair, batch["target"].float())
        if not torch.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss became {loss.item()} at step {step}: lower finder.lr "
                f"({self.settings.lr:g})"
            )
        if step % LOG_EVERY == 0:
            log.info("lungs step %d of %d: loss %.3f", step, self.trainer.max_steps, loss.item())
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW on a one-cycle schedule.

        Source: Smith, Topin 2019, Super-convergence.
        """
        settings = self.settings
        optimizer = torch.optim.AdamW(
            self.network.parameters(), settings.lr, weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings.lr, total_steps=self.trainer.max_steps, pct_start=0.15
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit_lungs(
    network: LungNetwork, batches: BatchLoader, settings: LungSettings, *, seed: int
) -> None:
    """Train a finder in place and leave it in inference mode, with averaged weights.

    The batches' pixels are (N, 2, G, G) uint8, image and mask; the target is 1 where a pair of
    lungs shows.

    Raises:
        NonFiniteLossError: the loss became NaN or infinite.
    """
    reuse_freed_memory()
    THREADS.fix(settings.threads)
    module = LungModule(network, settings, seed=seed).to(memory_format=torch.channels_last)
    with quiet():
        lightning.Trainer(
            accelerator="cpu",
            max_epochs=-1,
            max_steps=settings.images // settings.batch_size,
            gradient_clip_val=1.0,
            callbacks=[moving_average(settings.ema_decay)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        ).fit(module, batches)
    network.eval()


def distort(
    pixels: Tensor, settings: LungSettings, *, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Let a batch look as other hospitals' could: framing, markers, gray values, inversion.

    ``pixels`` are (B, 2, G, G) uint8, image and mask; the generator is on the processor.

    Returns:
        (B, 1, G, G) float32 images on the scale 0 to 1 and (B, 1, G, G) masks of 0 and 1.
    """
    count, side = len(pixels), pixels.shape[-1]
    draws = torch.rand(12, count, generator=generator)
    signed = draws * 2 - 1
    angle = signed[0] * math.radians(settings.rotation_deg)
    size, aspect = torch.exp(signed[1] * settings.zoom), torch.exp(signed[2] * settings.zoom / 2)
    height, width = size * aspect, size / aspect
    mirror = torch.where(draws[3] < 0.5, -1.0, 1.0)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    across, down = signed[4] * settings.shift * 2, signed[5] * settings.shift * 2
    theta = motion(
        (cosine * mirror * width, -sine * width, across),
        (sine * mirror * height, cosine * height, down),
    )
    grid = functional.affine_grid(theta, [count, 2, side, side], align_corners=False)
    moved = functional.grid_sample(pixels.float(), grid, align_corners=False)
    images, masks = moved[:, :1], (moved[:, 1:] > 127).float()
    images = augment(images, settings.augment, size_px=side, generator=generator)
    images = _draw_boxes(images, settings.marker, generator)
    # Scatter and tables brighten one side of a film.
    slope = torch.linspace(-0.15, 0.15, side)
    images = images + signed[6, :, None, None, None] * slope
    images = images + signed[7, :, None, None, None] * slope[:, None]
    inverted = (draws[8] < settings.invert)[:, None, None, None]
    return torch.where(inverted, 1 - images, images).clamp(0, 1), masks


def _draw_boxes(images: Tensor, chance: float, generator: torch.Generator) -> Tensor:
    """Paint up to three plain boxes a sixth of the side wide on each image, as markers do."""
    side, images = images.shape[-1], images.clone()
    draws = torch.rand(len(images), 3, 6, generator=generator).tolist()
    for image, boxes in zip(images, draws, strict=True):
        for drawn, top, left, height, width, gray in boxes:
            if drawn < chance:
                row, column = int(top * side), int(left * side)
                bottom, right = row + 2 + int(height * side / 6), column + 2 + int(width * side / 6)
                image[:, row:bottom, column:right] = round(gray) * 0.9 + 0.05
    return images
