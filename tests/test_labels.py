"""Class names: their order, and what a list of them may not be."""

import re

import pytest

from cxr.errors import InputError
from cxr.labels import (
    CANONICAL,
    check_labels,
    in_label,
    label_fault,
    label_indices,
    label_memberships,
    order_labels,
    partly_known,
)


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


def test_label_sets_bring_their_classes_in_the_projects_order():
    assert order_labels(["viral|bacterial", "normal"]) == ("normal", "bacterial", "viral")
    assert partly_known(["viral", "bacterial|viral"]).tolist() == [False, True]
    members = label_memberships(["b", "a|c", "c|b"], ["a", "b", "c"])
    assert members.tolist() == [[False, True, False], [True, False, True], [False, True, True]]
    named = in_label(["a", "b", "a"], ["a|b", "a|c", "a"])
    assert named.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("label", "fault"),
    [
        ("viral|viral", "names each class once"),
        ("viral|flu", r"allowed are normal, viral, or several of them joined by '\|'"),
        ("flu", "allowed are normal, viral$"),
        ("viral|", "allowed are"),
        ("viral", "^$"),
        ("normal|viral", "^$"),
    ],
)
def test_a_label_or_set_that_is_not_allowed_says_why(label, fault):
    assert re.search(fault, label_fault(label, ["normal", "viral"]))


def test_any_class_but_an_empty_one_is_allowed_without_a_list():
    assert label_fault("flu|cold", None) == ""
    assert label_fault("", None) == "allowed are a class name"
    with pytest.raises(InputError, match=r"without '\|' are needed"):
        check_labels(["a|b", "c"])
