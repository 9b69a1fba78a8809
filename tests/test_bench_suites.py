"""Suites of prices, tolls, generalized Nash and bilevel games: their checks and solvers."""

import functools
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import scipy.optimize

from diffgame.bench import Budget, Suite, _quadratic_agents, _suite_bilevel, load_suite
from diffgame.bench._bilevel_functions import ExactFollower, JittedFunctions, QuadraticFunctions
from diffgame.bench._bilevel_problems import PROBLEMS
from diffgame.bench._bounds import curved, gain_bound, nonnegative_least_squares, within
from diffgame.bench._peers_bilevel import follow
from diffgame.bench._price_games import Quantities, state_prices
from diffgame.bench._quadratic_agents import examine_agents, state_agents
from diffgame.bench._suite_bilevel import functions_of
from diffgame.bench._toll_games import state_tolls
from diffgame.bench._unilateral import examine

NAMES = ("pricing", "tolls", "generalized_nash", "bilevel")
BUDGET = Budget(None, 60.0)
# Compilation is what these cost: one family each by default, all of them as a campaign.
QUICK = {"pricing": (0, 4), "tolls": (3, 11), "generalized_nash": (5, 12)}
# Not the seller of tolls number 7: from its start Automatic ends at a price that nobody pays.
FIRST = {"pricing": range(8), "tolls": (*range(7), 11), "generalized_nash": range(14)}


@functools.cache
def make(suite: str, solver: str) -> Callable[[dict], dict]:
    """A solver of the suite, without a process of its own; games of one shape compile once."""
    return {known.name: known for known in load_suite(suite).solvers}[solver].make(BUDGET)


def answer(suite: Suite, solver: str, game: dict) -> dict:
    return make(suite.name, solver)(game)


def fit(suite: Suite, game: dict, found: dict) -> dict:
    return {name: np.asarray(found[name], float) for name in suite.answer(game)}


@pytest.mark.parametrize("name", NAMES)
def test_a_game_is_known_by_its_seed_and_number(name):
    suite = load_suite(name)
    for number in range(14):
        game, again, other = (suite.draw(seed, number) for seed in (3, 3, 4))
        assert game.keys() == again.keys() == other.keys()
        for key, values in game.items():
            assert values.dtype == float
            np.testing.assert_array_equal(values, again[key])
        assert any(np.any(values != other[key]) for key, values in game.items())


def family_cases():
    for name, numbers in FIRST.items():
        for number in numbers:
            quick = number in QUICK[name]
            yield pytest.param(name, number, marks=[] if quick else pytest.mark.campaign)


@pytest.mark.parametrize(("name", "number"), list(family_cases()))
def test_automatic_is_certified_and_scipy_agrees(name, number):
    # The check is a second statement of the game, so this compares the two statements as well.
    suite, seed = load_suite(name), 0
    game = suite.draw(seed, number)
    ours = fit(suite, game, answer(suite, "diffgame Automatic", game))
    verdict = suite.check(game, ours)
    assert (verdict.status, verdict.certified) == ("certified", True)
    assert 0 <= verdict.gap <= 1e-6
    common = name == "generalized_nash" and number % 7 in (3, 4)
    peer = "scipy best responses" if name != "generalized_nash" else "scipy SLSQP best responses"
    peer = "scipy root lm on KKT" if common else peer
    theirs = fit(suite, game, answer(suite, peer, game))
    assert suite.check(game, theirs).certified
    # With prices of everybody's own there are many equilibria, each with its check.
    if name != "generalized_nash" or common:
        np.testing.assert_allclose(theirs["offer"], ours["offer"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_check_refuses_what_is_no_answer(name):
    suite, peer = load_suite(name), "scipy best responses"
    peer = {
        "generalized_nash": "scipy root lm on KKT",
        "bilevel": "scipy SLSQP relaxed conditions (16 starts)",
    }.get(name, peer)
    numbers = {"bilevel": (0, 2, 4), "generalized_nash": range(7)}
    for number in numbers.get(name, (0, 3)):
        game = suite.draw(0, number)
        right = fit(suite, game, answer(suite, peer, game))
        verdict = suite.check(game, right)
        assert verdict.certified, (number, verdict)
        assert 0 <= verdict.gap <= 1e-6
        for key, (way, size) in itertools.product(right, ((1, 1e-3), (-1, 1e-3), (1, np.nan))):
            wrong = {**right, key: right[key] + way * size}
            verdict = suite.check(game, wrong)
            assert not verdict.certified, (number, key, way * size)
            assert verdict.gap > 1e-6
        wrong = {**right, key: np.append(right[key], 0.0)}
        assert not suite.check(game, wrong).certified


@pytest.mark.parametrize(("name", "state"), [("pricing", state_prices), ("tolls", state_tolls)])
def test_slopes_are_those_of_the_payoffs(name, state):
    suite, rng = load_suite(name), np.random.default_rng(0)
    for number in range(8):
        statement = state(suite.draw(0, number))
        offers = statement.start * rng.uniform(0.9, 1.1, statement.start.shape)
        slopes = statement.slopes(offers)
        for provider, own in np.ndindex(offers.shape):
            trials = np.repeat(offers[provider][None], 2, axis=0)
            trials[:, own] += [1e-5, -1e-5]
            above, below = statement.payoff(offers, provider, trials)
            assert abs((above - below) / 2e-5 - slopes[provider, own]) <= 1e-8, (number, provider)


def test_gains_are_found_far_away_and_near():
    # Cournot's duopoly without costs, at half the monopoly's quantity each: the best reply to 1/4
    # is 3/8, for a gain of 9/64 - 1/8.
    game = {
        "cost": np.zeros(2),
        "willingness": np.ones(1),
        "mass": np.ones(1),
        "slope": np.ones(()),
        "start": np.full(2, 0.25),
        "lower": np.zeros(2),
        "upper": np.ones(2),
    }
    statement = Quantities(game)

    def look(offers):
        return examine(
            lambda provider, trials: statement.payoff(offers, provider, trials),
            offers,
            statement.lower,
            statement.upper,
        )

    found = look(statement.start)
    np.testing.assert_allclose(found, (1 / 64, 1 / 4), rtol=0, atol=1e-9)
    found = look(np.full((2, 1), 1 / 3))
    np.testing.assert_allclose(found, 0, rtol=0, atol=1e-10)
    # Outside the bounds nothing is an equilibrium.
    assert look(np.full((2, 1), -0.1)).gain == np.inf

    # Two hills: 1 at 0.1, stationary, and 2 at 0.8, narrow.
    def hills(provider, trials):
        x = trials[:, 0]
        return np.exp(-((x - 0.1) ** 2)) + 2 * np.exp(-1e4 * (x - 0.8) ** 2)

    bounds = np.zeros((1, 1)), np.ones((1, 1))
    low, slope = examine(hills, np.full((1, 1), 0.1), *bounds)
    assert slope <= 1e-9
    np.testing.assert_allclose(low, 1 + np.exp(-0.49), rtol=0, atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_least_squares_are_those_of_scipy(seed):
    rng = np.random.default_rng(seed)
    for rows, columns in ((3, 8), (8, 3), (6, 6)):
        matrix, right = rng.normal(size=(rows, columns)), rng.normal(size=rows)
        ours = nonnegative_least_squares(matrix, right)
        _, distance = scipy.optimize.nnls(matrix, right)
        assert np.all(ours >= 0)
        assert abs(np.linalg.norm(matrix @ ours - right) - distance) <= 1e-10


@pytest.mark.parametrize("seed", range(5))
def test_a_bound_is_never_below_the_gain(seed):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(3, 3))
    hessian, linear = root @ root.T + np.eye(3), rng.normal(size=3)
    rows, limits = rng.normal(size=(4, 3)), rng.uniform(0.2, 1.0, 4)

    def loss(y):
        return y @ hessian @ y / 2 + linear @ y

    best = scipy.optimize.minimize(
        loss,
        np.zeros(3),
        jac=lambda y: hessian @ y + linear,
        constraints=[{"type": "ineq", "fun": lambda y: limits - rows @ y, "jac": lambda y: -rows}],
        method="SLSQP",
        options={"ftol": 1e-15},
    ).x
    nothing = np.zeros((0, 3)), np.zeros(0)

    def bounds(y):
        data = -(hessian @ y + linear), rows, rows @ y - limits, *nothing
        return [gain_bound(*data, rest_gain) for rest_gain in (curved(hessian), within(10.0))]

    for found in bounds(best):
        assert 0 <= found.gain <= 1e-6
        assert found.violation <= 1e-9
    for _ in range(20):
        # Feasible, as 0 is and the best is.
        y = best * rng.random() + 0.1 * rng.random() * np.min(limits) * rng.normal(size=3)
        if np.all(rows @ y <= limits):
            for found in bounds(y):
                assert found.gain >= loss(y) - loss(best) - 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_own_prices_are_not_common_ones(seed):
    # Harker's game at 15: all from (9, 6) to (10, 5) are equilibria, at prices of their own.
    suite = load_suite("generalized_nash")
    game = {**suite.draw(seed, 5), "common": np.array(15.0)}
    for x in ((9.0, 6.0), (9.5, 5.5), (10.0, 5.0), (5.0, 9.0)):
        assert suite.check(game, {"offer": np.array(x)}).certified
    for x in ((8.9, 6.1), (9.5, 5.4), (5.0, 9.1)):
        assert not suite.check(game, {"offer": np.array(x)}).certified
    # A river basin whose polluters pay different prices is no answer to the question.
    river = suite.draw(seed, 4)
    agents = state_agents(river)
    right = answer(suite, "scipy root lm on KKT", river)["offer"]
    assert agents.common_prices
    (bound,) = examine_agents(agents, right)
    row = agents.rows[np.argmax(bound.multipliers[:2])]
    other = np.array([row[1], -row[0], 0.0])
    moved = {"offer": right + 1e-2 * other}
    assert not suite.check(river, moved).certified


@pytest.mark.parametrize("seed", range(3))
def test_exact_followers_are_those_of_scipy(seed):
    suite, rng = load_suite("bilevel"), np.random.default_rng(seed)
    game = suite.draw(seed, 0)
    offers = rng.random((5, 2))
    exact = ExactFollower(game)(offers)
    for offer, choice in zip(offers, exact, strict=True):
        found = follow(QuadraticFunctions(game), offer, [np.zeros(3)])
        np.testing.assert_allclose(choice, found, rtol=0, atol=1e-6)


def test_a_problem_of_the_literature_has_its_answer():
    suite = load_suite("bilevel")
    game = suite.draw(0, 1)
    (start,) = game.values()
    assert np.all((start >= PROBLEMS[0].lower) & (start <= PROBLEMS[0].upper))
    right = {"offer": np.ones(1), "choice": np.zeros(1)}
    verdict = suite.check(game, right)
    assert verdict.certified
    assert 0 <= verdict.gap <= 1e-6
    # The other local optimum, a better value with an answer that is not the follower's, none.
    other = {"offer": np.full(1, 5.0), "choice": np.full(1, 2.0)}
    for x, y in ((5.0, 2.0), (1.0, -0.5), (20.0, 0.0), (np.nan, 0.0)):
        other = {"offer": np.full(1, x), "choice": np.full(1, y)}
        verdict = suite.check(game, other)
        assert not verdict.certified, (x, y)
        assert verdict.gap > 1e-6
    assert JittedFunctions(PROBLEMS[0]).F(*right.values()) == 17


@pytest.mark.campaign
@pytest.mark.parametrize("number", range(10))
def test_solve_bilevel_is_certified(number):
    """Random problems (0, 2, 4) and those of the literature."""
    suite = load_suite("bilevel")
    game = suite.draw(0, number)
    ours = fit(suite, game, answer(suite, "diffgame solve_bilevel (16 starts)", game))
    theirs = fit(suite, game, answer(suite, "scipy SLSQP relaxed conditions (16 starts)", game))
    for found in (ours, theirs):
        verdict = suite.check(game, found)
        assert verdict.certified, verdict
    # The same value; offers may differ.
    leader = functions_of(game).F
    values = [leader(found["offer"], found["choice"]) for found in (ours, theirs)]
    np.testing.assert_allclose(values[0], values[1], rtol=0, atol=1e-5 * (1 + abs(values[0])))


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf])
def test_a_leaders_value_that_is_not_finite_is_no_optimum(value, monkeypatch):
    """Of a problem whose best value is known: a value below all is none either."""
    suite = load_suite("bilevel")
    game = suite.draw(0, 1)
    right = {"offer": np.ones(1), "choice": np.zeros(1)}
    assert suite.check(game, right).certified

    spoiled = JittedFunctions(PROBLEMS[0])
    monkeypatch.setattr(spoiled, "F", lambda x, y: value)
    monkeypatch.setattr(_suite_bilevel, "functions_of", lambda game: spoiled)
    verdict = suite.check(game, right)
    assert not verdict.certified
    assert verdict.status == "a value there is not finite"


@pytest.mark.parametrize("field", ["gain", "violation", "residual"])
@pytest.mark.parametrize("agent", [0, -1])
def test_no_agent_passes_with_a_bound_that_is_no_number(agent, field, monkeypatch):
    suite = load_suite("generalized_nash")
    game = suite.draw(0, 0)
    right = fit(suite, game, answer(suite, "diffgame Automatic", game))
    assert suite.check(game, right).certified
    plain = _quadratic_agents.examine_agents

    def spoiled(agents, x):
        bounds = plain(agents, x)
        bounds[agent] = bounds[agent]._replace(**{field: np.nan})
        return bounds

    monkeypatch.setattr(_quadratic_agents, "examine_agents", spoiled)
    assert not suite.check(game, right).certified
