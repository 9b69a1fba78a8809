"""What one user and one provider can get together: the frontier of obedient outcomes."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Scalar

from .._linear_program import LinearProgram, check_optimum
from .._loop import while_lanes
from .._program_solver import solve_linear_program
from ._best_response import tidy_signal
from ._segment import EQUAL, Segment

# Vertices of one provider's frontier that are kept; more are reported as incomplete.
_CAPACITY = 24
# Where payoffs range over one unit, a point nearer than this to a chord lies on it.
_IMPROVEMENT = 1e-10


class Frontier(eqx.Module):
    """The most a provider can get from one user who must be given at least some value.

    Concave and piecewise linear: vertices by rising `value`, falling `payoff`, the last one
    repeated up to the capacity, in the units of the segment. Below the first vertex the provider's
    optimum applies; the last is the best for her.

    - `order` [points]: where in `signals` [points, actions, states] each vertex is.
    - `complete`: whether every linear program was certified and no vertex was left out.
    """

    value: Float[Array, " points"]
    payoff: Float[Array, " points"]
    order: Int[Array, " points"]
    signals: Float[Array, "points actions states"]
    complete: Bool[Array, ""]

    def most(self, value: Scalar) -> Scalar:
        """The largest payoff with at least `value` for her."""
        return jnp.interp(value, self.value, self.payoff)

    def signal(self, value: Scalar) -> Float[Array, "actions states"]:
        """An obedient signal worth at least `value` to her that attains the largest payoff."""
        above = jnp.sum(self.value < value)
        right = jnp.minimum(above, _CAPACITY - 1)
        left = jnp.maximum(right - 1, 0)
        width = self.value[right] - self.value[left]
        share = (value - self.value[left]) / jnp.where(width > 0, width, 1)
        share = jnp.where(above == 0, 1.0, jnp.clip(share, 0, 1))
        ends = self.signals[self.order[left]], self.signals[self.order[right]]
        return (1 - share) * ends[0] + share * ends[1]


def gain(segment: Segment, table: Float[Array, "actions states"]):
    """Expected value of a table [actions, states] per probability of recommending."""
    return jnp.einsum("as,s,a->as", table, segment.prior, segment.playable * 1.0)


def best_for_user(
    segment: Segment, payoff: Float[Array, "actions states"]
) -> Float[Array, "actions states"]:
    """The signal of full information; among actions as good for her, the provider's favourite."""
    utility = segment.utility[0]
    tied = (utility >= jnp.max(utility, axis=0, keepdims=True) - EQUAL) & segment.playable[:, None]
    favourite = jnp.argmax(jnp.where(tied, payoff, -jnp.inf), axis=0)
    return jax.nn.one_hot(favourite, len(utility), axis=0, dtype=utility.dtype)


def find_frontiers(segment: Segment) -> Frontier:
    """The frontiers of all providers and the only user of a segment; leaves lead with providers."""
    return jax.vmap(lambda i: _find_frontier(segment, i))(jnp.arange(len(segment.objective)))


def _find_frontier(segment: Segment, provider: Int[Array, ""]) -> Frontier:
    """The frontier of one of them.

    Dichotomic search: the provider's optimum and the user's, then beyond each chord until none
    is improved. Each vertex costs two small linear programs.

    **Source:** Aneja, Nair (1979), Bicriteria transportation problem.
    """
    states = len(segment.prior)
    user = gain(segment, segment.utility[0])
    own = gain(segment, segment.objective[provider, 0])
    last = best_for_user(segment, own)
    index = jnp.arange(_CAPACITY)

    def goes_on(carry):
        _, _, _, pending, count, _, _ = carry
        return (count < 2) | (jnp.any(pending) & (count < _CAPACITY))

    def refine(shared, carry):
        user, own, playable, within, rays = shared
        value, payoff, order, pending, count, signals, certified = carry
        # The first point is the provider's optimum, inserted before the user's.
        first = count == 1
        at = jnp.where(first, -1, jnp.argmax(pending))
        toward_user = jnp.where(first, 0, jnp.maximum(payoff[at] - payoff[at + 1], 0))
        toward_provider = jnp.where(first, 1, jnp.maximum(value[at + 1] - value[at], 0))
        total = toward_user + toward_provider
        total = jnp.where(total > 0, total, 1)
        toward_user, toward_provider = toward_user / total, toward_provider / total
        program = LinearProgram(
            jnp.where(playable[:, None], -toward_user * user - toward_provider * own, 1.0),
            jnp.zeros(0),
            within,
            jnp.zeros((0, *own.shape)),
            jnp.zeros((states, 0)),
            jnp.ones(states),
            playable * 1.0,
        )
        primal, dual, _ = solve_linear_program(program, rays)
        fine = check_optimum(program, primal, dual, 1e-8).certified
        signal = tidy_signal(playable, primal.x)
        # Nothing is worth more to her than full information, whatever rounding says.
        new = jnp.minimum(jnp.sum(signal * user), value[-1]), jnp.sum(signal * own)
        chord = toward_user * value[at] + toward_provider * payoff[at]
        beyond = toward_user * new[0] + toward_provider * new[1] - chord
        between = (new[0] > value[at]) & (new[0] < value[at + 1])
        found = first | ((beyond > _IMPROVEMENT) & between)

        def insert(array, entry):
            moved = jnp.where(index > at + 1, jnp.roll(array, 1), array)
            return jnp.where(found & (index == at + 1), entry, jnp.where(found, moved, array))

        value, payoff = insert(value, new[0]), insert(payoff, new[1])
        order = insert(order, count)
        chords = jnp.where(first, (index == 0) & (value[0] < value[1]), insert(pending, True))
        pending = chords & (found | (index != at))
        signals = signals.at[count].set(jnp.where(found, signal, signals[count]), mode="drop")
        return value, payoff, order, pending, count + found, signals, certified & fine

    start = (
        jnp.full(_CAPACITY, jnp.sum(last * user)),
        jnp.full(_CAPACITY, jnp.sum(last * own)),
        jnp.zeros(_CAPACITY, int),
        index < 0,
        jnp.array(1),
        jnp.zeros((_CAPACITY, *last.shape)).at[0].set(last),
        jnp.array(True),
    )
    shared = user, own, segment.playable, segment.obedience(), segment.rays
    value, payoff, order, pending, _, signals, certified = while_lanes(
        goes_on, refine, shared, start
    )
    return Frontier(value, payoff, order, signals, certified & ~jnp.any(pending))
