"""The worst and the best equilibrium for users: closed forms, exact ranges, exhaustive grids."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame.market import (
    Market,
    equilibrium_values,
    exploitability,
    find_extremes,
    make_segment,
    meet,
)
from diffgame.market._best_response import Outside, best_response
from diffgame.market._dynamics import recommend
from diffgame.market._segment import unit_utility
from diffgame.market._welfare_descent import move_welfare

from . import oracle
from .markets import random_market

TOLERANCE = 1e-6
COIN = np.array([0.5, 0.5])


def opposed_market():
    users = oracle.opposed_users()
    return Market(COIN, np.stack(users), np.stack([[u, u] for u in users]), np.ones(2))


def test_opposed_users_get_nothing_at_worst_and_everything_at_best():
    found = find_extremes(opposed_market().anonymous(), starts=4)
    assert (found.worst.status.value, found.best.status.value) == ("certified", "certified")
    np.testing.assert_allclose(found.worst.user_values, [0, 0], rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.best.user_values, [1, 1], rtol=0, atol=1e-8)
    assert found.loss == pytest.approx(2, abs=1e-8)
    assert found.bound == pytest.approx(2, abs=1e-7)
    assert not found.exact
    personal = find_extremes(opposed_market())
    assert personal.exact
    np.testing.assert_allclose(personal.worst.user_values, [1, 1], rtol=0, atol=1e-8)
    assert personal.loss == pytest.approx(0, abs=1e-8)


def test_loss_and_bound_are_counted_by_mass():
    users = oracle.opposed_users()
    objective = np.stack([[u, u] for u in users])
    unequal = Market(COIN, np.stack(users), objective, np.array([1.0, 2.5])).anonymous()
    found = find_extremes(unequal, starts=4)
    np.testing.assert_allclose(found.worst.user_values, [0, 0], rtol=0, atol=1e-8)
    assert found.loss == pytest.approx(3.5, abs=1e-7)
    assert found.loss <= found.bound + 1e-7


def test_segments_of_many_users_and_single_precision_are_refused():
    users = np.tile(np.eye(2), (5, 1, 1))
    crowd = Market(COIN, users, np.stack([users, users]), np.ones(5)).anonymous()
    with pytest.raises(ValueError, match="a segment has 5 users; deviations are exhausted for up"):
        find_extremes(crowd)
    single = jax.tree.map(
        lambda leaf: leaf.astype("float32") if leaf.dtype == float else leaf, opposed_market()
    )
    with pytest.raises(ValueError, match="float32; certificates need float64"):
        find_extremes(single)


def segment_of(mu, us, U, mass):
    unit, length = unit_utility(us)
    size = jnp.einsum("ij,j->i", unit_utility(U)[1], mass)
    objective = (U - jnp.min(U, axis=(2, 3), keepdims=True)) / size[:, None, None, None]
    weight = mass * length
    return make_segment(mu, unit, objective, mass), weight / jnp.sum(weight), length


@jax.jit
@jax.vmap
def descend(mu, us, U, mass, tables):
    """Values [starts, users] and gains [starts] of the ends of descents."""
    segment, weight, length = segment_of(mu, us, U, mass)
    nobody = jnp.zeros(len(us), int)
    base = jnp.min(us, axis=(1, 2))

    def one(table):
        start = jax.vmap(lambda own: recommend(segment, own))(table)
        meeting = meet(segment, *move_welfare(segment, start, nobody, -weight))
        return (
            base + length * jnp.max(meeting.values, axis=0),
            jnp.max(exploitability(segment, meeting).upper),
        )

    return jax.lax.map(one, tables, batch_size=16)


def start_tables(seed, count, providers, states, messages):
    """Babbling, full revelation, then random ones; the second half common to all providers."""
    rng = np.random.default_rng([7, seed])
    tables = rng.dirichlet(np.full(messages, 0.6), size=(count, providers, states))
    tables[0], tables[1] = np.eye(messages)[0], np.eye(states, messages)
    tables[count // 2 :] = tables[count // 2 :, :1]
    return tables


@functools.cache
def lone_users(count):
    cases = []
    for seed in range(count):
        mu, _, us, U = random_market(seed, 1, 3, 3, 2, aligned=seed % 2 == 0)
        cases.append((mu, us, U, np.ones(1), start_tables(seed, 32, 2, 3, 3)))
    return [np.stack(part) for part in zip(*cases, strict=True)]


@pytest.mark.parametrize("count", [12, pytest.param(200, marks=pytest.mark.campaign)])
def test_of_one_user_the_descent_finds_the_exact_worst(count):
    mu, us, U, mass, tables = lone_users(count)
    exact = jax.jit(jax.vmap(lambda *user: equilibrium_values(*user).worst()[0]))
    worst = np.asarray(exact(mu, us[:, 0], U[:, :, 0]))
    values, gains = map(np.asarray, descend(mu, us, U, mass, tables))
    lowest = np.where(gains <= TOLERANCE, values[..., 0], np.inf).min(axis=1)
    assert np.all(lowest >= worst - 1e-6), f"seeds {np.flatnonzero(lowest < worst - 1e-6)}"
    reached = lowest <= worst + 1e-6
    full = np.array([oracle.full_value(m, u[0]) for m, u in zip(mu, us, strict=True)])
    assert np.mean(reached) >= 0.95, f"seeds missed: {np.flatnonzero(~reached)}"
    below = np.sum(worst < full - 1e-6)
    assert below > 0
    print(f"exact worst found for {reached.sum()} of {count}; below full information: {below}")


CUTS = 12


def grid_tables():
    steps = np.linspace(0, 1, CUTS + 1)
    return np.array([[[p, 1 - p], [q, 1 - q]] for p in steps for q in steps if p >= q])


@jax.jit
@jax.vmap
def tabulate(mu, us, U, mass, tables):
    """Of each table on the grid: values, payoffs, and the best response to it.

    Best responses [tables, deviator, held] are exact, for every set of users whom the deviator
    holds before it deviates.
    """
    segment, _, length = segment_of(mu, us, U, mass)
    signals = jax.vmap(lambda table: recommend(segment, table))(tables)
    values = jnp.einsum("jps,gps->gj", segment.user_values(), signals)
    payoffs = jnp.einsum("ijps,gps->gij", segment.provider_values(), signals)
    held = jnp.array([[False, False], [False, True], [True, False], [True, True]])

    def best(table):
        def respond(provider, held):
            outside = Outside(values[table], payoffs[table, provider], held, jnp.array(True))
            return best_response(segment, provider, outside).upper

        return jax.vmap(lambda i: jax.vmap(lambda h: respond(i, h))(held))(jnp.arange(2))

    responses = jax.lax.map(best, jnp.arange(len(tables)), batch_size=16)
    return values, payoffs, responses, length


def grid_worst(values, payoffs, responses, weight):
    """The least weighted value of all equilibria of two tables on the grid; ties to the first."""
    first = values[:, None, :] >= values[None, :, :] - 1e-9
    has = np.where(first[:, :, None], payoffs[:, None], payoffs[None, :]).sum(axis=-1)
    code = 2 * first[..., 0] + first[..., 1]
    rows = np.arange(len(values))
    gain = [
        responses[rows[None, :], 0, code] - has[..., 0],
        responses[rows[:, None], 1, 3 - code] - has[..., 1],
    ]
    stands = (gain[0] <= 1e-7) & (gain[1] <= 1e-7)
    welfare = np.maximum(values[:, None], values[None, :]) @ weight
    return (welfare[stands].min() if stands.any() else np.inf), int(stands.sum())


@functools.cache
def small_markets(count):
    """Two users, two providers, two states; two of three payoffs are small whole numbers.

    Ties make equilibria on the grid likely that are worse than full information.
    """
    cases = []
    for seed in range(count):
        mu, mass, us, U = random_market(seed, 2, 2, 2, 2, False)
        rng = np.random.default_rng([3, seed])
        if seed % 3:
            mu = np.array([0.5, 0.5]) if seed % 2 else np.array([0.25, 0.75])
            us = np.array([[[rng.integers(1, 4), 0], [0, rng.integers(1, 4)]] for _ in range(2)])
            U = rng.integers(-2, 3, U.shape)
        cases.append((mu, us * 1.0, U * 1.0, mass, start_tables(seed, 32, 2, 2, 4)))
    return [np.stack(part) for part in zip(*cases, strict=True)]


@pytest.mark.campaign
@pytest.mark.parametrize("count", [200])
def test_no_pair_of_policies_on_a_grid_is_a_worse_equilibrium(count):
    *markets, starts = small_markets(count)
    grid = np.broadcast_to(grid_tables(), (count, *grid_tables().shape))
    values, payoffs, responses, length = map(np.asarray, tabulate(*markets, grid))
    found, gains = map(np.asarray, descend(*markets, starts))
    us, mass = markets[1], markets[3]
    hits, bad, least = 0, 0, []
    for n in range(count):
        weight = mass[n] * length[n]
        base = mass[n] @ us[n].min(axis=(1, 2))
        on_grid, _ = grid_worst(values[n], payoffs[n], responses[n], weight)
        ends = found[n] @ mass[n] - base
        mine = np.where(gains[n] <= TOLERANCE, ends, np.inf).min()
        least.append(mine - on_grid)
        hits += mine <= on_grid + 1e-6
        full = np.array([oracle.full_value(markets[0][n], u) for u in us[n]]) @ mass[n] - base
        bad += on_grid < full - 1e-6
    assert bad > 0
    assert hits >= 0.95 * count, f"seeds missed: {np.flatnonzero(np.array(least) > 1e-6)}"
    print(
        f"worst of the grid met or undercut in {hits} of {count} markets "
        f"({np.sum(np.array(least) < -1e-6)} undercut, {bad} worst below full information)"
    )
