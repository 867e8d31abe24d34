"""Class activation maps: Grad-CAM in closed form, a member's maps and the ensemble's.

N images, B batch, K classes, C h w last feature layer, S side of prepared pixels.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cxr.errors import InputError
from cxr.explain.library import CLOSED_FORM, check_method, library_cam
from cxr.models.build import Member
from cxr.training.inference import inference_device

Maps = NDArray[np.float32]


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
