"""Exact equilibrium values of one user: known sets, HiGHS, brute force, units."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame.market import equilibrium_values, playable_profiles

from . import oracle, reference
from .markets import padded, random_market

# One compilation serves all tests: markets are padded to this shape, and batches to this size.
PROVIDERS, ACTIONS, STATES, BATCH = 3, 4, 4, 64
ACTION = np.arange(ACTIONS)[:, None]
SIZES = [(3, 3, 3), (2, 3, 2), (2, 4, 4)]  # providers, actions, states
ACQUIT = np.array([[1.0, 1.0], [0.0, 0.0]])
CONVICT = 1 - ACQUIT


class Found(NamedTuple):
    intervals: np.ndarray
    worst: float
    worst_signal: np.ndarray
    best: float
    best_signal: np.ndarray
    complete: bool


def unpack(found, scale=1.0):
    (worst, worst_signal), (best, best_signal) = found.worst(), found.best()
    valid = np.asarray(found.valid)
    ends = zip(np.asarray(found.low)[valid], np.asarray(found.high)[valid], strict=True)
    return Found(
        reference.merged(list(ends), 1e-7 * scale),
        float(worst),
        np.asarray(worst_signal),
        float(best),
        np.asarray(best_signal),
        bool(found.complete),
    )


@jax.jit
@jax.vmap
def solve(prior, utility, objective, delta, everything):
    chosen = playable_profiles(prior, utility[None], jnp.asarray(ACTION))
    return equilibrium_values(prior, utility, objective, delta, chosen | everything)


def compute(markets, deltas=0.0, everything=False, scale=1.0):
    """Sets of markets (prior, utility, objective) of any size up to the padded one."""
    deltas = np.broadcast_to(deltas, len(markets))
    results = []
    for first in range(0, len(markets), BATCH):
        own = range(first, min(first + BATCH, len(markets)))
        filled = [markets[b] for b in own] + [markets[first]] * (BATCH - len(own))
        same_shape = [
            padded((mu, np.ones(1), u[None], U[:, None]), 1, ACTIONS, STATES, PROVIDERS)
            for mu, u, U in filled
        ]
        prior, _, utility, objective = map(np.stack, zip(*same_shape, strict=True))
        gains = np.resize(deltas[first : own[-1] + 1], BATCH)
        flags = np.full(BATCH, everything)
        found = solve(prior, utility[:, 0], objective[:, :, 0], gains, flags)
        results += [
            unpack(jax.tree.map(lambda x, b=b: x[b], found), scale) for b in range(len(own))
        ]
    return results


def random_user(seed, providers, actions, states, aligned):
    mu, _, us, U = random_market(seed, 1, actions, states, providers, aligned)
    return mu, us[0], U[:, 0]


def random_users(count):
    """`count` users of each size, aligned exactly and not; names say how to make each again."""
    cases = [
        (seed, *size, aligned)
        for size in SIZES
        for aligned in (True, False)
        for seed in range(count)
    ]
    return [f"random_user{case}" for case in cases], [random_user(*case) for case in cases]


@functools.cache
def solved(count):
    names, markets = random_users(count)
    return names, markets, compute(markets)


def disconnected():
    u = [[2, 1, 2], [0, 2, 1], [1, 1, 2]]
    U = [
        [[1, 0, 0], [0, 0, 1], [0, 1, 0]],
        [[0, 1, 0], [1, 2, 2], [1, 0, 1]],
        [[1, 1, 2], [1, 2, 2], [1, 2, 0]],
    ]
    return np.array([1, 3, 3]) / 7, np.array(u, float), np.array(U, float)


COURT = np.array([0.7, 0.3])
CLOSED = {
    "two providers who want acquittal": (
        (COURT, np.eye(2), np.stack([ACQUIT, ACQUIT])),
        [[0.7, 1]],
    ),
    "prosecutor and defender": ((COURT, np.eye(2), np.stack([CONVICT, ACQUIT])), [[1, 1]]),
    "two prosecutors": ((COURT, np.eye(2), np.stack([CONVICT, CONVICT])), [[0.7, 1]]),
    "no conflict": ((COURT, np.eye(2), np.stack([np.eye(2), np.eye(2)])), [[1, 1]]),
    "providers who want nothing": ((COURT, np.eye(2), np.zeros((2, 2, 2))), [[0.7, 1]]),
    "opposed user": (
        (np.ones(2) / 2, oracle.opposed_users()[0], np.stack(oracle.opposed_users())),
        [[1, 1]],
    ),
}


@pytest.mark.parametrize("case", CLOSED)
def test_known_sets(case):
    market, expected = CLOSED[case]
    (found,) = compute([market])
    assert found.complete
    np.testing.assert_allclose(found.intervals, expected, rtol=0, atol=1e-8)
    assert (found.worst, found.best) == pytest.approx((expected[0][0], expected[-1][1]), abs=1e-8)


def test_the_set_can_be_disconnected():
    (found,) = compute([disconnected()], everything=True)
    assert found.complete
    np.testing.assert_allclose(found.intervals, [[11 / 7] * 2, [2, 2]], rtol=0, atol=1e-8)


def test_full_information_may_be_alone_whatever_the_shape():
    """Without padding no frontier bends between the two values: one cell has both at its ends."""
    values = jax.jit(equilibrium_values)(*disconnected(), 0.0, np.ones(3, bool))
    found = unpack(values)
    assert found.complete
    np.testing.assert_allclose(found.intervals, [[11 / 7] * 2, [2, 2]], rtol=0, atol=1e-8)


def test_actions_that_are_never_played_are_left_out():
    # Her third action is optimal with the first one or not at all: ties keep her from it.
    mu, u, U = disconnected()
    assert oracle.playable(mu, u).tolist() == [True, True, False]
    found, without = compute([(mu, u, U), (mu, u[:2], U[:, :2])])
    np.testing.assert_allclose(found.intervals, [[11 / 7, 2]], rtol=0, atol=1e-8)
    np.testing.assert_allclose(without.intervals, found.intervals, rtol=0, atol=1e-8)
    assert np.all(found.worst_signal[2] == 0)


def units(U):
    size = np.ptp(U, axis=(1, 2), keepdims=True)
    return U / np.where(size > 0, size, 1)


@pytest.mark.parametrize("everything", [True, False], ids=["all actions", "played actions"])
def test_a_gain_that_counts_as_none_widens_the_set(everything):
    """To 1e-7 where it is said to be complete; never too low by more, complete or not."""
    mu, u, U = disconnected()
    deltas = [0.0, 1e-9, 1e-6, 1e-2, 0.1]
    found = compute([(mu, u, U)] * len(deltas), deltas, everything)
    worst = [each.worst for each in found]
    assert np.all(np.diff(worst) <= 1e-8)
    assert [found[0].complete, found[-1].complete] == [True, True]
    for delta, each in zip(deltas, found, strict=True):
        expected = reference.equilibrium_values(mu, u, units(U), delta, not everything)[0, 0]
        assert each.worst >= expected - 1e-7, f"{delta=}"
        assert not each.complete or each.worst <= expected + 1e-7, f"{delta=}"


@pytest.mark.parametrize("count", [8, pytest.param(200, marks=pytest.mark.campaign)])
def test_random_users_equal_the_reference(count):
    names, markets, results = solved(count)
    error, interior, pieces, incomplete = 0.0, 0, 0, 0
    for name, (mu, u, U), found in zip(names, markets, results, strict=True):
        expected = reference.equilibrium_values(mu, u, U)
        incomplete += not found.complete
        assert found.intervals.shape == expected.shape, f"{name}: {found.intervals}, {expected}"
        difference = np.abs(found.intervals - expected).max()
        assert difference <= 1e-7, f"{name}: {found.intervals}, {expected}"
        error, pieces = max(error, difference), pieces + (len(expected) > 1)
        interior += expected[0, 0] < expected[-1, 1] - 1e-6
    assert interior > 0
    print(
        f"{len(names)} users, worst difference {error:.1e}; worst value below full information "
        f"for {interior}, set disconnected for {pieces}"
    )


@pytest.mark.parametrize("delta", [1e-9, 1e-6, 1e-2])
def test_random_users_with_a_gain_that_counts_as_none_equal_the_reference(delta):
    """To 1e-7 where they are said to be complete; never too low by more, complete or not.

    Between almost no slack and none the programs are thin: few are certified then.
    """
    names, markets = random_users(3)
    complete = 0
    for name, (mu, u, U), found in zip(names, markets, compute(markets, delta), strict=True):
        expected = reference.equilibrium_values(mu, u, units(U), delta)
        assert found.worst >= expected[0, 0] - 1e-7, f"{name}, {delta=}"
        assert found.best == pytest.approx(expected[-1, 1], abs=1e-7), f"{name}, {delta=}"
        if found.complete:
            assert found.worst <= expected[0, 0] + 1e-7, f"{name}, {delta=}"
        complete += found.complete
    assert complete == len(names) or delta < 1e-3
    print(f"{delta=}: {complete} of {len(names)} complete")


def test_just_below_the_worst_value_nobody_stays():
    names, markets, results = solved(8)
    tried = 0
    for name, (mu, u, U), found in zip(names, markets, results, strict=True):
        if found.worst > oracle.babble_value(mu, u) + 1e-3:
            assert reference.shortfall(mu, u, U, found.worst - 1e-3) > 1e-7, name
            tried += 1
    assert tried > len(names) // 2


def gains(mu, u, U, signal):
    """What each provider gains at most by leaving a signal that all post, by HiGHS."""
    kept = oracle.playable(mu, u)
    u, U, x = u[kept], U[:, kept], mu * signal[kept]
    value = float((x * u).sum())
    best = [oracle.best_response([u], [own], mu, [value], [x])[0] for own in U]
    return np.array(best) - np.array([(x * own).sum() for own in U])


@pytest.mark.parametrize("count", [8, pytest.param(200, marks=pytest.mark.campaign)])
def test_worst_and_best_are_attained_by_signals_that_nobody_leaves(count):
    names, markets, results = solved(count)
    most = -np.inf
    for name, (mu, u, U), found in zip(names, markets, results, strict=True):
        for value, whole in ((found.worst, found.worst_signal), (found.best, found.best_signal)):
            signal = whole[: u.shape[0], : u.shape[1]]
            np.testing.assert_allclose(signal.sum(axis=0), 1, rtol=0, atol=1e-12, err_msg=name)
            assert signal.min() >= 0, name
            joint = mu * signal
            assert (joint * u).sum() == pytest.approx(value, abs=1e-9), name
            # Obedience: what is recommended is optimal given the recommendation.
            regret = (joint @ u.T).max(axis=1) - (joint * u).sum(axis=1)
            assert regret.max() <= 1e-9, name
            gain = gains(mu, u, U, signal).max()
            assert gain <= 1e-8, f"{name}: value {value}, gain {gain}"
            most = max(most, gain)
    print(f"{2 * len(names)} equilibria, largest gain {most:.1e}")


def grid_equilibria(mu, u, U, cuts=8):
    """Values of all equilibria in which two providers post tables of 2 messages from a grid.

    Deviations are not held to the grid: their worth is computed by HiGHS.
    """
    steps = np.linspace(0, 1, cuts + 1)
    tables = [np.array([[p, 1 - p], [q, 1 - q]]) for p in steps for q in steps if p >= q]
    outcomes = [oracle.outcome(table, mu, u) for table in tables]
    values = np.array([(x * u).sum() for x in outcomes])
    payoffs = np.array([[(x * own).sum() for x in outcomes] for own in U])
    feasible = reference.Outcomes(mu, u)
    levels, where = np.unique(values.round(12), return_inverse=True)
    capture = np.array([[feasible.maximize(own, [u], [v - 1e-12])[0] for v in levels] for own in U])
    capture = capture[:, where]
    first = values[:, None] >= values[None, :] - 1e-12  # provider 0 has her
    has = np.where(first, payoffs[:, :, None], payoffs[:, None, :])
    gain0 = np.maximum(capture[0][None, :], payoffs[0][None, :]) - has[0]
    gain1 = np.maximum(capture[1][:, None], payoffs[1][:, None]) - has[1]
    stands = (gain0 <= 1e-9) & (gain1 <= 1e-9)
    return np.maximum(values[:, None], values[None, :])[stands]


def test_no_equilibrium_on_a_grid_of_policies_lies_outside_the_set():
    # Payoffs 0 and 1 and a prior on the grid make equilibria on the grid likely.
    markets = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        u = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.7]])
        U = rng.integers(0, 3, size=(2, 3, 2)).astype(float)
        markets.append((np.array([0.5, 0.5]), u, U))
    inside, below = 0, 0
    for seed, (market, found) in enumerate(zip(markets, compute(markets), strict=True)):
        assert found.complete
        values = grid_equilibria(*market)
        low, high = found.intervals.T
        fits = (values[:, None] >= low - 1e-7) & (values[:, None] <= high + 1e-7)
        assert np.all(fits.any(axis=1)), f"{seed=}: {values[~fits.any(axis=1)]}, {found.intervals}"
        inside, below = inside + len(values), below + np.sum(values < found.best - 1e-6)
    assert below > 0
    print(f"{inside} equilibria on grids, {below} below full information, none outside the sets")


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_do_not_matter(scale):
    names, markets, results = solved(8)
    rng = np.random.default_rng(0)
    # Any offset per provider and per state, as long as it does not drown the differences.
    moved = [
        (
            mu,
            scale * (u + 3),
            U
            * 10.0 ** rng.integers(-6, 7, (len(U), 1, 1))
            * (1 + rng.uniform(size=(len(U), 1, 1))),
        )
        for mu, u, U in markets
    ]
    for name, own, found in zip(names, results, compute(moved, scale=scale), strict=True):
        assert found.complete, name
        np.testing.assert_allclose(
            found.intervals / scale - 3, own.intervals, rtol=0, atol=1e-7, err_msg=name
        )


@jax.jit
@jax.vmap
def solve_monopoly(prior, utility, objective):
    return equilibrium_values(prior, utility, objective[None])


@pytest.mark.campaign
def test_a_monopolist_gives_the_values_of_its_optima():
    cases = [(COURT, np.eye(2), CONVICT)]
    for seed in range(15):
        mu, u, U = random_user(seed, 1, 2, 2, False)
        cases.append((mu, u, U[0]))
    found = solve_monopoly(*map(np.stack, zip(*cases, strict=True)))
    for b, (mu, u, own) in enumerate(cases):
        each = unpack(jax.tree.map(lambda x, b=b: x[b], found))
        assert each.complete, f"case {b}"
        for signal in (each.worst_signal, each.best_signal):
            payoff = (mu * signal * own).sum()
            assert payoff == pytest.approx(oracle.persuasion(mu, u, own), abs=1e-8), f"case {b}"
        if b == 0:
            np.testing.assert_allclose(each.intervals, [[0.7, 0.7]], rtol=0, atol=1e-8)
