"""Market files: lossless both ways, never half written, and never built from bad contents."""

import dataclasses
import errno
import json
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from diffgame.market._file import MarketFile, MarketFileError, read_market, write_market

MARKETS = Path(__file__).parents[1] / "examples" / "markets"


def contents() -> dict[str, Any]:
    """A small valid market, as the arguments of a MarketFile."""
    return {
        "name": "Test",
        "states": ("low", "high"),
        "actions": ("buy", "wait"),
        "users": ("Ann", "Bob", "Cyd"),
        "providers": ("shop", "press"),
        "segments": (None, "north", None),
        "prior": np.array([0.25, 0.75]),
        "utility": np.arange(12.0).reshape(3, 2, 2),
        "objective": np.arange(24.0).reshape(2, 3, 2, 2),
        "mass": np.array([1.0, 2.5, 1.0]),
    }


def assert_same(left: MarketFile, right: MarketFile) -> None:
    """Equal names and equal bits, so that -0.0 differs from 0.0."""
    for field in dataclasses.fields(MarketFile):
        a, b = getattr(left, field.name), getattr(right, field.name)
        if isinstance(a, np.ndarray):
            assert (a.dtype, a.shape) == (b.dtype, b.shape) == (np.float64, a.shape)
            assert a.tobytes() == b.tobytes(), field.name
        else:
            assert a == b, field.name


# Reading and writing


def test_a_written_file_has_a_table_row_per_line_and_one_table_for_equal_users(tmp_path: Path):
    path = tmp_path / "market.json"
    write_market(path, MarketFile(**contents() | {"objective": np.ones((2, 3, 2, 2))}))
    text = path.read_text(encoding="utf-8")
    assert '"utility": [\n        [0.0, 1.0],\n        [2.0, 3.0]\n      ]' in text
    assert json.loads(text)["providers"][0]["objective"] == [[1.0, 1.0], [1.0, 1.0]]


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text(min_size=1, max_size=8).filter(
    lambda s: s == s.strip() and all(c.isprintable() for c in s)
)


@st.composite
def market_contents(draw: st.DrawFn) -> dict[str, Any]:
    def names(most: int) -> tuple[str, ...]:
        return tuple(draw(st.lists(NAMES, min_size=1, max_size=most, unique=True)))

    def numbers(*shape: int, of: st.SearchStrategy[float] = FLOATS) -> np.ndarray:
        size = int(np.prod(shape))
        return np.reshape(draw(st.lists(of, min_size=size, max_size=size)), shape)

    states, actions, users, providers = names(3), names(3), names(3), names(2)
    sizes = len(users), len(actions), len(states)
    weights = numbers(len(states), of=st.floats(0.001, 1.0))
    objective = numbers(len(providers), *sizes)
    if draw(st.booleans()):
        objective[:] = objective[:, :1]
    positive = st.floats(0, exclude_min=True, allow_infinity=False, allow_nan=False)
    return {
        "name": draw(NAMES),
        "states": states,
        "actions": actions,
        "users": users,
        "providers": providers,
        "segments": tuple(draw(st.none() | NAMES) for _ in users),
        "prior": weights / weights.sum(),
        "utility": numbers(*sizes),
        "objective": objective,
        "mass": numbers(len(users), of=positive),
    }


@given(drawn=market_contents())
def test_every_market_survives_a_round_trip_bit_for_bit(
    drawn: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
):
    market = MarketFile(**drawn)
    for field, value in drawn.items():
        assert np.array_equal(getattr(market, field), value), field
    path = tmp_path_factory.mktemp("round_trip") / "market.json"
    write_market(path, market)
    again = read_market(path)
    assert_same(market, again)
    first = path.read_bytes()
    write_market(path, again)
    assert path.read_bytes() == first


def test_signed_zeros_and_extreme_numbers_survive(tmp_path: Path):
    objective = np.zeros((2, 3, 2, 2))
    objective[0, 1] = -0.0  # equal to its neighbours, but not the same bits
    objective[1, :, 0] = [5e-324, 1.7976931348623157e308]
    market = MarketFile(**contents() | {"objective": objective})
    write_market(tmp_path / "market.json", market)
    assert_same(market, read_market(tmp_path / "market.json"))


def test_a_prior_within_the_tolerance_is_kept_as_written(tmp_path: Path):
    prior = [0.25, 0.75 + 9e-10]
    market = MarketFile(**contents() | {"prior": prior})
    write_market(tmp_path / "market.json", market)
    assert read_market(tmp_path / "market.json").prior.tolist() == prior


# Building and writing safely


def test_a_market_is_a_copy_that_cannot_change():
    given_prior = np.array([0.25, 0.75])
    market = MarketFile(**contents() | {"prior": given_prior})
    given_prior[:] = np.nan
    assert market.prior.tolist() == [0.25, 0.75]
    with pytest.raises(ValueError, match="read-only"):
        market.mass[0] = -1
    with pytest.raises(dataclasses.FrozenInstanceError):
        market.name = "other"


def test_lists_and_jax_arrays_of_any_precision_are_taken_as_they_are():
    exact = contents()
    lists = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in exact.items()}
    rows = {k: list(v) if isinstance(v, np.ndarray) else v for k, v in exact.items()}
    jax32 = {k: jnp.float32(v) if isinstance(v, np.ndarray) else v for k, v in exact.items()}
    for given_contents in (lists, rows, jax32):
        assert_same(MarketFile(**exact), MarketFile(**given_contents))


@pytest.mark.parametrize("fails", ["write", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "market.json"
    write_market(path, MarketFile(**contents()))
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if fails == "write":
        monkeypatch.setattr("diffgame.market._file._render", full)
    else:
        monkeypatch.setattr(os, fails, full)
    with pytest.raises(MarketFileError, match=r"market\.json: cannot be written \(No space left"):
        write_market(path, MarketFile(**contents() | {"name": "New"}))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["market.json"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "market.json"
    write_market(path, MarketFile(**contents()))
    before = path.read_bytes()

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_market(path, MarketFile(**contents() | {"name": "New"}))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["market.json"]


def test_writing_needs_a_folder(tmp_path: Path):
    with pytest.raises(MarketFileError, match=r"cannot be written \(No such file or directory\)"):
        write_market(tmp_path / "no" / "market.json", MarketFile(**contents()))
    with pytest.raises(MarketFileError, match=r"cannot be written \(Is a directory\)"):
        write_market(tmp_path, MarketFile(**contents()))
    assert os.listdir(tmp_path) == []


def test_writing_follows_a_link(tmp_path: Path):
    (tmp_path / "link.json").symlink_to("market.json")
    write_market(tmp_path / "link.json", MarketFile(**contents()))
    assert (tmp_path / "link.json").is_symlink()
    assert_same(read_market(tmp_path / "market.json"), MarketFile(**contents()))


# Bad contents, built in Python

BAD_CONTENTS = {
    "prior of another shape": ({"prior": [1.0]}, "prior has 1 entries, but states number 2"),
    "prior unnormalised": ({"prior": [0.5, 0.6]}, "prior sums to 1.1"),
    "prior is a scalar": ({"prior": np.float64(1.0)}, "prior is 1.0"),
    "utility transposed": (
        {
            "states": ("low", "high", "top"),
            "prior": [0.5, 0.25, 0.25],
            "utility": np.ones((3, 3, 2)),
        },
        "users[0].utility (user 'Ann') has 3 entries, but actions number 2",
    ),
    "utility of two users": ({"utility": np.ones((2, 2, 2))}, "utility has 2 entries, but users"),
    "utility is nan": (
        {"utility": np.full((3, 2, 2), np.nan)},
        "users[0].utility[0][0] (user 'Ann', action 'buy', state 'low') is nan",
    ),
    "utility is boolean": ({"utility": np.ones((3, 2, 2), bool)}, "is true; give a number"),
    "utility is complex": ({"utility": np.ones((3, 2, 2), complex)}, "of type complex"),
    "objective without providers": (
        {"objective": np.ones((3, 2, 2))},
        "objective has 3 entries, but providers number 2",
    ),
    "objective is infinite": (
        {"objective": np.where(np.arange(24).reshape(2, 3, 2, 2) == 23, np.inf, 0.0)},
        "providers[1].objective['Cyd'][1][1] (provider 'press', action 'wait'",
    ),
    "mass of two users": ({"mass": [1.0, 1.0]}, "mass has 2 entries, but users number 3"),
    "mass zero": ({"mass": [1.0, 0.0, 1.0]}, "users[1].mass (user 'Bob') is 0.0"),
    "mass is a huge integer": ({"mass": [1, 10**400, 1]}, "users[1].mass (user 'Bob') is inf"),
    "segments of one user": ({"segments": (None,)}, "segments has 1 entries"),
    "name is None": ({"name": None}, "name is null"),
    "users is a text": ({"users": "Ann"}, 'users is "Ann"; give a list of user names'),
    "provider twice": ({"providers": ("shop", "shop")}, "providers[1].name is 'shop'"),
}


@pytest.mark.parametrize("case", BAD_CONTENTS)
def test_bad_contents_cannot_be_built(case: str):
    change, fragment = BAD_CONTENTS[case]
    with pytest.raises(MarketFileError) as caught:
        MarketFile(**contents() | change)
    line = str(caught.value)
    assert line.startswith("market: ")
    assert fragment in line


# The markets that are shipped


def test_opposed_users_is_two_opposed_users_and_a_provider_for_each():
    market = read_market(MARKETS / "opposed_users.json")
    first = np.array([[0, 0], [1, -3], [-3, 1]])
    second = np.array([[0, 0], [-3, 1], [1, -3]])
    assert market.prior.tolist() == [0.5, 0.5]
    assert market.mass.tolist() == [1.0, 1.0]
    np.testing.assert_array_equal(market.utility, [first, second])
    np.testing.assert_array_equal(market.objective, [[first, first], [second, second]])


def test_common_interest_is_weighed_against_the_other_user_at_one_half():
    market = read_market(MARKETS / "common_interest.json")
    u = np.eye(2)
    assert "kappa = 0.5" in market.name
    assert market.prior.tolist() == [0.5, 0.5]
    np.testing.assert_array_equal(market.utility, [u, u])
    np.testing.assert_array_equal(market.objective, [[u, -0.5 * u], [-0.5 * u, u]])


def test_prosecutor_is_paid_per_conviction():
    market = read_market(MARKETS / "prosecutor.json")
    assert (market.users, market.providers) == (("judge",), ("prosecutor",))
    assert market.prior[market.states.index("guilty")] == 0.3
    np.testing.assert_array_equal(market.utility, [np.eye(2)])
    np.testing.assert_array_equal(market.objective, [[[[0, 0], [1, 1]]]])


@pytest.mark.parametrize("path", sorted(MARKETS.glob("*.json")), ids=lambda path: path.stem)
def test_a_shipped_market_is_as_written(path: Path, tmp_path: Path):
    write_market(tmp_path / path.name, read_market(path))
    assert (tmp_path / path.name).read_bytes() == path.read_bytes()
