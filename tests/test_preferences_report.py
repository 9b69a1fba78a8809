"""Printing what was measured."""

import io
import json

import pytest
from rich.console import Console

from diffgame.preferences import align_ratings, print_alignment

from .test_preferences_align import GROUPS, NAMES, SETTINGS
from .test_preferences_errors import PEOPLE, table


@pytest.fixture(scope="module")
def report():
    ratings, utilities = table(1, GROUPS)
    return align_ratings(ratings, NAMES, utilities, SETTINGS)


def printed(report) -> str:
    stream = io.StringIO()
    print_alignment(report, Console(file=stream, width=80))
    return stream.getvalue()


def test_print_fits_80_columns_and_names_the_worst_group_first(report):
    text = printed(report)
    assert max(map(len, text.splitlines())) <= 80
    worst = max(
        report["groups"],
        key=lambda name: report["groups"][name]["hull"]["held_out"]["worst_decile"],
    )
    other = next(name for name in report["groups"] if name != worst)
    assert text.index(f" {worst} ") < text.index(f" {other} ")
    assert f"{report['all']['hull']['held_out']['worst_decile']:.4f}" in text
    assert "48 of 48 nearest mixes" in text


def test_print_shows_a_bracket_where_bounds_differ(report):
    open_ = json.loads(json.dumps(report))
    open_["strong_alignment"] |= {"lower": 0.125, "upper": 0.25, "certified": False}
    assert "0.1250 to 0.2500" in " ".join(printed(open_).split())


def test_print_says_when_people_were_sampled_or_left_out(report):
    some = json.loads(json.dumps(report))
    some["sup_norm"]["people"] = 5
    assert f"a random 5 of {PEOPLE} people" in " ".join(printed(some).split())
    for person in some["people"].values():
        del person["sup_norm"]
    assert f"too large for {PEOPLE} people" in " ".join(printed(some).split())
