"""Best replies in turn against one quantal user, until brackets rule out that anybody gains.

As `diffgame.market` has it (docs/quantal.md), but traceable, so that many users settle at once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Scalar

from .._loop import while_lanes
from .._policy import ProbabilityTable
from ..market import Market, Rivals, babbling, quantal_outcome, respond_quantal

# Posteriors of a reply that are nearer than this, in total variation, become one message.
_RADIUS = 0.005
# Rounds of replies; in one more, nobody moves and all are examined.
_ROUNDS = 5


class QuantalEnd(NamedTuple):
    """Where replies end. Gains of the providers' best deviations lie from `lower` to `upper`."""

    value: Scalar
    payoffs: Float[Array, " providers"]
    lower: Float[Array, " providers"]
    upper: Float[Array, " providers"]
    table: Float[Array, "providers states messages"]


def merge_posteriors(
    posteriors: Float[Array, "points states"], weights: Float[Array, " points"], messages: int
) -> Float[Array, "states messages"]:
    """The table of a signal of at most `messages` messages with nearly these posteriors.

    The heaviest posteriors that are apart from each other head one message each, and every other
    one joins the head that is nearest. Rows sum to 1; all states need positive probability.
    """

    def pick(free, _):
        at = jnp.argmax(jnp.where(free, weights, -1))
        found = free[at]
        apart = jnp.sum(jnp.abs(posteriors - posteriors[at][None]), axis=1) > 2 * _RADIUS
        return jnp.where(found, free & apart, free), (at, found)

    _, (heads, found) = jax.lax.scan(pick, weights > 0, length=messages)
    distance = jnp.sum(jnp.abs(posteriors[:, None] - posteriors[heads][None]), axis=2)
    nearest = jnp.argmin(jnp.where(found[None], distance, jnp.inf), axis=1)
    member = jax.nn.one_hot(nearest, messages)
    table = jnp.einsum("pm,p,ps->sm", member, weights, posteriors)
    return table / jnp.sum(table, axis=1, keepdims=True)


def _market(prior, utility, objective, messages: int) -> Market:
    return Market(prior, utility[None], objective[:, None], jnp.ones(1), messages=messages)


def settle_quantal(
    prior: Float[Array, " states"],
    utility: Float[Array, "actions states"],
    objective: Float[Array, "providers actions states"],
    temperature: Scalar,
    tolerance: Scalar,
    messages: int,
) -> QuantalEnd:
    """One user of a personalized market, from babbling; objectives range from 0 to 1.

    A provider moves if its bracket's lower end gains more than half the tolerance and its new
    signal keeps part of the promise. Two or three states of positive probability.
    """
    providers = len(objective)
    last = (_ROUNDS + 1) * providers

    def goes_on(carry):
        _, idle, turn, _, _ = carry
        # In the last round nobody moves, so this comes to an end.
        return (idle < providers) & (turn < last)

    def reply(shared, carry):
        prior, utility, objective, temperature, tolerance = shared
        table, idle, turn, lower, upper = carry
        provider: Int[Array, ""] = turn % providers
        market = _market(prior, utility, objective, messages)

        def payoff(table):
            outcome = quantal_outcome(market, ProbabilityTable(table), temperature)
            return outcome.payoffs[provider], outcome

        now, outcome = payoff(table)
        rivals = None
        if providers > 1:
            others = jnp.arange(providers) != provider
            logits = jnp.where(others, outcome.values[:, 0] / temperature, -jnp.inf)
            elsewhere = jax.nn.softmax(logits) @ outcome.worth[provider, :, 0]
            rivals = Rivals(temperature * jax.nn.logsumexp(logits), elsewhere)
        best = respond_quantal(prior, utility, objective[provider], temperature, rivals)
        posted = merge_posteriors(best.posteriors, best.weights, messages)
        new = table.at[provider, 0].set(posted)
        moves = (best.lower - now > tolerance / 2) & (payoff(new)[0] > now)
        moves &= turn < last - providers
        return (
            jnp.where(moves, new, table),
            jnp.where(moves, 0, idle + 1),
            turn + 1,
            lower.at[provider].set(jnp.maximum(best.lower - now, 0)),
            upper.at[provider].set(jnp.maximum(best.upper - now, 0)),
        )

    silent = babbling(_market(prior, utility, objective, messages)).probability
    unknown = jnp.full(providers, jnp.inf)
    start = silent, jnp.array(0), jnp.array(0), unknown, unknown
    shared = prior, utility, objective, temperature, tolerance
    table, _, _, lower, upper = while_lanes(goes_on, reply, shared, start)
    market = _market(prior, utility, objective, messages)
    outcome = quantal_outcome(market, ProbabilityTable(table), temperature)
    return QuantalEnd(outcome.utilities[0], outcome.payoffs, lower, upper, table[:, 0])
