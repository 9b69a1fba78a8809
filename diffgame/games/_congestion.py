"""Traffic: users choose paths whose links slow down under load."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from .._choice_set import Simplex
from .._crowd_game import AbstractCrowdGame, Crowded
from ._mass import equal_mass


class Congestion(AbstractCrowdGame):
    """Users divide themselves over the paths of a network; providers toll links.

    A link with flow x takes the time free + rate * x^power. A user of value of time v pays
    v * time + tolls on her path. The crowd is the flow on every link, `settle` pays providers
    their revenue. Use the response `Wardrop()` for exact users, `Logit(temperature)` for noisy
    ones, and `Constant(offer)` with offer [providers, tolls].

    - `paths` [paths, links], or [users, paths, links] for users with different origins and
        destinations: 1 where the path uses the link.
    - `free`, `rate`, `power` [links]: free-flow time, and how it grows. Not negative; power >= 1.
    - `tolled` [providers, tolls, links]: how much of each toll one use of the link costs, 1 or 0.
    - `value` [users]: value of time, positive, money per unit of time. Default: 1 for one user.
    - `mass` [users]: the travellers of each kind. Default: equal, 1 in total.

    Link flows are unique if all rates are positive and users value time alike; path flows need
    not be.

    **Source:** Wardrop (1952), Some theoretical aspects of road traffic research; Beckmann,
    McGuire, Winsten (1956), Studies in the Economics of Transportation, chapter 3; for different
    values of time Cole, Dodis, Roughgarden (2003), Pricing network edges for heterogeneous
    selfish users.

    >>> import jax.numpy as jnp
    >>> from diffgame import Constant, Wardrop, play
    >>> from diffgame.games import Congestion
    >>> for shortcut in (False, True):
    ...     game = Congestion.braess(shortcut=shortcut)
    ...     print(play(game, Wardrop(), Constant(jnp.zeros((1, 1)))).utilities.round(6))
    [-1.5]
    [-2.]
    """

    free: Float[Array, " links"]
    rate: Float[Array, " links"]
    power: Float[Array, " links"]
    tolled: Float[Array, "providers tolls links"]
    users: tuple[Float[Array, " users"], Float[Array, "users paths links"]]
    mass: Float[Array, " users"]
    choice_set: Simplex

    def __init__(
        self,
        paths: Float[Array, "*users paths links"],
        free: Float[Array, " links"],
        rate: Float[Array, " links"],
        power: Float[Array, " links"],
        tolled: Float[Array, "providers tolls links"],
        value: Float[Array, " users"] | None = None,
        mass: Float[Array, " users"] | None = None,
    ):
        value = jnp.ones(1, free.dtype) if value is None else value
        if paths.ndim == 2:
            paths = jnp.broadcast_to(paths[None], (value.shape[0], *paths.shape))
        if paths.ndim != 3 or paths.shape[0] != value.shape[0] or paths.shape[2] != free.shape[0]:
            raise ValueError(
                f"Congestion: paths has shape {paths.shape} with {value.shape[0]} users and "
                f"{free.shape[0]} links; give [paths, links] or [users, paths, links]."
            )
        self.free = free
        self.rate = rate
        self.power = power
        self.tolled = tolled
        self.users = value, paths
        self.mass = equal_mass(value) if mass is None else mass
        self.choice_set = Simplex(paths.shape[1])

    @staticmethod
    def pigou(power: float = 1.0) -> "Congestion":
        """Two links side by side: one takes the time x^power, which is tolled, the other 1.

        Without a toll everybody takes the first, and the total time is 1. The toll power/(power +
        1) makes the time least: (1 + power)^(-1/power) take it; for power 1 half do, and the total
        is 3/4.

        **Source:** Pigou (1920), The Economics of Welfare, part II, chapter 8; Roughgarden,
        Tardos (2002), How bad is selfish routing?, figure 1.
        """
        return Congestion(
            paths=jnp.eye(2),
            free=jnp.array([0.0, 1.0]),
            rate=jnp.array([1.0, 0.0]),
            power=jnp.array([power, 1.0]),
            tolled=jnp.array([[[1.0, 0.0]]]),
        )

    @staticmethod
    def braess(shortcut: bool = True) -> "Congestion":
        """Two ways, each with a link that takes the time x and one that takes 1; or a third way.

        The shortcut joins the two congested links at no time of its own, and it is tolled. Without
        it everybody pays 3/2, with it and without a toll 2. At a toll t of at most 1/2, 1 - 2 t
        take the shortcut and everybody pays 2 - t.

        **Source:** Braess (1968), Über ein Paradoxon aus der Verkehrsplanung; the numbers are
        those of Roughgarden, Tardos (2002), figure 2.
        """
        # Links: start to upper (x), upper to end (1), start to lower (1), lower to end (x), cut.
        upper, lower = [1.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0, 0.0]
        across = [1.0, 0.0, 0.0, 1.0, 1.0]
        return Congestion(
            paths=jnp.array([upper, lower, across] if shortcut else [upper, lower]),
            free=jnp.array([0.0, 1.0, 1.0, 0.0, 0.0]),
            rate=jnp.array([1.0, 0.0, 0.0, 1.0, 0.0]),
            power=jnp.ones(5),
            tolled=jnp.array([[[0.0, 0.0, 0.0, 0.0, 1.0]]]),
        )

    def times(self, flow: Float[Array, " links"]) -> Float[Array, " links"]:
        """How long each link takes at these flows."""
        return self.free + self.rate * flow**self.power

    def total_time(self, flow: Float[Array, " links"]) -> Scalar:
        """What everybody's travels take together: the flows times the times."""
        return jnp.sum(flow * self.times(flow))

    def contribution(
        self,
        choice: Float[Array, " paths"],
        offers: Float[Array, "providers tolls"],
        user: tuple[Float[Array, ""], Float[Array, "paths links"]],
    ) -> Float[Array, " links"]:
        """Her use of every link."""
        del offers
        return choice @ user[1]

    def crowd_start(self) -> Float[Array, " links"]:
        """Everybody divides evenly over the paths."""
        return jnp.einsum("u,upl->l", self.mass, self.users[1]) / self.choice_set.size

    def user_utility(
        self,
        choice: Float[Array, " paths"],
        offers: Crowded,
        user: tuple[Float[Array, ""], Float[Array, "paths links"]],
    ) -> Scalar:
        """Minus the cost of her journey: its time at her value of time, and the tolls."""
        value, paths = user
        tolls = jnp.einsum("ptl,pt->l", self.tolled, offers.posted)
        return -jnp.sum((choice @ paths) * (value * self.times(offers.crowd) + tolls))

    def provider_payoffs(
        self,
        choice: Float[Array, " paths"],
        offers: Crowded,
        user: tuple[Float[Array, ""], Float[Array, "paths links"]],
    ) -> Float[Array, " providers"]:
        """The tolls that she pays to each."""
        return jnp.einsum("l,ptl,pt->p", choice @ user[1], self.tolled, offers.posted)
