"""Class names and their order.

The order of classes is the order of columns in every table and of axes in every tensor,
so it is fixed once, here, and travels with whatever is written. Where the truth is known only in
part, a label is a set of classes, such as ``bacterial|viral``. N images, K classes.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from cxr.errors import InputError

CANONICAL = ("normal", "covid", "bacterial", "viral")
"""The order in which the four classes of this project are shown."""
SET_MARK = "|"
"""Between the classes of a label set."""


def order_labels(found: Iterable[str]) -> tuple[str, ...]:
    """Return each class once, in the project's order, unknown ones after them by alphabet.

    ``found`` are labels, repetitions and sets allowed.
    """
    names = {part for label in found for part in label.split(SET_MARK)}
    known = tuple(name for name in CANONICAL if name in names)
    return known + tuple(sorted(names - set(known)))


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Return class names, or raise InputError: under two, an empty one, a set, a repetition."""
    repeats = len(set(labels)) != len(labels)
    if len(labels) < 2 or repeats or not all(labels) or SET_MARK in "".join(labels):
        raise InputError(
            f"labels {list(labels)} cannot name classes: "
            f"at least two different, non-empty names without {SET_MARK!r} are needed"
        )
    return tuple(labels)


def label_fault(label: str, labels: Sequence[str] | None) -> str:
    """Say why a label, a class or a set of several, is not allowed; "" where it is.

    Any non-empty name is a class where ``labels`` is None.
    """
    parts = label.split(SET_MARK)
    if len(set(parts)) < len(parts):
        return "a set names each class once"
    unknown = [part for part in parts if (part not in labels if labels is not None else not part)]
    if not unknown:
        return ""
    names = ", ".join(labels) if labels is not None else "a class name"
    sets = f", or several of them joined by {SET_MARK!r}" if len(parts) > 1 else ""
    return f"allowed are {names}{sets}"


def partly_known(values: Iterable[str]) -> NDArray[np.bool_]:
    """Return which labels are sets of several classes, (N,)."""
    return np.array([SET_MARK in value for value in values], np.bool_)


def in_label(named: Iterable[str], labels: Iterable[str]) -> NDArray[np.bool_]:
    """Return whether each class named is its image's label or in its label set, (N,)."""
    pairs = zip(named, labels, strict=True)
    return np.array([name in label.split(SET_MARK) for name, label in pairs], np.bool_)


def label_memberships(values: Sequence[str], labels: Sequence[str]) -> NDArray[np.bool_]:
    """Return which classes each image may be of, (N, K): one, or those of its set.

    A class that is not among the labels is an InputError.
    """
    sets = [value.split(SET_MARK) for value in values]
    rows = np.repeat(np.arange(len(sets)), [len(parts) for parts in sets])
    members = np.zeros((len(sets), len(labels)), np.bool_)
    members[rows, label_indices([part for parts in sets for part in parts], labels)] = True
    return members


def label_indices(values: Iterable[str], labels: Sequence[str]) -> list[int]:
    """Return each value's position among the labels, or raise InputError: it is not there."""
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
