"""How the lung finder is trained: the settings that ``finder`` holds in configs/lungs.yaml."""

from dataclasses import dataclass, field

from cxr.errors import InputError
from cxr.training.trainer_settings import Augmentation


@dataclass
class LungSettings:
    """How the lung finder is trained.

    Raises:
        InputError: a value out of its range.
    """

    pretrained: str = "hub"
    """Weights of the encoder: hub (timm's own), none, a safetensors file or a folder of them."""
    images: int = 24_000
    """Augmented images that training sees in all; its length."""
    batch_size: int = 32
    """Images per step."""
    lr: float = 3e-3
    """Peak rate of a one-cycle schedule."""
    weight_decay: float = 0.01
    """AdamW's."""
    ema_decay: float = 0.99
    """Decay of the weights' moving average, which is what is kept."""
    negatives: float = 0.2
    """Share of the images that show no pair of lungs."""
    pair_weight: float = 0.3
    """Of the loss that teaches the score, beside that of the mask."""
    zoom: float = 0.4
    """Largest change of height and of width, each by itself, in natural logarithm."""
    shift: float = 0.15
    """Largest shift on either axis, as a share of the side."""
    rotation_deg: float = 20.0
    """Largest rotation to either side."""
    invert: float = 0.1
    """Chance of an inverted image."""
    marker: float = 0.3
    """Chance of each of three bright or dark boxes somewhere on an image."""
    augment: Augmentation = field(
        default_factory=lambda: Augmentation(
            rotation_deg=0, shift=0, scale=0, brightness=0.2, contrast=0.5, gamma=0.6, noise=0.06,
            blur_px=1.2,
        )
    )  # fmt: skip
    """Gray values, blur and noise; the framing above moves image and mask together."""
    threads: int = 0
    """Processor threads; 0 leaves it to torch."""

    def __post_init__(self) -> None:
        if self.images < self.batch_size or self.batch_size < 2:
            raise InputError(
                f"finder.images is {self.images} and finder.batch_size {self.batch_size}: at least "
                "2 images a batch, and one batch, are needed"
            )
        for key in ("negatives", "invert", "marker", "shift"):
            if not 0 <= getattr(self, key) < 1:
                raise InputError(f"finder.{key} is {getattr(self, key)}: allowed are 0 up to 1")
