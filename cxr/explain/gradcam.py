"""Class activation maps: Grad-CAM in closed form, every method of pytorch-grad-cam, the ensemble's.

N images, B batch, K classes, C h w last feature layer, S side of prepared pixels, H W a member's
input.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cxr.errors import InputError
from cxr.models.build import Member
from cxr.training.inference import inference_device

Maps = NDArray[np.float32]
CLOSED_FORM = "closed_form"
"""Our own Grad-CAM, which stands beside the library's methods."""


def closed_form_cam(features: Tensor, weight: Tensor, target: Tensor | None = None) -> Tensor:
    """Compute Grad-CAM from the last features and the head's weights, without a backward pass.

    Behind average pooling and one linear layer the gradient of logit c by feature k is
    W_ck / (h w) everywhere, so Grad-CAM is ReLU(sum_k W_ck A_k) / (h w). The constant is
    left out. Of features (B, C, h, w), a head (K, C) and target classes (B,) it returns
    (B, h, w), of all classes (B, K, h, w); float32, 0 and above.

    Source: Selvaraju et al. 2017, Grad-CAM, equations 1 and 2; section 3.1 for this case,
    which is Zhou et al. 2016, CAM.
    """
    features, weight = features.float(), weight.float()
    if target is None:
        return torch.einsum("kc,bchw->bkhw", weight, features).relu()
    return torch.einsum("bc,bchw->bhw", weight[target], features).relu()


def member_maps(
    member: Member,
    pixels: NDArray[np.uint8],
    rows: NDArray[np.int64],
    classes: NDArray[np.int64],
    *,
    method: str = CLOSED_FORM,
    layer: str | None = None,
    batch_size: int = 32,
    on_image: Callable[[], None] | None = None,
) -> Maps:
    """Compute a member's maps of many images, on the GPU if there is one.

    Of ``pixels`` (M, S, S) uint8 ``rows`` (N,) are explained, each for its class in ``classes``
    (N,); ``on_image`` is called once an image. ``method`` is ``closed_form``, or one of
    pytorch-grad-cam, for which ``layer`` may name a module of the network.

    Returns:
        (N, h, w) float32, 0 and above; not scaled, of the closed form in units of the logit.

    Raises:
        InputError: see ``library_cam``.
    """
    check_method(method, layer)
    device = inference_device()
    member.eval().to(device)
    parts = []
    for start in range(0, len(rows), batch_size):
        batch = torch.from_numpy(np.array(pixels[rows[start : start + batch_size]]))[:, None]
        targets = torch.from_numpy(classes[start : start + batch_size].astype(np.int64))
        if method == CLOSED_FORM:
            with torch.no_grad():
                features = member.features(member.prepare(batch.to(device)))
                maps = closed_form_cam(features, member.head.weight, targets.to(device))
        else:
            maps = library_cam(member, batch, targets, method=method, layer=layer)
        parts.append(maps.cpu().numpy())
        for _ in range(len(batch)):
            if on_image:
                on_image()
    return np.concatenate(parts) if parts else np.empty((0, 1, 1), np.float32)


def resize_maps(maps: Maps, size_px: int) -> Maps:
    """Divide each map by its maximum and enlarge it bilinearly to (N, size, size).

    A map that is 0 throughout stays so: nothing on that image speaks for the class.
    """
    tensor = torch.from_numpy(np.asarray(maps, np.float32))[:, None]
    peak = tensor.amax(dim=(2, 3), keepdim=True)
    tensor = torch.where(peak > 0, tensor / peak.clamp_min(torch.finfo(torch.float32).tiny), 0.0)
    large = functional.interpolate(tensor, (size_px, size_px), mode="bilinear")
    return np.asarray(large[:, 0].numpy(), np.float32)


def ensemble_cam(maps: Mapping[str, Maps], weights: Mapping[str, float], size_px: int) -> Maps:
    """Average the members' maps: E = sum_m w_m U(A_m / max A_m), U bilinear enlargement.

    Each member has the weight that it has in the pool of probabilities, linear or logarithmic.
    Maps are first divided by their maxima because logits of different networks have no common
    unit. The gradient of a linear pool is not used: it holds a factor p_m (1 - p_m) and so would
    silence the very member that is confident. E is 1 only where all members have their maximum, so
    its own maximum tells how far they agree; it is not stretched to 1.

    Of each member's maps (N, h, w), 0 and above, whose cells may differ, and of weights that sum
    to 1, it returns (N, size, size) float32, 0 to 1.

    Raises:
        InputError: maps and weights of different members.
    """
    if set(maps) != set(weights):
        raise InputError(
            f"maps are given of {sorted(maps)}, weights of {sorted(weights)}: explain exactly "
            "the ensemble's members"
        )
    parts = [np.float32(weights[name]) * resize_maps(maps[name], size_px) for name in maps]
    return np.asarray(np.sum(parts, axis=0), np.float32)


def library_methods() -> dict[str, Any]:
    """Return the methods of pytorch-grad-cam that map a layer, by name."""
    import pytorch_grad_cam

    first = ["model", "target_layers"]
    return {
        name: value
        for name, value in sorted(vars(pytorch_grad_cam).items())
        if inspect.isclass(value)
        and name != "ActivationsAndGradients"
        and list(inspect.signature(value).parameters)[:2] == first
    }


def check_method(method: str, layer: str | None) -> None:
    """Raise InputError for an unknown method, or a layer for one that has none to choose."""
    allowed = [CLOSED_FORM, *library_methods()]
    if method not in allowed:
        raise InputError(f"method is {method!r}: allowed are {', '.join(allowed)}")
    if layer is not None and method in (CLOSED_FORM, "FullGrad"):
        where = "the last feature layer alone" if method == CLOSED_FORM else "all layers at once"
        raise InputError(
            f"layer is {layer!r}, but {method} explains {where}: leave layer out, or choose a "
            "method for any layer, such as method=GradCAM"
        )


def library_cam(
    member: Member, pixels: Tensor, classes: Tensor, *, method: str, layer: str | None = None
) -> Tensor:
    """Compute a map of each image's class by a method of pytorch-grad-cam, such as GradCAMPlusPlus.

    ``pixels`` are (B, 1, S, S) uint8, ``classes`` (B,) int64; ``layer`` is a module of the network,
    the last feature layer by default.

    Returns:
        (B, H, W) float32 at the member's input size, which the library has stretched so that
        each image's least value is 0 and its largest 1.

    Raises:
        InputError: an unknown method or layer, or a layer whose output is no map.
    """
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    check_method(method, layer)
    layer_cells(member, layer)
    module = member.network.get_submodule(layer or member.spec.feature_module)
    # FullGrad takes all layers by itself, and prints a warning where it is given one.
    layers = [] if method == "FullGrad" else [module]
    member.eval()
    with torch.enable_grad():
        # A gradient by the input lets gradients through frozen layers too.
        inputs = member.prepare(pixels.to(member.head.weight.device)).requires_grad_(True)
        explain = library_methods()[method](member, layers)
        targets = [ClassifierOutputTarget(k) for k in classes.tolist()]
        maps = explain(input_tensor=inputs, targets=targets)
    member.zero_grad(set_to_none=True)
    return torch.from_numpy(np.ascontiguousarray(maps, np.float32))


@torch.no_grad()
def layer_cells(member: Member, layer: str | None = None) -> int:
    """Return h, how many rows of cells a layer's output has; InputError where it is no map."""
    name = layer or member.spec.feature_module
    modules = dict(member.network.named_modules())
    if not name or name not in modules:
        children = ", ".join(child for child, _ in member.network.named_children())
        raise InputError(
            f"layer is {name!r}, which {member.spec.architecture} lacks: allowed are {children} "
            "and the modules inside them"
        )
    shapes: list[tuple[int, ...]] = []
    handle = modules[name].register_forward_hook(
        lambda _module, _inputs, output: shapes.append(tuple(getattr(output, "shape", ())))
    )
    try:
        member.eval()
        side = member.spec.input.size_px
        member(torch.zeros(1, 3, side, side, device=member.head.weight.device))
    finally:
        handle.remove()
    # A small input can leave the last layer a single cell, which is no use but no error.
    least = 1 if name == member.spec.feature_module else 2
    if not shapes or len(shapes[-1]) != 4 or shapes[-1][-1] < least:
        shape = shapes[-1] if shapes else "nothing"
        raise InputError(
            f"layer {name!r} of {member.spec.architecture} yields {shape}, no map of at least "
            f"2 x 2 cells: choose a layer up to {member.spec.feature_module}"
        )
    return int(shapes[-1][-2])
