"""The bound on losses over all equilibria: known markets and the independent oracle."""

import itertools

import jax
import numpy as np
import pytest
from scipy.optimize import linprog

from diffgame.market import Market, worst_case_losses

from . import oracle
from .markets import batched, mixed_markets, random_market, repeated

CAMPAIGN = pytest.param(300, marks=pytest.mark.campaign)
SHAPE, COUNT = (3, 3, 3, 3), 40


@jax.jit
def losses(prior, utility, objective, mass, label, delta):
    """A batch of markets of three users; segments without users are allowed."""

    def one(prior, utility, objective, mass, label, delta):
        market = Market(prior, utility, objective, mass, label, observations=3)
        return worst_case_losses(market, delta)

    return jax.vmap(one)(prior, utility, objective, mass, label, delta)


def solve(markets, labels, delta=0.0):
    """In a batch of a fixed size (the first market is repeated), so that one program serves all."""
    count = max(len(markets), COUNT)
    prior, mass, utility, objective = batched(markets, SHAPE, count)
    labels = np.broadcast_to(labels, (len(markets), 3))
    delta = np.broadcast_to(delta, len(markets))
    labels, delta = repeated([labels, delta], count)
    found = jax.device_get(losses(prior, utility, objective, mass, labels, delta))
    return jax.tree.map(lambda leaf: leaf[: len(markets)], found)


EVERYBODY, EACH = [0, 0, 0], [0, 1, 2]


@pytest.mark.parametrize("count", [COUNT, CAMPAIGN])
@pytest.mark.parametrize("mode", ["anon", "pers"])
def test_losses_equal_the_oracle_on_random_markets(mode, count):
    markets = mixed_markets(count)
    found = solve(markets, EVERYBODY if mode == "anon" else EACH)
    worst, compared, zeros = 0.0, 0, 0
    for seed, (mu, mass, us, U) in enumerate(markets):
        for user in (None, *range(len(us))):
            args = list(us), [list(own) for own in U], mu, mode, mass
            expected = oracle.worst_equilibrium_loss(*args, user=user)
            part = found.total if user is None else found.per_user
            at = seed if user is None else (seed, user)
            error = abs(part.loss[at] - expected)
            assert error <= 1e-7, f"seed={seed}, user {user}"
            assert part.certified[at], f"seed={seed}, user {user}"
            worst, compared = max(worst, error), compared + 1
            zeros += expected <= 1e-9
    assert zeros
    print(f"{compared} {mode} losses compared ({zeros} exactly 0), worst difference {worst:.1e}")


def reference(market, label, delta, user=None):
    """The program of all segments with one budget per provider, by HiGHS."""
    mu, mass, us, U = market
    n, A, Y = us.shape
    k, segments = len(U), max(label) + 1
    size, N = A * Y, n * A * Y + k * segments
    equal, upper, limit = np.zeros((n * Y, N)), [], []
    for j in range(n):
        for y in range(Y):
            equal[j * Y + y, j * size + np.arange(A) * Y + y] = 1
        for a in range(A):
            for b in range(A):
                row = np.zeros(N)
                row[j * size + a * Y : j * size + (a + 1) * Y] = us[j][b] - us[j][a]
                upper.append(row)
                limit.append(0)
    for i in range(k):
        budget = np.zeros(N)
        for s in range(segments):
            row, promised = np.zeros(N), 0.0
            for j in range(n):
                if label[j] == s:
                    row[j * size : (j + 1) * size] = -mass[j] * U[i, j].ravel()
                    full = oracle.outcome(np.eye(Y), mu, us[j])
                    promised += mass[j] * np.sum(full * U[i, j])
            row[n * size + i * segments + s] = -1
            budget[n * size + i * segments + s] = 1
            upper.append(row)
            limit.append(-promised)
        upper.append(budget)
        limit.append(delta)
    cost, best = np.zeros(N), 0.0
    for j in range(n):
        if user in (None, j):
            cost[j * size : (j + 1) * size] = us[j].ravel()
            best += oracle.full_value(mu, us[j])
    options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    r = linprog(
        cost, np.array(upper), limit, equal, np.tile(mu, n), method="highs", options=options
    )
    return best - r.fun


@pytest.mark.parametrize("label", [[0, 0, 0], [0, 1, 0], [0, 1, 2]], ids=str)
def test_losses_of_segments_with_a_delta_equal_highs(label):
    markets = [random_market(seed, 3, 3, 3, 2, seed % 2 == 0) for seed in range(12)]
    delta = np.where(np.arange(12) % 3 == 0, 0, 0.02 * np.arange(12))
    found = solve(markets, label, delta)
    for seed, market in enumerate(markets):
        assert found.total.certified[seed], f"seed={seed}"
        expected = reference(market, label, delta[seed])
        assert found.total.loss[seed] == pytest.approx(expected, abs=1e-7), f"seed={seed}"
        for user in range(3):
            expected = reference(market, label, delta[seed], user)
            assert found.per_user.loss[seed, user] == pytest.approx(expected, abs=1e-7)


def test_the_bound_falls_under_refinement_and_rises_with_delta():
    markets = [random_market(seed, 3, 3, 3, 2) for seed in range(30)]
    whole, parts, single = (
        solve(markets, label).total.loss for label in (EVERYBODY, [0, 0, 1], EACH)
    )
    assert np.all(parts <= whole + 1e-9)
    assert np.all(single <= parts + 1e-9)
    assert np.mean(single < whole - 1e-6) > 0.5
    rising = [solve(markets, EVERYBODY, delta).total.loss for delta in (0.0, 0.01, 0.1, 1e6)]
    assert all(np.all(low <= high + 1e-9) for low, high in itertools.pairwise(rising))
    # With any delta allowed only obedience is left: the worst is no information.
    for seed, (mu, _, us, _) in enumerate(markets):
        free = sum(oracle.full_value(mu, u) - oracle.babble_value(mu, u) for u in us)
        assert rising[-1][seed] == pytest.approx(free, abs=1e-9)


def opposed():
    us = np.stack(oracle.opposed_users())
    return np.full(2, 0.5), np.ones(2), us, np.stack([us[[0, 0]], us[[1, 1]]])


def common_interest(kappa):
    u = np.eye(2)
    return (
        np.full(2, 0.5),
        np.ones(2),
        np.stack([u, u]),
        np.array([[u, -kappa * u], [-kappa * u, u]]),
    )


def test_opposed_users_may_lose_2_in_public_and_nothing_personalized():
    """E1."""
    found = solve([opposed()] * 2, [EVERYBODY, EACH])
    assert found.total.loss == pytest.approx([2, 0], abs=1e-9)
    assert found.per_user.loss[0, :2] == pytest.approx([1, 1], abs=1e-9)
    assert found.per_user.loss[1, :2] == pytest.approx([0, 0], abs=1e-9)
    assert np.all(found.total.certified)


def test_common_interest_is_safe_in_public_below_kappa_1_only():
    """E2: the anonymous certificate is 0 if and only if kappa < 1."""
    kappas = [0.5, 0.8, 0.9, 1, 1.1, 2, 3]
    found = solve([common_interest(kappa) for kappa in kappas], EVERYBODY)
    assert np.all(found.total.certified)
    expected = [0, 0, 0, 1, 1, 1, 1]
    assert found.total.loss == pytest.approx(expected, abs=1e-9)


def test_the_bound_falls_where_the_true_loss_rises():
    """G1: a third user keeps the opposed ones from harm as long as nobody tells them apart.

    The true worst losses are 0 together, 2 when the third is apart, 0 one by one; the bounds are
    above each of them and fall.
    """
    us = np.stack(oracle.opposed_users())
    third = np.array([[-9, -9], [1, 0], [0, 1.0]])
    U = np.stack([np.stack([us[0], us[0], third]), np.stack([us[1], us[1], third])])
    market = np.full(2, 0.5), np.array([1, 1, 12.5]), np.stack([*us, third]), U
    found = solve([market] * 3, [EVERYBODY, [0, 0, 1], EACH])
    expected = [reference(market, label, 0.0) for label in (EVERYBODY, [0, 0, 1], EACH)]
    assert found.total.loss == pytest.approx(expected, abs=1e-8)
    assert found.total.loss[1:] == pytest.approx([2, 0], abs=1e-8)
    assert found.total.loss[0] > 2


def test_actions_that_are_never_played_are_left_out():
    """The third action repeats the first: she never takes it, but a program might recommend it."""
    mu, u = np.full(2, 0.5), np.array([[1, 0], [0, 1], [1, 0.0]])
    U = np.array([[0, 0], [-1, 1], [2, 2.0]])
    assert oracle.worst_equilibrium_loss([u], [[U]], mu, "pers") == pytest.approx(0.5, abs=1e-9)
    kept = oracle.worst_equilibrium_loss([u[:2]], [[U[:2]]], mu, "pers")
    assert kept == pytest.approx(0, abs=1e-9)
    found = solve([(mu, np.ones(1), u[None], U[None, None])], EACH)
    assert found.total.loss[0] == pytest.approx(0, abs=1e-9)
    assert found.total.certified[0]


def test_never_played_actions_of_integer_payoffs_are_left_out_as_the_oracle_would():
    rng = np.random.default_rng(5)
    markets, dropped = [], 0
    for _ in range(COUNT):
        u, U = rng.integers(0, 3, (3, 3)), rng.integers(0, 3, (2, 3, 3))
        markets.append((np.full(3, 1 / 3), np.ones(1), u[None] * 1.0, U[:, None] * 1.0))
    found = solve(markets, EACH)
    for b, (mu, _, us, U) in enumerate(markets):
        kept = oracle.playable(mu, us[0])
        dropped += not kept.all()
        own = [[table[0, kept]] for table in U]
        expected = oracle.worst_equilibrium_loss([us[0, kept]], own, mu, "pers")
        assert found.total.loss[b] == pytest.approx(expected, abs=1e-7), f"market {b} of seed 5"
    assert dropped > 5


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_losses_come_in_units_of_utility_and_do_not_depend_on_those_of_objectives(scale):
    markets = mixed_markets(12)
    plain = solve(markets, EACH)
    scaled = [(mu, mass, scale * us, U / scale + 3) for mu, mass, us, U in markets]
    found = solve(scaled, EACH)
    assert np.all(found.total.certified)
    assert found.total.loss / scale == pytest.approx(plain.total.loss, abs=1e-7)
