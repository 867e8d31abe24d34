"""An 8-bit variant of a graph: static quantisation calibrated on validation images.

Weights per channel, activations per tensor, in the QDQ form that onnxruntime and OpenVINO both
compute in integers. N images, S side of prepared pixels.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from cxr.bundle.runtimes import INPUT

LARGE = 0.5
"""Share of the largest network's weights from which on a network counts as large."""
OPERATORS = ("Add", "AveragePool", "Concat", "Conv", "MaxPool")
"""What is computed in 8 bits; each has an integer kernel on processors."""


@dataclass(frozen=True)
class Setting:
    """One way to quantise.

    Attributes:
        members: whose networks are quantised; the others stay in float32.
        method: how an activation's range is found, ``minmax`` or ``percentile``.
        keep_first: leave each network's first convolution in float32.
    """

    members: tuple[str, ...]
    method: str = "minmax"
    keep_first: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"members": list(self.members)}


def settings_for(sizes: Mapping[str, int]) -> list[Setting]:
    """Return the settings to try, in order.

    First only the large networks, which do most of the work and lose least by 8 bits: a
    small one of depthwise convolutions is little slower in float32, and far more exact.

    Args:
        sizes: member to the bytes of its weights.
    """
    large = tuple(name for name, size in sizes.items() if size >= LARGE * max(sizes.values()))
    found = [Setting(large), Setting(tuple(sizes)), Setting(tuple(sizes), method="percentile")]
    return list(dict.fromkeys(found))


def quantise(
    source: Path,
    target: Path,
    images: NDArray[np.uint8],
    setting: Setting,
    *,
    on_image: Callable[[], None] | None = None,
) -> None:
    """Write an 8-bit variant of a graph.

    Args:
        source: the float32 graph.
        target: written or replaced.
        images: (N, S, S) validation images, over which activations' ranges are taken.
        setting: what to quantise.
        on_image: called once an image.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    methods = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}
    with TemporaryDirectory(dir=target.parent, prefix=".quantising-") as folder, _quiet():
        plain = Path(folder) / "plain.onnx"
        # Shapes are known; the symbolic pass needs a package more.
        quant_pre_process(str(source), str(plain), skip_symbolic_shape=True)
        nodes = quantisable(onnx.load(plain), setting)
        quantize_static(
            str(plain),
            str(target),
            _Images(images, on_image),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=nodes,
            op_types_to_quantize=list(OPERATORS),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=methods[setting.method],
            extra_options={"CalibPercentile": 99.99},
        )


def quantisable(model: onnx.ModelProto, setting: Setting) -> list[str]:
    """Return names of the nodes behind the features of a setting's members.

    Pooled features, head, maps and everything after them stay in float32: they are next to
    no work, and the answer itself.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    found: list[str] = []
    for member in setting.members:
        behind = _ancestors(makers, f"features_{member}")
        nodes = [node for node in model.graph.node if node.name in behind]
        first = next(node for node in nodes if node.op_type == "Conv")
        # What lies before the first convolution are shapes and the scaling of pixels.
        reached, chosen = set(first.output), [first]
        for node in nodes:
            if node is not first and reached & set(node.input):
                reached |= set(node.output)
                chosen.append(node)
        found += [
            node.name
            for node in chosen
            if node.op_type in OPERATORS and not (node is first and setting.keep_first)
        ]
    return found


def _ancestors(makers: dict[str, onnx.NodeProto], output: str) -> set[str]:
    """Return names of the nodes that an output depends on."""
    found: set[str] = set()
    todo = [output]
    while todo:
        node = makers.get(todo.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            todo += node.input
    return found


class _Images:
    """What onnxruntime's calibration reads, an image at a time."""

    def __init__(self, images: NDArray[np.uint8], on_image: Callable[[], None] | None) -> None:
        self._images, self._on_image = iter(images), on_image

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        image = next(self._images, None)
        if image is None:
            return None
        if self._on_image:
            self._on_image()
        return {INPUT: np.asarray(image)[None, None]}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice to itself; its figures judge what it wrote."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
