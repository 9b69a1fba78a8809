"""All values that one user can have in a personalized equilibrium, computed and not searched."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Scalar

from .._interior_point import solve_linear_program
from .._linear_program import LinearProgram, check_optimum
from .._loop import while_lanes
from ._best_response import obedience, signal_rows, tidy_signal
from ._frontier import Frontier, best_for_user, find_frontiers, gain
from ._segment import Segment, make_segment, unit_utility

# In units where the user's and each provider's payoffs range over one unit:
_NARROW = 1e-8  # cells narrower than this are left to their neighbours, full information's too
_MISSED = 1e-9  # a provider that misses its frontier by less stays
# Missing a value has a price per unit, so that multipliers stay bounded at the ends. Where delta
# counts as no gain, a value may be missed by delta / price.
_PRICE = 10.0, 1e5
_FEASIBLE = 1e-9  # constraints violated by less are met
_POINT = 1e-9  # an interval shorter than this is a point
_RESOLUTION = 1e-7  # how exactly the ends are known
_STEPS = 200


class EquilibriumValues(eqx.Module):
    """The set of personalized equilibrium values of one user: a union of intervals.

    - `low`, `high` [intervals]: end points in units of her utility, where `valid`.
    - `low_signal`, `high_signal` [intervals, actions, states]: what all providers post in an
        equilibrium with that value: the probability of recommending each action.
    - `complete`: whether every linear program was certified and no frontier overflowed.
    """

    low: Float[Array, " intervals"]
    high: Float[Array, " intervals"]
    valid: Bool[Array, " intervals"]
    low_signal: Float[Array, "intervals actions states"]
    high_signal: Float[Array, "intervals actions states"]
    complete: Bool[Array, ""]

    def rescale(self, utility: Float[Array, "actions states"]) -> "EquilibriumValues":
        """From values between 0 and 1 to the units of `utility`."""
        base, size = jnp.min(utility), jnp.ptp(utility)
        size = jnp.where(size > 0, size, 1)
        ends = base + size * self.low, base + size * self.high
        return eqx.tree_at(lambda values: (values.low, values.high), self, ends)

    def worst(self) -> tuple[Scalar, Float[Array, "actions states"]]:
        """The lowest equilibrium value and the signal to post for it."""
        where = jnp.argmin(jnp.where(self.valid, self.low, jnp.inf))
        return self.low[where], self.low_signal[where]

    def best(self) -> tuple[Scalar, Float[Array, "actions states"]]:
        """The highest equilibrium value and the signal to post for it."""
        where = jnp.argmax(jnp.where(self.valid, self.high, -jnp.inf))
        return self.high[where], self.high_signal[where]

    def at_or_above(self, value: Scalar) -> tuple[Scalar, Float[Array, "actions states"]]:
        """The nearest equilibrium value at or above `value` (else the best), and its signal."""
        reach = self.valid & (self.high >= value)
        target = jnp.where(reach, jnp.maximum(self.low, value), jnp.inf)
        where = jnp.argmin(target)
        low, high = self.low[where], self.high[where]
        width = jnp.where(high > low, high - low, 1)
        share = jnp.where(high > low, (target[where] - low) / width, 0)
        mixed = (1 - share) * self.low_signal[where] + share * self.high_signal[where]
        best, best_signal = self.best()
        some = jnp.any(reach)
        return jnp.where(some, target[where], best), jnp.where(some, mixed, best_signal)


class _Standing(eqx.Module):
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


class _Shared(eqx.Module):
    """What all linear programs of one user have in common; `most` [providers, breaks]."""

    user: Float[Array, "actions states"]
    payoffs: Float[Array, "providers actions states"]
    playable: Bool[Array, " actions"]
    within: Float[Array, "actions rows states"]
    sums: Float[Array, "states actions states"]
    breaks: Float[Array, " breaks"]
    most: Float[Array, "providers breaks"]


def _share(segment: Segment, frontiers: Frontier) -> _Shared:
    """`frontiers` with a leading axis of providers."""
    unit = segment.utility[0]
    uninformed = jnp.max(unit @ segment.prior)
    full = frontiers.value[0, -1]
    breaks = jnp.concatenate([uninformed[None], frontiers.value.ravel(), full[None]])
    breaks = jnp.sort(jnp.clip(breaks, uninformed, full))

    def most(frontier):
        # With nobody to go to, a provider insists on its optimum at any value.
        alone = jnp.full_like(breaks, frontier.payoff[0])
        return alone if len(segment.objective) == 1 else jax.vmap(frontier.most)(breaks)

    return _Shared(
        gain(segment, unit),
        jax.vmap(lambda table: gain(segment, table))(segment.objective[:, 0]),
        segment.playable,
        obedience(segment),
        signal_rows(segment),
        breaks,
        jax.vmap(most)(frontiers),
    )


def _stand(shared: _Shared, value: Scalar, below: Bool[Array, ""], delta: Scalar) -> _Standing:
    """Ask for the outcome worth `value` that no provider leaves: one linear program.

    Frontiers are continued along their slopes above `value`, or `below` it. Slacks: each provider's
    surplus, the lead (plus two, so that it is positive), and what the value is missed by at a
    price.
    """
    providers, states = len(shared.payoffs), len(shared.sums)
    price = jnp.clip(1e8 * delta, *_PRICE)
    breaks, nearest = shared.breaks, jnp.where(below, _NARROW, 0)
    left = jnp.argmax(jnp.where(breaks <= value - nearest, breaks, -jnp.inf))
    right = jnp.argmin(jnp.where(breaks > value - nearest + _NARROW, breaks, jnp.inf))
    width = breaks[right] - breaks[left]
    fall = shared.most[:, right] - shared.most[:, left]
    slope = jnp.where(width > 0, fall / jnp.where(width > 0, width, 1), 0)

    def most_at(place):
        return jax.vmap(lambda row: jnp.interp(place, breaks, row))(shared.most)

    floor = most_at(value) - 2
    along = jnp.einsum("i,as->ias", slope, shared.user)
    ones = jnp.ones((providers, 1))
    zeros = jnp.zeros((providers, 2))
    slacks = jnp.concatenate([-jnp.eye(providers), -ones, zeros], axis=1)
    missed = jnp.concatenate([jnp.zeros(providers + 1), jnp.array([1.0, -1.0])])
    program = LinearProgram(
        jnp.where(shared.playable[:, None], jnp.zeros_like(shared.user), 1.0),
        jnp.concatenate([jnp.zeros(providers), jnp.array([-1.0]), jnp.full(2, price)]),
        shared.within,
        jnp.concatenate([shared.sums, shared.payoffs - along, shared.user[None]]),
        jnp.concatenate([jnp.zeros((states, providers + 3)), slacks, missed[None]]),
        jnp.concatenate([jnp.ones(states), floor - slope * value, value[None]]),
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

    signal = tidy_signal(shared.playable, primal.x)
    reached = jnp.sum(signal * shared.user)
    lead = jnp.min(jnp.sum(signal[None] * shared.payoffs, axis=(1, 2)) - most_at(reached))
    level = -delta - _MISSED / 100
    here = ceiling(value, floor + 2)
    # The outcome needs no multipliers, and the contrary no outcome. Where neither is sharp, as in
    # the thin sets next to full information, an outcome that stays may miss the value by a little.
    obeyed = jnp.min(jnp.einsum("ars,as->ar", shared.within, signal)) >= -_FEASIBLE
    sound = (lead >= -delta - _MISSED) & obeyed
    stays = sound & (jnp.abs(reached - value) <= _POINT)
    leaves = ~stays & (here < level) & (optimum.dual_violation <= _FEASIBLE)
    close = sound & (jnp.abs(reached - value) <= _RESOLUTION)
    return _Standing(
        reached,
        signal,
        ~leaves,
        leaves | close,
        level,
        jax.vmap(ceiling, in_axes=(0, 1))(breaks, shared.most),
        here,
    )


def _crossing(left, right, level):
    """Where the line through two points (place, height) meets a level."""
    rise = right[1] - left[1]
    share = jnp.where(rise != 0, (level - left[1]) / jnp.where(rise != 0, rise, 1), 1)
    return left[0] + jnp.clip(share, 0, 1) * (right[0] - left[0])


def _advance(shared: _Shared, standing: _Standing, value: Scalar) -> Scalar:
    """The first place above `value` that the ceiling does not rule out."""
    index = jnp.arange(len(shared.breaks))
    open_ = (shared.breaks > value) & (standing.ceiling >= standing.level)
    first = jnp.argmin(jnp.where(open_, index, len(index)))
    before = jnp.maximum(first - 1, 0)
    inside = shared.breaks[before] > value
    left = (
        jnp.where(inside, shared.breaks[before], value),
        jnp.where(inside, standing.ceiling[before], standing.here),
    )
    crossing = _crossing(left, (shared.breaks[first], standing.ceiling[first]), standing.level)
    return jnp.where(jnp.any(open_), crossing, shared.breaks[-1])


class _Walk(eqx.Module):
    """A walk through all values from below.

    Going up, it looks for the beginning of an interval; going down from the `top` of the cell, for
    the end of the one that began at `low`. `found`: ends and signals of `count` intervals.
    """

    value: Scalar
    down: Bool[Array, ""]
    low: Scalar
    low_signal: Float[Array, "actions states"]
    top: Scalar
    count: Int[Array, ""]
    found: tuple[Array, Array, Array, Array]
    done: Bool[Array, ""]
    certified: Bool[Array, ""]
    steps: Int[Array, ""]


def _walk_on(given: tuple[_Shared, Array, Array], walk: _Walk) -> _Walk:
    shared, last, delta = given
    breaks, full = shared.breaks, shared.breaks[-1]
    standing = _stand(shared, walk.value, walk.down, delta)
    # With competition full information is an equilibrium whatever its program says.
    known = (len(shared.payoffs) > 1) & (walk.value >= full - _NARROW)
    stays = known | standing.stays
    value = jnp.where(known, full, standing.value)
    signal = jnp.where(known, last, standing.signal)
    # Down: the interval ends at the first place that stays, at the latest where it began.
    bottom = jnp.argmax(jnp.where(breaks < walk.top - _NARROW, breaks, -jnp.inf))
    lower = breaks[bottom], standing.ceiling[bottom]
    back = jnp.maximum(_crossing(lower, (walk.value, standing.here), standing.level), walk.low)
    ends = walk.down & (stays | (back <= walk.low + _POINT))
    # Up: an interval begins; it may also go on from the cell that has just been left.
    begins = ~walk.down & stays
    through = walk.down & stays & (walk.value >= walk.top)
    above = breaks > jnp.where(begins, walk.value, walk.top) + _NARROW
    closed = ~jnp.any(above)
    top = jnp.min(jnp.where(above, breaks, full))
    alone = begins & closed
    entry = (
        jnp.where(alone, value, walk.low),
        jnp.where(stays, value, walk.low),
        jnp.where(alone, signal, walk.low_signal),
        jnp.where(stays, signal, walk.low_signal),
    )
    place = jnp.where(ends | alone, walk.count, len(breaks))
    opens = begins | through
    return _Walk(
        jnp.select(
            [opens, ends, walk.down],
            [top, walk.top, back],
            _advance(shared, standing, walk.value),
        ),
        opens | (walk.down & ~ends),
        jnp.where(opens, value, walk.low),
        jnp.where(opens, signal, walk.low_signal),
        jnp.where(opens, top, walk.top),
        walk.count + (ends | alone),
        jax.tree.map(lambda kept, new: kept.at[place].set(new, mode="drop"), walk.found, entry),
        (opens & closed) | (~walk.down & ~stays & (walk.value >= full)),
        walk.certified & (known | standing.decided),
        walk.steps + 1,
    )


def equilibrium_segment(
    prior: Float[Array, " states"],
    utility: Float[Array, "actions states"],
    objective: Float[Array, "providers actions states"],
    playable: Bool[Array, " actions"] | None = None,
) -> Segment:
    """The segment of one user, with her utility and the providers' payoffs from her from 0 to 1."""
    unit, _ = unit_utility(utility[None])
    payoff, _ = unit_utility(objective)
    segment = make_segment(prior, unit, payoff[:, None], jnp.ones(1))
    if playable is not None:
        segment = eqx.tree_at(lambda segment: segment.playable, segment, playable)
    return segment


def nearest_equilibrium(
    segment: Segment, frontiers: Frontier, value: Scalar
) -> tuple[Scalar, Float[Array, "actions states"], Bool[Array, ""]]:
    """The lowest equilibrium value at or above `value`, its signal, and whether that is certified.

    `segment` of one user in units from 0 to 1; `frontiers` with a leading axis of its two or more
    providers.
    """
    shared = _share(segment, frontiers)
    full = shared.breaks[-1]
    last = best_for_user(segment, shared.user)

    def goes_on(carry):
        return ~carry[-1]

    def climb(shared, carry):
        value, _, certified, steps, _ = carry
        standing = _stand(shared, value, jnp.array(False), jnp.zeros(()))
        stays = standing.stays
        above = _advance(shared, standing, value)
        reached = jnp.where(stays, standing.value, above)
        certified = certified & standing.decided
        ended = stays | (above >= shared.breaks[-1] - _NARROW) | (steps >= _STEPS)
        return reached, standing.signal, certified, steps + 1, ended

    blank = jnp.zeros_like(last), jnp.all(frontiers.complete), jnp.array(0), value >= full - _NARROW
    value, signal, certified, steps, _ = while_lanes(goes_on, climb, shared, (value, *blank))
    top = value >= full - _NARROW
    return (
        jnp.where(top, full, value),
        jnp.where(top, last, signal),
        certified & (steps <= _STEPS),
    )


def equilibrium_set(
    segment: Segment, frontiers: Frontier, delta: float | Scalar = 0.0
) -> EquilibriumValues:
    """`equilibrium_values` of the only user of a segment, in its units."""
    shared = _share(segment, frontiers)
    last = best_for_user(segment, shared.user)
    cells = len(shared.breaks)
    tables = jnp.zeros((cells, *last.shape))
    start = _Walk(
        shared.breaks[0],
        jnp.array(False),
        shared.breaks[0],
        tables[0],
        shared.breaks[0],
        jnp.array(0),
        (jnp.zeros(cells), jnp.zeros(cells), tables, tables),
        jnp.array(False),
        jnp.all(frontiers.complete),
        jnp.array(0),
    )
    walk = while_lanes(
        lambda walk: ~walk.done & (walk.steps < _STEPS),
        _walk_on,
        (shared, last, jnp.asarray(delta)),
        start,
    )
    low, high, low_signal, high_signal = walk.found
    # Full revelation closes the list, an equilibrium wherever there is competition.
    full = shared.breaks[-1:]
    valid = jnp.append(jnp.arange(cells) < walk.count, len(segment.objective) > 1)
    return EquilibriumValues(
        jnp.concatenate([low, full]),
        jnp.concatenate([high, full]),
        valid,
        jnp.concatenate([low_signal, last[None]]),
        jnp.concatenate([high_signal, last[None]]),
        walk.certified & walk.done,
    )


def equilibrium_values(
    prior: Float[Array, " states"],
    utility: Float[Array, "actions states"],
    objective: Float[Array, "providers actions states"],
    delta: float | Scalar = 0.0,
    playable: Bool[Array, " actions"] | None = None,
) -> EquilibriumValues:
    """The exact set of values that one user can have in a personalized (delta-)equilibrium.

    With f_i(V) the most that provider i can get from obedient outcomes worth at least V to her,
    V belongs to the set if and only if some obedient outcome worth exactly V gives every provider
    i at least f_i(V) - delta: then all providers post it. Full information always belongs to it.
    Each f_i is concave and piecewise linear; between neighbouring breakpoints of all of them the
    set is one interval, whose ends Newton's method finds: each step is a linear program whose
    multipliers prove which values cannot belong to the set. A monopolist's set is that of its
    optima.

    **Arguments:** arrays as in `Market` for one user; `delta` as a share of each provider's range
    of payoffs from her; `playable`: the actions that may be recommended, by default those that ties
    to the lowest index let her play at some posterior. Batch with `jax.vmap`.

    **Source:** the characterisation and its proof are in docs/certificates.md.

    >>> import jax.numpy as jnp
    >>> from diffgame.market import equilibrium_values
    >>> judge, acquit = jnp.eye(2), jnp.array([[1.0, 1.0], [0.0, 0.0]])
    >>> both = jnp.stack([acquit, acquit])  # two providers who both want acquittal
    >>> found = equilibrium_values(jnp.array([0.7, 0.3]), judge, both)
    >>> print(found.worst()[0].round(6), found.best()[0].round(6))
    0.7 1.0
    """
    segment = equilibrium_segment(prior, utility, objective, playable)
    return equilibrium_set(segment, find_frontiers(segment), delta).rescale(utility)
