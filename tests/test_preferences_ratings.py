"""Tables of ratings: what they accept and how they refuse the rest."""

import numpy as np
import pytest

from diffgame.preferences import Ratings, RatingsError
from diffgame.preferences._ratings import check_answers

PEOPLE, ITEMS = ("ann", "bob", "eve"), ("x", "y")
VALUES = np.array([[1.0, 5.0], [4.0, np.nan], [2.0, 3.0]])


def ratings(**changes) -> Ratings:
    fields = {"name": "films", "people": PEOPLE, "items": ITEMS, "scale": (1.0, 5.0)}
    return Ratings(**(fields | {"values": VALUES} | changes))


def test_missing_answers_are_those_that_are_not_numbers():
    np.testing.assert_array_equal(ratings().observed, [[1, 1], [1, 0], [1, 1]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"people": ("ann", "ann", "eve")}, "films: names the person 'ann' twice"),
        ({"items": ("x", "x")}, "films: names the item 'x' twice"),
        ({"items": ("x", "")}, "films: holds an empty item name"),
        ({"scale": (5.0, 1.0)}, "the scale is 5 to 1; give MIN,MAX"),
        ({"scale": (1.0, np.inf)}, "the scale is 1 to inf"),
        ({"scale": (1.0, 4.0)}, "films: person 'ann' column 'y' is 5, outside the scale 1 to 4"),
        ({"values": np.where(VALUES == 4, np.inf, VALUES)}, "'bob' column 'x' is not finite"),
        ({"groups": ("a", "b")}, "holds 2 groups for 3 people"),
        ({"topics": ("t",)}, "has topics without weights"),
        (
            {"topics": ("t",), "topic_weights": np.array([[1.0], [0.9]])},
            "item 'y' has topic weights",
        ),
    ],
)
def test_a_fault_is_refused_in_one_line_with_its_place(changes, message):
    with pytest.raises(RatingsError) as caught:
        ratings(**changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "minimum", "message"),
    [
        ({}, 2, "person 'bob' gives 1 answers, fewer than the minimum of 2; leave"),
        ({}, 3, "person 'ann' gives 2 answers, fewer than the minimum of 3 (so do 2 more)"),
        ({"groups": ("a", "a", "b")}, 1, "group 'a' has 2 people, fewer than the minimum of 3"),
        ({"values": VALUES * [[1.0, np.nan]]}, 1, "column 'y' has no answer at all"),
    ],
)
def test_too_few_answers_are_refused(changes, minimum, message):
    with pytest.raises(RatingsError) as caught:
        check_answers(ratings(**changes), minimum)
    assert message in str(caught.value)


def test_enough_answers_are_accepted():
    check_answers(ratings(groups=("a", "a", "a")), 1)
