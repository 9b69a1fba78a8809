"""Firms with several products each, buyers with random coefficients, and how prices are found."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PyTree, Scalar

from .._choice_set import Simplex
from .._game import AbstractGame
from .._policy import Constant
from .._problem import AbstractProblem, Problem
from .._response import Logit
from .._solver import AbstractSolver
from .._total import total
from ._mass import equal_mass


class Buyers(eqx.Module):
    """Types of buyers, drawn or by quadrature, each with coefficients of her own.

    - `quality` [users, products]: utility of each product for nothing; buying nothing is worth 0.
    - `sensitivity` [users]: positive, utility per unit of price.
    """

    quality: Float[Array, "*users products"]
    sensitivity: Float[Array, "*users"]


class MultiProductBertrand(AbstractGame):
    """Firms price all their products jointly; each buyer takes one unit of one product, or nothing.

    A buyer values product j at quality_j - sensitivity * price_j. With the response `Logit(1.0)`
    demand is mixed logit: one type of buyers is the plain logit, many types are draws of random
    coefficients with `mass` as weights, e.g. quality = X beta + xi + X (sigma nu) per draw.

    **Fields:**

    - `cost` [products]: marginal costs, in units of price.
    - `owner` [products]: the firm, 0 to providers - 1, that prices the product; -1: not on the
        market (its numbers count for nothing), to pad games of a batch to one shape.
    - `users`: `Buyers`. `mass` [users]: default: equal, 1 in total; a total of M makes payoffs
        those of a market of M buyers.
    - `providers`, `slots`: how many firms, and how many products each may have at most; default:
        counted from `owner`. Give both where `owner` is traced or games form a batch.

    An offer is a vector [slots]: the prices of a firm's own products in the order of their
    numbers. `post` makes a profile from prices [products], `prices` reads them from offers.

    At an interior equilibrium s = (Lambda - own * Gamma) (p - c), with shares s, own_jk = 1 where
    one firm owns j and k, Lambda = sum_i m_i a_i diag(s_i), Gamma = sum_i m_i a_i s_i s_i^T, and
    a_i the sensitivity over the temperature. There may be several equilibria, or none.

    **Errors:** ValueError (if traced, `eqx.EquinoxRuntimeError`) for owners that do not fit.

    **Source:** Berry, Levinsohn, Pakes (1995), Automobile prices in market equilibrium, section
    3; Morrow, Skerlos (2011), Fixed-point approaches to computing Bertrand-Nash equilibrium
    prices under mixed-logit demand, equation 7.

    >>> import jax.numpy as jnp
    >>> from diffgame import Logit, solve
    >>> from diffgame.games import MultiProductBertrand
    >>> owner = jnp.array([0, 0, 1])
    >>> game = MultiProductBertrand(jnp.ones(3), owner, jnp.full((1, 3), 2.0), jnp.ones(1))
    >>> found = solve(game, Logit(1.0), game.post(game.cost))
    >>> share = found.outcome.choices[0, :3]
    >>> markup = game.prices(found.profile.offer) - game.cost
    >>> print((markup - 1 / (1 - jnp.array([2, 2, 1]) * share)).round(5) + 0.0)
    [0. 0. 0.]
    """

    cost: Float[Array, " products"]
    owner: Int[Array, " products"]
    slot: Int[Array, " products"]
    users: Buyers
    mass: Float[Array, " users"]
    choice_set: Simplex
    providers: int = eqx.field(static=True)
    slots: int = eqx.field(static=True)

    def __init__(
        self,
        cost: Float[Array, " products"],
        owner: Int[Array, " products"],
        quality: Float[Array, "users products"],
        sensitivity: Float[Array, " users"],
        mass: Float[Array, " users"] | None = None,
        *,
        providers: int | None = None,
        slots: int | None = None,
    ):
        if providers is None or slots is None:
            if isinstance(owner, Tracer):
                raise ValueError(
                    "MultiProductBertrand: owner is traced, so firms cannot be counted; give "
                    "providers and slots."
                )
            counts = np.bincount(np.asarray(owner)[np.asarray(owner) >= 0])
            providers = counts.size if providers is None else providers
            slots = int(counts.max(initial=0)) if slots is None else slots
        owned = jax.nn.one_hot(owner, providers, dtype=int)
        slot = jnp.sum(owned * (jnp.cumsum(owned, axis=0) - 1), axis=1)
        misfit = jnp.any((owner < -1) | (owner >= providers) | (slot >= slots))
        message = (
            f"MultiProductBertrand: an owner is not among -1 to {providers - 1}, or a firm has "
            f"more than {slots} products; raise providers or slots."
        )
        if isinstance(misfit, Tracer):
            slot = eqx.error_if(slot, misfit, message)
        elif misfit:
            raise ValueError(message)
        self.cost = cost
        self.owner = owner
        self.slot = slot
        self.users = Buyers(quality, sensitivity)
        self.mass = equal_mass(sensitivity) if mass is None else mass
        # One option per product, and buying nothing.
        self.choice_set = Simplex(cost.shape[0] + 1)
        self.providers = providers
        self.slots = slots

    def merge(
        self, survivor: int, absorbed: int, *, slots: int | None = None
    ) -> "MultiProductBertrand":
        """The game in which one firm has taken over all products of another, at the same costs.

        The absorbed firm stays, without products. `slots`: as in the constructor.
        """
        return MultiProductBertrand(
            self.cost,
            jnp.where(self.owner == absorbed, survivor, self.owner),
            self.users.quality,
            self.users.sensitivity,
            self.mass,
            providers=self.providers,
            slots=slots,
        )

    def user_utility(
        self,
        choice: Float[Array, " options"],
        offers: Float[Array, "providers slots"],
        user: Buyers,
    ) -> Scalar:
        """Expected value of the product chosen."""
        value = user.quality - user.sensitivity * self.prices(offers)
        # Finite, so that a product off the market, bought with probability 0, adds 0 and not NaN.
        worst = float(jnp.finfo(value.dtype).min) / 1e6
        return jnp.sum(choice[:-1] * jnp.where(self.owner >= 0, value, worst))

    def provider_payoffs(
        self,
        choice: Float[Array, " options"],
        offers: Float[Array, "providers slots"],
        user: Buyers,
    ) -> Float[Array, " products"]:
        """Markup times the probability of a sale, product by product."""
        del user
        return (self.prices(offers) - self.cost) * choice[:-1]

    def settle(self, totals: Float[Array, " products"]) -> Float[Array, " providers"]:
        """Each firm earns the profits of its products."""
        return totals @ jax.nn.one_hot(self.owner, self.providers, dtype=totals.dtype)

    def prices(self, offers: Float[Array, "providers slots"]) -> Float[Array, " products"]:
        """The price of every product; its cost for a product off the market."""
        return jnp.where(self.owner >= 0, offers[jnp.maximum(self.owner, 0), self.slot], self.cost)

    def arrange(self, numbers: Float[Array, " products"]) -> Float[Array, "providers slots"]:
        """Numbers of products in the order of offers; 0 in slots without a product."""
        firm = jnp.where(self.owner >= 0, self.owner, self.providers)
        empty = jnp.zeros((self.providers, self.slots), numbers.dtype)
        return empty.at[firm, self.slot].set(numbers, mode="drop")

    def post(
        self,
        prices: Float[Array, " products"],
        lower: Float[Array, ""] | float = -float("inf"),
        upper: Float[Array, ""] | float = float("inf"),
    ) -> Constant:
        """The profile of these prices, each free between two bounds; empty slots are fixed at 0."""
        filled = self.arrange(jnp.ones_like(prices)) > 0
        return Constant(
            self.arrange(prices), jnp.where(filled, lower, 0.0), jnp.where(filled, upper, 0.0)
        )

    def consumer_surplus(
        self, response: Logit, offers: Float[Array, "providers slots"]
    ) -> Float[Array, " users"]:
        """What one buyer of each type gains from the market, on average, in units of price.

        The log-sum: temperature / sensitivity * log(1 + sum_j exp(value_j / temperature)).

        **Source:** Small, Rosen (1981), Applied welfare economics with discrete choice models.
        """
        value = self.users.quality - self.users.sensitivity[:, None] * self.prices(offers)[None]
        value = jnp.where(self.owner[None] >= 0, value, -jnp.inf)
        value = jnp.pad(value, ((0, 0), (0, 1)))
        best = jax.nn.logsumexp(value / response.temperature, axis=1)
        return response.temperature * best / self.users.sensitivity

    def implied_cost(
        self, response: Logit, offers: Float[Array, "providers slots"]
    ) -> Float[Array, " products"]:
        """The marginal costs at which these prices satisfy every firm's first-order conditions.

        **Source:** Berry, Levinsohn, Pakes (1995), equation 3.6: p - (Lambda - own * Gamma)^-1 s.
        """
        choices = jax.vmap(lambda user: response(self, offers, user))(self.users)[:, :-1]
        weight = self.mass * self.users.sensitivity / response.temperature
        crossed = jnp.einsum("i,ij,ik->jk", weight, choices, choices)
        slope = weight @ choices
        # A product without buyers has no markup to recover.
        slope = jnp.where(slope > 0, slope, 1)
        own = self.owner[:, None] == self.owner[None, :]
        markup = jnp.linalg.solve(jnp.diag(slope) - own * crossed, self.mass @ choices)
        return self.prices(offers) - markup


class MarkupIteration(AbstractSolver):
    """The fixed-point iteration on markups, p <- c + zeta(p), for `MultiProductBertrand`.

    As zeta(p) = p - c + F(p) / Lambda(p), with the field F of marginal profits and the direct
    effect Lambda_j = sum_i m_i a_i s_ij of a product's price on its own sales, every step is a
    gradient step with a length of its own for each product. It needs no derivative of the field
    and no linear system, so that it serves markets of hundreds of products, where `Automatic` is
    slow; its convergence is linear, and not guaranteed: the status says how it ended.

    **Errors:** TypeError for other games, for responses other than `Logit`, and for games with
    constraints on providers.

    **Source:** Morrow, Skerlos (2011), Fixed-point approaches to computing Bertrand-Nash
    equilibrium prices under mixed-logit demand, section 3 (the zeta fixed point).

    >>> import jax.numpy as jnp
    >>> from diffgame import Logit, solve
    >>> from diffgame.games import MarkupIteration, MultiProductBertrand
    >>> quality, sensitivity = jnp.full((1, 2), 2.0), jnp.ones(1)
    >>> game = MultiProductBertrand(jnp.ones(2), jnp.array([0, 0]), quality, sensitivity)
    >>> found = solve(game, Logit(1.0), game.post(game.cost), MarkupIteration())
    >>> print(found.profile.offer.round(4))
    [[2.8526 2.8526]]
    """

    def init(self, problem: AbstractProblem, parameters: PyTree) -> PyTree:
        _pricing(problem, parameters)

    def step(
        self, problem: AbstractProblem, parameters: PyTree, field: PyTree, state: PyTree
    ) -> tuple[PyTree, PyTree]:
        game, response, chunk = _pricing(problem, parameters)

        def sales(shared, user):
            game, response, offers = shared
            return user.sensitivity / response.temperature * response(game, offers, user)[:-1]

        shared = game, response, parameters.offer
        slope = game.arrange(total(sales, shared, game.mass, game.users, chunk=chunk))
        # What nobody buys any more has no slope, and stays.
        rise = jnp.where(slope > 0, field.offer / jnp.where(slope > 0, slope, 1), 0)
        moved = eqx.tree_at(lambda policy: policy.offer, parameters, parameters.offer + rise)
        return problem.project(moved), state


def _pricing(
    problem: AbstractProblem, parameters: PyTree
) -> tuple[MultiProductBertrand, Logit, int | None]:
    if not isinstance(problem, Problem):
        raise TypeError("MarkupIteration: the game has constraints on providers; use Automatic.")
    game, response = problem.game, problem.response
    if not (
        isinstance(game, MultiProductBertrand)
        and isinstance(response, Logit)
        and isinstance(parameters, Constant)
    ):
        raise TypeError(
            f"MarkupIteration: the game is {type(game).__name__}, the response "
            f"{type(response).__name__} and the policy {type(parameters).__name__}; it serves "
            "MultiProductBertrand with Logit and Constant only, others use Automatic."
        )
    return game, response, problem.chunk
