"""Network effects: a good is worth more, the more others have it."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from .._choice_set import Simplex
from .._crowd_game import AbstractCrowdGame, Crowded
from ._mass import equal_mass


class Adoption(AbstractCrowdGame):
    """One seller posts a price; users adopt or not, and gain from every other adopter.

    A user of stand-alone value v gains v + effect * adopters - price if she adopts, and nothing
    otherwise. The crowd is the mass of adopters. Use the response `Logit(temperature)` and
    `Constant(offer)` with offer [1], the price.

    - `effect`: what one more unit of mass of adopters is worth to each, in units of price.
    - `users` [users]: stand-alone values, in units of price. `mass` [users]: default: equal, 1 in
        total. `cost`: the seller's, per adopter.
    - `adopters`: mass of those who have it already, from which adoption starts. Default: none.

    With one kind of users of mass 1 and effect > 4 temperature there are two stable crowds, few
    and many adopters, for prices between two tipping points (`tipping_prices`). From no adopters
    the crowd is the lower one; below the lower tipping price it vanishes and adoption takes off.

    **Source:** Katz, Shapiro (1985), Network externalities, competition, and compatibility; Brock,
    Durlauf (2001), Discrete choice with social interactions, propositions 1 to 3.

    >>> import jax.numpy as jnp
    >>> from diffgame import Constant, Logit, play
    >>> from diffgame.games import Adoption
    >>> game = Adoption(effect=jnp.array(3.0), users=jnp.zeros(1))
    >>> print(game.tipping_prices(jnp.array(0.5)).round(4))
    [1.2925 1.7075]
    >>> for price in (1.3, 1.28):
    ...     found = play(game, Logit(0.5), Constant(jnp.array([price]))).interaction
    ...     print(f"{price}: {found.crowd:.3f}")
    1.3: 0.176
    1.28: 0.961
    """

    effect: Float[Array, ""]
    users: Float[Array, " users"]
    mass: Float[Array, " users"]
    cost: Float[Array, ""]
    adopters: Float[Array, ""]
    choice_set: Simplex

    def __init__(
        self,
        effect: Float[Array, ""],
        users: Float[Array, " users"],
        mass: Float[Array, " users"] | None = None,
        cost: Float[Array, ""] | None = None,
        adopters: Float[Array, ""] | None = None,
    ):
        self.effect = effect
        self.users = users
        self.mass = equal_mass(users) if mass is None else mass
        self.cost = jnp.zeros((), users.dtype) if cost is None else cost
        self.adopters = jnp.zeros((), users.dtype) if adopters is None else adopters
        # To adopt, or not.
        self.choice_set = Simplex(2)

    def contribution(
        self,
        choice: Float[Array, " options"],
        offers: Float[Array, " providers"],
        user: Float[Array, ""],
    ) -> Float[Array, ""]:
        """Her probability of adopting."""
        del offers, user
        return choice[0]

    def crowd_start(self) -> Float[Array, ""]:
        """Those who have it already."""
        return self.adopters

    def user_utility(
        self, choice: Float[Array, " options"], offers: Crowded, user: Float[Array, ""]
    ) -> Scalar:
        """Expected value of adopting, its price paid."""
        return choice[0] * (user + self.effect * offers.crowd - offers.posted[0])

    def provider_payoffs(
        self, choice: Float[Array, " options"], offers: Crowded, user: Float[Array, ""]
    ) -> Float[Array, " providers"]:
        """Markup times the probability of adopting."""
        del user
        return (offers.posted - self.cost) * choice[0]

    def tipping_prices(self, temperature: Float[Array, ""]) -> Float[Array, " 2"]:
        """Below the first price few adopters are no equilibrium, above the second many are none.

        At the crowd x the price is v + effect x - temperature log(x / (1 - x)); it turns where
        effect x (1 - x) = temperature. For one kind of users, of mass 1; NaN where effect < 4
        temperature, as there is one crowd at every price.
        """
        spread = jnp.sqrt(1 - 4 * temperature / self.effect)
        crowd = (1 + jnp.array([-1, 1]) * spread) / 2
        noise = temperature * jnp.log(crowd / (1 - crowd))
        return self.users[0] + self.effect * crowd - noise
