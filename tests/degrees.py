"""Users whom labels may tell apart, and certificates of partitions and noisy labels by HiGHS.

HiGHS solves the whole program at once, atom by atom, where the package solves segments: the two
share no row.
"""

import itertools

import numpy as np

from diffgame.market import Market
from diffgame.market._degree import likelihood_of

from . import oracle

USERS = 4


def cautious_market(seed, users=USERS):
    """Users who act only when sure enough; providers for some of them, against others, and noise.

    One shape, so that one compilation serves all.
    """
    rng = np.random.default_rng([9, seed])
    gain, loss = rng.uniform(0.5, 1.5, (2, users)), rng.uniform(1, 4, (2, users))
    us = np.zeros((users, 3, 2))
    us[:, 1] = np.stack([gain[0], -loss[0]], axis=-1)
    us[:, 2] = np.stack([-loss[1], gain[1]], axis=-1)
    stance = rng.uniform(-2, 1, (2, users))
    stance[rng.integers(2, size=users), np.arange(users)] = 1
    noise = (0.3, 1.0)[seed % 2] * rng.normal(size=(2, users, 3, 2))
    U = np.einsum("ij,jas->ijas", stance, us) + noise
    return Market(rng.dirichlet([4, 4]), us, U, rng.uniform(0.5, 2, users))


def reference(market, information, user=None):
    """The certificate by HiGHS: atoms (user, label), a row per provider and label."""
    mu, mass, us, U = (
        np.asarray(part) for part in (market.prior, market.mass, market.utility, market.objective)
    )
    share = likelihood_of(information, len(mass))
    atoms = np.argwhere(share > 0)
    _, A, Y = us.shape
    size, N = A * Y, len(atoms) * A * Y
    cost, best = np.zeros(N), 0.0
    equal, target, upper, limit = [], [], [], []
    rows, promised = np.zeros((len(U), share.shape[1], N)), np.zeros((len(U), share.shape[1]))
    for at, (j, label) in enumerate(atoms):
        place = slice(at * size, (at + 1) * size)
        for y in range(Y):
            row = np.zeros(N)
            row[place] = (np.arange(Y) == y)[None].repeat(A, 0).ravel()
            equal.append(row)
            target.append(mu[y])
        for a, b in itertools.permutations(range(A), 2):
            row = np.zeros(N)
            row[place].reshape(A, Y)[a] = us[j][b] - us[j][a]
            upper.append(row)
            limit.append(0)
        full = oracle.outcome(np.eye(Y), mu, us[j])
        for i in range(len(U)):
            weight = mass[j] * share[j, label]
            rows[i, label, place] = -weight * U[i, j].ravel()
            promised[i, label] += weight * np.sum(full * U[i, j])
        if user in (None, j):
            cost[place] = share[j, label] * us[j].ravel()
            best += share[j, label] * oracle.full_value(mu, us[j])
    upper += list(rows.reshape(-1, N))
    limit += list(-promised.ravel())
    found = oracle.lp(cost, np.array(upper), limit, np.array(equal), target, [(0, None)] * N)
    return best - found.fun


def random_likelihood(rng, users=USERS, labels=3):
    return rng.dirichlet(np.ones(labels), users)


def refines(fine, coarse):
    """Whether users who share a label in `fine` share one in `coarse`."""
    together = fine[:, None] == fine[None]
    return np.all((coarse[:, None] == coarse[None])[together])
