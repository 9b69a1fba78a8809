"""A game between leaders ("providers") and followers ("users")."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, Scalar

from ._choice_set import AbstractChoiceSet


class AbstractGame(eqx.Module):
    """Providers commit to policies, each user responds, payoffs follow.

    Data are leaves of the pytree, so `jax.vmap` and `jax.grad` over games come for free. A game
    says what happens with ONE user; totals are mass-weighted sums over users and are all that
    couples them, so users can be vmapped, streamed in chunks and sharded.

    **Fields to provide:**

    - `users`: a pytree whose leaves share the leading axis "users".
    - `mass`: how much each user counts, shape [users], positive.
    - `choice_set`: what a user chooses from.
    """

    users: eqx.AbstractVar[PyTree]
    mass: eqx.AbstractVar[Float[Array, " users"]]
    choice_set: eqx.AbstractVar[AbstractChoiceSet]

    @abc.abstractmethod
    def user_utility(self, choice: Any, offers: PyTree, user: PyTree) -> Scalar:
        """Utility of one user from `choice`.

        `offers` holds what every provider offers her: leaves have a leading "providers" axis.
        """

    @abc.abstractmethod
    def provider_payoffs(self, choice: Any, offers: PyTree, user: PyTree) -> PyTree:
        """What one user of mass 1 contributes: payoffs [providers], or statistics for `settle`."""

    def observe(self, user: PyTree) -> PyTree:
        """What providers may see of a user; policies are functions of it. Default: nothing."""
        del user
        return None

    def settle(self, totals: PyTree) -> Float[Array, " providers"]:
        """Turn mass-weighted totals into payoffs. Default: the totals are the payoffs.

        For payoffs that are not sums over users: convex costs, capacity, market power.
        """
        return totals

    def chance(self, offers: PyTree, user: PyTree) -> Float[Array, "..."]:
        """Probability that nature leads to each leaf of a `DecisionTree`.

        Broadcastable to the shape of the tree. Default: 1, for trees without moves of nature.
        """
        del offers, user
        return jnp.ones(())
