"""Random quantal users, and what posteriors are worth to them, in NumPy and by HiGHS."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linprog
from scipy.special import softmax

from diffgame.market import Market
from diffgame.market._quantal import quantal_outcome
from diffgame.market._quantal_bound import triangulate
from diffgame.market._quantal_persuasion import persuade_quantal

JUDGE, CONVICTION = jnp.eye(2), jnp.array([[0.0, 0.0], [1.0, 1.0]])
persuade = jax.jit(jax.vmap(persuade_quantal))
outcome = eqx.filter_jit(quantal_outcome)


def payoffs(points, utility, objective, temperature):
    """Indirect payoffs of many posteriors, in NumPy."""
    chosen = softmax(points @ utility.T / temperature, axis=1)
    return np.sum(chosen * (points @ objective.T), axis=1)


def concave_closure(prior, points, values):
    """The best distribution of the given posteriors, by HiGHS."""
    rows = points.T
    found = linprog(-values, A_eq=rows, b_eq=prior, bounds=(0, None), method="highs")
    assert found.status == 0
    return -found.fun


def random_users(seed, count, states):
    rng = np.random.default_rng(seed)
    return (
        rng.dirichlet(np.ones(states), size=count),
        rng.uniform(size=(count, 3, states)),
        rng.uniform(size=(count, 3, states)),
        10 ** rng.uniform(-1.5, 0, size=count),
    )


def random_market(seed, users, states, providers=2):
    rng = np.random.default_rng(seed)
    return Market(
        rng.dirichlet(2 * np.ones(states)),
        rng.uniform(size=(users, 3, states)),
        rng.uniform(size=(providers, users, 3, states)),
        rng.uniform(0.5, 2, size=users),
    )


def search_gain(market, profile, temperature, provider, parts, levels):
    """Gain of the best deviation with posteriors on a grid and her value at one of `levels`."""
    now = outcome(market, profile, temperature)
    values, worth = np.asarray(now.values), np.asarray(now.worth)
    prior = np.asarray(market.prior)
    points, _ = triangulate(len(prior), parts)
    gain = 0.0
    for j in range(values.shape[1]):
        others = np.arange(len(values)) != provider
        weights = np.exp(values[others, j] / temperature)
        elsewhere = weights @ worth[provider, others, j] / weights.sum()
        utility, objective = (
            np.asarray(market.utility[j]),
            np.asarray(market.objective[provider, j]),
        )
        value = payoffs(points, utility, utility, temperature)
        own = payoffs(points, utility, objective, temperature) * float(market.mass[j])
        top = concave_closure(prior, points, value)
        bottom = -concave_closure(prior, points, -value)
        best = -np.inf
        for level in np.linspace(bottom + 1e-9, top - 1e-9, levels):
            rows = np.vstack([points.T, value])
            found = linprog(-own, A_eq=rows, b_eq=np.append(prior, level), method="highs")
            assert found.status == 0
            comes = np.exp(level / temperature)
            comes = comes / (comes + weights.sum())
            best = max(best, comes * -found.fun + (1 - comes) * elsewhere)
        gain += max(best - np.asarray(now.shares)[:, j] @ worth[provider, :, j], 0)
    return gain
