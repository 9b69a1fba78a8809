"""Competition in quantities, one firm after the other or all at once."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from .._choice_set import Box
from .._game import AbstractGame
from ._mass import equal_mass


class StackelbergDuopoly(AbstractGame):
    """A leader commits to a quantity, a follower answers; price = intercept - q1 - q2.

    The leader is the only provider, its offer the quantity q1 (a profile is
    `Constant(offer)` with offer [1]); the follower is the only user, her choice the quantity q2
    in [0, intercept], shape [1], and her utility her profit. Use the response `Concave`.

    - `intercept`: price at no supply. `leader_cost`, `follower_cost`: marginal costs, in units of
        price.

    **Source:** von Stackelberg (1934), Marktform und Gleichgewicht; Tirole (1988), The Theory of
    Industrial Organization, 8.2.

    >>> import jax.numpy as jnp
    >>> from diffgame import Concave, Constant, play
    >>> from diffgame.games import StackelbergDuopoly
    >>> game = StackelbergDuopoly()
    >>> print(game.equilibrium())
    [0.5  0.25]
    >>> outcome = play(game, Concave(), Constant(game.equilibrium()[:1]))
    >>> print(outcome.choices, outcome.payoffs, outcome.utilities)
    [[0.25]] [0.125] [0.0625]
    """

    intercept: Float[Array, ""]
    leader_cost: Float[Array, ""]
    users: Float[Array, "1"]
    mass: Float[Array, "1"]
    choice_set: Box

    def __init__(
        self,
        intercept: float | Float[Array, ""] = 1.0,
        leader_cost: float | Float[Array, ""] = 0.0,
        follower_cost: float | Float[Array, ""] = 0.0,
    ):
        self.intercept = jnp.asarray(intercept)
        self.leader_cost = jnp.asarray(leader_cost)
        self.users = jnp.asarray(follower_cost)[None]
        self.mass = jnp.ones(1)
        self.choice_set = Box(jnp.zeros(1), self.intercept[None])

    def user_utility(
        self, choice: Float[Array, "1"], offers: Float[Array, "1"], user: Float[Array, ""]
    ) -> Scalar:
        """The follower's profit."""
        margin = self.intercept - jnp.sum(offers) - jnp.sum(choice) - user
        return margin * jnp.sum(choice)

    def provider_payoffs(
        self, choice: Float[Array, "1"], offers: Float[Array, "1"], user: Float[Array, ""]
    ) -> Float[Array, "1"]:
        """The leader's profit."""
        del user
        return (self.intercept - jnp.sum(offers) - jnp.sum(choice) - self.leader_cost) * offers

    def equilibrium(self) -> Float[Array, "2"]:
        """The quantities (q1, q2) where both are positive.

        q1 = (a - 2 c1 + c2) / 2, q2 = (a + 2 c1 - 3 c2) / 4.
        """
        a, first, second = self.intercept, self.leader_cost, self.users[0]
        return jnp.stack([(a - 2 * first + second) / 2, (a + 2 * first - 3 * second) / 4])


class Cournot(AbstractGame):
    """Firms choose quantities at once; buyers take the price at which all is sold.

    Firm i offers a quantity q_i per head of the buyers. A buyer of type a consumes x for utility
    a x - slope x^2 / 2 - price x, so the market clears at price = mean of a - slope * sum of q.
    The price depends on the totals, so payoffs come from `settle`. Use the response `Concave` and
    `Constant(offer)` with offer [providers].

    - `cost` [providers]: marginal costs, in units of price.
    - `users` [users]: the buyers' willingness to pay for the first unit; default: one of 1.
    - `mass` [users]: default: equal, 1 in total. `slope`: of demand, positive.

    **Source:** Cournot (1838), chapter VII; Tirole (1988), The Theory of Industrial Organization,
    5.4.

    >>> import jax.numpy as jnp
    >>> from diffgame import Concave, Constant, play
    >>> from diffgame.games import Cournot
    >>> game = Cournot(cost=jnp.zeros(2))
    >>> print(game.equilibrium().round(4))
    [0.3333 0.3333]
    >>> outcome = play(game, Concave(), Constant(game.equilibrium()))
    >>> print(outcome.payoffs.round(4), outcome.choices.round(4))
    [0.1111 0.1111] [[0.6667]]
    """

    cost: Float[Array, " providers"]
    users: Float[Array, " users"]
    mass: Float[Array, " users"]
    slope: float | Float[Array, ""]
    choice_set: Box

    def __init__(
        self,
        cost: Float[Array, " providers"],
        users: Float[Array, " users"] | None = None,
        mass: Float[Array, " users"] | None = None,
        slope: float | Float[Array, ""] = 1.0,
    ):
        self.cost = cost
        self.users = jnp.ones(1) if users is None else users
        self.mass = equal_mass(self.users) if mass is None else mass
        self.slope = slope
        # Twice what the keenest buyer takes for free.
        top = 2 * jnp.max(self.users)[None] / slope
        self.choice_set = Box(jnp.zeros_like(top), top)

    def _price(self, willingness: Scalar, supply: Float[Array, " providers"]) -> Scalar:
        return willingness - self.slope * jnp.sum(supply)

    def user_utility(
        self, choice: Float[Array, "1"], offers: Float[Array, " providers"], user: Float[Array, ""]
    ) -> Scalar:
        """The buyer's surplus."""
        price = self._price(jnp.sum(self.mass * self.users) / jnp.sum(self.mass), offers)
        amount = jnp.sum(choice)
        return (user - price) * amount - self.slope * amount**2 / 2

    def provider_payoffs(
        self, choice: Float[Array, "1"], offers: Float[Array, " providers"], user: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Float[Array, " providers"], Float[Array, ""]]:
        """What a buyer adds to willingness to pay, supply and the number of buyers."""
        del choice
        return user, offers, jnp.ones_like(user)

    def settle(
        self, totals: tuple[Float[Array, ""], Float[Array, " providers"], Float[Array, ""]]
    ) -> Float[Array, " providers"]:
        """Profits at the price that clears the market."""
        willingness, supply, buyers = totals
        return (self._price(willingness / buyers, supply / buyers) - self.cost) * supply

    def equilibrium(self) -> Float[Array, " providers"]:
        """The quantities where all firms sell and all buyers buy.

        q_i = (mean of a - (n + 1) c_i + sum of c) / ((n + 1) slope).
        """
        willingness = jnp.sum(self.mass * self.users) / jnp.sum(self.mass)
        count = self.cost.size + 1
        return (willingness - count * self.cost + jnp.sum(self.cost)) / (count * self.slope)
