"""All values that one user can have in a personalized equilibrium, computed and not searched."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Scalar

from .._loop import while_lanes
from ._frontier import Frontier, best_for_user, find_frontiers
from ._segment import Segment, make_segment, unit_utility
from ._standing import NARROW, POINT, RESOLUTION, Outcomes, advance, cross, list_outcomes, stand

_STEPS = 200


class EquilibriumValues(eqx.Module):
    """The set of personalized equilibrium values of one user: a union of intervals.

    - `low`, `high` [intervals]: end points in units of her utility, where `valid`.
    - `low_signal`, `high_signal` [intervals, actions, states]: what all providers post in an
        equilibrium with that value: the probability of recommending each action.
    - `complete`: whether multipliers proved every value left out and no frontier overflowed.
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


def _walk_on(given: tuple[Outcomes, Array, Array], walk: _Walk) -> _Walk:
    outcomes, last, delta = given
    breaks, full = outcomes.breaks, outcomes.breaks[-1]
    standing = stand(outcomes, walk.value, walk.down, delta)
    # With competition full information is an equilibrium whatever its program says.
    known = (len(outcomes.payoffs) > 1) & (walk.value >= full - NARROW)
    value = jnp.where(known, full, standing.value)
    signal = jnp.where(known, last, standing.signal)
    # Down: the interval ends at the first place that stays, at the latest where it began.
    bottom = jnp.argmax(jnp.where(breaks < walk.top - NARROW, breaks, -jnp.inf))
    lower = breaks[bottom], standing.ceiling[bottom]
    back = jnp.maximum(cross(lower, (walk.value, standing.here), standing.level), walk.low)
    # It may be alone: what holds just below full information is for the program to say.
    beside = ~walk.down | (back >= walk.top - RESOLUTION)
    stays = standing.stays | (known & beside)
    ends = walk.down & (stays | (back <= walk.low + POINT))
    # Up: an interval begins; it may also go on from the cell that has just been left.
    begins = ~walk.down & stays
    through = walk.down & stays & (walk.value >= walk.top)
    above = breaks > jnp.where(begins, walk.value, walk.top) + NARROW
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
            advance(outcomes, standing, walk.value),
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
    return make_segment(prior, unit, payoff[:, None], jnp.ones(1), playable=playable)


def nearest_equilibrium(
    segment: Segment, frontiers: Frontier, value: Scalar
) -> tuple[Scalar, Float[Array, "actions states"], Bool[Array, ""]]:
    """The lowest equilibrium value at or above `value`, its signal, and whether that is certified.

    `segment` of one user in units from 0 to 1; `frontiers` with a leading axis of its two or more
    providers.
    """
    outcomes = list_outcomes(segment, frontiers)
    full = outcomes.breaks[-1]
    last = best_for_user(segment, outcomes.user)

    def goes_on(carry):
        return ~carry[-1]

    def climb(outcomes, carry):
        value, _, certified, steps, _ = carry
        standing = stand(outcomes, value, jnp.array(False), jnp.zeros(()))
        stays = standing.stays
        above = advance(outcomes, standing, value)
        reached = jnp.where(stays, standing.value, above)
        certified = certified & standing.decided
        ended = stays | (above >= outcomes.breaks[-1] - NARROW) | (steps >= _STEPS)
        return reached, standing.signal, certified, steps + 1, ended

    blank = jnp.zeros_like(last), jnp.all(frontiers.complete), jnp.array(0), value >= full - NARROW
    value, signal, certified, steps, _ = while_lanes(goes_on, climb, outcomes, (value, *blank))
    top = value >= full - NARROW
    return (
        jnp.where(top, full, value),
        jnp.where(top, last, signal),
        certified & (steps <= _STEPS),
    )


def equilibrium_set(
    segment: Segment, frontiers: Frontier, delta: float | Scalar = 0.0
) -> EquilibriumValues:
    """`equilibrium_values` of the only user of a segment, in its units."""
    outcomes = list_outcomes(segment, frontiers)
    last = best_for_user(segment, outcomes.user)
    cells = len(outcomes.breaks)
    tables = jnp.zeros((cells, *last.shape))
    start = _Walk(
        outcomes.breaks[0],
        jnp.array(False),
        outcomes.breaks[0],
        tables[0],
        outcomes.breaks[0],
        jnp.array(0),
        (jnp.zeros(cells), jnp.zeros(cells), tables, tables),
        jnp.array(False),
        jnp.all(frontiers.complete),
        jnp.array(0),
    )
    walk = while_lanes(
        lambda walk: ~walk.done & (walk.steps < _STEPS),
        _walk_on,
        (outcomes, last, jnp.asarray(delta)),
        start,
    )
    low, high, low_signal, high_signal = walk.found
    # Full revelation closes the list, an equilibrium wherever there is competition.
    full = outcomes.breaks[-1:]
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
