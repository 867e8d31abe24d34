"""The whole ensemble as one graph, from raw pixels to all that a bundle answers, in torch and ONNX.

B batch, M members, K classes, C h w last feature layer, S side of prepared pixels, G side of
the ensemble's map.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from cxr.bundle.runtimes import INPUT
from cxr.models.build import Member
from cxr.models.ensemble import Ensemble
from cxr.training.teacher import pool_tensors

OPSET = 18
"""Read by onnxruntime since 1.14 and by every OpenVINO that can be installed today."""
FEWEST_HALVED = 64
"""Values of a tensor from which storing it as float16 saves more than its cast takes."""
LARGEST_BATCH = 4096
"""Bound that the tracer wants on the batch; the graph itself has none."""
GRID_SHARE = 4
"""The ensemble's map has a cell for so many pixels of the prepared square: finer than any
member's own map, and next to no work."""


class BundleGraph(nn.Module):
    """Members, temperatures, weights and closed-form Grad-CAM in one forward pass.

    ``members`` are in inference mode, and those of ``ensemble``; their order is that of outputs.
    """

    def __init__(self, members: Mapping[str, Member], ensemble: Ensemble, size_px: int) -> None:
        super().__init__()
        self.names = tuple(members)
        self.members = nn.ModuleList(members.values())
        self.temperatures = [ensemble.temperatures[name] for name in self.names]
        self.weights = [ensemble.weights[name] for name in self.names]
        self.pool, self.temperature = ensemble.pool, ensemble.temperature
        self.grid_px = grid_of(size_px)
        self.eval()

    @property
    def outputs(self) -> list[str]:
        """Names of what ``forward`` returns."""
        return output_names(self.names)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return everything that a bundle answers of (B, 1, S, S) uint8 pixels.

        ``probs`` (B, K), ``member_probs`` (B, M, K), ``map_ensemble`` (B, K, G, G), then of each
        member ``map_<member>`` (B, K, h, w) and ``features_<member>`` (B, C); all float32.
        """
        gray = pixels.to(torch.float32) / 255
        log_probs, maps, features = [], [], []
        for member, temperature in zip(self.members, self.temperatures, strict=True):
            assert isinstance(member, Member)
            layer = member.features(member.prepare(gray))
            head = member.head
            pooled = layer.mean(dim=(2, 3))
            log_probs.append(functional.log_softmax(head(pooled) / temperature, dim=-1))
            maps.append(functional.conv2d(layer, head.weight[:, :, None, None]).relu())
            features.append(pooled)
        each = torch.stack(log_probs, dim=1)
        probs = functional.softmax(
            pool_tensors(each, self.weights, self.pool) / self.temperature, dim=-1
        )
        own = [part for pair in zip(maps, features, strict=True) for part in pair]
        return (probs, each.exp(), self._ensemble_map(maps), *own)

    def _ensemble_map(self, maps: list[Tensor]) -> Tensor:
        """Return sum_m w_m U(A_m / max A_m), as ``cxr.explain.gradcam.ensemble_cam`` has it."""
        parts = []
        tiny = torch.finfo(torch.float32).tiny
        for weight, cells in zip(self.weights, maps, strict=True):
            # No map is negative, so where the peak is 0 the quotient is 0 too.
            scaled = cells / cells.amax(dim=(2, 3), keepdim=True).clamp_min(tiny)
            side = (self.grid_px, self.grid_px)
            parts.append(weight * functional.interpolate(scaled, side, mode="bilinear"))
        return torch.stack(parts).sum(dim=0)


def grid_of(size_px: int) -> int:
    """Return G, the side of the ensemble's map, for prepared squares of side S."""
    return max(1, -(-size_px // GRID_SHARE))


def output_names(members: tuple[str, ...]) -> list[str]:
    """Return the graph's outputs in order."""
    own = [f"{kind}_{name}" for name in members for kind in ("map", "features")]
    return ["probs", "member_probs", "map_ensemble", *own]


def export_onnx(
    graph: nn.Module, path: Path, *, size_px: int, note: str, outputs: Sequence[str]
) -> None:
    """Write a graph of (B, 1, S, S) uint8 pixels, in inference mode, as one ONNX file.

    The batch stays dynamic; ``note`` stands in the file's own description, ``outputs`` names what
    the graph returns.
    """
    # Two images: a batch of 1 would be taken for a constant.
    images = torch.zeros(2, 1, size_px, size_px, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    with _quiet():
        torch.onnx.export(
            graph,
            (images,),
            str(path),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=[INPUT],
            output_names=list(outputs),
            dynamic_shapes=({0: batch},),
            verbose=False,
        )
    model = onnx.load(path)
    model.doc_string = note
    model.producer_name = "cxr"
    # The exporter leaves the source line of every node, and with it paths of this machine.
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    onnx.save(model, path)


def store_as_float16(path: Path) -> None:
    """Halve a graph's file: weights are kept as float16 and cast to float32 as it is loaded.

    Weights that float16 holds exactly compute the same bits as before.
    """
    model = onnx.load(path)
    casts = []
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= FEWEST_HALVED:
            stored = f"{tensor.name}_float16"
            casts.append(onnx.helper.make_node("Cast", [stored], [tensor.name], to=1))
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), stored))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's chatter to itself; the gates judge what it wrote."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            # Deprecations inside the exporter's own code are nothing a user could correct.
            for kind in (DeprecationWarning, FutureWarning, UserWarning):
                warnings.simplefilter("ignore", kind)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
