"""How members are trained: the settings that ``trainer`` holds in every configuration. No torch."""

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
    """auto (bf16 where the hardware is fast at it), 32 or bf16."""
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
