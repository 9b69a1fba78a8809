"""Random users with private values, the best menu by HiGHS, conversations in plain NumPy.

Arrays: joint [users, types, states], utility [users, types, actions, states], objective [providers,
users, types, actions, states], tables [providers, branches, states, messages].
"""

import itertools

import jax
import numpy as np

from .markets import repeated
from .oracle import lp

BATCH = 20


def random_game(seed, users, types, actions, states, providers=2, branches=2, messages=2):
    rng = np.random.default_rng([11, seed])
    prior = rng.dirichlet(np.ones(states))
    likelihood = rng.dirichlet(np.ones(types), size=(users, states))
    joint = np.einsum("s,jsx->jxs", prior, likelihood)
    utility = rng.normal(size=(users, types, actions, states))
    objective = rng.normal(size=(providers, *utility.shape))
    mass = rng.uniform(0.5, 2, users)
    tables = rng.dirichlet(np.ones(messages), size=(providers, branches, states))
    return joint, utility, objective, mass, tables


def widened(joint, tables, shape):
    """The same game with more actions, that nobody ever takes, and states that never occur."""
    actions, states = shape
    more = actions - tables[0].shape[-2], states - tables[0].shape[-1]
    wide = [
        np.pad(table, [(0, 0)] * (table.ndim - 2) + [(0, more[0]), (0, more[1])])
        for table in tables
    ]
    if more[0]:
        wide[0][..., -more[0] :, :] = tables[0].min() - 1
    return np.pad(joint, [(0, 0)] * (joint.ndim - 1) + [(0, more[1])]), wide


def in_batch(function, arrays, size=BATCH):
    """Any number of games with few compilations."""
    count, parts = len(arrays[0]), []
    for start in range(0, count, size):
        piece = [array[start : start + size] for array in arrays]
        kept = len(piece[0])
        found = jax.device_get(function(*repeated(piece, size)))
        parts.append(jax.tree.map(lambda leaf, kept=kept: leaf[:kept], found))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def flat(joint, utility, objective, mass):
    """Pairs in a row: weights, utilities, and payoffs per conditional probability."""
    users, types, states = joint.shape
    weight = joint.reshape(users * types, states)
    payoff = objective * mass[:, None, None, None] * joint[:, :, None]
    return weight, utility.reshape(-1, *utility.shape[2:]), payoff.reshape(-1, *payoff.shape[2:])


def reference_best_response(weight, utility, payoff, unit, value, elsewhere, held):
    """The best menu by one pair of HiGHS programs per set of units to hold.

    Variables: q[branch, message, state], then v[pair, branch, message], what a message of a branch
    is worth to a pair that acts optimally, then the margin. weight [pairs, states].
    """
    pairs, actions, states = utility.shape
    sizes = pairs * actions * states, pairs * pairs * actions

    def row(q=(), v=(), margin=0.0):
        one, two = np.zeros((pairs, actions, states)), np.zeros((pairs, pairs, actions))
        for where, entry in q:
            one[where] += entry
        for where, entry in v:
            two[where] += entry
        return np.r_[one.ravel(), two.ravel(), margin]

    def own(t):
        return row([(t, utility[t] * weight[t])])

    rows = [
        row([((s, a), utility[t, b] * weight[t])], [((t, s, a), -1)])
        for t, s, a, b in np.ndindex(pairs, pairs, actions, actions)
    ]
    rows += [row((), [((t, s), 1)]) - own(t) for t, s in np.ndindex(pairs, pairs)]
    sums = np.array([row([((s, slice(None), y), 1)]) for s, y in np.ndindex(pairs, states)])
    units = len(value)
    worth = [sum(own(t) for t in range(pairs) if unit[t] == u) for u in range(units)]
    limits = [(0, 1)] * sizes[0] + [(None, None)] * sizes[1]
    best = elsewhere.sum() if np.all(np.isfinite(value)) else -np.inf
    for captured in itertools.product([False, True], repeat=units):
        if not any(captured):
            continue
        fresh = [captured[u] and not held[u] for u in range(units)]
        ask = [
            row(margin=float(fresh[u])) - worth[u] if captured[u] else worth[u]
            for u in range(units)
            if np.isfinite(value[u])
        ]
        if not all(np.isfinite(value[u]) or captured[u] for u in range(units)):
            continue
        levels = [-v if c else v for v, c in zip(value, captured, strict=True) if np.isfinite(v)]
        upper = np.array(rows + ask), np.r_[np.zeros(len(rows)), levels]

        def solve(cost, margin, upper=upper):
            bounds = [*limits, margin]
            return lp(cost, *upper, sums, np.ones(len(sums)), bounds)

        widest = solve(row(margin=-1.0), (0, 1))
        assert widest.status in (0, 2), widest.message
        if widest.status == 2 or (any(fresh) and -widest.fun <= 1e-9):
            continue
        inside = [t for t in range(pairs) if captured[unit[t]]]
        found = solve(-row([(t, payoff[t]) for t in inside]), (0, 0))
        assert found.status == 0, found.message
        best = max(best, -found.fun + sum(elsewhere[~np.array(captured)]))
    return best


def converse(joint, utility, objective, policies, tie=0.0):
    """Values [policies, pairs] and payoffs [policies] of policies by backward induction.

    A policy has one table per round, [policies, states, c1, m1, .., ct, mt]. Choices whose values
    are within `tie` of the best go to the provider's favour, other ties to the lowest index.
    Arrays of the pairs: joint [pairs, states], utility and objective [pairs, actions, states].
    """
    reach = np.ones(policies[0].shape[:2])
    for table in policies:
        reach = reach[..., None, None] * table
    value = np.einsum("ny,nay,py...->pn...a", joint, utility, reach)
    payoff = np.einsum("ny,nay,py...->pn...a", joint, objective, reach)

    def choose(value, payoff):
        best = value >= value.max(axis=-1, keepdims=True) - tie
        pick = np.argmax(np.where(best, payoff, -np.inf) if tie else best, axis=-1)[..., None]
        return (np.take_along_axis(array, pick, axis=-1)[..., 0] for array in (value, payoff))

    value, payoff = choose(value, payoff)
    for _ in policies:
        value, payoff = choose(value.sum(axis=-1), payoff.sum(axis=-1))
    return value, payoff.sum(axis=1)
