"""The markets of a study: known ones, and random ones from a seed."""

import numpy as np

from ..market import Market

LOSS = 3.0
_COIN = np.array([0.5, 0.5])


def unit(table: np.ndarray) -> np.ndarray:
    """Tables [..., actions, states] moved and scaled to range from 0 to 1."""
    low = table.min(axis=(-2, -1), keepdims=True)
    size = np.ptp(table, axis=(-2, -1), keepdims=True)
    return (table - low) / np.where(size > 0, size, 1)


def common_interest(kappa: float) -> Market:
    """Both users want to be right; each provider is paid for one, charged kappa for the other."""
    utility = np.stack([np.eye(2), np.eye(2)])
    own, other = np.eye(2), -kappa * np.eye(2)
    return Market(_COIN, utility, np.array([[own, other], [other, own]]), np.ones(2))


def opposed_users(ratio: float) -> Market:
    """One user gains by following, the other by doing the opposite; masses one and `ratio`."""
    follow = np.array([[0, 0], [1, -LOSS], [-LOSS, 1]])
    utility = np.stack([follow, follow[[0, 2, 1]]])
    return Market(
        _COIN, utility, np.stack([np.stack([u, u]) for u in utility]), np.array([1.0, ratio])
    )


def three_users() -> Market:
    """Opposed users and a third, heavier one, for whom informing the first does harm."""
    pair = opposed_users(1.0)
    third = np.array([[-9.0, -9.0], [1.0, 0.0], [0.0, 1.0]])
    utility = np.concatenate([np.asarray(pair.utility), third[None]])
    objective = np.concatenate(
        [np.asarray(pair.objective), np.broadcast_to(third, (2, 1, 3, 2))], axis=1
    )
    return Market(pair.prior, utility, objective, np.array([1.0, 1.0, 13.0]))


def two_thresholds() -> Market:
    """Twin providers paid per conviction; judges with thresholds 1/2 and 3/4."""
    utility = np.array([[[0.0, 0.0], [-1.0, 1.0]], [[0.0, 0.0], [-3.0, 1.0]]])
    conviction = np.broadcast_to(np.array([[0.0, 0.0], [1.0, 1.0]]), (2, 2, 2, 2))
    return Market(np.array([0.7, 0.3]), utility, conviction, np.ones(2))


def prosecutor_and_defender() -> Market:
    """A judge who wants to be right, one provider who wants convictions and one who does not."""
    conviction = np.array([[0.0, 0.0], [1.0, 1.0]])
    objective = np.stack([conviction, 1 - conviction])[:, None]
    return Market(np.array([0.7, 0.3]), np.eye(2)[None], objective, np.ones(1))


def draw_market(
    seed: tuple[int, ...],
    noise: float,
    *,
    users: int = 2,
    providers: int = 2,
    actions: int = 3,
    states: int = 2,
) -> Market:
    """A market whose users want a random mix of the objectives, and `noise` of something else.

    Without noise weak alignment is exact.
    """
    rng = np.random.default_rng(seed)
    prior = rng.dirichlet(np.full(states, 3.0))
    objective = unit(rng.uniform(size=(providers, users, actions, states)))
    weights = rng.dirichlet(np.ones(providers), size=users)
    mix = np.einsum("ji,ijas->jas", weights, objective)
    utility = unit((1 - noise) * unit(mix) + noise * unit(rng.uniform(size=mix.shape)))
    return Market(prior, utility, objective, np.ones(users))


def perturb_opposed(seed: tuple[int, ...], noise: float) -> Market:
    """Opposed users, all tables moved towards random ones of the same range."""
    rng = np.random.default_rng(seed)
    base = opposed_users(1.0)

    def move(table):
        table = np.asarray(table)
        return (1 - noise) * table + noise * rng.uniform(table.min(), table.max(), table.shape)

    prior = (1 - noise) * np.asarray(base.prior) + noise * rng.dirichlet(np.ones(2))
    return Market(prior, move(base.utility), move(base.objective), np.ones(2))
