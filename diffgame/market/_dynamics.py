"""From posted signals to certified ones: exact best-response dynamics and what ends them."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ._best_response import (
    Exploitability,
    best_response,
    exploitability,
    meet,
    outside_options,
)
from ._equilibrium_values import EquilibriumValues
from ._segment import Segment, profile_index

_TIE = 1e-12


def recommend(
    segment: Segment, signal: Float[Array, "states messages"]
) -> Float[Array, "profiles states"]:
    """The recommendations that a signal amounts to; ties between actions to the lowest index."""
    expected = jnp.einsum("jas,s,sm->jma", segment.utility, segment.prior, signal)
    best = jnp.max(expected, axis=-1, keepdims=True)
    actions = jnp.argmax(expected >= best - _TIE, axis=-1)
    index = profile_index(actions, segment.utility.shape[1])
    return jnp.zeros((len(segment.profiles), len(segment.prior))).at[index].add(signal.T)


class Play(eqx.Module):
    """What providers post, who has each user, and how much anybody gains by deviating."""

    signal: Float[Array, "providers profiles states"]
    incumbent: Int[Array, " users"]
    gain: Exploitability


def assess(
    segment: Segment,
    signal: Float[Array, "providers profiles states"],
    incumbent: Int[Array, " users"],
) -> Play:
    """Let users choose, and compute every provider's best deviation exactly."""
    meeting = meet(segment, signal, incumbent)
    return Play(signal, meeting.chosen, exploitability(segment, meeting))


def best_response_dynamics(
    segment: Segment,
    signal: Float[Array, "providers profiles states"],
    incumbent: Int[Array, " users"],
    *,
    margin: float = 0.02,
    tolerance: float = 1e-7,
    rounds: int = 12,
) -> tuple[Float[Array, "providers profiles states"], Int[Array, " users"]]:
    """Providers in turn post a best response that wins users by `margin` of their ranges.

    A provider that gains at most `tolerance` copies the signal of the users' provider, if all
    have the same one: with one user her value then never falls and the run ends. It stops when
    nobody moved for a whole round, or after `rounds`.
    """
    providers = len(signal)
    silent = recommend(segment, jnp.ones((len(segment.prior), 1)))

    def goes_on(carry):
        _, _, turn, idle = carry
        return (idle < providers) & (turn < rounds * providers)

    def move(carry):
        signal, incumbent, turn, idle = carry
        provider = turn % providers
        meeting = meet(segment, signal, incumbent)
        outside = outside_options(segment, meeting, provider)
        response = best_response(segment, provider, outside, margin)
        moves = response.lower - jnp.sum(meeting.payoffs[provider]) > tolerance
        post = jnp.where(jnp.any(response.captured), response.signal, silent)
        together = jnp.all(meeting.chosen == meeting.chosen[0])
        copy = jnp.where(together, signal[meeting.chosen[0]], signal[provider])
        signal = signal.at[provider].set(jnp.where(moves, post, copy))
        after = meet(segment, signal, meeting.chosen)
        return signal, after.chosen, turn + 1, jnp.where(moves, 0, idle + 1)

    start = signal, incumbent, jnp.array(0), jnp.array(0)
    signal, incumbent, _, _ = jax.lax.while_loop(goes_on, move, start)
    return signal, incumbent


def settle_user(
    segment: Segment, signal: Float[Array, "providers actions states"], values: EquilibriumValues
) -> Play:
    """End the dynamics of a segment of one user exactly.

    All providers post the outcome of the nearest equilibrium value at or above the one that the
    dynamics reached (`values` in the units of the segment).
    """
    incumbent = jnp.zeros(1, int)
    signal, incumbent = best_response_dynamics(segment, signal, incumbent)
    if len(signal) > 1:
        reached = jnp.max(meet(segment, signal, incumbent).values)
        _, post = values.at_or_above(reached - _TIE)
        signal = jnp.broadcast_to(post, signal.shape)
    return assess(segment, signal, incumbent)


def settle_segment(segment: Segment, signal: Float[Array, "providers profiles states"]) -> Play:
    """End the dynamics of a segment of several users as well as can be.

    The run, the profile before it, and every provider's signal of both posted by all are
    assessed; the first that nobody leaves is kept, else the one that is left for the least.
    """
    users = segment.utility.shape[0]
    incumbent = jnp.zeros(users, int)
    before = meet(segment, signal, incumbent).chosen
    after, chosen = best_response_dynamics(segment, signal, before)
    common = [jnp.broadcast_to(post, signal.shape) for post in (*signal, *after)]
    profiles = jnp.stack([signal, after, *common])
    incumbents = jnp.stack([before, chosen, *[incumbent] * len(common)])
    plays = jax.vmap(lambda post, who: assess(segment, post, who))(profiles, incumbents)
    left = jnp.max(plays.gain.upper, axis=1)
    best = jnp.argmin(jnp.maximum(left, 1e-9))
    return jax.tree.map(lambda leaf: leaf[best], plays)
