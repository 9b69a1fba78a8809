"""Exact best responses of a provider to a segment, and the exploitability of what is posted."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Scalar

from .._linear_program import Dual, LinearProgram, check_optimum
from .._program_solver import solve_linear_program
from ._segment import MARGIN, Segment, make_segment, unit_utility

# Price of missing a constraint by one unit, where payoffs range over one unit.
SHORTFALL_PRICE = 1e4
_TIE = 1e-9
# What users must get beyond their outside option, less this, leaves programs an interior.
_RELAXED = 1e-6


class Meeting(eqx.Module):
    """Who goes where when providers post `signal` [providers, profiles, states].

    - `values` [providers, users]: what each signal is worth to each user.
    - `chosen` [users]: her provider; ties within 1e-9 keep the incumbent, else the lowest index.
    - `payoffs` [providers, users]: what each user's action is worth to each provider.
    """

    signal: Float[Array, "providers profiles states"]
    values: Float[Array, "providers users"]
    chosen: Int[Array, " users"]
    payoffs: Float[Array, "providers users"]


def choose_provider(values: Float[Array, "providers users"], incumbent: Int[Array, " users"]):
    tied = values >= jnp.max(values, axis=0, keepdims=True) - _TIE
    stays = jnp.take_along_axis(tied, incumbent[None], axis=0)[0]
    return jnp.where(stays, incumbent, jnp.argmax(tied, axis=0))


def meet(
    segment: Segment,
    signal: Float[Array, "providers profiles states"],
    incumbent: Int[Array, " users"],
) -> Meeting:
    """Let users choose among the posted signals and follow the recommendations."""
    values = jnp.einsum("jps,kps->kj", segment.user_values(), signal)
    chosen = choose_provider(values, incumbent)
    payoffs = jnp.einsum("ijps,jps->ij", segment.provider_values(), signal[chosen])
    return Meeting(signal, values, chosen, payoffs)


class Outside(eqx.Module):
    """What a deviating provider is up against, per user.

    - `value`: her best value elsewhere, -1 (below everything) without another provider.
    - `payoff`: what her action is then worth to the deviator. `held`: the deviator has her now.
    - `exists`: whether there is another provider at all.
    """

    value: Float[Array, " users"]
    payoff: Float[Array, " users"]
    held: Bool[Array, " users"]
    exists: Bool[Array, ""]


def outside_options(segment: Segment, meeting: Meeting, provider: Int[Array, ""]) -> Outside:
    """What the users have without `provider`."""
    count = meeting.values.shape[0]
    others = jnp.arange(count) != provider
    values = jnp.where(others[:, None], meeting.values, -1.0)
    fallback = choose_provider(values, meeting.chosen)
    payoff = jnp.einsum("jps,jps->j", segment.provider_values()[provider], meeting.signal[fallback])
    held = meeting.chosen == provider
    return Outside(jnp.max(values, axis=0), payoff, held, jnp.array(count > 1))


class BestResponse(eqx.Module):
    """The most a provider can get from a segment, between `lower` and `upper`.

    `lower` is reached by `signal` [profiles, states] up to the capture margin, with ties in the
    provider's favour; `upper` is proved by multipliers of the programs of all sets that cannot be
    ruled out.
    """

    lower: Scalar
    upper: Scalar
    signal: Float[Array, "profiles states"]
    captured: Bool[Array, " users"]


def capture_program(
    segment: Segment,
    payoff: Float[Array, "users profiles states"],
    outside: Outside,
    captured: Bool[Array, " users"],
    margin: Float[Array, " users"],
    slackest: Bool[Array, ""],
) -> LinearProgram:
    """The deviation that holds exactly the users `captured`, or the largest margin of doing so.

    Slack columns: surplus of each value row, its shortfall at a price, and the margin, which
    counts for captured users whom the deviator does not hold yet.
    """
    users, states = len(captured), len(segment.prior)
    sign = jnp.where(captured, 1.0, -1.0)
    value = jnp.einsum("j,jps,p->jps", sign, segment.user_values(), segment.playable * 1.0)
    gain = jnp.einsum("j,jps->ps", captured * 1.0, payoff)
    cost = jnp.where(segment.playable[:, None], jnp.where(slackest, 0.0, -gain), 1.0)
    fresh = jnp.where(captured & ~outside.held, 1.0, 0.0)
    level = sign * outside.value + fresh * jnp.where(slackest, 0.0, margin)
    surplus = -jnp.eye(users)
    rise = jnp.where(slackest, -fresh, 0.0)[:, None]
    return LinearProgram(
        cost,
        jnp.concatenate(
            [
                jnp.zeros(users),
                jnp.full(users, SHORTFALL_PRICE),
                jnp.where(slackest & jnp.any(fresh > 0), -1.0, 1.0)[None],
            ]
        ),
        segment.obedience(),
        value,
        jnp.concatenate(
            [jnp.zeros((states, 2 * users + 1)), jnp.concatenate([surplus, -surplus, rise], 1)]
        ),
        jnp.concatenate([jnp.ones(states), level]),
        segment.playable * 1.0,
    )


def payoff_bound(program: LinearProgram, dual: Dual, users: int) -> Scalar:
    """No deviation that meets the rows of `capture_program` is worth more.

    Multipliers of any program bound all of them; where they violate the dual, the bound is raised
    by the most that a deviation can make of it: a signal's probabilities sum to the number of
    states, users' surplus is at most 2, an obedience row at most 1. Shortfall is none of its means.
    """
    states, inequalities = program.cost.shape[1], program.within.shape[1]
    reduced = program.cost - jnp.einsum("bis,bi->bs", program.within, dual.within)
    reduced = reduced - program.price(dual.rows)
    surplus = (program.slack_cost - dual.rows @ program.slack_coupling)[:users]
    raised = states * jnp.max(jnp.maximum(-reduced, 0))
    raised = raised + 2 * jnp.sum(jnp.maximum(-surplus, 0))
    raised = raised + inequalities * jnp.max(jnp.maximum(-dual.within, 0), initial=0.0)
    bound = raised - jnp.sum(program.target * dual.rows)
    return jnp.where(jnp.isfinite(bound), bound, jnp.inf)


def tidy_signal(
    playable: Bool[Array, " profiles"], x: Float[Array, "profiles states"]
) -> Float[Array, "profiles states"]:
    """A signal from a program's point: rounding errors removed, each state's column sums to 1."""
    x = jnp.where(playable[:, None], jnp.maximum(x, 0), 0)
    total = jnp.sum(x, axis=0)
    return x / jnp.where(total > 0, total, 1)[None]


def capture_sets(users: int) -> Bool[np.ndarray, "sets users"]:
    """All nonempty sets of users."""
    return np.array(list(itertools.product([False, True], repeat=users))[1:])


def best_response(
    segment: Segment, provider: Int[Array, ""], outside: Outside, margin: float = 0.0
) -> BestResponse:
    """The exact best response of one provider, by one linear program per set of users to hold.

    A set counts if it can be held strictly (margin above 1e-9 of each user's range, except for
    users the provider already holds); the others stay with their outside option at a tie. With a
    positive `margin`, newly captured users must get that much more than outside (or half of what
    full information could add, if less): not the supremum then, but a response to post.

    **Source:** Kamenica, Gentzkow (2011), Bayesian Persuasion; Bergemann, Morris (2016).
    """
    users = segment.utility.shape[0]
    sets = jnp.asarray(capture_sets(users))
    payoff = segment.provider_values()[provider]
    full = jnp.max(segment.utility, axis=1) @ segment.prior
    room = jnp.maximum(full - outside.value, 0)
    margins = jnp.minimum(margin, room / 2)

    def solve(captured, slackest):
        program = capture_program(segment, payoff, outside, captured, margins, slackest)
        primal, dual, _ = solve_linear_program(program, segment.rays)
        return (
            primal,
            check_optimum(program, primal, dual, 1e-8),
            payoff_bound(program, dual, users),
        )

    settled = ~sets | outside.held[None]
    if users > 1 and margin == 0:
        # The largest margin of each set decides whether it counts; asked in the same call.
        count = len(sets)
        asked = jax.vmap(solve)(jnp.concatenate([sets, sets]), jnp.arange(2 * count) < count)
        slackest, most, _ = jax.tree.map(lambda leaf: leaf[:count], asked)
        primal, optimum, bounded = jax.tree.map(lambda leaf: leaf[count:], asked)
        held = jnp.all(settled, axis=1)
        possible = held | (slackest.z[:, -1] > MARGIN)
        # Only a certified program rules a set out; its bound is minus the margin, or a price.
        ruled_out = ~held & most.certified & (most.bound >= -MARGIN)
        shortfall = slackest.z[:, users:-1]
    else:
        # One user: everything up to full information can be given to her.
        primal, optimum, bounded = jax.vmap(solve)(sets, jnp.zeros(len(sets), bool))
        possible = jnp.all(settled | (room > MARGIN)[None], axis=1)
        ruled_out = ~possible
        shortfall = primal.z[:, users:-1]
    possible = possible & (jnp.sum(shortfall, axis=1) <= MARGIN)
    done = optimum.certified | ruled_out
    rest = jnp.sum(jnp.where(sets, 0, outside.payoff[None]), axis=1)
    signals = jax.vmap(lambda x: tidy_signal(segment.playable, x))(primal.x)
    reached = rest + jnp.einsum("cj,jps,cps->c", sets * 1.0, payoff, signals)

    def bound(captured, done):
        # Where a set can only just be held, the program has no interior and ends inaccurate: the
        # multipliers of one that asks a little less prove nearly as much. Programs that are done
        # are emptied, which takes few steps.
        program = capture_program(segment, payoff, outside, captured, margins, jnp.array(False))
        easier = program.target.at[len(segment.prior) :].add(-_RELAXED)
        relaxed = eqx.tree_at(lambda program: program.target, program, easier)
        relaxed = jax.tree.map(lambda leaf: jnp.where(done, 0, leaf), relaxed)
        _, dual, _ = solve_linear_program(relaxed)
        return payoff_bound(program, dual, users)

    if segment.rays is None:
        bounded = jnp.minimum(bounded, jax.vmap(bound)(sets, done))
    proved = rest + jnp.where(optimum.certified, -optimum.bound, bounded)
    # Holding nobody: open to a provider with competitors, who may post a worthless signal.
    nobody = jnp.where(outside.exists, jnp.sum(outside.payoff), -jnp.inf)
    reached = jnp.concatenate([nobody[None], jnp.where(possible, reached, -jnp.inf)])
    proved = jnp.concatenate([nobody[None], jnp.where(ruled_out, -jnp.inf, proved)])
    best = jnp.argmax(reached)
    return BestResponse(
        reached[best],
        jnp.max(proved),
        jnp.concatenate([signals[:1], signals])[best],
        jnp.concatenate([jnp.zeros((1, users), bool), sets])[best],
    )


class Exploitability(eqx.Module):
    """Gain of each provider's best deviation in this segment, between `lower` and `upper`."""

    lower: Float[Array, " providers"]
    upper: Float[Array, " providers"]


def exploitability(segment: Segment, meeting: Meeting) -> Exploitability:
    """How much each provider gains by its best deviation (never below 0: it may stay)."""

    def gain(provider):
        outside = outside_options(segment, meeting, provider)
        response = best_response(segment, provider, outside)
        now = jnp.sum(meeting.payoffs[provider])
        return jnp.maximum(response.lower - now, 0), jnp.maximum(response.upper - now, 0)

    return Exploitability(*jax.vmap(gain)(jnp.arange(meeting.values.shape[0])))


def persuade(
    prior: Float[Array, " states"],
    utility: Float[Array, "users actions states"],
    objective: Float[Array, "users actions states"],
    mass: Float[Array, " users"],
) -> BestResponse:
    """The best signal of a provider without competitors to users who all see it.

    Arrays as in `Market`; values in units of the objective. For one user this is the persuasion
    problem.

    **Source:** Kamenica, Gentzkow (2011), Bayesian Persuasion.

    >>> import jax, jax.numpy as jnp
    >>> from diffgame.market import persuade
    >>> judge, conviction = jnp.eye(2)[None], jnp.array([[[0.0, 0.0], [1.0, 1.0]]])
    >>> found = jax.jit(persuade)(jnp.array([0.7, 0.3]), judge, conviction, jnp.ones(1))
    >>> print(found.lower.round(6))
    0.6
    """
    users = len(mass)
    unit, _ = unit_utility(utility)
    weighted = objective * mass[:, None, None]
    base = jnp.min(weighted, axis=(1, 2), keepdims=True)
    size = jnp.max(weighted - base)
    size = jnp.where(size > 0, size, 1)
    segment = make_segment(prior, unit, ((weighted - base) / size)[None], jnp.ones(users))
    nothing = jnp.zeros(users)
    alone = Outside(nothing - 1, nothing, jnp.zeros(users, bool), jnp.array(False))
    response = best_response(segment, jnp.array(0), alone)
    base = jnp.sum(base)
    return BestResponse(
        base + size * response.lower,
        base + size * response.upper,
        response.signal,
        response.captured,
    )
