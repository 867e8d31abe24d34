"""How members and the lung finder are trained: ``trainer`` and ``finder`` of the configurations.

No torch.
"""

from dataclasses import dataclass, field

from cxr.errors import InputError

NAMED = {
    "imbalance": ("none", "loss", "sampler", "class_source"),
    "monitor": ("balanced_accuracy", "nll", "last"),
    "precision": ("auto", "32", "bf16"),
}
RANGES = {
    "max_epochs": (1, 10_000),
    "batch_size": (2, 65_536),
    "lr": (1e-9, 10.0),
    "backbone_lr_factor": (0.0, 10.0),
    "warmup": (0.0, 0.9),
    "label_smoothing": (0.0, 0.9),
    "ema_decay": (0.0, 0.99999),
    "patience": (1, 10_000),
    "weight_decay": (0.0, 10.0),
    "clip_norm": (0.0, 1e6),
}
UNESSENTIAL = ("accelerator", "devices", "num_nodes", "threads", "checkpoint_minutes", "progress")
"""Settings that do not decide what is trained, so a resumed training may change them."""


@dataclass
class Augmentation:
    """Largest deviations of a training image; each draws its own, uniformly. Zero: none."""

    rotation_deg: float = 10.0
    """To either side."""
    shift: float = 0.05
    """Share of the side, to either side, both axes."""
    scale: float = 0.1
    """Relative, both ways (0.1 means 0.9 to 1.1)."""
    brightness: float = 0.1
    """Added, on the scale 0 to 1, both ways."""
    contrast: float = 0.2
    """Relative, both ways, around the image's mean."""
    gamma: float = 0.2
    """Exponent's deviation, both ways, in natural logarithm."""
    noise: float = 0.03
    """Largest standard deviation of Gaussian noise, on the scale 0 to 1."""
    blur_px: float = 1.0
    """Largest standard deviation of a Gaussian blur, in pixels."""
    horizontal_flip: float = 0.0
    """Chance of a mirror image; off, since it did not help (docs/experiments.md)."""
    crop_scale: float = 0.0
    """Smallest share of the area that a random crop shows; 0: no crops."""

    def __post_init__(self) -> None:
        if not 0 <= self.crop_scale <= 1:
            raise InputError(f"trainer.augment.crop_scale is {self.crop_scale}: allowed are 0 to 1")


@dataclass
class TrainerSettings:
    """How a member is trained, and on what hardware.

    Raises:
        InputError: a value out of its range.
    """

    max_epochs: int = 4
    """Epochs of the schedule."""
    batch_size: int = 32
    """Images per step and process."""
    lr: float = 1e-3
    """Peak rate of the head."""
    backbone_lr_factor: float = 0.3
    """The backbone's rate as a share of the head's."""
    weight_decay: float = 0.02
    """AdamW's, not for biases and norms."""
    warmup: float = 0.1
    """Share of the steps over which the rate rises; a cosine then takes it to 0."""
    label_smoothing: float = 0.05
    """Share of a target spread over all classes."""
    imbalance: str = "none"
    """none, loss (class-balanced weights), sampler (class-balanced draws; neither helped), or
    class_source (each class alike, and in it each source, so that a source tells least of the
    class)."""
    ema_decay: float = 0.99
    """Decay of the weights' moving average, which is what is validated and kept; 0: none."""
    monitor: str = "last"
    """last keeps the last epoch, so that validation is fresh for what is fitted on it; nll down
    or balanced_accuracy up of validation chooses the epoch, and flatters all that is fitted
    there."""
    patience: int = 5
    """Epochs without a better one before training stops, where validation chooses."""
    clip_norm: float = 1.0
    """Largest norm of a gradient; 0: no clipping."""
    precision: str = "auto"
    """auto (whichever a few steps of both show to be faster here), 32 or bf16."""
    deterministic: bool = False
    """Only algorithms that give the same bits each time; slower on a GPU."""
    accelerator: str = "auto"
    """auto, cpu, gpu or mps."""
    devices: int = 1
    """Processes on this machine."""
    num_nodes: int = 1
    """Machines."""
    threads: int = 0
    """Processor threads; 0 leaves it to torch, and takes fewer while the machine is busy."""
    checkpoint_minutes: float = 2.0
    """A killed training goes on from at most so long ago."""
    progress: bool = True
    """Show a bar; without a terminal there is none either way."""
    augment: Augmentation = field(default_factory=Augmentation)
    """Augmentation."""

    def __post_init__(self) -> None:
        for key, names in NAMED.items():
            value = getattr(self, key)
            if value not in names:
                raise InputError(f"trainer.{key} is {value!r}: allowed are {', '.join(names)}")
        for key, (low, high) in RANGES.items():
            value = getattr(self, key)
            if not low <= value <= high:
                raise InputError(f"trainer.{key} is {value}: allowed are {low:g} to {high:g}")


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


@dataclass
class TeacherSettings:
    """How a student learns from a trained ensemble.

    Raises:
        InputError: a value out of its range.
    """

    temperature: float = 2.0
    """By which the teacher's and the student's logits are divided where they are compared."""
    weight: float = 0.7
    """Of the teacher's probabilities in the loss; the labels have the rest."""

    def __post_init__(self) -> None:
        for key, value, low, high in (
            ("temperature", self.temperature, 0.1, 100.0),
            ("weight", self.weight, 0.0, 1.0),
        ):
            if not low <= value <= high:
                raise InputError(f"teacher.{key} is {value}: allowed are {low:g} to {high:g}")
