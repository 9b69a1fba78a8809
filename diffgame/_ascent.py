"""Climb one function over one feasible set, without a step size to choose."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Scalar

_SHORTEST, _LONGEST = 1e-10, 1e10
_HALVINGS = 40


def ascend(
    value: Callable[[Float[Array, " n"]], Scalar],
    project: Callable[[Float[Array, " n"]], Float[Array, " n"]],
    start: Float[Array, " n"],
    steps: int | Int[Array, ""],
) -> tuple[Float[Array, " n"], Scalar]:
    """At most `steps` steps of spectral projected gradient ascent; the end point and its value.

    The step is Barzilai and Borwein's, backtracked until Armijo's rule holds, where a loss within
    rounding error of the value counts as none: so the point may become better than the values can
    show. Values that are not finite are never accepted. A local search: nothing is said about
    other hills. `start` must be feasible, `steps` at least 1.

    **Source:** Birgin, Martinez, Raydan (2000), Nonmonotone spectral projected gradient methods on
    convex sets, algorithm SPG2 with memory 1; Hager, Zhang (2005) for the rounding allowance.
    """
    value_and_gradient = jax.value_and_grad(value)

    def goes_on(carry):
        *_, moved, step = carry
        return moved & (step < steps)

    def improve(carry):
        # The function is evaluated here only, once with its gradient and once without: whatever
        # a program repeats it compiles again.
        point, _, last_shift, last_gradient, length, _, step = carry
        here, gradient = value_and_gradient(point)
        bend = jnp.sum(last_shift * (last_gradient - gradient))
        spectral = jnp.sum(last_shift * last_shift) / jnp.where(bend > 0, bend, 1)
        # Where the function is not concave along the step, go further next time, not infinitely.
        length = jnp.clip(jnp.where(bend > 0, spectral, 4 * length), _SHORTEST, _LONGEST)
        direction = project(point + length * gradient) - point
        slope = jnp.sum(gradient * direction)
        allowance = 4 * jnp.finfo(point.dtype).eps * jnp.abs(here)

        def rejected(trial):
            fraction, reached, halvings = trial
            enough = reached >= here + 1e-4 * fraction * slope - allowance
            return ~(enough & jnp.isfinite(reached)) & (halvings <= _HALVINGS)

        def halve(trial):
            fraction, _, halvings = trial
            fraction = fraction / 2
            return fraction, value(point + fraction * direction), halvings + 1

        # Twice the step and no value yet, so that the first halving tries the whole step.
        untried = 2 * jnp.ones_like(here), jnp.full_like(here, -jnp.inf), jnp.array(0)
        fraction, reached, halvings = jax.lax.while_loop(rejected, halve, untried)
        accepted = halvings <= _HALVINGS
        shift = jnp.where(accepted, fraction * direction, 0)
        reached = jnp.where(accepted, reached, here)
        moved = accepted & jnp.any(shift != 0)
        return point + shift, reached, shift, gradient, length, moved, step + 1

    nothing = jnp.zeros_like(start)
    # A quarter, so that the first step has length 1: without a last shift it is four times it.
    quarter = jnp.full((), 0.25, start.dtype)
    unknown = jnp.full((), -jnp.inf, start.dtype)
    carry = start, unknown, nothing, nothing, quarter, jnp.array(True), jnp.array(0)
    point, best, *_ = jax.lax.while_loop(goes_on, improve, carry)
    return point, best
