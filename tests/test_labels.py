"""Class names: their order, and what a list of them may not be."""

import pytest

from cxr.errors import InputError
from cxr.labels import CANONICAL, check_labels, label_indices, order_labels


def test_known_labels_come_first_in_the_projects_order():
    found = ["viral", "zebra", "covid", "apple", "viral", "normal"]
    assert order_labels(found) == ("normal", "covid", "viral", "apple", "zebra")
    assert order_labels(reversed(CANONICAL)) == CANONICAL
    assert order_labels([]) == ()


@pytest.mark.parametrize("labels", [[], ["a"], ["a", "a"], ["a", ""]])
def test_labels_that_name_no_classes_are_refused(labels):
    with pytest.raises(InputError, match="at least two different, non-empty names"):
        check_labels(labels)


def test_checked_labels_keep_their_order():
    assert check_labels(["b", "a", "c"]) == ("b", "a", "c")


def test_indices_are_positions_among_the_labels():
    assert label_indices(["c", "a", "c"], ["a", "b", "c"]) == [2, 0, 2]


def test_unknown_label_is_named_with_its_row():
    with pytest.raises(InputError, match=r"'flu' in row 1: allowed are a, b; correct") as caught:
        label_indices(["a", "flu"], ["a", "b"])
    assert "\n" not in str(caught.value)
