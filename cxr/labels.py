"""Class names and their order.

The order of classes is the order of columns in every table and of axes in every tensor,
so it is fixed once, here, and travels with whatever is written.
"""

from collections.abc import Iterable, Sequence

from cxr.errors import InputError

CANONICAL = ("normal", "covid", "bacterial", "viral")
"""The order in which the four classes of this project are shown."""


def order_labels(found: Iterable[str]) -> tuple[str, ...]:
    """Put class names in the project's order, unknown ones after them by alphabet.

    Args:
        found: class names, repetitions allowed.

    Returns:
        Each name once.
    """
    names = set(found)
    known = tuple(name for name in CANONICAL if name in names)
    return known + tuple(sorted(names - set(known)))


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Check a list of class names.

    Raises:
        InputError: fewer than two names, an empty one, or a repetition.
    """
    if len(labels) < 2 or len(set(labels)) != len(labels) or not all(labels):
        raise InputError(
            f"labels {list(labels)} cannot name classes: "
            "at least two different, non-empty names are needed"
        )
    return tuple(labels)


def label_indices(values: Iterable[str], labels: Sequence[str]) -> list[int]:
    """Return each value's position among the labels.

    Raises:
        InputError: a value that is not among the labels.
    """
    position = {name: index for index, name in enumerate(labels)}
    indices = []
    for row, value in enumerate(values):
        if value not in position:
            raise InputError(
                f"unknown label {value!r} in row {row}: allowed are {', '.join(labels)}; "
                "correct the row or name the label in data.labels"
            )
        indices.append(position[value])
    return indices


def list_words(words: Sequence[str]) -> str:
    """Join words as a sentence does: "a, b and c"."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
