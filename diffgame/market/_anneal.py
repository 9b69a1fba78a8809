"""The smooth stage: differentiable play against quantal users, their temperature lowered."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from .._play import provider_payoffs
from .._policy import ProbabilityTable
from .._response import Logit
from .._solve import solve
from .._solver import GradientPlay
from ._market import Market
from ._segment import unit_utility

TEMPERATURES = (0.5, 0.26, 0.13, 0.07, 0.036, 0.018, 0.01, 0.005)
_STEPS = 200


def along_rows() -> optax.GradientTransformation:
    """Drop from each row what would change its sum.

    Projection undoes that part anyway, but Adam would scale its steps by it.
    """

    def centre(updates, params):
        del params
        return jax.tree.map(lambda leaf: leaf - leaf.mean(-1, keepdims=True), updates)

    return optax.stateless(centre)


# Made once: every new optax optimiser would compile anew.
_SOLVER = GradientPlay(optax.chain(along_rows(), optax.adam(0.02)))
_ASCENT = optax.chain(along_rows(), optax.adam(0.05))


def unit_market(market: Market) -> Market:
    """The market with every user's utility and every provider's payoff from 0 to 1.

    Positive affine changes leave all equilibria as they are, and give temperatures a meaning.
    """
    utility, _ = unit_utility(market.utility)
    objective, size = unit_utility(market.objective)
    weight = size * market.mass[None]
    weight = weight / jnp.sum(weight, axis=1, keepdims=True)
    objective = objective * weight[..., None, None] / market.mass[None, :, None, None]
    return eqx.tree_at(
        lambda market: (market.utility, market.objective), market, (utility, objective)
    )


def anneal(market: Market, profile: ProbabilityTable) -> ProbabilityTable:
    """Gradient play of all providers while users go from noisy to nearly exact.

    `market` in units of `unit_market`; temperatures from .5 to .005 of a user's range of utility.
    The end is a candidate, never an equilibrium: exact best responses decide.
    """

    def cool(probability, temperature):
        found = solve(
            market,
            Logit(temperature),
            ProbabilityTable(probability),
            _SOLVER,
            tolerance=1e-6,
            max_steps=_STEPS,
            throw=False,
        )
        (probability,) = jax.tree.leaves(found.profile)
        return probability, None

    cooled, _ = jax.lax.scan(cool, profile.probability, jnp.array(TEMPERATURES))
    return ProbabilityTable(cooled)


def climb(
    market: Market, profile: ProbabilityTable, provider: Array, start: Float[Array, "o s m"]
) -> Float[Array, "o s m"]:
    """One provider's table after ascending its own payoff, the others' signals fixed."""

    def payoff(table, temperature):
        moved = ProbabilityTable(profile.probability.at[provider].set(table))
        return provider_payoffs(market, Logit(temperature), moved)[provider]

    def cool(table, temperature):
        def step(carry, _):
            table, state = carry
            descent = -jax.grad(payoff)(table, temperature)
            updates, state = _ASCENT.update(descent, state, table)
            return (ProbabilityTable(table + updates).project().probability, state), None

        (table, _), _ = jax.lax.scan(step, (table, _ASCENT.init(table)), length=40)
        return table, None

    return jax.lax.scan(cool, start, jnp.array(TEMPERATURES[1::2]))[0]
