"""Whether the providers of one user can all stay with an outcome of a given value: one program."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Scalar

from .._linear_program import LinearProgram, check_optimum
from .._program_solver import solve_linear_program
from ._best_response import tidy_signal
from ._frontier import Frontier, gain
from ._segment import Segment

# In units where the user's and each provider's payoffs range over one unit:
NARROW = 1e-8  # cells narrower than this are left to their neighbours
POINT = 1e-9  # places nearer than this are one
_MISSED = 1e-9  # a provider that misses its frontier by less stays
_FEASIBLE = 1e-9  # constraints violated by less are met
RESOLUTION = 1e-7  # how exactly the ends of the set are known at worst
# Missing a value has a price per unit, so that multipliers stay bounded at the ends. Where delta
# counts as no gain, a value may be missed by delta / price.
_PRICE = 10.0, 1e5


class Standing(eqx.Module):
    """Whether providers can share an outcome of a given value without anybody leaving.

    Their lead is the least by which one of them exceeds its frontier there (none or negative).

    - `value`, `signal`: an outcome that attains it.
    - `stays`: nobody leaves it. `decided`: the outcome proves it, or multipliers the contrary.
    - `ceiling` [breaks]: what the multipliers prove about the lead at the breaks. It is linear in
        between, so no value is an equilibrium's where it is below `level`.
    - `here`: the ceiling at the value asked for.
    """

    value: Scalar
    signal: Float[Array, "actions states"]
    stays: Bool[Array, ""]
    decided: Bool[Array, ""]
    level: Scalar
    ceiling: Float[Array, " breaks"]
    here: Scalar


class Outcomes(eqx.Module):
    """The obedient outcomes of one user, as all linear programs about them have in common.

    - `user`, `payoffs`: what a probability of recommending is worth to her and to each provider.
    - `within`: the rows of obedience.
    - `breaks`: all values at which some frontier bends, sorted, from no to full information.
    - `most` [providers, breaks]: the frontiers there.
    """

    user: Float[Array, "actions states"]
    payoffs: Float[Array, "providers actions states"]
    playable: Bool[Array, " actions"]
    within: Float[Array, "actions rows states"]
    breaks: Float[Array, " breaks"]
    most: Float[Array, "providers breaks"]


def list_outcomes(segment: Segment, frontiers: Frontier) -> Outcomes:
    """Of the only user of a segment; `frontiers` with a leading axis of providers."""
    unit = segment.utility[0]
    uninformed = jnp.max(unit @ segment.prior)
    full = frontiers.value[0, -1]
    breaks = jnp.concatenate([uninformed[None], frontiers.value.ravel(), full[None]])
    breaks = jnp.sort(jnp.clip(breaks, uninformed, full))

    def most(frontier):
        # With nobody to go to, a provider insists on its optimum at any value.
        alone = jnp.full_like(breaks, frontier.payoff[0])
        return alone if len(segment.objective) == 1 else jax.vmap(frontier.most)(breaks)

    return Outcomes(
        gain(segment, unit),
        jax.vmap(lambda table: gain(segment, table))(segment.objective[:, 0]),
        segment.playable,
        segment.obedience(),
        breaks,
        jax.vmap(most)(frontiers),
    )


def stand(outcomes: Outcomes, value: Scalar, below: Bool[Array, ""], delta: Scalar) -> Standing:
    """Ask for the outcome worth `value` that no provider leaves: one linear program.

    Frontiers are continued along their slopes above `value`, or `below` it. Slacks: each provider's
    surplus, the lead (plus two, so that it is positive), and what the value is missed by at a
    price.
    """
    providers, states = len(outcomes.payoffs), outcomes.user.shape[1]
    price = jnp.clip(1e8 * delta, *_PRICE)
    breaks, nearest = outcomes.breaks, jnp.where(below, NARROW, 0)
    left = jnp.argmax(jnp.where(breaks <= value - nearest, breaks, -jnp.inf))
    right = jnp.argmin(jnp.where(breaks > value - nearest + NARROW, breaks, jnp.inf))
    width = breaks[right] - breaks[left]
    fall = outcomes.most[:, right] - outcomes.most[:, left]
    slope = jnp.where(width > 0, fall / jnp.where(width > 0, width, 1), 0)

    def most_at(place):
        return jax.vmap(lambda row: jnp.interp(place, breaks, row))(outcomes.most)

    floor = most_at(value) - 2
    along = jnp.einsum("i,as->ias", slope, outcomes.user)
    ones = jnp.ones((providers, 1))
    zeros = jnp.zeros((providers, 2))
    slacks = jnp.concatenate([-jnp.eye(providers), -ones, zeros], axis=1)
    missed = jnp.concatenate([jnp.zeros(providers + 1), jnp.array([1.0, -1.0])])
    program = LinearProgram(
        jnp.where(outcomes.playable[:, None], jnp.zeros_like(outcomes.user), 1.0),
        jnp.concatenate([jnp.zeros(providers), jnp.array([-1.0]), jnp.full(2, price)]),
        outcomes.within,
        jnp.concatenate([outcomes.payoffs - along, outcomes.user[None]]),
        jnp.concatenate([jnp.zeros((states, providers + 3)), slacks, missed[None]]),
        jnp.concatenate([jnp.ones(states), floor - slope * value, value[None]]),
        outcomes.playable * 1.0,
    )
    primal, dual, _ = solve_linear_program(program)
    optimum = check_optimum(program, primal, dual, 1e-9)
    constant, multipliers, rise = jnp.split(dual.rows, [states, states + providers])

    def ceiling(place, most):
        return (
            -2
            - jnp.sum(constant)
            - jnp.sum(multipliers * (most - 2 - slope * place))
            - (rise[0] * place)
        )

    signal = tidy_signal(outcomes.playable, primal.x)
    reached = jnp.sum(signal * outcomes.user)
    lead = jnp.min(jnp.sum(signal[None] * outcomes.payoffs, axis=(1, 2)) - most_at(reached))
    level = -delta - _MISSED / 100
    here = ceiling(value, floor + 2)
    # The outcome needs no multipliers, and the contrary no outcome. Where neither is sharp, as in
    # the thin sets next to full information, an outcome that stays may miss the value by a little.
    obeyed = jnp.min(jnp.einsum("ars,as->ar", outcomes.within, signal)) >= -_FEASIBLE
    sound = (lead >= -delta - _MISSED) & obeyed
    stays = sound & (jnp.abs(reached - value) <= POINT)
    leaves = ~stays & (here < level) & (optimum.dual_violation <= _FEASIBLE)
    close = sound & (jnp.abs(reached - value) <= RESOLUTION)
    return Standing(
        reached,
        signal,
        ~leaves,
        leaves | close,
        level,
        jax.vmap(ceiling, in_axes=(0, 1))(breaks, outcomes.most),
        here,
    )


def cross(left, right, level):
    """Where the line through two points (place, height) meets a level."""
    rise = right[1] - left[1]
    share = jnp.where(rise != 0, (level - left[1]) / jnp.where(rise != 0, rise, 1), 1)
    return left[0] + jnp.clip(share, 0, 1) * (right[0] - left[0])


def advance(outcomes: Outcomes, standing: Standing, value: Scalar) -> Scalar:
    """The first place above `value` that the ceiling does not rule out."""
    index = jnp.arange(len(outcomes.breaks))
    open_ = (outcomes.breaks > value) & (standing.ceiling >= standing.level)
    first = jnp.argmin(jnp.where(open_, index, len(index)))
    before = jnp.maximum(first - 1, 0)
    inside = outcomes.breaks[before] > value
    left = (
        jnp.where(inside, outcomes.breaks[before], value),
        jnp.where(inside, standing.ceiling[before], standing.here),
    )
    crossing = cross(left, (outcomes.breaks[first], standing.ceiling[first]), standing.level)
    return jnp.where(jnp.any(open_), crossing, outcomes.breaks[-1])
