"""Random markets, and the same market in a larger shape: one compilation serves all sizes."""

import itertools

import numpy as np


def random_market(seed, users, actions, states, providers, aligned=False):
    """Prior, mass, utilities [users, A, Y] and objectives [providers, users, A, Y]."""
    rng = np.random.default_rng(seed)
    mu, mass = rng.dirichlet(np.ones(states)), rng.uniform(0.5, 2, users)
    us = rng.uniform(size=(users, actions, states))
    U = rng.uniform(size=(providers, users, actions, states))
    if aligned:
        us = np.einsum("ji,ijay->jay", rng.dirichlet(np.ones(providers), users), U)
    return mu, mass, us, U


def padded(market, users, actions, states, providers):
    """An equivalent market of this shape, so that one compilation serves all sizes.

    Added users are indifferent and indifferent to all, added actions repeat the first one, added
    states repeat the first one with probability zero, added providers repeat the first one.
    """
    mu, mass, us, U = market
    n, A, Y = us.shape
    mu = np.concatenate([mu, np.zeros(states - Y)])
    mass = np.concatenate([mass, np.ones(users - n)])
    a, y = np.r_[0:A, [0] * (actions - A)].astype(int), np.r_[0:Y, [0] * (states - Y)].astype(int)
    i = np.r_[0 : len(U), [0] * (providers - len(U))].astype(int)
    us = np.concatenate([us[:, a][:, :, y], np.zeros((users - n, actions, states))])
    U = U[i][:, :, a][..., y]
    return mu, mass, us, np.concatenate([U, np.zeros((providers, users - n, actions, states))], 1)


def mixed_markets(count, users=(1, 2, 3), actions=(2, 3), states=(2, 3), providers=(2, 3)):
    """`count` markets of mixed sizes, every third one with exact weak alignment."""
    sizes = list(itertools.product(users, actions, states, providers))
    return [random_market(seed, *sizes[seed % len(sizes)], seed % 3 == 0) for seed in range(count)]


def batched(markets, shape=None, count=None):
    """Prior, mass, utilities, objectives of markets padded to one shape, stacked.

    With `count`, the first market is repeated up to that number.
    """
    if shape is None:
        shape = np.max([(*us.shape, len(U)) for _, _, us, U in markets], axis=0)
    filled = [*markets, *[markets[0]] * ((count or 0) - len(markets))]
    return [np.stack(part) for part in zip(*(padded(m, *shape) for m in filled), strict=True)]


def repeated(arrays, count):
    """Stacked arrays with the first entry repeated up to `count`: one batch size, one compile."""
    index = np.arange(max(count, len(arrays[0])))
    index[len(arrays[0]) :] = 0
    return [np.asarray(array)[index] for array in arrays]
