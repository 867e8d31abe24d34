"""Configuration schemas, and the wrapper that makes a function a Hydra script.

The only module besides scripts/ that knows Hydra. Every field has a type, so a misspelled key
or a wrong type is refused, also behind a plus sign. ``MISSING`` marks what has no safe default.
"""

import atexit
import functools
import logging
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import MISSING

from cxr.data.phantom.writer import PhantomSettings
from cxr.data.prepared import PrepareSettings
from cxr.errors import InputError
from cxr.models.ensemble import LOGARITHMIC
from cxr.training.trainer_settings import (
    Augmentation,
    LungSettings,
    TeacherSettings,
    TrainerSettings,
)

log = logging.getLogger(__name__)

CONFIGS = Path(__file__).parents[2] / "configs"


@dataclass
class DataConfig(PrepareSettings):
    """What to read, and how to prepare it."""

    name: str = MISSING
    """First part of the output folder: outputs/<name>/<run>."""
    kind: str = MISSING
    """phantom, manifest (a manifest.csv under root), or folder (a folder per label)."""
    root: str | None = None
    """Folder of the data; the phantom makes its own."""
    parts: list[str] = field(default_factory=list)
    """For kind=manifest: folders below the root with a manifest.csv each, read as one."""
    split_folders: dict[str, str] = field(default_factory=dict)
    """For kind=folder: which folder is which published split, {train: train, val: test}."""
    exclude: list[str] = field(default_factory=list)
    """File names to leave out, as shell patterns; prepared.json lists what they hit."""
    workers: int = 0
    """Threads that decode; 0 takes one a processor."""
    phantom: PhantomSettings = field(default_factory=PhantomSettings)
    """For kind=phantom."""
    suited: dict[str, dict[str, Any]] = field(default_factory=dict)
    """How a member is trained on these images where model/ and trainer/ say ${suited:KEY}: by its
    name, or ``any``."""


@dataclass
class ModelSettings:
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
class PoolSettings:
    """How the members' probabilities become one."""

    pool: str = LOGARITHMIC
    """linear (of probabilities) or logarithmic (of logits / T); one temperature comes last."""
    weight_prior: float = 100.0
    """Images of a prior that draw the weights towards equal; 0: none, 1e9: equal."""


@dataclass
class RunConfig:
    """What every script knows of a run."""

    data: Any = MISSING
    """DataConfig, or its name alone where a notebook opens a finished run."""
    run: str = "default"
    """Name of the run, second part of the output folder."""
    output_root: str = "outputs"
    """Where all results lie."""
    model: Any = None
    """What an experiment says of the member; read in training alone."""
    trainer: Any = None
    """What an experiment says of training; read in training alone."""
    overrides: list[str] = field(default_factory=list)
    """Set by the script: what its command line gave, so that what cannot be honoured is refused."""


@dataclass
class PrepareConfig(RunConfig):
    """scripts/prepare.py, and with it scripts/report.py."""

    data: DataConfig = MISSING
    """What to prepare; behind training only its name counts."""


@dataclass
class TrainConfig(PrepareConfig):
    """scripts/train.py."""

    model: ModelSettings = MISSING
    """Which member."""
    trainer: TrainerSettings = MISSING
    """How."""
    seed: int = 0
    """Of the head, the order of images and the augmentation."""


@dataclass
class DistilConfig(TrainConfig):
    """scripts/distil.py; run is the ensemble to learn from, model the student."""

    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    """How it is learned from."""


@dataclass
class CrossValidateConfig(PoolSettings, TrainConfig):
    """scripts/cv.py; trains one member in every fold, and pools once all members are trained."""

    folds: int = 5
    """Into how many parts the images are dealt; each is the test split once."""
    members: list[str] | None = None
    """Which members the ensemble of a fold has; null takes the one that is trained."""
    split: str = "patient"
    """patient (folds of like size), or source (each source left out in turn)."""
    sources: list[str] | None = None
    """For split=source: which; null takes all whose classes the others have too. nih+bimcv leaves
    two out together."""


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
class EnsembleConfig(PoolSettings, PrepareConfig):
    """scripts/ensemble.py."""

    members: list[str] | None = None
    """Which members; null takes every one that is trained."""
    fitted_on: str = "validation"
    """validation, or cv (the out-of-fold predictions of make cv in the same run)."""


@dataclass
class EvaluateConfig(PassConfig, PrepareConfig):
    """scripts/evaluate.py."""

    resamples: int = 2000
    """Bootstrap resamples, by patient."""


@dataclass
class EvaluateOnConfig(EvaluateConfig):
    """scripts/evaluate_on.py; run is DATA/RUN, or the name of a run of the same data."""


@dataclass
class AuditConfig(PassConfig, PrepareConfig):
    """scripts/audit.py."""

    tests: list[str] | None = None
    """Which tests, by name; null takes all nine."""
    force: bool = False
    """Do the tests again that an earlier audit of the same run has done."""
    resamples: int = 1000
    """Bootstrap resamples, by patient."""


@dataclass
class ExplainConfig(PassConfig, PrepareConfig):
    """scripts/explain.py."""

    method: str = "closed_form"
    """closed_form, or any method of pytorch-grad-cam by its name (GradCAM, GradCAMPlusPlus)."""
    layer: str | None = None
    """Module of the network; null takes the last feature layer."""
    per_class: int = 2
    """Right and wrong examples of each class."""


@dataclass
class ExportConfig(PrepareConfig):
    """scripts/export.py."""

    threads: int = 0
    """Processor threads; 0 leaves it to torch and onnxruntime."""
    int8: bool | None = None
    """Gone: the 8-bit variant of version 0.1; whoever sets it is told so."""


@dataclass
class RecalibrateConfig(PrepareConfig):
    """scripts/recalibrate.py; data are the local images, run is DATA/RUN, or its name alone."""

    bundle: str | None = None
    """Folder of the bundle; null takes the run's own."""
    seed: int = 0
    """Of how patients are dealt to measure the coverage."""
    dealings: int = 200
    """How often they are dealt."""
    threads: int = 0
    """Processor threads; 0 takes every processor."""


@dataclass
class LungsConfig(PrepareConfig):
    """scripts/lungs.py."""

    finder: LungSettings = field(default_factory=LungSettings)
    """How it is trained."""
    seed: int = 0
    """Of the decoder, the order of images, the augmentation and what is drawn without lungs."""
    leave_out: list[str] = field(default_factory=list)
    """Sources to train without, and to measure on as a whole."""
    negatives: str | None = None
    """Folder of images that show no chest, to measure on."""
    install: bool = False
    """Let it take the place of the finder in this package."""


@dataclass
class DownloadConfig(PrepareConfig):
    """scripts/download.py; data.root is the folder that receives the public sources."""

    without: list[str] = field(default_factory=list)
    """Sources to leave out, by name: without=[shenzhen] saves 3.8 GB."""


SCHEMAS: dict[str, type] = {
    "prepare": PrepareConfig,
    "train": TrainConfig,
    "distil": DistilConfig,
    "cv": CrossValidateConfig,
    "ensemble": EnsembleConfig,
    "evaluate": EvaluateConfig,
    "evaluate_on": EvaluateOnConfig,
    "audit": AuditConfig,
    "explain": ExplainConfig,
    "report": PrepareConfig,
    "export": ExportConfig,
    "recalibrate": RecalibrateConfig,
    "download": DownloadConfig,
    "lungs": LungsConfig,
}

_RENAMED = {"again": "force", "root": "data.root"}
"""Keys of version 0.1, and what they are called since."""
_DEFAULTS: dict[str, Any] = {
    **asdict(ModelSettings()),
    **asdict(Augmentation()),
    **asdict(TrainerSettings()),
}
"""What ${suited:KEY} may ask for, where nothing is said of it."""
_FAILED: list[BaseException] = []
"""What ended jobs of a multirun so far."""

ConfigT = TypeVar("ConfigT")


def compose(name: str, overrides: list[str], schema: type | None = None) -> Any:
    """Compose a script's configuration without running it: for tests, notebooks, experiments.

    ``name`` is a root file in configs/, without its ending; ``schema`` its dataclass, where
    ``SCHEMAS`` does not name it.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    _register(name, schema or SCHEMAS[name])
    # A script that composes the stages it runs is in Hydra's hands itself.
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            overrides = current_overrides(overrides)
            return _to_dataclass(hydra.compose(name, overrides=overrides), overrides)
    finally:
        GlobalHydra.instance().hydra = outer


def given_data_settings(config: RunConfig) -> list[str]:
    """Return the settings of the data that the command line gave, such as ``split``.

    The name is not among them: it names a folder.
    """
    keys = [text.lstrip("+~").partition("=")[0] for text in config.overrides]
    return [
        key.removeprefix("data.") for key in keys if key.startswith("data.") and key != "data.name"
    ]


def script(
    name: str, schema: type | None = None
) -> Callable[[Callable[[ConfigT], None]], Callable[[], None]]:
    """Make a function of a configuration dataclass the main function of a Hydra script.

    An error that the user can correct is printed as one line and exits with status 2; anything
    else keeps its traceback. Hydra's own options (--help, --cfg job, --multirun) work. In a
    multirun a job that fails does not keep the others from running. ``name`` and ``schema`` are as
    for ``compose``.
    """

    def decorate(function: Callable[[ConfigT], None]) -> Callable[[], None]:
        @functools.wraps(function)
        def main() -> None:
            import hydra
            from hydra.core.hydra_config import HydraConfig

            # Hydra prints many lines and exits with 1 unless asked for the bare exception.
            os.environ["HYDRA_FULL_ERROR"] = "1"
            logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
            _register(name, schema or SCHEMAS[name])
            sys.argv[1:] = current_overrides(sys.argv[1:])

            def run(config: Any) -> None:
                # Past here Hydra would print the overrides beside the one line.
                try:
                    function(_to_dataclass(config, HydraConfig.get().overrides.task))
                except Exception as error:
                    _end_job(error)

            run.__module__ = function.__module__
            _FAILED.clear()
            try:
                hydra.main(config_path=str(CONFIGS), config_name=name, version_base="1.3")(run)()
            except BaseException as error:
                fail(error)
                raise
            if _FAILED:
                sys.stderr.write(f"error: {len(_FAILED)} job(s) failed, see above\n")
                raise SystemExit(2 if all(isinstance(e, InputError) for e in _FAILED) else 1)

        return main

    return decorate


def current_overrides(overrides: list[str]) -> list[str]:
    """Return a command line in today's spelling, and log what version 0.1 spelled otherwise."""
    result = []
    for word in overrides:
        key, _, value = word.lstrip("+").partition("=")
        if key == "make" or (key == "trainer" and value in ("phantom", "cxr4", "seed", "folder")):
            log.warning("%s does nothing any more: leave it out", word)
        elif key in _RENAMED:
            log.warning("%s is now called %s", key, _RENAMED[key])
            result.append(f"{_RENAMED[key]}={value}")
        else:
            result.append(word)
    return result


def _register(name: str, schema: type) -> None:
    """Tell Hydra the schema behind a root file, and OmegaConf what files of configs/ ask for."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    ConfigStore.instance().store(name=f"{name}_schema", node=schema)
    OmegaConf.register_new_resolver("suited", _suited, replace=True)
    OmegaConf.register_new_resolver("scratch", _scratch_folder, use_cache=True, replace=True)


def _suited(key: str, *, _root_: Any) -> Any:
    """Return what ``data.suited`` holds for the member, else for any, else the default."""
    for name in (_root_.model.name, "any"):
        values = _root_.data.suited.get(name, {})
        if key in values:
            return values[key]
    return _DEFAULTS[key]


def _scratch_folder() -> str:
    folder = tempfile.mkdtemp(prefix="cxr-multirun-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _to_dataclass(config: Any, overrides: Sequence[str]) -> Any:
    """Convert a composed configuration, and refuse what ``+key=value`` put beside its schema."""
    from omegaconf import OmegaConf

    values = OmegaConf.to_object(config)
    _refuse_unknown(values, "")
    if isinstance(values, RunConfig):
        values.overrides = list(overrides)
    return values


def _refuse_unknown(values: Any, prefix: str) -> None:
    allowed = [item.name for item in fields(values)]
    for name, value in vars(values).items():
        if name not in allowed:
            raise InputError(f"unknown key {prefix}{name}: allowed there are {', '.join(allowed)}")
        if is_dataclass(value):
            _refuse_unknown(value, f"{prefix}{name}.")
        elif name == "suited":
            for key in {key for suited in value.values() for key in suited} - set(_DEFAULTS):
                raise InputError(
                    f"unknown key {prefix}suited.*.{key}: allowed are {', '.join(_DEFAULTS)}"
                )


def _end_job(error: Exception) -> None:
    """Log the error of a job of a multirun, whose other jobs go on; raise any other error."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if HydraConfig.get().mode != RunMode.MULTIRUN:
        fail(error)
        raise error
    _FAILED.append(error)
    job = " ".join(HydraConfig.get().overrides.task)
    line = _line_of(error)
    if not line:
        traceback.print_exception(error)
    sys.stderr.write(f"error: {line or repr(error)} (job {job})\n")


def fail(error: BaseException) -> None:
    """Exit with status 2 and one line where the user can correct the error, else return."""
    if isinstance(error, KeyboardInterrupt):
        sys.stderr.write("stopped; the same command goes on where this one was\n")
        raise SystemExit(130) from None
    if line := _line_of(error):
        sys.stderr.write(f"error: {line}\n")
        raise SystemExit(2) from None


def _line_of(error: BaseException) -> str:
    """Return what the user can correct, in one line; nothing for a bug.

    Hydra's several lines become one that names the key and what to do.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if not isinstance(error, HydraException | OmegaConfBaseException):
        return str(error) if isinstance(error, InputError) else ""
    deepest: BaseException = error
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
    return f"{' '.join(seen)}{named}: --cfg job shows the allowed keys"
