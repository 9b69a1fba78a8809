"""Private information and conversation in market files: lossless, and refused in one line."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from diffgame.market import Protocol, market_of
from diffgame.market._file import MarketFile, MarketFileError, read_market, write_market
from diffgame.market._private import PrivateInformation
from diffgame.market._typed_tables import conversation_of, typed_tables

MARKETS = Path(__file__).parents[1] / "examples" / "markets"


def document() -> dict[str, Any]:
    """Ann knows one of three values, Bob nothing; two states, two actions, one provider."""
    table = [[0.0, 1.0], [1.0, 0.0]]
    tables = [table, [[2.0, 0.0], [0.0, 3.0]], [[0.0, 0.0], [1.0, 1.0]]]
    return {
        "format": "diffgame.market/1",
        "name": "Test",
        "states": ["low", "high"],
        "prior": [0.25, 0.75],
        "actions": ["buy", "wait"],
        "conversation": {"rounds": 2, "user_messages": 3, "provider_messages": 2},
        "users": [
            {
                "name": "Ann",
                "private": {
                    "values": ["red", "green", "blue"],
                    "likelihood": [[0.5, 0.1], [0.5, 0.2], [0.0, 0.7]],
                },
                "utility": tables,
            },
            {"name": "Bob", "utility": table},
        ],
        "providers": [{"name": "shop", "objective": {"Ann": tables[::-1], "Bob": table}}],
    }


def read(market: dict[str, Any], path: Path) -> MarketFile:
    path.write_text(json.dumps(market), encoding="utf-8")
    return read_market(path)


# Reading and writing


def test_a_file_is_read_into_names_arrays_and_a_protocol(tmp_path: Path):
    market = read(document(), tmp_path / "market.json")
    assert market.conversation == Protocol(2, 3, 2)
    ann, bob = market.private
    assert bob is None
    assert ann.values == ("red", "green", "blue")
    np.testing.assert_array_equal(ann.likelihood, [[0.5, 0.1], [0.5, 0.2], [0.0, 0.7]])
    assert [table.shape for table in market.utility] == [(3, 2, 2), (2, 2)]
    assert [table.shape for table in market.objective[0]] == [(3, 2, 2), (2, 2)]
    np.testing.assert_array_equal(market.objective[0][0][2], [[0, 1], [1, 0]])
    with pytest.raises(ValueError, match="read-only"):
        ann.likelihood[0, 0] = 1


def test_tables_of_different_users_have_one_shape(tmp_path: Path):
    """Bob has one value: the others never occur, and repeat its table."""
    tables = typed_tables(read(document(), tmp_path / "market.json"))
    assert tables.values == (3, 1)
    expected = [[0.125, 0.075], [0.125, 0.15], [0, 0.525]]
    np.testing.assert_allclose(tables.joint[0], expected, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(tables.joint[1], [[0.25, 0.75], [0, 0], [0, 0]])
    np.testing.assert_array_equal(tables.utility[1], [[[0, 1], [1, 0]]] * 3)


def test_a_file_with_a_conversation_is_a_game(tmp_path: Path):
    market = read(document(), tmp_path / "market.json")
    game = conversation_of(market)
    assert game.protocol == Protocol(2, 3, 2)
    # Ann: red and green she knows what to do state by state; blue is worth 1 whatever is true.
    full = [0.2 + 0.125 * 2 + 0.15 * 3 + 0.525, 1.0]
    np.testing.assert_allclose(game.full_information(), full, rtol=0, atol=1e-15)
    np.testing.assert_allclose(typed_tables(market).full_information(), full, rtol=0, atol=1e-15)
    np.testing.assert_allclose(
        typed_tables(market).uninformed(), game.uninformed(), rtol=0, atol=1e-15
    )
    with pytest.raises(ValueError, match="user 'Ann' has private information"):
        market_of(market)


def test_a_file_without_a_conversation_is_no_game():
    market = read_market(MARKETS / "opposed_users.json")
    with pytest.raises(ValueError, match="the file has no conversation"):
        conversation_of(market)


FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def typed_contents(draw: st.DrawFn) -> dict[str, Any]:
    users, states, actions, providers = (draw(st.integers(1, 3)) for _ in range(4))
    known = [draw(st.none() | st.integers(1, 3)) for _ in range(users)]

    def numbers(*shape: int, of: st.SearchStrategy[float] = FLOATS) -> np.ndarray:
        size = int(np.prod(shape))
        return np.reshape(draw(st.lists(of, min_size=size, max_size=size)), shape)

    def tables(count: int | None) -> np.ndarray:
        return numbers(*(() if count is None else (count,)), actions, states)

    def columns(rows: int) -> np.ndarray:
        weights = numbers(rows, states, of=st.floats(0.001, 1.0))
        return weights / weights.sum(axis=0)

    def names(count: int, kind: str) -> list[str]:
        return [f"{kind} {n}" for n in range(count)]

    message = st.integers(1, 4)
    protocol = st.none() | st.builds(Protocol, st.integers(1, 3), message, message)
    return {
        "name": "drawn",
        "states": names(states, "state"),
        "actions": names(actions, "action"),
        "users": names(users, "user"),
        "providers": names(providers, "provider"),
        "segments": [None] * users,
        "prior": np.full(states, 1 / states),
        "utility": [tables(count) for count in known],
        "objective": [[tables(count) for count in known] for _ in range(providers)],
        "mass": np.ones(users),
        "private": [
            None if count is None else PrivateInformation(names(count, "value"), columns(count))
            for count in known
        ],
        "conversation": draw(protocol),
    }


def same_bits(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        return left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(same_bits, left, right))
    if isinstance(left, PrivateInformation):
        return left.values == right.values and same_bits(left.likelihood, right.likelihood)
    return left == right


@given(drawn=typed_contents())
def test_every_market_survives_a_round_trip_bit_for_bit(
    drawn: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
):
    market = MarketFile(**drawn)
    path = tmp_path_factory.mktemp("round_trip") / "market.json"
    write_market(path, market)
    again = read_market(path)
    for field in vars(market):
        assert same_bits(getattr(market, field), getattr(again, field)), field
    for given_table, kept in zip(drawn["utility"], again.utility, strict=True):
        assert given_table.tobytes() == kept.tobytes()
    first = path.read_bytes()
    write_market(path, MarketFile(**vars(again)))
    assert path.read_bytes() == first


# Bad files: the change to the document, and what the message must hold.


def put(*path: Any) -> Callable[[dict[str, Any]], None]:
    *way, key, value = path

    def change(market: dict[str, Any]) -> None:
        target: Any = market
        for step in way:
            target = target[step]
        target[key] = value

    return change


ANN = ("users", 0, "private")
TABLE = [[0.0, 1.0], [1.0, 0.0]]
BAD = {
    "rounds 0": (
        put("conversation", "rounds", 0),
        ["conversation.rounds is 0.0; give an integer of at least 1"],
    ),
    "messages not whole": (
        put("conversation", "provider_messages", 1.5),
        ["conversation.provider_messages is 1.5; give an integer"],
    ),
    "messages a text": (put("conversation", "user_messages", "2"), ['user_messages is "2"']),
    "messages a boolean": (put("conversation", "user_messages", True), ["user_messages is true"]),
    "messages infinite": (put("conversation", "rounds", float("inf")), ["rounds is Infinity"]),
    "conversation unknown field": (
        put("conversation", "round", 1),
        ["conversation.round is an unknown field; did you mean 'rounds'?"],
    ),
    "conversation incomplete": (
        put("conversation", {"rounds": 1}),
        ["conversation.user_messages is missing; add it"],
    ),
    "conversation a number": (put("conversation", 2), ["conversation is 2.0; give an object"]),
    "conversation null": (put("conversation", None), ["conversation is null; leave the field out"]),
    "tree too large": (
        put("conversation", "rounds", 8),
        ["conversation makes trees of 20,155,392 leaves", "more than 4,000,000; shrink rounds"],
    ),
    "tree beyond counting": (
        put("conversation", "rounds", 1e300),
        ["conversation makes trees of over 1e", "more than 4,000,000; shrink rounds"],
    ),
    "endless small talk": (
        put("conversation", {"rounds": 1e7, "user_messages": 1, "provider_messages": 1}),
        ["in 10000000 rounds", "shrink rounds"],
    ),
    "likelihood sum": (
        put(*ANN, "likelihood", 0, 1, 0.2),
        [
            "users[0].private.likelihood (user 'Ann') has a column for state 'high' that sums to "
            "1.1",
            "rescale it: in each state",
        ],
    ),
    "likelihood sum by 2e-9": (put(*ANN, "likelihood", 0, 1, 0.1 + 2e-9), ["sums to 1.000000002"]),
    "likelihood negative": (
        put(*ANN, "likelihood", [[0.5, 1.1], [0.5, -0.1], [0.0, 0.0]]),
        ["likelihood[0][1] (user 'Ann', value 'red', state 'high') is 1.1", "from 0 to 1"],
    ),
    "likelihood nan": (put(*ANN, "likelihood", 1, 0, float("nan")), ["likelihood[1][0]", "is nan"]),
    "likelihood transposed": (
        put(*ANN, "likelihood", [[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]]),
        ["users[0].private.likelihood (user 'Ann') has 2 entries, but values number 3"],
    ),
    "value twice": (
        put(*ANN, "values", ["red", "green", "red"]),
        ["users[0].private.values[2] is 'red', the name of users[0].private.values[0] too"],
    ),
    "no values": (put(*ANN, "values", []), ["users[0].private.values is empty"]),
    "private unknown field": (
        put(*ANN, "likelihoods", []),
        ["users[0].private.likelihoods (user 'Ann') is an unknown field; did you mean 'likelihoo"],
    ),
    "private null": (put(*ANN, None), ["users[0].private (user 'Ann') is null; leave the field"]),
    "private for nobody": (
        lambda m: m["users"][0].pop("private"),
        ["users[0].utility (user 'Ann') has 3 entries, but actions number 2"],
    ),
    "too few tables": (
        put("users", 0, "utility", [TABLE, TABLE]),
        [
            "users[0].utility (user 'Ann') has 2 entries, but private values number 3; give a list "
            "of tables, one per value: 'red', 'green', 'blue'"
        ],
    ),
    "one table": (
        put("users", 0, "utility", [[0.0, 1.0]] * 3),
        ["users[0].utility (user 'Ann') is one table; give a list of tables, one per value"],
    ),
    "a cell": (
        put("users", 0, "utility", 1, 0, 1, "x"),
        ["users[0].utility[1][0][1] (user 'Ann', value 'green', action 'buy', state 'high') is"],
    ),
    "one objective for all": (
        put("providers", 0, "objective", TABLE),
        [
            "providers[0].objective (provider 'shop') is one table for all users, but user 'Ann' "
            "has private information; give an object from user name to table, and for her a list"
        ],
    ),
    "too few objectives": (
        put("providers", 0, "objective", "Ann", [TABLE]),
        ["providers[0].objective['Ann'] (provider 'shop') has 1 entries, but private values"],
    ),
    "objectives for a user who knows nothing": (
        put("providers", 0, "objective", "Bob", [TABLE, TABLE]),
        ["providers[0].objective['Bob'][0][0]", "give a number"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_document_is_named_in_one_line(case: str, tmp_path: Path):
    change, fragments = BAD[case]
    market = copy.deepcopy(document())
    change(market)
    path = tmp_path / "bad.json"
    with pytest.raises(MarketFileError) as caught:
        read(market, path)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    assert line.startswith(f"{path}: ")
    assert [fragment for fragment in fragments if fragment not in line] == [], line


def test_bad_arguments_cannot_be_built(tmp_path: Path):
    market = vars(read(document(), tmp_path / "market.json"))
    with pytest.raises(MarketFileError, match=r"^market: conversation is 3; give a Protocol"):
        MarketFile(**market | {"conversation": 3})
    with pytest.raises(MarketFileError, match=r"users\[0\].private \(user 'Ann'\) is 1; give a"):
        MarketFile(**market | {"private": [1, None]})
    with pytest.raises(MarketFileError, match="private has 1 entries, but users number 2"):
        MarketFile(**market | {"private": [None]})


def test_the_limit_of_a_file_is_the_limit_of_the_game(tmp_path: Path):
    """What is read can be played: 2 x 1 x 3 x 6^7 x 2 leaves are allowed, 6^8 are not."""
    market = document()
    market["conversation"]["rounds"] = 7
    assert conversation_of(read(market, tmp_path / "market.json")).protocol.rounds == 7


def test_the_example_in_the_docs_is_the_market_that_is_shipped(tmp_path: Path):
    text = (MARKETS.parents[1] / "docs" / "file_format.md").read_text("utf-8")
    path = tmp_path / "example.json"
    path.write_text(text.split("```json\n")[1].split("```")[0], encoding="utf-8")
    shown, shipped = read_market(path), read_market(MARKETS / "xor.json")
    for field in vars(shipped).keys() - {"name"}:
        assert same_bits(getattr(shown, field), getattr(shipped, field)), field
