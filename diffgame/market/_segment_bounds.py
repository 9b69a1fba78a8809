"""Worst-case losses for many partitions and noisy labels at once.

Without an allowance for providers (delta = 0) the program of `worst_case_losses` falls apart into
one per segment, so what is solved are segments, each once, however many partitions contain it.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from ._degree import likelihood_of
from ._market import Market
from ._worst_case import worst_case_losses

# Segments per call, so that one compilation serves any number of them.
_BATCH = 16
# Segments are filled up to 4, 8, 16, ... users: few sizes to compile, small if segments are.
_SMALLEST = 4


@dataclasses.dataclass(frozen=True)
class InformationCertificates:
    """Bounds on what users lose in any equilibrium, one entry per thing that providers may know.

    - `total`: of the sum over users, `per_user` of each, in units of utility, not weighted by mass;
        with noisy labels the expected loss.
    - `certified`: whether every bound is the exact optimum of its program.
    """

    total: Float[np.ndarray, " points"]
    per_user: Float[np.ndarray, "points users"]
    certified: Bool[np.ndarray, " points"]


@eqx.filter_jit
def _losses(prior, utility, objective, mass):
    def one(utility, objective, mass):
        together = jnp.zeros(mass.shape, int)
        market = Market(prior, utility, objective, mass, together, observations=1)
        return worst_case_losses(market)

    return jax.vmap(one)(utility, objective, mass)


def certify_segments(
    market: Market, share: Float[np.ndarray, "segments users"]
) -> InformationCertificates:
    """Bounds for segments by themselves; `share`: P(the label of this segment | user).

    A user's loss counts times her share. Utilities are scaled by it: that leaves choices alone. A
    user with share 0 is out: indifferent, and of no weight to anybody.
    """
    if market.prior.dtype != jnp.float64:
        raise ValueError(
            f"the market is in {market.prior.dtype}; certificates need float64: set "
            'jax.config.update("jax_enable_x64", True) before making it.'
        )
    count, users = share.shape
    total, per_user = np.zeros(count), np.zeros((count, users))
    certified = np.zeros(count, bool)
    members = [np.flatnonzero(row) for row in share]
    groups: dict[int, list[int]] = {}
    for at, inside in enumerate(members):
        size = 2 ** math.ceil(math.log2(max(len(inside), _SMALLEST)))
        groups.setdefault(size, []).append(at)
    for size, group in groups.items():
        for first in range(0, len(group), _BATCH):
            batch = group[first : first + _BATCH]
            user, weight = np.zeros((_BATCH, size), int), np.zeros((_BATCH, size))
            for row, at in enumerate(batch):
                user[row, : len(members[at])] = members[at]
                weight[row, : len(members[at])] = share[at, members[at]]
            found = _losses(
                market.prior,
                market.utility[user] * weight[:, :, None, None],
                jnp.moveaxis(market.objective[:, user], 0, 1),
                market.mass[user] * weight,
            )
            own, whole = jax.device_get((found.per_user, found.total))
            for row, at in enumerate(batch):
                total[at], inside = whole.loss[row], len(members[at])
                per_user[at, members[at]] = own.loss[row, :inside]
                certified[at] = whole.certified[row] and own.certified[row, :inside].all()
    return InformationCertificates(total, per_user, certified)


def information_certificates(market: Market, information: Sequence[Any]) -> InformationCertificates:
    """`worst_case_losses` for many partitions or noisy labels, all at once.

    **Arguments:** `information`: what providers may know of users, each entry labels [users] or
    P(label | user) [users, labels]; the market's own observation does not matter. Distinct segments
    are solved once, in batches. For an allowance `delta`, which one budget per provider spreads
    over its segments, use `worst_case_losses(market.observing(labels), delta)`.

    **Source:** docs/personalization.md (the certificate is a sum over segments).

    >>> import jax.numpy as jnp
    >>> from diffgame.market import Market, information_certificates
    >>> u = jnp.stack([jnp.eye(2), 1 - jnp.eye(2)])  # users who want opposite actions
    >>> U = jnp.stack([jnp.stack([u[0]] * 2), jnp.stack([u[1]] * 2)])  # a provider for each
    >>> market = Market(jnp.array([0.5, 0.5]), u, U, jnp.ones(2))
    >>> information_certificates(market, [[0, 0], [0, 1]]).total.round(6)
    array([1., 0.])
    """
    users = len(market.mass)
    tables = [likelihood_of(entry, users) for entry in information]
    shares = [row for table in tables for row in table.T]
    if not shares:
        raise ValueError("information is empty: give at least one partition or likelihood.")
    distinct, which = np.unique(np.stack(shares), axis=0, return_inverse=True)
    found = certify_segments(market, distinct)
    ends = np.cumsum([table.shape[1] for table in tables])
    parts = np.split(which.ravel(), ends[:-1])
    return InformationCertificates(
        np.array([found.total[part].sum() for part in parts]),
        np.stack([found.per_user[part].sum(axis=0) for part in parts]),
        np.array([found.certified[part].all() for part in parts]),
    )
