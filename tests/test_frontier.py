"""Frontiers of one user and one provider: vertices by HiGHS, signals that attain what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame.market._best_response import Outside, best_response
from diffgame.market._dynamics import respond_by_frontier, respond_by_program
from diffgame.market._equilibrium_values import equilibrium_segment
from diffgame.market._frontier import find_frontiers

from . import oracle, reference
from .markets import random_market

SEEDS = range(24)


@jax.jit
@jax.vmap
def compute(mu, u, U, levels, paid):
    """Frontiers at the share `levels` of the way to full information, and responses there."""
    segment = equilibrium_segment(mu, u, U)
    frontiers = find_frontiers(segment)
    low, full = jnp.max(segment.utility[0] @ mu), frontiers.value[0, -1]
    values = low + levels * (full - low)
    most = jax.vmap(lambda f: jax.vmap(f.most)(values))(frontiers)
    signals = jax.vmap(lambda f: jax.vmap(f.signal)(values))(frontiers)

    def respond(value, held):
        outside = Outside(value[None], paid[None], held[None], jnp.array(True))
        read = respond_by_frontier(frontiers, jnp.array(0), outside)
        asked = respond_by_program(segment, jnp.array(0), outside)
        exact = best_response(segment, jnp.array(0), outside).lower
        return read, asked, exact

    held = jnp.array([False, True])
    responses = jax.vmap(jax.vmap(respond, in_axes=(None, 0)), in_axes=(0, None))(values, held)
    return values, most, signals, frontiers, responses


@pytest.fixture(scope="module")
def computed():
    cases = []
    for seed in SEEDS:
        mu, _, us, U = random_market(seed, 1, 3, 3, 2, aligned=seed % 3 == 0)
        u, own = us[0], U[:, 0]
        if seed % 4 == 0:
            # Ties: whole numbers, and a state of no difference to her.
            u, own = np.round(2 * u), np.round(2 * own)
            u[:, 0] = 1
        cases.append((mu, u, own))
    levels = np.linspace(0, 1, 7)
    arrays = map(np.stack, zip(*cases, strict=True))
    found = compute(*arrays, np.tile(levels, (len(cases), 1)), np.full(len(cases), 0.3))
    return cases, jax.device_get(found)


def unit(table):
    size = np.ptp(table)
    return (table - table.min()) / (size if size > 0 else 1)


def test_the_largest_payoff_at_every_value_is_that_of_highs(computed):
    cases, (values, most, _, frontiers, _) = computed
    assert np.all(frontiers.complete)
    bends = 0
    for seed, (mu, u, U) in enumerate(cases):
        kept = oracle.playable(mu, u)
        outcomes = reference.Outcomes(mu, unit(u)[kept])
        for i, own in enumerate(U):
            for value, payoff in zip(values[seed], most[seed, i], strict=True):
                expected, _ = outcomes.maximize(unit(own)[kept], [unit(u)[kept]], [value - 1e-10])
                assert payoff == pytest.approx(expected, abs=1e-7), f"{seed=}, {i=}, {value=}"
            bends += len(np.unique(frontiers.value[seed, i].round(9))) > 2
    assert bends >= len(cases) // 3


def test_vertices_rise_for_her_and_fall_for_the_provider(computed):
    _, (_, _, _, frontiers, _) = computed
    assert np.all(np.diff(frontiers.value, axis=-1) >= 0)
    assert np.all(np.diff(frontiers.payoff, axis=-1) <= 1e-9)


def test_signals_are_obedient_and_attain_the_frontier(computed):
    cases, (values, most, signals, _, _) = computed
    for seed, (mu, u, U) in enumerate(cases):
        for i, own in enumerate(U):
            for value, payoff, signal in zip(
                values[seed], most[seed, i], signals[seed, i], strict=True
            ):
                joint = signal * mu
                np.testing.assert_allclose(signal.sum(axis=0), 1, rtol=0, atol=1e-12)
                assert (joint * unit(u)).sum() >= value - 1e-9, f"{seed=}, {i=}"
                assert (joint * unit(own)).sum() == pytest.approx(payoff, abs=1e-9)
                regret = (joint @ unit(u).T).max(axis=1) - (joint * unit(u)).sum(axis=1)
                assert regret.max() <= 1e-9, f"{seed=}, {i=}"


def test_responses_read_off_the_frontier_equal_those_by_programs(computed):
    _, (values, *_, responses) = computed
    (read, _, captured), (asked, _, held), exact = responses
    np.testing.assert_allclose(read, asked, rtol=0, atol=1e-8)
    np.testing.assert_array_equal(captured, held)
    # The margin by which a new user is won costs something; one that is held costs nothing.
    assert np.all(read[:, :, 1] >= exact[:, :, 1] - 1e-8)
    assert np.all(read <= exact + 1e-8)
    assert captured.any()
    assert not captured.all()
    assert values.shape == read.shape[:2]
