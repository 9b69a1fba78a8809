"""From posted signals to certified ones: exact best-response dynamics and what ends them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Scalar

from .._loop import while_lanes
from ._best_response import (
    Exploitability,
    Meeting,
    Outside,
    best_response,
    exploitability,
    meet,
    outside_options,
)
from ._frontier import Frontier
from ._segment import MARGIN, Segment

_TIE = 1e-12
# Newly captured users get this share of their range more than elsewhere, or half of what is left.
_WON_BY = 0.02
# Gains below this share of a provider's range are no reason to prefer a later proposal.
NEGLIGIBLE = 1e-9
# A best response by programs is a long step.
_SEGMENTS = 32


def recommend(
    segment: Segment, signal: Float[Array, "states messages"]
) -> Float[Array, "profiles states"]:
    """The recommendations that a signal amounts to; ties between actions to the lowest index."""
    expected = jnp.einsum("jas,s,sm->jma", segment.utility, segment.prior, signal)
    best = jnp.max(expected, axis=-1, keepdims=True)
    actions = jnp.argmax(expected >= best - _TIE, axis=-1)
    meant = jnp.all(segment.profiles[:, None] == actions.T[None], axis=-1)
    return jnp.einsum("pm,sm->ps", meant * 1.0, signal)


def respond_by_program(segment: Segment, provider: Int[Array, ""], outside: Outside):
    """A response by one linear program per set of users to hold."""
    response = best_response(segment, provider, outside, _WON_BY)
    return response.lower, response.signal, response.captured


def respond_by_frontier(frontiers: Frontier, provider: Int[Array, ""], outside: Outside):
    """The same for a segment of one user, read off the providers' frontiers."""
    frontier = jax.tree.map(lambda leaf: leaf[provider], frontiers)
    value, elsewhere, held = outside.value[0], outside.payoff[0], outside.held[0]
    room = jnp.maximum(frontier.value[-1] - value, 0)
    level = value + jnp.where(held, 0, jnp.minimum(_WON_BY, room / 2))
    reached = jnp.where(held | (room > MARGIN), frontier.most(level), -jnp.inf)
    nobody = jnp.where(outside.exists, elsewhere, -jnp.inf)
    return jnp.maximum(reached, nobody), frontier.signal(level), (reached > nobody)[None]


def best_response_dynamics(
    segment: Segment,
    signal: Float[Array, "providers profiles states"],
    incumbent: Int[Array, " users"],
    frontiers: Frontier | None = None,
    *,
    tolerance: float = 1e-7,
    rounds: int = 12,
) -> tuple[Float[Array, "providers profiles states"], Int[Array, " users"]]:
    """Providers in turn post a best response that wins users by a margin.

    Best responses are linear programs, or read off the `frontiers` of the only user. The margin is
    .02 of a user's range or half of what full information could add, if less. A provider that gains
    at most `tolerance` copies the signal of the users' provider, if all have the same one. The
    first user's provider moves last: with one user, everybody else has copied by then what she
    has, so her value never falls. It stops when nobody moved for a whole round, or after `rounds`.
    """
    providers = len(signal)
    last = meet(segment, signal, incumbent).chosen[0]

    def goes_on(carry):
        _, _, turn, idle = carry
        return (idle < providers) & (turn < rounds * providers)

    def move(given, carry):
        segment, frontiers, last = given
        signal, incumbent, turn, idle = carry
        provider = (last + 1 + turn) % providers
        meeting = meet(segment, signal, incumbent)
        outside = outside_options(segment, meeting, provider)
        if frontiers is None:
            reached, post, captured = respond_by_program(segment, provider, outside)
        else:
            reached, post, captured = respond_by_frontier(frontiers, provider, outside)
        moves = reached - jnp.sum(meeting.payoffs[provider]) > tolerance
        silent = recommend(segment, jnp.ones((len(segment.prior), 1)))
        post = jnp.where(jnp.any(captured), post, silent)
        together = jnp.all(meeting.chosen == meeting.chosen[0])
        copy = jnp.where(together, signal[meeting.chosen[0]], signal[provider])
        signal = signal.at[provider].set(jnp.where(moves, post, copy))
        after = meet(segment, signal, meeting.chosen)
        return signal, after.chosen, turn + 1, jnp.where(moves, 0, idle + 1)

    start = signal, incumbent, jnp.array(0), jnp.array(0)
    given = segment, frontiers, last
    width = {"width": _SEGMENTS} if frontiers is None else {}
    signal, incumbent, _, _ = while_lanes(goes_on, move, given, start, **width)
    return signal, incumbent


def settle_user(
    segment: Segment,
    signal: Float[Array, "providers actions states"],
    frontiers: Frontier,
    nearest: Callable[[Scalar], Float[Array, "actions states"]],
) -> tuple[Float[Array, "providers actions states"], Int[Array, " users"]]:
    """Best-response dynamics of a segment of one user, ended exactly.

    All providers post the outcome of the nearest equilibrium value at or above the one that the
    dynamics reached: `nearest` gives its signal.
    """
    signal, incumbent = best_response_dynamics(segment, signal, jnp.zeros(1, int), frontiers)
    if len(signal) > 1:
        reached = jnp.max(meet(segment, signal, incumbent).values)
        signal = jnp.broadcast_to(nearest(reached - _TIE), signal.shape)
    return signal, incumbent


def propose(
    segment: Segment, signal: Float[Array, "providers profiles states"]
) -> tuple[Float[Array, "proposals providers profiles states"], Int[Array, "proposals users"]]:
    """What a segment of several users may come to rest at, most natural first.

    The profile as it is, the end of the dynamics from it, and every provider's signal of both
    posted by all: no theorem says which of them, if any, nobody leaves.
    """
    nobody = jnp.zeros(segment.utility.shape[0], int)
    before = meet(segment, signal, nobody).chosen
    after, chosen = best_response_dynamics(segment, signal, before)
    common = [jnp.broadcast_to(post, signal.shape) for post in (*signal, *after)]
    profiles = jnp.stack([signal, after, *common])
    return profiles, jnp.stack([before, chosen, *[nobody] * len(common)])


def settle_together(
    segment: Segment, signal: Float[Array, "providers profiles states"]
) -> tuple[Meeting, Exploitability]:
    """What a segment of several users comes to rest at, and what its providers gain by leaving.

    Of what is proposed the first that nobody leaves, else the one that is left for the least.
    """
    proposals, incumbents = propose(segment, signal)
    count = len(proposals)
    same = jnp.all(proposals[:, None] == proposals[None], axis=(2, 3, 4))
    same = same & jnp.all(incumbents[:, None] == incumbents[None], axis=2)
    repeated = jnp.any(same & (jnp.arange(count)[:, None] > jnp.arange(count)[None]), axis=1)

    def goes_on(carry):
        at, _, gains = carry
        return (at < count) & ~(jnp.max(gains.upper) <= NEGLIGIBLE)

    def assess(shared, carry):
        segment, proposals, incumbents, repeated = shared
        at, best, gains = carry
        new = exploitability(segment, meet(segment, proposals[at], incumbents[at]))
        # The first is taken even if no bound is finite: its lower bounds still say something.
        better = (at == 0) | (jnp.max(new.upper) < jnp.max(gains.upper))
        gains = jax.tree.map(lambda n, o: jnp.where(better, n, o), new, gains)
        following = (jnp.arange(count) > at) & ~repeated
        after = jnp.where(jnp.any(following), jnp.argmax(following), count)
        return after, jnp.where(better, at, best), gains

    unknown = Exploitability(*[jnp.full(len(signal), jnp.inf)] * 2)
    start = jnp.array(0), jnp.array(0), unknown
    shared = segment, proposals, incumbents, repeated
    _, best, gains = while_lanes(goes_on, assess, shared, start, width=_SEGMENTS)
    return meet(segment, proposals[best], incumbents[best]), gains
