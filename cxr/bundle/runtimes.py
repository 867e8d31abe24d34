"""What computes the graph: onnxruntime, or OpenVINO where it is installed.

B batch, S side of the prepared square.
"""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr.bundle.format import BundleError
from cxr.errors import InputError, reason_of

RUNTIMES = ("onnxruntime", "openvino")
INPUT = "pixels"
BATCH = 16
"""Images of a whole split that are run at once."""

Arrays = dict[str, NDArray[Any]]


def open_runtime(path: Path, *, runtime: str = "onnxruntime", threads: int = 0) -> "Runtime":
    """Load the graph of an ONNX file; with 0 threads it takes every processor allowed to us.

    Raises:
        InputError: the runtime is unknown or not installed, or threads is negative.
        BundleError: a file that the runtime cannot load.
    """
    if runtime not in RUNTIMES:
        raise InputError(f"runtime is {runtime!r}: allowed are {', '.join(RUNTIMES)}")
    if threads < 0:
        raise InputError(f"threads is {threads}: allowed are 0 (every processor) and above")
    kind = _OpenVino if runtime == "openvino" else _OnnxRuntime
    # Which processors this process may use; not every system says.
    allowed = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    return kind(path, threads or len(allowed(0)))


def run_images(
    runtime: "Runtime",
    pixels: NDArray[np.uint8],
    rows: NDArray[np.int64],
    outputs: Sequence[str],
    *,
    on_image: Callable[[], None] | None = None,
) -> Arrays:
    """Return outputs of many images: ``rows`` (N,), at least one, of pixels (P, S, S) uint8.

    ``on_image`` is called once an image.
    """
    parts = []
    for start in range(0, len(rows), BATCH):
        images = np.asarray(pixels[rows[start : start + BATCH]])[:, None]
        parts.append(runtime.run(images, outputs))
        for _ in range(len(images) if on_image else 0):
            on_image()  # type: ignore[misc]
    return {name: np.concatenate([part[name] for part in parts]) for name in outputs}


class _OnnxRuntime:
    def __init__(self, path: Path, threads: int) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise InputError("onnxruntime is not installed: pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Who spins takes the processor from the thread it waits for; sleeping costs nothing on a
        # free machine (benchmarks/busy_machine.py).
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Warnings about how a graph could be smaller are not the caller's business.
        options.log_severity_level = 3
        # The arena never shrinks: a batch of images would stay reserved for good.
        options.enable_cpu_mem_arena = False
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own classes have no common ancestor
            raise BundleError(f"onnxruntime cannot load {path} ({reason_of(error)})") from None

    def run(self, pixels: NDArray[np.uint8], outputs: Sequence[str]) -> Arrays:
        arrays = self._session.run(list(outputs), {INPUT: pixels})
        return dict(zip(outputs, arrays, strict=True))


class _OpenVino:
    def __init__(self, path: Path, threads: int) -> None:
        try:
            import openvino
        except ImportError:
            raise InputError(
                "runtime is 'openvino', which is not installed: pip install 'cxr[openvino]', or "
                "take runtime='onnxruntime'"
            ) from None
        hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        try:
            self._model = openvino.Core().compile_model(
                str(path), "CPU", {**hints, "INFERENCE_NUM_THREADS": threads}
            )
        except RuntimeError as error:
            raise BundleError(f"openvino cannot load {path} ({reason_of(error)})") from None
        # A request holds the results of one run, so each thread has its own.
        self._local = threading.local()

    def run(self, pixels: NDArray[np.uint8], outputs: Sequence[str]) -> Arrays:
        if not hasattr(self._local, "request"):
            self._local.request = self._model.create_infer_request()
        request = self._local.request
        request.infer({INPUT: pixels}, share_inputs=True)
        return {name: np.array(request.get_tensor(name).data) for name in outputs}


Runtime = _OnnxRuntime | _OpenVino
"""A graph that is ready; ``run`` gives outputs of (B, 1, S, S) uint8 pixels, in any thread."""
