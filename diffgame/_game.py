"""A game between leaders ("providers") and followers ("users")."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree, Scalar

from ._choice_set import AbstractChoiceSet, AbstractConstrainedSet
from ._constraints import Constraints
from ._policy import AbstractPolicy


class AbstractGame(eqx.Module):
    """Providers commit to policies, each user responds, payoffs follow.

    Data are leaves of the pytree, so `jax.vmap` and `jax.grad` over games come for free. A game
    says what happens with ONE user; totals are mass-weighted sums over users and are all that
    couples them, so users can be vmapped, streamed in chunks and sharded. Numbers that matter
    belong into fields: derivatives of a solution do not see what a method closes over.

    **Fields to provide:**

    - `users`: a pytree whose leaves share the leading axis "users".
    - `mass`: how much each user counts, shape [users], positive.
    - `choice_set`: what a user chooses from.
    """

    users: eqx.AbstractVar[PyTree]
    mass: eqx.AbstractVar[Float[Array, " users"]]
    choice_set: eqx.AbstractVar[AbstractChoiceSet]

    def __check_init__(self):
        sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(self.users)}
        if not sizes <= {jnp.shape(self.mass)[:1]} or () in sizes:
            raise ValueError(
                f"{type(self).__name__}: mass has shape {jnp.shape(self.mass)}, the leaves of "
                f"users have first axes {sorted(sizes)}; give every leaf of users, and mass, one "
                "entry per user along the first axis."
            )

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

    def settle(self, totals: PyTree) -> Any:
        """Turn mass-weighted totals into payoffs [providers]. Default: the totals are the payoffs.

        For payoffs that are not sums over users: convex costs, capacity, market power.
        """
        return totals

    def chance(self, offers: PyTree, user: PyTree) -> Float[Array, "..."]:
        """Probability that nature leads to each leaf of a `DecisionTree`.

        Broadcastable to the shape of the tree. Default: 1, for trees without moves of nature.
        """
        del offers, user
        return jnp.ones(())

    def user_constraints(self, choice: Any, offers: PyTree, user: PyTree) -> Constraints:
        """What one user's choice must satisfy, for an `AbstractConstrainedSet`.

        Default: the constraints of the choice set. Override it for constraints that depend on
        the offers or on the user: inequalities convex in `choice`, equalities affine.
        """
        del offers, user
        if not isinstance(self.choice_set, AbstractConstrainedSet):
            return Constraints()
        return self.choice_set.constraints(choice)

    def provider_constraints(
        self, profile: AbstractPolicy, totals: PyTree, provider: Int[Array, ""]
    ) -> Constraints:
        """What the policy of one provider must satisfy, given everybody's. Default: nothing.

        It binds that provider alone, whether it depends on the others' policies or not. `totals`
        are the mass-weighted totals that `settle` gets, so constraints may count how users
        respond (a capacity, a service level). Simple sets (boxes, rows of probabilities) belong
        to the policy's `project`; polytopes and other convex sets belong here.
        """
        del profile, totals, provider
        return Constraints()

    def shared_constraints(self, profile: AbstractPolicy, totals: PyTree) -> Constraints:
        """What all policies together must satisfy: it binds everybody. Default: nothing."""
        del profile, totals
        return Constraints()
