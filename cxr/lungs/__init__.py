"""Where the lungs are on an image, by the shipped network; its card is CARD.md beside it."""

from cxr.lungs.find import Lungs, find_lungs

__all__ = ["Lungs", "find_lungs"]
