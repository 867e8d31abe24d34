"""Chest X-ray classification whose numbers can be believed. Research use only."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxr.bundle.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor"]


def __getattr__(name: str) -> Any:
    """Import the predictor where it is first asked for; training does without onnxruntime."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cxr.bundle import predictor

    return getattr(predictor, name)
