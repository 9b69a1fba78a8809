"""Logit and Nash equilibria of random games in eight families: no wrong certificate, no hang."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame.finite import LogitStatus, NormalForm, lemke_howson, logit_equilibrium

TOLERANCE = 1e-9
SHAPES = (2, 4, 5), (3, 3, 2, 3)


def normal(random, count, shape):
    return random.normal(size=(count, *shape)), np.ones(count)


def ties(random, count, shape):
    return random.integers(-1, 2, (count, *shape)).astype(float), np.ones(count)


def rank_one(random, count, shape):
    tables = np.ones((count, *shape))
    for axis, size in enumerate(shape[1:]):
        factor = random.normal(size=(count, shape[0], size))
        tables *= factor.reshape(
            count, shape[0], *[size if k == axis else 1 for k in range(shape[0])]
        )
    return tables, np.ones(count)


def scaled(random, count, shape):
    """Rationality is divided by the scale: the same games in other units."""
    units = 10 ** random.uniform(-8, 8, count)
    tables, _ = normal(random, count, shape)
    return tables * units.reshape(-1, *[1] * len(shape)), 1 / units


def near_bifurcation(random, count, shape):
    """Coordination, barely perturbed; its symmetric branch splits at rationality = actions."""
    size = min(shape[1:])
    tables = np.zeros((count, *shape))
    for action in range(size):
        tables[(slice(None), slice(None), *[action] * shape[0])] = size ** (shape[0] - 1)
    tables = tables / 2 ** (shape[0] - 2)
    tables = tables + 10 ** random.uniform(-9, -3, (count, *[1] * len(shape))) * random.normal(
        size=tables.shape
    )
    return tables, 1 + random.uniform(-1, 1, count) * 1e-3


def identical_players(random, count, shape):
    """Everybody's payoff is one table that permuting players leaves alone."""
    size = max(shape[1:])
    players = shape[0]
    own = random.normal(size=(count, *[size] * players))
    symmetric = np.zeros_like(own)
    for shift in range(players):
        order = [(axis + shift) % players + 1 for axis in range(players)]
        symmetric += np.transpose(own, (0, *order))
    return np.repeat(symmetric[:, None], players, axis=1), np.ones(count)


def dominated_player(random, count, shape):
    tables, _ = normal(random, count, shape)
    tables[:, 0, 0] += 5
    return tables, np.ones(count)


def one_action(random, count, shape):
    return normal(random, count, (shape[0], 1, *shape[2:]))


FAMILIES = {
    family.__name__: family
    for family in (
        normal,
        ties,
        rank_one,
        scaled,
        near_bifurcation,
        identical_players,
        dominated_player,
        one_action,
    )
}


@functools.cache
def solver(width: int) -> Callable:
    """Shared by all families: one compilation per shape of table and batch."""
    del width

    @eqx.filter_jit
    def solve(tables, rationality):
        return jax.vmap(lambda u, t: logit_equilibrium(NormalForm(u), t))(tables, rationality)

    return solve


@eqx.filter_jit
def pivot(tables):
    return jax.vmap(lambda u: lemke_howson(NormalForm(u)))(tables)


def deviations(tables: np.ndarray, profile, player: int) -> np.ndarray:
    """Payoffs of the player's actions in extended precision, by explicit sums over the cells."""
    value = tables[:, player].astype(np.longdouble)
    players = tables.shape[1]
    for other in range(players):
        if other != player:
            shape = [len(tables), *[-1 if k == other else 1 for k in range(players)]]
            value = value * profile[other].astype(np.longdouble).reshape(shape)
    return value.sum(axis=tuple(k + 1 for k in range(players) if k != player))


def proper(profile) -> np.ndarray:
    """Per game whether the profile consists of probabilities."""
    good = np.ones(len(profile[0]), bool)
    for mixed in profile:
        good &= np.isfinite(mixed).all(1) & (mixed >= 0).all(1)
        good &= np.abs(mixed.sum(1) - 1) <= TOLERANCE
    return good


def is_logit(tables, rationality, profile) -> np.ndarray:
    good = proper(profile)
    for player, mixed in enumerate(profile):
        logits = rationality[:, None] * deviations(tables, profile, player)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        gap = np.abs(mixed - weights / weights.sum(1, keepdims=True)).max(1)
        good &= gap <= 1.01 * TOLERANCE
    return good


def is_nash(tables, profile) -> np.ndarray:
    good = proper(profile)
    for player, mixed in enumerate(profile):
        value = deviations(tables, profile, player)
        span = np.ptp(tables[:, player].reshape(len(tables), -1), axis=1)
        good &= value.max(1) - (mixed * value).sum(1) <= 1.01 * TOLERANCE * np.where(span, span, 1)
    return good


def logit_shares(family: str, count: int, shape, level: float, seed: int) -> dict[str, float]:
    """Shares of certified and of wrongly certified games, and the most steps."""
    random = np.random.default_rng(seed)
    tables, unit = FAMILIES[family](random, count, shape)
    rationality = level * unit
    found = solver(len(tables))(jnp.asarray(tables), jnp.asarray(rationality))
    certified = np.asarray(found.check.certified)
    right = is_logit(tables, rationality, [np.asarray(mixed) for mixed in found.profile])
    assert (certified == np.asarray(found.status == LogitStatus.certified)).all()
    return {
        "certified": float(certified.mean()),
        "wrong": int((certified & ~right).sum()),
        "steps": int(found.steps.max()),
    }


# The aim for the normal family is the issue's; of the others only wrong certificates are excluded,
# as games with ties and symmetries may have no principal branch.
AIMS = {("normal", 2.0): 0.999, ("normal", 10.0): 0.99}


@pytest.mark.parametrize("family", FAMILIES)
def test_no_certificate_is_wrong_and_no_search_hangs(family):
    shares = logit_shares(family, 64, SHAPES[0], 2.0, seed=0)
    assert shares["wrong"] == 0, shares
    assert shares["steps"] <= 500, shares
    assert shares["certified"] >= 0.9, shares


@pytest.mark.campaign
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("level", [2.0, 10.0])
def test_campaign_of_logit_equilibria(family, shape, level):
    shares = logit_shares(family, 1250, shape, level, seed=1)
    print(f"logit {family} {shape} {level}: {shares}")
    assert shares["wrong"] == 0, shares
    assert shares["steps"] <= 500, shares
    assert shares["certified"] >= AIMS.get((family, level), 0.0), shares


@pytest.mark.campaign
@pytest.mark.parametrize("family", FAMILIES)
def test_campaign_of_lemke_howson(family):
    tables, _ = FAMILIES[family](np.random.default_rng(2), 2500, SHAPES[0])
    found = pivot(jnp.asarray(tables))
    certified = np.asarray(found.check.certified)
    right = is_nash(tables, [np.asarray(mixed) for mixed in found.profile])
    print(f"lemke_howson {family}: certified {certified.mean()}, pivots {found.steps.max()}")
    assert not (certified & ~right).any()
    assert certified.mean() >= 0.999
