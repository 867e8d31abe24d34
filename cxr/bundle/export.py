"""Write the graph as ONNX. The only module of this room beside ``graph`` that needs torch.

B batch, S side of prepared pixels.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch

from cxr.bundle.graph import BundleGraph
from cxr.bundle.runtimes import INPUT

OPSET = 18
"""Read by onnxruntime since 1.14 and by every OpenVINO that can be installed today."""
LARGEST_BATCH = 4096
"""Bound that the tracer wants on the batch; the graph itself has none."""


def export_onnx(graph: BundleGraph, path: Path, *, size_px: int, note: str) -> None:
    """Write a graph as one ONNX file with a dynamic batch.

    Args:
        graph: in inference mode.
        path: ``.onnx``, written or replaced.
        size_px: S.
        note: stands in the file's own description.
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
            output_names=graph.outputs,
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's chatter to itself; the gates judge what it wrote."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            # Deprecations inside the exporter's own code are nothing a user could mend.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
