"""A bad market file is refused in one line that names file, field, value and remedy."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from diffgame.market._file import MarketFileError, read_market, write_market


def document() -> dict[str, Any]:
    """A small valid market: 2 states, 2 actions, Ann, Bob and Cyd, and two providers."""

    def table() -> list[list[float]]:
        return [[0.0, 1.0], [1.0, 0.0]]

    return {
        "format": "diffgame.market/1",
        "name": "Test",
        "states": ["low", "high"],
        "prior": [0.25, 0.75],
        "actions": ["buy", "wait"],
        "users": [
            {"name": "Ann", "utility": table()},
            {"name": "Bob", "mass": 2.5, "segment": "north", "utility": [[1, -2], [0, 0]]},
            {"name": "Cyd", "mass": 1, "utility": table()},
        ],
        "providers": [
            {"name": "shop", "objective": [[3, 3], [0, 0]]},
            {
                "name": "press",
                "objective": {"Ann": table(), "Bob": table(), "Cyd": [[0, 0], [1, 2]]},
            },
        ],
    }


def test_a_file_is_read_into_names_and_arrays(tmp_path: Path):
    path = tmp_path / "market.json"
    path.write_text(json.dumps(document()), encoding="utf-8")
    market = read_market(path)
    assert (market.name, market.states, market.actions) == (
        "Test",
        ("low", "high"),
        ("buy", "wait"),
    )
    assert (market.users, market.providers) == (("Ann", "Bob", "Cyd"), ("shop", "press"))
    assert market.segments == (None, "north", None)
    np.testing.assert_array_equal(market.prior, [0.25, 0.75])
    np.testing.assert_array_equal(market.mass, [1.0, 2.5, 1.0])
    np.testing.assert_array_equal(market.utility[1], [[1, -2], [0, 0]])
    np.testing.assert_array_equal(market.objective[0], [[[3, 3], [0, 0]]] * 3)
    np.testing.assert_array_equal(market.objective[1, 2], [[0, 0], [1, 2]])


# Bad files: the change to the document, and what the message must hold.


def put(*path: Any) -> Callable[[dict[str, Any]], None]:
    """Set the value at the end of a path."""
    *way, key, value = path

    def change(market: dict[str, Any]) -> None:
        target: Any = market
        for step in way:
            target = target[step]
        target[key] = value

    return change


def cut(*path: Any) -> Callable[[dict[str, Any]], None]:
    """Remove the entry at the end of a path."""
    *way, key = path

    def change(market: dict[str, Any]) -> None:
        target: Any = market
        for step in way:
            target = target[step]
        del target[key]

    return change


HUGE = 10**400
BAD_DOCUMENTS = {
    # format and fields
    "format tag": (
        put("format", "diffgame.market/2"),
        ["format is", '/2"', 'reads "diffgame.market/1"'],
    ),
    "format is no text": (put("format", 1), ["format is 1"]),
    "format tag before all else": (
        lambda m: m.update(format="diffgame.market/9", extra=1),
        ["format is", "/9"],
    ),
    "format missing": (cut("format"), ["format is missing; add it"]),
    "field missing": (cut("prior"), ["prior is missing; add it"]),
    "user without utility": (
        cut("users", 1, "utility"),
        ["users[1].utility (user 'Bob') is missing"],
    ),
    "user without name": (cut("users", 1, "name"), ["users[1].name is missing"]),
    "provider without objective": (
        cut("providers", 0, "objective"),
        ["providers[0].objective (provider 'shop') is missing"],
    ),
    "field unknown": (put("priors", []), ["priors is an unknown field; did you mean 'prior'?"]),
    "field unknown and unlike any": (
        put("zzz", 1),
        ["zzz is an unknown field; choose from 'format', 'name'"],
    ),
    "user field unknown": (
        put("users", 2, "utilty", []),
        ["users[2].utilty (user 'Cyd') is an unknown field; did you mean 'utility'?"],
    ),
    "provider field unknown": (
        put("providers", 1, "mass", 1),
        ["providers[1].mass (provider 'press') is an unknown field"],
    ),
    "field with a line break": (put("a\nb", 1), [r"a\nb is an unknown field"]),
    # names
    "name of another type": (put("name", 7), ["name is 7", "text in quotes"]),
    "name is null": (put("name", None), ["name is null"]),
    "name empty": (put("name", ""), ['name is ""', "without outer spaces"]),
    "name blank": (put("users", 0, "name", " "), ["users[0].name", "outer spaces"]),
    "name with a line break": (put("states", 1, "a\nb"), ["states[1]", "line breaks"]),
    "name that UTF-8 cannot hold": (put("states", 1, "\ud800"), ["states[1]", "control"]),
    "action is a number": (put("actions", 1, 3), ["actions[1] is 3", "text"]),
    "user name is a list": (put("users", 1, "name", ["Bob"]), ['users[1].name is ["Bob"]']),
    "state twice": (put("states", 1, "low"), ["states[1] is 'low'", "states[0]", "of its own"]),
    "action twice": (put("actions", 1, "buy"), ["actions[1] is 'buy'", "actions[0]"]),
    "user twice": (put("users", 2, "name", "Ann"), ["users[2].name is 'Ann'", "users[0]"]),
    "provider twice": (put("providers", 1, "name", "shop"), ["providers[1].name is 'shop'"]),
    "segment is a number": (put("users", 1, "segment", 3), ["users[1].segment (user 'Bob') is 3"]),
    "segment is null": (put("users", 1, "segment", None), ["is null; leave the field out"]),
    # lists and objects
    "no states": (put("states", []), ["states is empty; give at least one state"]),
    "no actions": (put("actions", []), ["actions is empty; give at least one action"]),
    "no users": (put("users", []), ["users is empty; give at least one user"]),
    "no providers": (put("providers", []), ["providers is empty; give at least one provider"]),
    "states is a text": (put("states", "low"), ['states is "low"; give a list']),
    "users is an object": (put("users", {"Ann": 1}), ["users is {", "give a list of users"]),
    "user is a text": (put("users", 1, "Bob"), ['users[1] is "Bob"', "name, utility"]),
    "provider is null": (put("providers", 0, None), ["providers[0] is null", "name, objective"]),
    # prior
    "prior too short": (put("prior", [1.0]), ["prior has 1 entries, but states number 2"]),
    "prior too long": (put("prior", [0.5, 0.25, 0.25]), ["prior has 3 entries"]),
    "prior is a number": (put("prior", 1), ["prior is 1", "one entry per state"]),
    "prior is an object": (put("prior", {"low": 1, "high": 0}), ["prior is {", "list"]),
    "prior negative": (
        put("prior", [-0.5, 1.5]),
        ["prior[0] (state 'low') is -0.5", "from 0 to 1"],
    ),
    "prior does not sum to 1": (
        put("prior", [0.25, 0.7]),
        ["prior sums to 0.95, not 1", "rescale"],
    ),
    "prior sums to 1 + 2e-9": (put("prior", [0.25, 0.75 + 2e-9]), ["prior sums to 1.000000002"]),
    "prior sums to 1 - 2e-9": (put("prior", [0.25, 0.75 - 2e-9]), ["prior sums to 0.999999998"]),
    "prior is nan": (put("prior", [float("nan"), 1.0]), ["prior[0] (state 'low') is nan"]),
    "prior above 1": (put("prior", [0.5, 1e308]), ["prior[1] (state 'high') is 1e+308", "0 to 1"]),
    # mass
    "mass zero": (put("users", 1, "mass", 0), ["users[1].mass (user 'Bob') is 0.0", "positive"]),
    "mass negative": (put("users", 1, "mass", -1.5), ["users[1].mass (user 'Bob') is -1.5"]),
    "mass infinite": (put("users", 1, "mass", float("inf")), ["users[1].mass (user 'Bob') is inf"]),
    "mass is a text": (put("users", 1, "mass", "2"), ["users[1].mass (user 'Bob') is \"2\""]),
    "mass is null": (put("users", 1, "mass", None), ["users[1].mass (user 'Bob') is null"]),
    "mass is a boolean": (put("users", 1, "mass", True), ["users[1].mass (user 'Bob') is true"]),
    # tables
    "utility is nan": (
        put("users", 2, "utility", 1, 0, float("nan")),
        ["users[2].utility[1][0] (user 'Cyd', action 'wait', state 'low') is nan", "finite"],
    ),
    "utility is minus infinity": (
        put("users", 2, "utility", 1, 0, float("-inf")),
        ["users[2].utility[1][0] (user 'Cyd'", "is -inf"],
    ),
    "utility is a huge integer": (
        put("users", 1, "utility", 0, 1, HUGE),
        ["users[1].utility[0][1] (user 'Bob', action 'buy', state 'high') is inf", "float64"],
    ),
    "utility is a boolean": (
        put("users", 1, "utility", 0, 1, True),
        ["users[1].utility[0][1]", "is true; give a number"],
    ),
    "utility is a text": (put("users", 1, "utility", 0, 1, "1"), ['is "1"; give a number']),
    "utility is null": (put("users", 1, "utility", 0, 1, None), ["is null; give a number"]),
    "utility is ragged": (
        put("users", 1, "utility", 1, [1.0]),
        ["users[1].utility[1] (user 'Bob', action 'wait') has 1 entries", "states number 2"],
    ),
    "utility lacks a row": (
        cut("users", 1, "utility", 1),
        ["users[1].utility (user 'Bob') has 1 entries, but actions number 2", "'buy', 'wait'"],
    ),
    "utility is empty": (put("users", 1, "utility", []), ["users[1].utility", "has 0 entries"]),
    "utility is too deep": (
        put("users", 1, "utility", 0, 1, [1.0]),
        ["users[1].utility[0][1]", "is [1.0]; give a number"],
    ),
    "utility is one row": (
        put("users", 1, "utility", [1.0, 2.0]),
        ["users[1].utility[0] (user 'Bob', action 'buy') is 1.0", "list"],
    ),
    "utility is an object": (put("users", 1, "utility", {"buy": 1}), ["users[1].utility", "list"]),
    # objectives
    "objective is nan": (
        put("providers", 0, "objective", 1, 1, float("nan")),
        ["providers[0].objective[1][1] (provider 'shop', action 'wait', state 'high') is nan"],
    ),
    "objective of one user is nan": (
        put("providers", 1, "objective", "Bob", [[0, 0], [0, float("nan")]]),
        ["providers[1].objective['Bob'][1][1] (provider 'press', action 'wait'", "is nan"],
    ),
    "objective of one user is ragged": (
        put("providers", 1, "objective", "Cyd", [[0, 0], [0]]),
        ["providers[1].objective['Cyd'][1]", "has 1 entries, but states number 2"],
    ),
    "objective lacks a user": (
        cut("providers", 1, "objective", "Bob"),
        ["providers[1].objective (provider 'press') has no table for user 'Bob'"],
    ),
    "objective names a stranger": (
        put("providers", 1, "objective", "Bobb", [[0, 0], [0, 0]]),
        ["providers[1].objective", "names 'Bobb', which is no user; did you mean 'Bob'?"],
    ),
    "objective is empty": (put("providers", 1, "objective", {}), ["no table for user 'Ann'"]),
    "objective is a number": (put("providers", 1, "objective", 1), ["objective", "is 1", "table"]),
    "objective per user in a list": (
        put("providers", 1, "objective", [[[0, 0], [1, 1]]] * 3),
        ["providers[1].objective (provider 'press') has 3 entries, but actions number 2"],
    ),
}


def error_of(path: Path) -> str:
    with pytest.raises(MarketFileError) as caught:
        read_market(path)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    assert line.startswith(f"{path}: ")
    assert "; " in line, "no remedy"
    return line


@pytest.mark.parametrize("case", BAD_DOCUMENTS)
def test_a_bad_document_is_named_in_one_line(case: str, tmp_path: Path):
    change, fragments = BAD_DOCUMENTS[case]
    market = copy.deepcopy(document())
    change(market)
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(market), encoding="utf-8")
    line = error_of(path)
    assert [fragment for fragment in fragments if fragment not in line] == [], line


GOOD = json.dumps(document())
BAD_TEXTS = {
    "empty": ("", ["is empty", "JSON object"]),
    "blank": (" \n ", ["is empty"]),
    "not JSON": ("states: [a, b]", ["line 1, column 1 is not JSON", "correct the file there"]),
    "trailing comma": ('{\n  "name": "x",\n}', ["is not JSON", "line "]),
    "cut short": (GOOD[:-9], ["is not JSON"]),
    "text after the end": (GOOD + "}", ["is not JSON", "Extra data"]),
    "a list": ("[]", ["the top level is []", "object"]),
    "a text": ('"market"', ['the top level is "market"']),
    "a number": ("1", ["the top level is 1"]),
    "null": ("null", ["the top level is null"]),
    "deep lists": ("[" * 200_000, ["nested too deeply"]),
    "deep number": (GOOD.replace("2.5,", "[" * 2000 + "]" * 2000 + ","), []),
    "deep objects": ('{"a":' * 200_000, ["nested too deeply"]),
    "field twice": (GOOD[:-1] + ', "prior": [0.5, 0.5]}', ["prior is given twice", "keep one"]),
    "user field twice": (
        GOOD.replace('"mass": 2.5', '"mass": 2.5, "mass": 3'),
        ["users[1].mass (user 'Bob') is given twice"],
    ),
    "objective twice for a user": (
        GOOD.replace('{"Ann": ', '{"Bob": [[0, 0], [0, 0]], "Ann": '),
        ["providers[1].objective (provider 'press') names user 'Bob' twice"],
    ),
    "NaN": (GOOD.replace("0.25", "NaN"), ["prior[0] (state 'low') is nan"]),
    "Infinity": (GOOD.replace("2.5,", "Infinity,"), ["users[1].mass (user 'Bob') is inf"]),
    "1e400": (GOOD.replace("2.5,", "1e400,"), ["users[1].mass (user 'Bob') is inf", "float64"]),
    "5000 digits": (GOOD.replace("2.5,", "9" * 5000 + ","), ["users[1].mass", "is inf"]),
    "a value too long to show": (
        GOOD.replace('"Test"', json.dumps(list(range(10_000)))),
        ["name is [0.0, 1.0", "...; give a text"],
    ),
}


@pytest.mark.parametrize("case", BAD_TEXTS)
def test_a_bad_text_is_named_in_one_line(case: str, tmp_path: Path):
    text, fragments = BAD_TEXTS[case]
    assert text != GOOD
    path = tmp_path / "bad.json"
    path.write_text(text, encoding="utf-8")
    line = error_of(path)
    assert [fragment for fragment in fragments if fragment not in line] == [], line
    assert len(line) < len(str(path)) + 250


def test_bytes_that_are_not_utf8(tmp_path: Path):
    path = tmp_path / "bad.json"
    path.write_bytes(GOOD.replace("Ann", "Zoë").encode("latin-1"))
    assert "is not UTF-8; save the file as JSON in UTF-8" in error_of(path)


def test_a_byte_order_mark_is_no_fault(tmp_path: Path):
    path = tmp_path / "market.json"
    path.write_text(GOOD, encoding="utf-8-sig")
    assert read_market(path).users == ("Ann", "Bob", "Cyd")


def test_no_such_file(tmp_path: Path):
    assert error_of(tmp_path / "no.json").endswith("no.json: no such file; check the path")


def test_a_directory(tmp_path: Path):
    assert "is a directory" in error_of(tmp_path)


def test_a_file_as_a_folder(tmp_path: Path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "cannot be read (Not a directory)" in error_of(tmp_path / "file" / "market.json")


def test_a_path_that_no_file_can_have():
    with pytest.raises(MarketFileError, match=r"^a\\x00b: is no path"):
        read_market("a\0b")


def test_a_file_name_with_a_line_break_stays_on_one_line(tmp_path: Path):
    with pytest.raises(MarketFileError) as caught:
        read_market(tmp_path / "a\nb.json")
    assert r"a\nb.json: no such file" in str(caught.value)


# Whatever stands in a file, it is read or refused in one line.

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    entries = [(*path, key) for key in keys]
    for key in keys:
        if isinstance(value[key], dict | list):
            entries += places(value[key], (*path, key))
    return entries


@given(place=st.sampled_from(places(document())), value=JSON_VALUES)
def test_any_value_at_any_place_is_read_or_refused_in_one_line(
    place: tuple[Any, ...], value: Any, tmp_path_factory: pytest.TempPathFactory
):
    market = document()
    put(*place, value)(market)
    path = tmp_path_factory.getbasetemp() / "fuzzed.json"
    path.write_text(json.dumps(market), encoding="utf-8")
    try:
        result = read_market(path)
    except MarketFileError as error:
        result = error
    if isinstance(result, MarketFileError):
        assert str(result).isprintable()
        assert result.problem
        assert result.remedy
    else:
        write_market(path, result)
        written = path.read_bytes()
        write_market(path, read_market(path))
        assert path.read_bytes() == written
