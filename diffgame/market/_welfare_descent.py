"""The equilibria of a segment that are worst and best for its users, by descent along equilibria.

Users' welfare is moved along profiles that nobody leaves. What a provider gains by leaving depends
on the others' signals through the value of a linear program, concave in what users get elsewhere;
its multipliers are the derivatives. A step replaces that value by its tangent, which lies above:
what is feasible for the step is feasible. Each step is one linear program (a convex-concave
procedure; Yuille, Rangarajan 2003, The concave-convex procedure).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Scalar

from .._interior_point import solve_by_interior_point
from .._linear_program import LinearProgram
from ._best_response import (
    capture_program,
    capture_sets,
    meet,
    outside_options,
    tidy_signal,
)
from ._segment import Segment

# Price of a unit of gain from leaving, in shares of the users' welfare: raised step by step, so
# that starts far from any equilibrium can move first and settle later.
PRICES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 1000.0, 1000.0, 1000.0)
# Sets of users that cannot be held exactly (by more than this) constrain nothing.
_SHORTFALL = 1e-7


class _Temptation(eqx.Module):
    """The best deviation of one provider that holds exactly some users, and its derivatives.

    - `payoff`: from the users held; `slope` [users]: its derivative in their values elsewhere.
    - `counts`: whether these users can be held at all.
    """

    payoff: Scalar
    slope: Float[Array, " users"]
    counts: Bool[Array, ""]


def _tempt(segment: Segment, provider: Int[Array, ""], outside, captured) -> _Temptation:
    users, states = len(captured), len(segment.prior)
    payoff = segment.provider_values()[provider]
    program = capture_program(
        segment, payoff, outside, captured, jnp.zeros(users), jnp.array(False)
    )
    # From the middle of what is optimal a descent gets further than from a vertex of it.
    primal, dual, _ = solve_by_interior_point(program)
    shortfall = primal.z[users:-1]
    sign = jnp.where(captured, 1.0, -1.0)
    slope = -sign * dual.rows[states : states + users]
    gained = jnp.einsum("j,jps,ps->", captured * 1.0, payoff, primal.x)
    return _Temptation(gained, slope, jnp.sum(shortfall) <= _SHORTFALL)


class _Row(eqx.Module):
    """A linear function of all signals that must not be positive: `signals` part and constant."""

    signals: Float[Array, "providers profiles states"]
    constant: Scalar


def _gain_row(segment: Segment, signal, incumbent, provider, captured) -> _Row:
    """The gain of a provider that goes on to hold exactly `captured`, over-estimated linearly."""
    providers = len(signal)
    meeting = meet(segment, signal, incumbent)
    outside = outside_options(segment, meeting, provider)
    tempted = _tempt(segment, provider, outside, captured)
    # Where each user goes when the provider lets her go.
    others = jnp.arange(providers) != provider
    values = jnp.where(others[:, None], meeting.values, -1.0)
    fallback = jnp.where(meeting.chosen == provider, jnp.argmax(values, axis=0), meeting.chosen)
    goes = jax.nn.one_hot(fallback, providers, axis=0, dtype=signal.dtype)
    has = jax.nn.one_hot(meeting.chosen, providers, axis=0, dtype=signal.dtype)
    user, own = segment.user_values(), segment.provider_values()[provider]
    elsewhere = jnp.einsum("kj,j,jps->kps", goes, tempted.slope, user)
    released = jnp.einsum("kj,j,jps->kps", goes, 1.0 - captured, own)
    now = jnp.einsum("kj,jps->kps", has, own)
    constant = tempted.payoff - jnp.sum(tempted.slope * outside.value)
    counts = tempted.counts * 1.0
    return _Row(counts * (elsewhere + released - now), counts * constant)


def _step_program(
    segment: Segment,
    signal: Float[Array, "providers profiles states"],
    incumbent: Int[Array, " users"],
    weight: Float[Array, " users"],
    price: Scalar,
) -> LinearProgram:
    """The signals of most weighted welfare with all tangents respected at a price.

    Rows: states' probabilities; each user's provider stays her best; gains. Slacks: a surplus for
    each of the latter two, then what each gain exceeds nothing by.
    """
    providers, profiles, states = signal.shape
    users = segment.utility.shape[0]
    sets = jnp.asarray(capture_sets(users))
    # The empty set is to let everybody go.
    sets = jnp.concatenate([jnp.zeros((1, users), bool), sets])

    def rows_of(provider):
        return jax.vmap(lambda held: _gain_row(segment, signal, incumbent, provider, held))(sets)

    gains = jax.vmap(rows_of)(jnp.arange(providers))
    gains = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), gains)
    chosen = meet(segment, signal, incumbent).chosen
    has = jax.nn.one_hot(chosen, providers, axis=0, dtype=signal.dtype)
    user = segment.user_values()

    def rank(provider, j):
        ahead = has[:, j] - (jnp.arange(providers) == provider)
        return jnp.einsum("k,ps->kps", ahead, user[j])

    ranks = jax.vmap(lambda k: jax.vmap(lambda j: rank(k, j))(jnp.arange(users)))(
        jnp.arange(providers)
    ).reshape(-1, providers, profiles, states)
    sums = jnp.einsum(
        "ki,rs,p->krips", jnp.eye(providers), jnp.eye(states), segment.playable * 1.0
    ).reshape(-1, providers, profiles, states)
    playable = (segment.playable * 1.0)[None, None, :, None]
    inequalities = jnp.concatenate([ranks, -gains.signals]) * playable
    count, extra = len(inequalities), len(gains.constant)
    surplus = -jnp.eye(count)
    excess = jnp.concatenate([jnp.zeros((count - extra, extra)), jnp.eye(extra)])
    welfare = jnp.einsum("kj,j,jps->kps", has, weight, user)
    coupling = jnp.concatenate([sums, inequalities])
    return LinearProgram(
        jnp.where(segment.playable[None, :, None], -welfare, 1.0).reshape(-1, states),
        jnp.concatenate([jnp.zeros(count), jnp.full(extra, price)]),
        jnp.tile(segment.obedience(), (providers, 1, 1)),
        coupling.reshape(len(coupling), -1, states),
        jnp.concatenate(
            [jnp.zeros((len(sums), count + extra)), jnp.concatenate([surplus, excess], axis=1)]
        ),
        jnp.concatenate([jnp.ones(len(sums)), jnp.zeros(len(ranks)), gains.constant]),
    )


def move_welfare(
    segment: Segment,
    signal: Float[Array, "providers profiles states"],
    incumbent: Int[Array, " users"],
    weight: Float[Array, " users"],
) -> tuple[Float[Array, "providers profiles states"], Int[Array, " users"]]:
    """From posted signals towards an equilibrium with as much weighted welfare as can be had.

    Negative weights ask for the worst. Payoffs are of size one, as in `Segment`s made for
    certificates. What comes out is a candidate: exact best responses decide.
    """

    def step(carry, price):
        signal, incumbent = carry
        program = _step_program(segment, signal, incumbent, weight, price)
        primal, _, _ = solve_by_interior_point(program)
        new = jax.vmap(lambda x: tidy_signal(segment.playable, x))(primal.x.reshape(signal.shape))
        # A program that was not solved is no step.
        fine = jnp.all(jnp.isfinite(new))
        signal = jnp.where(fine, new, signal)
        return (signal, meet(segment, signal, incumbent).chosen), None

    (signal, incumbent), _ = jax.lax.scan(step, (signal, incumbent), jnp.array(PRICES))
    return signal, incumbent
