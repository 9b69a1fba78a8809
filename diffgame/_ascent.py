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
    other hills. `start` must be feasible.

    **Source:** Birgin, Martinez, Raydan (2000), Nonmonotone spectral projected gradient methods on
    convex sets, algorithm SPG2 with memory 1; Hager, Zhang (2005) for the rounding allowance.
    """
    value_and_gradient = jax.value_and_grad(value)

    def goes_on(carry):
        _, _, _, _, moved, step = carry
        return moved & (step < steps)

    def improve(carry):
        point, best, gradient, length, _, step = carry
        direction = project(point + length * gradient) - point
        slope = jnp.sum(gradient * direction)
        allowance = 4 * jnp.finfo(point.dtype).eps * jnp.abs(best)

        def rejected(trial):
            fraction, reached, halvings = trial
            enough = reached >= best + 1e-4 * fraction * slope - allowance
            return ~(enough & jnp.isfinite(reached)) & (halvings < _HALVINGS)

        def halve(trial):
            fraction, _, halvings = trial
            fraction = fraction / 2
            return fraction, value(point + fraction * direction), halvings + 1

        whole = jnp.ones((), point.dtype), value(point + direction), jnp.array(0)
        fraction, _, halvings = jax.lax.while_loop(rejected, halve, whole)
        accepted = halvings < _HALVINGS
        shift = jnp.where(accepted, fraction * direction, 0)
        reached, new_gradient = value_and_gradient(point + shift)
        bend = jnp.sum(shift * (gradient - new_gradient))
        spectral = jnp.sum(shift * shift) / jnp.where(bend > 0, bend, 1)
        # Where the function is not concave along the step, go further next time, not infinitely.
        length = jnp.clip(jnp.where(bend > 0, spectral, 4 * length), _SHORTEST, _LONGEST)
        moved = accepted & jnp.any(shift != 0)
        return point + shift, reached, new_gradient, length, moved, step + 1

    carry = (start, *value_and_gradient(start), jnp.ones((), start.dtype), True, jnp.array(0))
    carry = jax.tree.map(jnp.asarray, carry)
    point, best, *_ = jax.lax.while_loop(goes_on, improve, carry)
    return point, best
