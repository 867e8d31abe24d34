"""Members of the ensemble: build a timm network, fill it with weights, keep and load it.

B batch, K classes, C h w last feature layer, S side of prepared pixels, H W member's input.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import timm
import torch
from huggingface_hub import constants
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional

from cxr.errors import InputError, MissingInputError, command
from cxr.files import atomic_write, read_json
from cxr.imaging.preprocess import MemberInput

WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "member.json"
HEAD_STD = 0.01
"""Standard deviation of a new head's weights: training starts at a loss of ln K. timm's own
uniform draw in [-1/sqrt(K), 1/sqrt(K)] starts MobileNetV2 above 10 for four classes."""


@dataclass(frozen=True)
class MemberSpec:
    """What a member is, beside its weights."""

    architecture: str  # timm's name
    labels: tuple[str, ...]  # the K classes in the order of the logits
    input: MemberInput  # side and normalisation that the network expects
    feature_module: str  # whose output is the last feature layer (C, h, w)
    output_stride: int | None = None  # pixels per cell of that layer; None for timm's own

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``member.json``."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "MemberSpec":
        """Read what ``to_dict`` wrote; further keys are ignored."""
        labels, size = tuple(values["labels"]), MemberInput.from_dict(values["input"])
        stride = values.get("output_stride")
        return cls(values["architecture"], labels, size, values["feature_module"], stride)


class Member(nn.Module):
    """A network that ends in features (C, h, w), global average pooling and one linear layer."""

    def __init__(self, network: nn.Module, spec: MemberSpec) -> None:
        super().__init__()
        self.network, self.spec = network, spec

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, K) logits of (B, 3, H, W) normalised inputs."""
        logits: Tensor = self.network(inputs)
        return logits

    def features(self, inputs: Tensor) -> Tensor:
        """Return the last feature layer (B, C, h, w) of (B, 3, H, W) normalised inputs."""
        features: Tensor = self.network.forward_features(inputs)  # type: ignore[operator]
        return features

    @property
    def head(self) -> nn.Linear:
        """The linear layer from pooled features to logits."""
        head = self.network.get_classifier()  # type: ignore[operator]
        assert isinstance(head, nn.Linear)
        return head

    def prepare(self, pixels: Tensor) -> Tensor:
        """Turn prepared pixels (B, 1, S, S), uint8 or float32 on the scale 0 to 1, into inputs.

        Returns:
            (B, 3, H, W) float32: resized bilinearly, repeated to three channels, normalised.
        """
        expected = self.spec.input
        gray = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
        side = expected.size_px
        if gray.shape[-2:] != (side, side):
            gray = functional.interpolate(gray, (side, side), mode="bilinear", antialias=False)
        mean = gray.new_tensor(expected.mean)[:, None, None]
        std = gray.new_tensor(expected.std)[:, None, None]
        return (gray - mean) / std


def build_member(
    architecture: str,
    labels: Sequence[str],
    *,
    input_size_px: int | None = None,
    output_stride: int | None = None,
    drop_rate: float = 0.0,
    generator: torch.Generator | None = None,
) -> Member:
    """Build an untrained member of timm's ``architecture`` with K logits.

    ``output_stride`` is input pixels per cell of the last feature layer, where timm offers a
    choice; the last strides become 1. Stride and input side are the architecture's own by default.
    ``drop_rate`` is of dropout before the head, which ``generator`` draws, else the global one.

    Raises:
        InputError: a name that timm does not know, a network that does not end in features,
            average pooling and one linear layer, or an output stride that it has not.
    """
    if not timm.is_model(architecture):
        close = timm.list_models(f"*{architecture.split('_')[0][:6]}*")[:4]
        raise InputError(
            f"unknown model {architecture!r}: allowed are timm's names"
            + (f", for instance {', '.join(close)}" if close else "")
            + "; correct model.architecture"
        )
    # Only Inception has an auxiliary head, and only it knows the argument.
    options: dict[str, Any] = {"aux_logits": False} if architecture == "inception_v3" else {}
    options |= {"num_classes": len(labels), "drop_rate": drop_rate}
    if output_stride is None:
        network = timm.create_model(architecture, **options)
    else:
        network = _with_stride(architecture, output_stride, options)
    config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    side = input_size_px or int(config["input_size"][-1])
    expected = MemberInput(side, tuple(config["mean"]), tuple(config["std"]))
    module = _feature_module(network, side, architecture)
    spec = MemberSpec(architecture, tuple(labels), expected, module, output_stride)
    member = Member(network, spec)
    nn.init.normal_(member.head.weight, std=HEAD_STD, generator=generator)
    nn.init.zeros_(member.head.bias)
    return member


def load_pretrained(member: Member, source: str) -> dict[str, Any]:
    """Fill all but the head with pretrained weights, and return where they came from.

    ``source`` is ``hub`` (timm's own weights), ``none``, a safetensors file, or a folder that holds
    ``<architecture>*.safetensors``.

    Raises:
        InputError: the hub cannot be reached, or the weights are another architecture's.
    """
    if source == "none":
        # Each inverted residual begins as the identity, which eases training from nothing:
        # Goyal et al. 2017, Accurate, Large Minibatch SGD, section 5.1.
        for module in member.network.modules():
            last = getattr(module, "bn3", None)
            if getattr(module, "has_skip", False) and isinstance(last, nn.BatchNorm2d):
                nn.init.zeros_(last.weight)
        return {"source": "none"}
    architecture = member.spec.architecture
    if source == "hub":
        weights, origin = _from_hub(architecture), {"source": "hub"}
    else:
        path = _weights_path(Path(source), architecture)
        weights = _read_weights(path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        origin = {"source": path.name, "sha256": sha256}
    head = next(f"{name}." for name, m in member.network.named_modules() if m is member.head)
    own = member.network.state_dict()
    body = {key: value.float() for key, value in weights.items() if not key.startswith(head)}
    missing = [
        key
        for key in own
        if key not in body and not key.startswith(head) and not key.endswith("num_batches_tracked")
    ]
    wrong = [key for key in body if key not in own or own[key].shape != body[key].shape]
    if missing or wrong:
        raise InputError(
            f"the weights {source} are not {architecture}'s: {len(missing)} parameters missing, "
            f"{len(wrong)} that do not fit (first {(missing + wrong)[0]}); "
            "name the right file in model.pretrained"
        )
    member.network.load_state_dict(body, strict=False)
    return origin


def freeze(member: Member, modules: Iterable[str]) -> None:
    """Keep modules as they are: no gradient, and batch norm in inference mode (by the caller).

    Raises:
        InputError: a name that is no module of the network.
    """
    known = dict(member.network.named_modules())
    for name in modules:
        if name not in known:
            children = ", ".join(child for child, _ in member.network.named_children())
            raise InputError(
                f"model.freeze names {name!r}, which {member.spec.architecture} lacks: "
                f"its outermost modules are {children}"
            )
        known[name].requires_grad_(False)


def save_weights(member: Member, path: Path) -> None:
    """Write the network's parameters and buffers as safetensors, whole or not at all."""
    state = {key: value.contiguous().cpu() for key, value in member.network.state_dict().items()}
    with atomic_write(path) as file:
        file.write(save(state, metadata={"architecture": member.spec.architecture}))


def load_member(folder: Path) -> Member:
    """Load a trained member from its folder, in inference mode, on the processor.

    Raises:
        MissingInputError: no trained member there.
        InputError: weights and card do not belong together.
    """
    hint = f"train it first ({command('train')})"
    card = read_json(folder / CARD_FILE, hint=hint)
    spec = MemberSpec.from_dict(card)
    member = build_member(
        spec.architecture,
        spec.labels,
        input_size_px=spec.input.size_px,
        output_stride=spec.output_stride,
    )
    member.spec = spec
    weights = _read_weights(folder / WEIGHTS_FILE)
    try:
        member.network.load_state_dict(weights)
    except RuntimeError:
        raise InputError(
            f"{folder / WEIGHTS_FILE} does not hold weights of {spec.architecture} with "
            f"{len(spec.labels)} classes as {CARD_FILE} says: restore the folder or train again"
        ) from None
    return member.eval()


def _feature_module(network: nn.Module, side: int, architecture: str) -> str:
    """Find the module that yields the last feature layer, and check the network's shape."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                outputs[name] = output

        return hook

    handles = [m.register_forward_hook(keep(name)) for name, m in network.named_modules() if name]
    # Not zeros: an untrained network maps these to zeros in every module.
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            features = network.forward_features(images)  # type: ignore[operator]
            head = network.get_classifier()  # type: ignore[operator]
            if not isinstance(head, nn.Linear) or features.shape[1:-2] != (head.in_features,):
                raise InputError(
                    f"{architecture} does not end in a feature map, average pooling and one "
                    "linear layer, which Grad-CAM in closed form needs: choose another model"
                )
            pooled = head(features.mean(dim=(2, 3)))
            whole = network(images)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{architecture} cannot take inputs of {side} x {side} pixels ({reason}): "
            "raise model.input_size"
        ) from None
    finally:
        for handle in handles:
            handle.remove()
        network.train(was_training)
    names = [
        name
        for name, value in outputs.items()
        if value is features or (value.shape == features.shape and torch.equal(value, features))
    ]
    if not names or not torch.allclose(pooled, whole, atol=1e-4):
        raise InputError(
            f"{architecture} does something between its features and its logits beside average "
            "pooling and a linear layer: choose another model"
        )
    # Inner modules may yield the same tensor; the shortest name is the outermost one.
    return min(names, key=lambda name: (name.count("."), name))


def _with_stride(architecture: str, stride: int, options: dict[str, Any]) -> nn.Module:
    """Build a network whose last strides are 1, its kernels touching neighbours as before.

    timm spreads them instead, so that each cell still sees the whole image: then a map from
    random weights peaks anywhere (docs/experiments.md).
    """
    try:
        if stride not in (8, 16, 32):
            raise NotImplementedError
        network = timm.create_model(architecture, output_stride=stride, **options)
    except (TypeError, NotImplementedError):
        raise InputError(
            f"{architecture} has no output stride of {stride}: allowed are 8, 16 and 32 "
            "where timm offers a choice; leave model.output_stride out"
        ) from None
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.dilation != (1, 1):
            module.dilation = (1, 1)
            module.padding = tuple(side // 2 for side in module.kernel_size)
    return network


def _from_hub(architecture: str) -> dict[str, Tensor]:
    """Return timm's own weights, from the hub or its cache on this machine."""
    reason, was_offline = "", constants.HF_HUB_OFFLINE
    try:
        requests.head(constants.ENDPOINT, timeout=10)
    except requests.RequestException as error:
        reason = f"{constants.ENDPOINT} does not answer, {type(error).__name__}"
    # Else its client tries a dozen times, for most of a minute and in as many lines.
    constants.HF_HUB_OFFLINE = was_offline or bool(reason)
    try:
        network = timm.create_model(architecture, pretrained=True)
    except Exception as error:  # timm, huggingface_hub and urllib each raise their own
        reason = reason or " ".join(str(error).split())[:100] or type(error).__name__
        raise InputError(
            f"the pretrained weights of {architecture} cannot be had from the model hub "
            f"({reason}): give a file or folder with model.pretrained=PATH, "
            "or start from random weights with model.pretrained=none"
        ) from None
    finally:
        constants.HF_HUB_OFFLINE = was_offline
    return dict(network.state_dict())


def _weights_path(path: Path, architecture: str) -> Path:
    if not path.exists():
        raise MissingInputError(
            f"model.pretrained is {str(path)!r}, which does not exist: allowed are hub, none, a "
            "safetensors file or a folder of them"
        )
    found = sorted(path.glob(f"{architecture}*.safetensors")) if path.is_dir() else [path]
    if len(found) != 1:
        raise MissingInputError(
            f"{path} holds {len(found)} files {architecture}*.safetensors and one is needed: "
            "name the file itself in model.pretrained"
        )
    return found[0]


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise MissingInputError(f"{path} is missing: train first ({command('train')})") from None
    except SafetensorError as error:
        raise InputError(f"{path} is no safetensors file ({error}): restore it") from None
