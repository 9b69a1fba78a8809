"""Competition in prices between differentiated products."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from .._choice_set import Box, Simplex
from .._game import AbstractGame
from ._mass import equal_mass


class LogitBertrand(AbstractGame):
    """Firms post prices; each user buys one unit from one of them or nothing.

    A user of price sensitivity s values product i at quality_i - s * price_i and buying nothing,
    the last option, at 0. With the response `Logit(temperature)` demand is multinomial logit; a
    profile is `Constant(offer)` with offer [providers], the prices.

    - `cost` [providers]: marginal costs, in units of price. `quality` [providers]: in utility.
    - `users` [users]: price sensitivities, positive, utility per unit of price.
    - `mass` [users]: default: equal, 1 in total.

    At an equilibrium with one type of users the markup of firm i with market share m_i is
    temperature / (s (1 - m_i)).

    **Source:** Anderson, de Palma, Thisse (1992), Discrete Choice Theory of Product
    Differentiation, 7.4; Berry (1994), Estimating discrete-choice models of product
    differentiation.

    >>> import jax.numpy as jnp
    >>> from diffgame import Constant, Logit, play
    >>> from diffgame.games import LogitBertrand
    >>> game = LogitBertrand(cost=jnp.zeros(2), quality=jnp.ones(2), users=jnp.ones(1))
    >>> print(play(game, Logit(1.0), Constant(jnp.ones(2))).choices.round(3))
    [[0.333 0.333 0.333]]
    """

    cost: Float[Array, " providers"]
    quality: Float[Array, " providers"]
    users: Float[Array, " users"]
    mass: Float[Array, " users"]
    choice_set: Simplex

    def __init__(
        self,
        cost: Float[Array, " providers"],
        quality: Float[Array, " providers"],
        users: Float[Array, " users"],
        mass: Float[Array, " users"] | None = None,
    ):
        self.cost = cost
        self.quality = quality
        self.users = users
        self.mass = equal_mass(users) if mass is None else mass
        # One option per firm, and buying nothing.
        self.choice_set = Simplex(cost.shape[0] + 1)

    def user_utility(
        self,
        choice: Float[Array, " options"],
        offers: Float[Array, " providers"],
        user: Float[Array, ""],
    ) -> Scalar:
        """Expected value of the product chosen."""
        return jnp.sum(choice[:-1] * (self.quality - user * offers))

    def provider_payoffs(
        self,
        choice: Float[Array, " options"],
        offers: Float[Array, " providers"],
        user: Float[Array, ""],
    ) -> Float[Array, " providers"]:
        """Markup times the probability of a sale."""
        del user
        return (offers - self.cost) * choice[:-1]


class LinearBertrand(AbstractGame):
    """Firms post prices; users divide their spending by a quadratic utility.

    A user of type a [providers] buys quantities q >= 0 for utility a.q - q.B.q / 2 - prices.q, so
    that demand is linear, q = B^-1 (a - prices), wherever it is positive. Use the response
    `Concave` and `Constant(offer)` with offer [providers], the prices.

    - `cost` [providers]: marginal costs, in units of price.
    - `substitution` [providers, providers]: B, symmetric and positive definite; positive off the
        diagonal for substitutes.
    - `users` [users, providers]: marginal utilities a of first units, in units of price.
    - `mass` [users]: default: equal, 1 in total.

    **Source:** Singh, Vives (1984), Price and quantity competition in a differentiated duopoly,
    equations 1 and 2.

    >>> import jax.numpy as jnp
    >>> from diffgame import Concave, Constant, GradientPlay, solve
    >>> from diffgame.games import LinearBertrand
    >>> import optax
    >>> game = LinearBertrand(jnp.zeros(2), jnp.array([[1.0, 0.5], [0.5, 1.0]]), jnp.ones((1, 2)))
    >>> print(game.equilibrium().round(4))
    [0.3333 0.3333]
    >>> found = solve(game, Concave(), Constant(jnp.zeros(2)), GradientPlay(optax.sgd(0.3)))
    >>> print(found.profile.offer.round(4))
    [0.3333 0.3333]
    """

    cost: Float[Array, " providers"]
    substitution: Float[Array, "providers providers"]
    users: Float[Array, "users providers"]
    mass: Float[Array, " users"]
    choice_set: Box

    def __init__(
        self,
        cost: Float[Array, " providers"],
        substitution: Float[Array, "providers providers"],
        users: Float[Array, "users providers"],
        mass: Float[Array, " users"] | None = None,
    ):
        self.cost = cost
        self.substitution = substitution
        self.users = users
        self.mass = equal_mass(users) if mass is None else mass
        # Twice the most that anybody would take of each product alone for free.
        top = 2 * jnp.max(users, axis=0) / jnp.diagonal(substitution)
        self.choice_set = Box(jnp.zeros_like(top), top)

    def user_utility(
        self,
        choice: Float[Array, " providers"],
        offers: Float[Array, " providers"],
        user: Float[Array, " providers"],
    ) -> Scalar:
        """Utility of the quantities minus what they cost."""
        return jnp.sum((user - offers - self.substitution @ choice / 2) * choice)

    def provider_payoffs(
        self,
        choice: Float[Array, " providers"],
        offers: Float[Array, " providers"],
        user: Float[Array, " providers"],
    ) -> Float[Array, " providers"]:
        """Markup times quantity."""
        del user
        return (offers - self.cost) * choice

    def equilibrium(self) -> Float[Array, " providers"]:
        """The prices where every user buys from every firm.

        (D + diag D) p = D a + diag(D) c, with D = B^-1 and a the users' mean.
        """
        demand = jnp.linalg.inv(self.substitution)
        own = jnp.diag(jnp.diagonal(demand))
        mean = jnp.sum(self.mass[:, None] * self.users, axis=0) / jnp.sum(self.mass)
        return jnp.linalg.solve(demand + own, demand @ mean + own @ self.cost)
