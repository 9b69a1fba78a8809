"""Exact personalized equilibrium values of one user by HiGHS: plain, slow and independent.

Arrays as in `oracle`: u (actions, states), U (providers, actions, states). Actions that ties keep
the user from ever playing are left out before anything is computed.
"""

import itertools

import numpy as np

from .oracle import babble_value, full_value, lp, playable

_CHORD = 1e-10  # a vertex nearer to a chord lies on it
_NARROW = 1e-8  # cells narrower than this are left to their neighbours


class Outcomes:
    """Obedient outcomes x (actions, states) of one user, as the feasible set of programs."""

    def __init__(self, mu, u):
        A, Y = u.shape
        self.mu, self.sums = mu, np.tile(np.eye(Y), (1, A))
        rows = []
        for a in range(A):
            for b in range(A):
                if a != b:
                    row = np.zeros((A, Y))
                    row[a] = u[b] - u[a]
                    rows.append(row.ravel())
        self.obey = np.array(rows).reshape(len(rows), A * Y)

    def maximize(self, table, rows=(), levels=()):
        """The maximal expected table, and where; None if no outcome has rows @ x >= levels."""
        more = np.array([np.ravel(row) for row in rows]).reshape(len(rows), self.obey.shape[1])
        upper = np.r_[self.obey, -more]
        limits = np.r_[np.zeros(len(self.obey)), -np.asarray(levels, float)]
        found = lp(-np.ravel(table), upper, limits, self.sums, self.mu)
        assert found.status in (0, 2), found.message
        return None if found.status == 2 else (-found.fun, found.x)


def keep_playable(mu, u, U):
    """The user's table and the providers' without actions that she never plays."""
    kept = playable(mu, u)
    return u[kept], U[:, kept]


def frontier(outcomes, u, own):
    """Vertices (user value, provider payoff) of the best combinations, by dichotomic search."""

    def at(user, provider):
        _, x = outcomes.maximize(user * u + provider * own)
        return np.array([u.ravel() @ x, own.ravel() @ x])

    left, right = at(1e-9, 1.0), at(1.0, 1e-9)
    points, pending = [left, right], [(left, right)]
    while pending:
        left, right = pending.pop()
        slope = np.array([left[1] - right[1], right[0] - left[0]])
        if slope.sum() <= 1e-12 or slope.min() < 0:
            continue
        slope = slope / slope.sum()
        new = at(*slope)
        if slope @ new > slope @ left + _CHORD and left[0] < new[0] < right[0]:
            points.append(new)
            pending += [(left, new), (new, right)]
    return np.array(sorted(points, key=lambda point: point[0]))


def equilibrium_values(mu, u, U, delta=0.0, drop_unplayable=True):
    """Intervals [low, high] of values in delta-equilibria, sorted; touching ones are merged."""
    if drop_unplayable:
        u, U = keep_playable(mu, u, U)
    outcomes, full = Outcomes(mu, u), full_value(mu, u)
    curves = [frontier(outcomes, u, own) for own in U]

    def most(i, value):
        if len(U) == 1:
            return curves[i][0, 1]
        return np.interp(value, curves[i][:, 0], curves[i][:, 1])

    breaks = np.unique(np.r_[babble_value(mu, u), full, *[curve[:, 0] for curve in curves]])
    found = [(full, full)] if len(U) > 1 else []
    for low, high in itertools.pairwise(breaks):
        if high - low < _NARROW:
            continue
        rows, levels = [u, -u], [low, -high]
        for i, own in enumerate(U):
            slope = (most(i, high) - most(i, low)) / (high - low)
            rows.append(own - slope * u)
            levels.append(most(i, low) - slope * low - delta - 1e-10)
        lowest = outcomes.maximize(-u, rows, levels)
        if lowest is not None:
            found.append((-lowest[0], outcomes.maximize(u, rows, levels)[0]))
    return merged(found)


def merged(intervals, gap=1e-8):
    """The union as sorted disjoint intervals; gaps up to `gap` are closed."""
    union = []
    for low, high in sorted(intervals):
        if union and low <= union[-1][1] + gap:
            union[-1] = union[-1][0], max(high, union[-1][1])
        else:
            union.append((low, high))
    return np.array(union)


def shortfall(mu, u, U, value):
    """-h(value) of the characterisation: 0 where `value` is an equilibrium value, else above."""
    u, U = keep_playable(mu, u, U)
    outcomes = Outcomes(mu, u)
    most = [outcomes.maximize(own, [u], [value - 1e-10])[0] for own in U]
    # maximise t subject to E U_i - t >= f_i(value), E u = value: t is one more column.
    A, Y = u.shape
    N = A * Y
    upper = np.c_[
        np.r_[outcomes.obey, -U.reshape(len(U), N)],
        np.r_[np.zeros(len(outcomes.obey)), np.ones(len(U))],
    ]
    limits = np.r_[np.zeros(len(outcomes.obey)), -np.array(most)]
    equal = np.c_[np.r_[outcomes.sums, u.reshape(1, N)], np.zeros(Y + 1)]
    bounds = [(0, None)] * N + [(None, None)]
    found = lp(np.r_[np.zeros(N), -1.0], upper, limits, equal, np.r_[mu, value], bounds)
    assert found.status == 0, found.message
    return found.fun
