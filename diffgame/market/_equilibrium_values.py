"""All values that one user can have in a personalized equilibrium, computed and not searched."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Scalar

from .._interior_point import solve_linear_program
from .._linear_program import LinearProgram, check_optimum
from ._best_response import obedience, signal_rows, tidy_signal
from ._segment import Segment, make_segment, unit_utility

# Vertices of one provider's frontier that are kept; more are reported as incomplete.
_CAPACITY = 24
# In units where the user's and each provider's payoffs range over one unit:
_IMPROVEMENT = 1e-10  # a frontier point nearer to a chord lies on it
_NARROW = 1e-8  # cells narrower than this are left to their neighbours
_MISSED = 1e-9  # a value row missed by less is met
_PRICE = 1e4


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


def _gain(segment: Segment, table: Float[Array, "actions states"]):
    """Expected value of a table [actions, states] per probability of recommending."""
    return jnp.einsum("as,s,a->as", table, segment.prior, segment.playable * 1.0)


def _most(segment: Segment, value: Float[Array, "actions states"]):
    """The obedient signal that maximises an expected table, and whether that is certified."""
    states = len(segment.prior)
    program = LinearProgram(
        jnp.where(segment.playable[:, None], -value, 1.0),
        jnp.zeros(0),
        obedience(segment),
        signal_rows(segment),
        jnp.zeros((states, 0)),
        jnp.ones(states),
    )
    primal, dual, _ = solve_linear_program(program)
    return tidy_signal(segment, primal.x), check_optimum(program, primal, dual, 1e-8).certified


class _Frontier(eqx.Module):
    """Vertices of the best combinations of user value and provider payoff, by rising value."""

    value: Float[Array, " points"]
    payoff: Float[Array, " points"]
    complete: Bool[Array, ""]


def _frontier(segment: Segment, user: Array, provider: Array) -> _Frontier:
    """Dichotomic search: ask beyond each chord until none is improved.

    **Source:** Aneja, Nair (1979), Bicriteria transportation problem.
    """

    def point(toward_user, toward_provider):
        signal, certified = _most(segment, toward_user * user + toward_provider * provider)
        return jnp.sum(signal * user), jnp.sum(signal * provider), certified

    index = jnp.arange(_CAPACITY)

    def goes_on(carry):
        _, _, pending, count, _ = carry
        return (count < 2) | (jnp.any(pending) & (count < _CAPACITY))

    def refine(carry):
        value, payoff, pending, count, certified = carry
        at = jnp.where(count < 2, count - 1, jnp.argmax(pending))
        toward_user = jnp.maximum(payoff[at] - payoff[at + 1], 0)
        toward_provider = jnp.maximum(value[at + 1] - value[at], 0)
        # The two ends come first: the provider's optimum, then the user's, where a trace of the
        # provider's payoff picks its best among the signals that are best for her.
        toward_user = jnp.select([count == 0, count == 1], [0.0, 1.0], toward_user)
        toward_provider = jnp.select([count == 0, count == 1], [1.0, 1e-7], toward_provider)
        total = toward_user + toward_provider
        total = jnp.where(total > 0, total, 1)
        toward_user, toward_provider = toward_user / total, toward_provider / total
        new_value, new_payoff, fine = point(toward_user, toward_provider)
        chord = toward_user * value[at] + toward_provider * payoff[at]
        beyond = toward_user * new_value + toward_provider * new_payoff - chord
        between = (new_value > value[at]) & (new_value < value[at + 1])
        found = (count < 2) | ((beyond > _IMPROVEMENT) & between)

        def insert(array, new):
            # Beyond the last point everything repeats it.
            end = index > at + 1
            shifted = jnp.where(end, jnp.where(count < 2, new, jnp.roll(array, 1)), array)
            return jnp.where(found, jnp.where(index == at + 1, new, shifted), array)

        value, payoff = insert(value, new_value), insert(payoff, new_payoff)
        chords = (index == 0) & (value[0] < value[1])
        split = insert(pending, True) & (found | (index != at))
        pending = jnp.where(count < 2, chords, split)
        return value, payoff, pending, count + found, certified & fine

    nothing = jnp.zeros(_CAPACITY)
    start = nothing, nothing, index < 0, jnp.array(0), jnp.array(True)
    value, payoff, pending, _, certified = jax.lax.while_loop(goes_on, refine, start)
    return _Frontier(value, payoff, certified & ~jnp.any(pending))


def _cell_program(segment, user, payoffs, low, high, floor, slope, direction) -> LinearProgram:
    """Lowest (direction 1) or highest (-1) user value in [low, high] that no provider leaves.

    Row i says that provider i gets at least `floor[i] + slope[i] * (value - low)`; missing it has
    a price. Providers' rows always hold with equality at best, so without a price there would be
    no interior to walk through.
    """
    providers, states = len(payoffs), len(segment.prior)
    rows = jnp.concatenate([user[None], -user[None], payoffs - slope[:, None, None] * user[None]])
    surplus = -jnp.eye(providers + 2)
    shortfall = -surplus[:, 2:]
    return LinearProgram(
        jnp.where(segment.playable[:, None], direction * user, 1.0),
        jnp.concatenate([jnp.zeros(providers + 2), jnp.full(providers, _PRICE)]),
        obedience(segment),
        jnp.concatenate([signal_rows(segment), rows]),
        jnp.concatenate(
            [
                jnp.zeros((states, 2 * providers + 2)),
                jnp.concatenate([surplus, shortfall], axis=1),
            ]
        ),
        jnp.concatenate([jnp.ones(states), jnp.stack([low, -high]), floor - slope * low]),
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
    set is one interval, found by two linear programs. A monopolist's set is that of its optima.

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
    unit, size = unit_utility(utility[None])
    payoff_unit, _ = unit_utility(objective)
    segment = make_segment(prior, unit, payoff_unit[:, None], jnp.ones(1))
    if playable is not None:
        segment = eqx.tree_at(lambda segment: segment.playable, segment, playable)
    user = _gain(segment, unit[0])
    payoffs = jax.vmap(lambda table: _gain(segment, table))(payoff_unit)
    providers = len(objective)
    uninformed = jnp.max(unit[0] @ prior)
    full = jnp.max(unit[0], axis=0) @ prior
    frontier = jax.vmap(lambda payoff: _frontier(segment, user, payoff))(payoffs)
    best_payoffs = frontier.payoff
    if providers == 1:
        # Nobody to go to: the provider insists on its optimum at any value.
        best_payoffs = jnp.broadcast_to(best_payoffs[:, :1], best_payoffs.shape)
    breaks = jnp.sort(jnp.concatenate([uninformed[None], frontier.value.ravel(), full[None]]))
    cells = len(breaks) - 1

    def ask(cell, direction):
        low, high = breaks[cell], breaks[cell + 1]

        def best_payoff(value):
            return jax.vmap(jnp.interp, in_axes=(None, 0, 0))(value, frontier.value, best_payoffs)

        floor = best_payoff(low)
        slope = (best_payoff(high) - floor) / jnp.maximum(high - low, _NARROW)
        program = _cell_program(segment, user, payoffs, low, high, floor - delta, slope, direction)
        primal, dual, _ = solve_linear_program(program)
        signal = tidy_signal(segment, primal.x)
        met = jnp.max(primal.z[providers + 2 :]) <= _MISSED
        optimum = check_optimum(program, primal, dual, 1e-7)
        # Her value is at most 1, so a larger cost proves that no price would have met the rows.
        decided = optimum.certified & (met | (optimum.bound > 1 + 1e-6))
        return jnp.sum(signal * user), signal, met, decided

    def goes_on(carry):
        return carry[0] < cells

    def visit(carry):
        cell, found, complete = carry
        value, signal, met, decided = jax.vmap(lambda direction: ask(cell, direction))(
            jnp.array([1.0, -1.0])
        )
        new = value[0], value[1], jnp.all(met), signal[0], signal[1]
        found = jax.tree.map(lambda store, entry: store.at[cell].set(entry), found, new)
        following = jnp.where(breaks[1:] - breaks[:-1] > _NARROW, jnp.arange(cells), cells)
        following = jnp.min(jnp.where(following > cell, following, cells))
        return following, found, complete & jnp.all(decided)

    shape = (cells + 1, *utility.shape)
    nothing = jnp.zeros(cells + 1), jnp.zeros(cells + 1), jnp.zeros(cells + 1, bool)
    nothing = (*nothing, jnp.zeros(shape), jnp.zeros(shape))
    first = jnp.argmax(breaks[1:] - breaks[:-1] > _NARROW)
    start = first, nothing, jnp.all(frontier.complete)
    _, found, complete = jax.lax.while_loop(goes_on, visit, start)
    low, high, valid, low_signal, high_signal = found
    # Full revelation closes the list, an equilibrium wherever there is competition.
    reveal = jax.nn.one_hot(jnp.argmax(unit[0], axis=0), len(unit[0]), axis=0, dtype=unit.dtype)
    low, high = low.at[cells].set(full), high.at[cells].set(full)
    valid = valid.at[cells].set(providers > 1)
    low_signal, high_signal = low_signal.at[cells].set(reveal), high_signal.at[cells].set(reveal)
    base = jnp.min(utility)
    return EquilibriumValues(
        base + size[0] * low, base + size[0] * high, valid, low_signal, high_signal, complete
    )
