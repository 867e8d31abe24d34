"""Configuration schemas, and the wrapper that makes a function a Hydra script.

The only module besides scripts/ that knows Hydra. Every field has a type, so a misspelled key
or a wrong type is refused, also behind a plus sign. ``MISSING`` marks what has no safe default.
"""

import functools
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import MISSING

from cxr.errors import InputError

CONFIGS = Path(__file__).parents[2] / "configs"


@dataclass
class PhantomConfig:
    """Synthetic radiographs, made where no data is at hand."""

    patients_per_class: int = 100
    """Synthetic patients of each class."""
    images_per_patient: list[int] = field(default_factory=lambda: [2, 4])
    """Fewest and most images of one patient."""
    size_px: int = 128
    """Side of an image."""
    seed: int = 0
    """Of everything drawn."""
    shortcut: str = "none"
    """none, or what is planted for the audit to find: marker (in a corner, one class), exposure or
    framing (of its own for each class)."""
    shortcut_strength: float = 1.0
    """Of what is planted, 0 (nothing) to 1."""


@dataclass
class DataConfig:
    """What to read, and how to prepare it."""

    name: str = MISSING
    """First part of the output folder: outputs/<name>/<run>."""
    kind: str = MISSING
    """phantom, manifest (a manifest.csv under root), or folder (a folder per label)."""
    root: str | None = None
    """Folder of the data; the phantom makes its own."""
    labels: list[str] | None = None
    """Classes in order; null takes those that occur."""
    size: int = 224
    """Side of the prepared square in pixels."""
    fit: str = "stretch"
    """stretch or letterbox."""
    split: str = "patient"
    """patient (disjoint by group), published (the source's own test split), or whole (all test)."""
    fractions: list[float] = field(default_factory=lambda: [0.7, 0.1, 0.2])
    """Shares of train, val and test."""
    split_seed: int = 0
    """Of the split."""
    split_folders: dict[str, str] = field(default_factory=dict)
    """For kind=folder: which folder is which published split, {train: train, val: test}."""
    exclude: list[str] = field(default_factory=list)
    """File names to leave out, as shell patterns; prepared.json lists what they hit."""
    near_duplicates: bool = True
    """Search near-identical images too, rotated and mirrored ones included."""
    on_error: str = "stop"
    """stop at a file that cannot be read, or skip it and list it."""
    workers: int = 0
    """Threads that decode; 0 takes one a processor."""
    synthetic: bool = False
    """Said wherever a number or a figure of this data appears."""
    phantom: PhantomConfig = field(default_factory=PhantomConfig)
    """For kind=phantom."""


@dataclass
class ModelConfig:
    """One member."""

    name: str = MISSING
    """Folder under members/."""
    architecture: str = MISSING
    """timm's name."""
    pretrained: str = "hub"
    """hub (timm's own weights), none, a safetensors file or a folder of them."""
    input_size: int | None = None
    """Side of the input in pixels; null takes timm's for the architecture."""
    output_stride: int | None = None
    """8, 16 or 32 input pixels per cell of the last feature layer, for finer Grad-CAM of what is
    trained from random weights; null is the architecture's own."""
    drop_rate: float = 0.0
    """Dropout before the head."""
    freeze: list[str] = field(default_factory=list)
    """Modules of the network that keep their pretrained weights."""


@dataclass
class AugmentConfig:
    """Largest deviations of a training image; see cxr.training.augment.Augmentation."""

    rotation_deg: float = 10.0
    """To either side."""
    shift: float = 0.05
    """Share of the side."""
    scale: float = 0.1
    """Relative, both ways."""
    brightness: float = 0.1
    """Added, scale 0 to 1."""
    contrast: float = 0.2
    """Relative, both ways."""
    gamma: float = 0.2
    """Exponent's deviation, natural logarithm."""
    noise: float = 0.03
    """Largest standard deviation, scale 0 to 1."""
    blur_px: float = 1.0
    """Largest standard deviation in pixels."""
    horizontal_flip: float = 0.0
    """Chance of a mirror image; off, since it did not help (docs/experiments.md)."""


@dataclass
class TrainerConfig:
    """How a member is trained."""

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
    """none, loss (class-balanced weights) or sampler (class-balanced draws); neither helped."""
    ema_decay: float = 0.99
    """Decay of the weights' moving average, which is what is validated and kept; 0: none."""
    monitor: str = "last"
    """last keeps the last epoch, so that validation is fresh for what is fitted on it; nll or
    balanced_accuracy of validation chooses the epoch, and flatters all that is fitted there."""
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
    """Processor threads; 0 leaves it to torch."""
    checkpoint_minutes: float = 2.0
    """A killed training goes on from at most so long ago."""
    progress: bool = True
    """Show a bar; without a terminal there is none either way."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation."""


@dataclass
class RunConfig:
    """What every script knows of a run."""

    data: Any = MISSING
    """DataConfig, or its name alone where a notebook opens a finished run."""
    run: str = "default"
    """Name of the run, second part of the output folder."""
    output_root: str = "outputs"
    """Where all results lie."""
    make: bool = False
    """Set by the Makefile: hints are then make commands."""


@dataclass
class PrepareConfig(RunConfig):
    """scripts/prepare.py."""

    data: DataConfig = MISSING
    """What to prepare."""


@dataclass
class TrainConfig(PrepareConfig):
    """scripts/train.py."""

    model: ModelConfig = MISSING
    """Which member."""
    trainer: TrainerConfig = MISSING
    """How."""
    seed: int = 0
    """Of the head, the order of images and the augmentation."""


@dataclass
class PoolConfig:
    """How the members' probabilities become one; see cxr.models.ensemble."""

    pool: str = "logarithmic"
    """linear (of probabilities) or logarithmic (of logits / T); one temperature comes last."""
    weight_prior: float = 100.0
    """Images of a prior that draw the weights towards equal; 0: none, 1e9: equal."""


@dataclass
class CrossValidateConfig(PoolConfig, TrainConfig):
    """scripts/cv.py; trains one member in every fold, and pools once all members are trained."""

    folds: int = 5
    """Into how many parts the images are dealt; each is the test split once."""
    members: list[str] | None = None
    """Which members the ensemble of a fold has; null takes the one that is trained."""


@dataclass
class LeakConfig(TrainConfig):
    """scripts/leak.py."""

    copies: int = 3
    """Turned and mirrored copies of each image that are made before the random split."""
    rotation_deg: float = 15.0
    """Largest turn of a copy, to either side; every second one is mirrored."""
    test_share: float = 0.1
    """Share of test, and again of validation, both ways of splitting."""


@dataclass
class FinishedRunConfig(RunConfig):
    """What the scripts behind training share."""

    data: DataConfig = MISSING
    """Which data; only its name counts behind training."""


@dataclass
class PassConfig:
    """How images are passed through trained members."""

    seed: int = 0
    """Of every draw: bootstrap, folds, examples."""
    batch_size: int = 32
    """Images at once."""
    threads: int = 0
    """Processor threads; 0 leaves it to torch."""


@dataclass
class EnsembleConfig(PoolConfig, FinishedRunConfig):
    """scripts/ensemble.py."""

    members: list[str] | None = None
    """Which members; null takes every one that is trained."""
    fitted_on: str = "validation"
    """validation, or cv (the out-of-fold predictions of make cv in the same run)."""


@dataclass
class EvaluateConfig(PassConfig, FinishedRunConfig):
    """scripts/evaluate.py."""

    resamples: int = 2000
    """Bootstrap resamples, by patient."""


@dataclass
class EvaluateOnConfig(PassConfig, PrepareConfig):
    """scripts/evaluate_on.py; run is DATA/RUN, or the name of a run of the same data."""

    resamples: int = 2000
    """Bootstrap resamples, by patient."""


@dataclass
class AuditConfig(PassConfig, FinishedRunConfig):
    """scripts/audit.py."""

    tests: list[str] | None = None
    """Which tests, by name; null takes all eight."""
    force: bool = False
    """Do the tests anew that an earlier audit of the same run has done."""
    again: bool = False
    """Former name of ``force``, for one version."""
    resamples: int = 1000
    """Bootstrap resamples, by patient."""


@dataclass
class ExplainConfig(PassConfig, FinishedRunConfig):
    """scripts/explain.py."""

    method: str = "closed_form"
    """closed_form, or any method of pytorch-grad-cam by its name (GradCAM, GradCAMPlusPlus)."""
    layer: str | None = None
    """Module of the network; null takes the last feature layer."""
    per_class: int = 2
    """Right and wrong examples of each class."""


@dataclass
class ExportConfig(FinishedRunConfig):
    """scripts/export.py."""

    threads: int = 0
    """Processor threads; 0 leaves it to torch and onnxruntime."""
    int8: bool | None = None
    """Gone: the 8-bit variant of version 0.1; whoever sets it is told so."""


@dataclass
class DownloadConfig:
    """scripts/data.py."""

    root: str = MISSING
    """Folder that receives the public sources."""


SCHEMAS: dict[str, type] = {
    "prepare": PrepareConfig,
    "train": TrainConfig,
    "cv": CrossValidateConfig,
    "leak": LeakConfig,
    "ensemble": EnsembleConfig,
    "evaluate": EvaluateConfig,
    "evaluate_on": EvaluateOnConfig,
    "audit": AuditConfig,
    "explain": ExplainConfig,
    "export": ExportConfig,
    "download": DownloadConfig,
}

ConfigT = TypeVar("ConfigT")


def register_schemas() -> None:
    """Tell Hydra the schema behind each root file of configs/."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for name, schema in SCHEMAS.items():
        store.store(name=f"{name}_schema", node=schema)


def compose(name: str, overrides: list[str]) -> Any:
    """Compose a script's configuration without running it, for tests and notebooks.

    Args:
        name: root file in configs/, without its ending.
        overrides: as on the command line.

    Returns:
        The dataclass of ``SCHEMAS[name]``.
    """
    import hydra

    register_schemas()
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return _to_dataclass(hydra.compose(name, overrides=overrides))


def script(name: str) -> Callable[[Callable[[ConfigT], None]], Callable[[], None]]:
    """Make a function of a configuration dataclass the main function of a Hydra script.

    An error that the user can mend is printed as one line and exits with status 2; anything
    else keeps its traceback. Hydra's own options (--help, --cfg job, --multirun) work.

    Args:
        name: root file in configs/, without its ending.
    """

    def decorate(function: Callable[[ConfigT], None]) -> Callable[[], None]:
        @functools.wraps(function)
        def main() -> None:
            import hydra

            register_schemas()
            # Hydra prints many lines and exits with 1 unless asked for the bare exception.
            os.environ["HYDRA_FULL_ERROR"] = "1"
            logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)

            def run(config: Any) -> None:
                # Past here Hydra would print the overrides beside the one line.
                try:
                    function(_to_dataclass(config))
                except Exception as error:
                    fail(error)
                    raise

            run.__module__ = function.__module__
            try:
                hydra.main(config_path=str(CONFIGS), config_name=name, version_base="1.3")(run)()
            except BaseException as error:
                fail(error)
                raise

        return main

    return decorate


def _to_dataclass(config: Any) -> Any:
    """Convert a composed configuration, and refuse what ``+key=value`` put beside its schema."""
    from omegaconf import OmegaConf

    found = OmegaConf.to_object(config)
    _refuse_unknown(found, "")
    return found


def _refuse_unknown(values: Any, prefix: str) -> None:
    allowed = [item.name for item in fields(values)]
    for name, value in vars(values).items():
        if name not in allowed:
            raise InputError(f"unknown key {prefix}{name}: allowed there are {', '.join(allowed)}")
        if is_dataclass(value):
            _refuse_unknown(value, f"{prefix}{name}.")


def fail(error: BaseException) -> None:
    """Exit with status 2 and one line where the user can mend the error, else return."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, KeyboardInterrupt):
        sys.stderr.write("stopped; the same command goes on where this one was\n")
        raise SystemExit(130) from None
    if isinstance(error, InputError):
        line = str(error)
    elif isinstance(error, HydraException | OmegaConfBaseException):
        line = _one_line(error)
    else:
        return
    sys.stderr.write(f"error: {line}\n")
    raise SystemExit(2) from None


def _one_line(error: BaseException) -> str:
    """Fold Hydra's several lines into one that names the key and what to do."""
    deepest = error
    while deepest.__cause__ is not None and "hydra" not in type(deepest.__cause__).__module__:
        deepest = deepest.__cause__
    seen: list[str] = []
    for text in (str(error), str(deepest)):
        for part in text.splitlines():
            part = part.strip()
            # Hydra advises a plus sign, which the schemas refuse.
            noise = part.startswith(("To append", "full_key", "object_type"))
            if part and part not in seen and not noise:
                seen.append(part)
    key = getattr(deepest, "full_key", None)
    named = f" ({key})" if key and not any(key in part for part in seen) else ""
    return f"{' '.join(seen)}{named}: see the allowed keys with --cfg job, or in cxr/config.py"
