"""Every method of pytorch-grad-cam, for any layer of a member.

B batch, C channels, S side of prepared pixels, H W member's input.
"""

import inspect
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxr.errors import InputError
from cxr.models.build import Member

CLOSED_FORM = "closed_form"
"""Our own Grad-CAM, which stands beside the library's methods; see ``gradcam``."""


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

    Args:
        member: a network.
        pixels: (B, 1, S, S) uint8.
        classes: (B,) int64.
        method: name of the method's class.
        layer: module of the network; the last feature layer by default.

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
