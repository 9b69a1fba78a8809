"""Games of providers alone: nobody responds."""

import abc
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree, Scalar

from ._choice_set import Simplex
from ._game import AbstractGame
from ._response import AbstractResponse


class Passive(AbstractResponse):
    """The centre of the choice set, whatever is offered: for users who do not respond.

    >>> import jax.numpy as jnp
    >>> from diffgame import Passive
    >>> from diffgame.games import LogitBertrand
    >>> game = LogitBertrand(cost=jnp.zeros(1), quality=jnp.ones(1), users=jnp.ones(1))
    >>> print(Passive()(game, jnp.ones(1), jnp.ones(())))
    [0.5 0.5]
    """

    def __call__(self, game: AbstractGame, offers: PyTree, user: PyTree) -> Float[Array, "..."]:
        del offers, user
        return game.choice_set.centre()


class AbstractNashGame(AbstractGame):
    """A game without followers: payoffs are a function of what providers do.

    Provide `payoffs(offers)`; use the response `Passive`. Players whose decisions differ in size
    get padded ones, held by equal bounds of `Constant`. Constraints are `provider_constraints`
    and `shared_constraints`, as in every game.

    >>> import jax.numpy as jnp
    >>> from diffgame import AbstractNashGame, Constant, Passive, solve
    >>> class Commons(AbstractNashGame):
    ...     "Two herders on one meadow."
    ...     def payoffs(self, offers):
    ...         return offers * (1 - jnp.sum(offers))
    >>> print(solve(Commons(), Passive(), Constant(jnp.zeros(2))).profile.offer.round(4))
    [0.3333 0.3333]
    """

    if TYPE_CHECKING:
        # Type checkers take them for arguments of every game otherwise.
        users: PyTree = eqx.field(init=False)
        mass: Float[Array, " users"] = eqx.field(init=False)
        choice_set: Simplex = eqx.field(init=False)
    else:

        @property
        def users(self):
            return jnp.zeros(1)

        @property
        def mass(self):
            return jnp.ones(1)

        @property
        def choice_set(self):
            return Simplex(1)

    @abc.abstractmethod
    def payoffs(self, offers: PyTree) -> Float[Array, " providers"]:
        """Everybody's payoff; `offers` has a leading "providers" axis."""

    def user_utility(self, choice: Any, offers: PyTree, user: PyTree) -> Scalar:
        del choice, offers, user
        return jnp.zeros(())

    def provider_payoffs(self, choice: Any, offers: PyTree, user: PyTree) -> PyTree:
        del choice, user
        return self.payoffs(offers)
