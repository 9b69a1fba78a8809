"""The whole measurement of a table."""

import json
import math

import numpy as np
import pytest

from diffgame.preferences import (
    AlignSettings,
    Ratings,
    RatingsError,
    align_ratings,
)

from .test_preferences_errors import PEOPLE, PROVIDERS, table

GROUPS = ("near",) * 14 + ("far [b]",) * 10
NAMES = [f"model {k}" for k in range(PROVIDERS)]
SETTINGS = AlignSettings(folds=3)


@pytest.fixture(scope="module")
def report():
    ratings, utilities = table(1, GROUPS)
    return align_ratings(ratings, NAMES, utilities, SETTINGS)


def test_the_report_is_plain_finite_and_the_same_for_the_same_seed(report):
    text = json.dumps(report, allow_nan=False)
    ratings, utilities = table(1, GROUPS)
    assert text == json.dumps(align_ratings(ratings, NAMES, utilities, SETTINGS))
    assert len(report["people"]) == PEOPLE


def test_everything_is_certified(report):
    certified = report["certified"]
    assert certified["squared_error"] == certified["squared_error_of"] == 2 * PEOPLE
    assert certified["sup_norm"] == certified["sup_norm_of"] == 4 * (PEOPLE + 2)
    assert certified["strong_alignment"]


def test_groups_are_averages_of_their_people(report):
    for name, count in (("near", 14), ("far [b]", 10)):
        group = report["groups"][name]
        members = [person for person in report["people"].values() if person["group"] == name]
        assert group["people"] == len(members) == count
        for method in ("cone", "hull", "single", "mean", "none"):
            errors = sorted(person[method]["held_out"] for person in members)
            found = group[method]["held_out"]
            assert abs(found["mean"] - np.mean(errors)) <= 1e-12
            assert abs(found["worst_decile"] - np.mean(errors[-math.ceil(count / 10) :])) <= 1e-12


def test_more_freedom_is_never_farther(report):
    for person in report["people"].values():
        assert person["cone"]["error"] <= person["hull"]["error"] + 1e-9
        assert person["hull"]["error"] <= min(person[m]["error"] for m in ("single", "mean")) + 1e-9
        sup = {kind: found["upper"] for kind, found in person["sup_norm"].items()}
        assert sup["cone_constant"] <= min(sup["cone_none"], sup["hull_constant"]) + 1e-9
        assert sup["cone_none"] <= sup["hull_none"] + 1e-9
        assert sup["hull_constant"] <= sup["hull_none"] + 1e-9
        # The root mean square of the nearest mix is at most its largest error in the sup norm.
        assert person["hull"]["error"] <= sup["hull_constant"] + 1e-9
    # A common mix, in units of mass, is one of the mixes of each group when scales are 1.
    strong = report["strong_alignment"]
    for name, group in report["groups"].items():
        at = sorted(report["groups"]).index(name)
        assert group["sup_norm"]["cone_constant"]["lower"] * strong["scales"][at] <= (
            strong["upper"] + 1e-9
        )


def test_people_who_are_mixes_of_providers_are_aligned():
    ratings, utilities = table(2, GROUPS)
    values = np.random.default_rng(3).dirichlet(np.ones(PROVIDERS), PEOPLE) @ utilities
    values = np.where(ratings.observed, 3 + values / 4, np.nan)
    exact = Ratings("exact", ratings.people, ratings.items, (-9.0, 9.0), values, GROUPS)
    found = align_ratings(exact, NAMES, utilities / 4, SETTINGS)
    for method in ("cone", "hull"):
        assert found["all"][method]["error"]["worst_decile"] <= 1e-7
        assert found["all"][method]["held_out"]["worst_decile"] <= 1e-6
    sups = [person["sup_norm"]["hull_constant"]["upper"] for person in found["people"].values()]
    assert all(sup <= 1e-7 for sup in sups)


def test_people_with_too_few_answers_are_refused():
    ratings, utilities = table(1, GROUPS)
    with pytest.raises(RatingsError, match="fewer than the minimum of 30"):
        align_ratings(ratings, NAMES, utilities, AlignSettings(minimum=30))
