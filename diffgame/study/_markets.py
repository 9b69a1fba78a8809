"""The random markets of a study, from a seed."""

import numpy as np

from ..market import Market


def unit(table: np.ndarray) -> np.ndarray:
    """Tables [..., actions, states] moved and scaled to range from 0 to 1."""
    low = table.min(axis=(-2, -1), keepdims=True)
    size = np.ptp(table, axis=(-2, -1), keepdims=True)
    return (table - low) / np.where(size > 0, size, 1)


def draw_market(
    seed: tuple[int, ...],
    noise: float,
    *,
    users: int = 2,
    providers: int = 2,
    actions: int = 3,
    states: int = 2,
    opposed: float = 0.0,
) -> Market:
    """A market whose users want a random mix of the objectives, and `noise` of something else.

    Without noise weak alignment is exact. `opposed` mixes in the other extreme: how much a provider
    takes from what it grants one user away from the next.
    """
    rng = np.random.default_rng(seed)
    prior = rng.dirichlet(np.full(states, 3.0))
    objective = unit(rng.uniform(size=(providers, users, actions, states)))
    weights = rng.dirichlet(np.ones(providers), size=users)
    mix = np.einsum("ji,ijas->jas", weights, objective)
    utility = unit((1 - noise) * unit(mix) + noise * unit(rng.uniform(size=mix.shape)))
    if opposed:
        # Provider i is the ally of user i and the adversary of all others.
        ally = (np.arange(providers)[:, None] % users == np.arange(users)[None])[..., None, None]
        structured = np.where(ally, utility[None], 1 - utility[None])
        objective = (1 - opposed) * objective + opposed * structured
    return Market(prior, utility, objective, np.ones(users))
