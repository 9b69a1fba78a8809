"""Newton's method for users without constraints, its systems solved densely or matrix-free."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree, Scalar

from ._cholesky import UNROLL, cholesky, cholesky_solve
from ._kkt import sup_norm, utility

_FAR = 1e13
_PATIENCE = 2
_SHORTEST = 1e-15
_PROXIMAL = 1e-12
# Smaller falls of the value, relative to its size, are rounding.
_ROUNDING = 1e-13


class _Iterate(eqx.Module):
    """The point with its loss and slope, and the one of least slope so far.

    `waited` counts steps in which neither loss nor slope fell much.
    """

    choice: Float[Array, " n"]
    loss: Scalar
    slope: Float[Array, " n"]
    best: Float[Array, " n"]
    least: Scalar
    waited: Int[Array, ""]
    step: Int[Array, ""]


def solve_positive(matrix: Float[Array, "n n"], right: Float[Array, " n"]) -> Float[Array, " n"]:
    """Solve a symmetric positive definite system; small ones without LAPACK, so batches are fast.

    A pivot that is not positive leaves its direction out.
    """
    if right.size > UNROLL:
        return jnp.linalg.solve(matrix, right)
    return cholesky_solve(cholesky(matrix), right[:, None])[:, 0]


def _minus_utility(choice, args):
    return -utility(choice, args)


def conjugate_gradients(
    product: Callable[[Array], Array], right: Float[Array, " n"], tolerance: Any
) -> Float[Array, " n"]:
    """Solve `product(x) = right`, product symmetric and positive definite, in memory linear in n.

    Ends when the residual is at most `tolerance * |right|` (Euclidean) or after 10 n steps.

    **Source:** Nocedal, Wright (2006), Numerical Optimization, algorithm 5.2.
    """
    return jax.scipy.sparse.linalg.cg(product, right, tol=tolerance, maxiter=10 * right.size)[0]


def maximise_freely(
    start: Float[Array, " n"], args: PyTree, max_steps: int, *, dense: bool
) -> tuple[Float[Array, " n"], Float[Array, " n"], Int[Array, ""]]:
    """Newton steps, shortened until utility rises or its slope falls; until rounding stops them.

    With `dense` the Hessian is formed and factorised, else each system is solved by conjugate
    gradients to an accuracy that follows the slope, so that convergence stays superlinear.

    **Returns:** the choice of least slope, the last choice and the number of steps.

    **Source:** Nocedal, Wright (2006), Numerical Optimization, 7.1 and 11.2.
    """
    arrays, static = eqx.partition(args, eqx.is_array)

    def measure(shared, choice):
        return jax.value_and_grad(_minus_utility)(choice, eqx.combine(shared[0], static))

    def slope_at(shared, choice):
        return measure(shared, choice)[1]

    def direction(shared, choice, slope):
        proximal = _PROXIMAL * shared[1]
        if dense:
            hessian = jax.jacfwd(lambda choice: slope_at(shared, choice))(choice)
            matrix = hessian + proximal * jnp.eye(choice.size, dtype=choice.dtype)
            return solve_positive(matrix, -slope)
        _, curve = jax.linearize(lambda choice: slope_at(shared, choice), choice)
        relative = jnp.linalg.norm(slope) / (jnp.linalg.norm(shared[2]) + shared[1])
        tolerance = jnp.clip(relative, 1e-8, 0.1)
        return conjugate_gradients(lambda v: curve(v) + proximal * v, -slope, tolerance)

    def step(shared, iterate):
        choice, loss, slope = iterate.choice, iterate.loss, iterate.slope
        move = direction(shared, choice, slope)
        promised = jnp.abs(jnp.sum(slope * move))

        def falls(length, new_loss):
            wanted = jnp.maximum(1e-4 * length * promised, _ROUNDING * jnp.abs(loss))
            return loss - new_loss >= wanted

        def too_long(carry):
            length, _, new_loss, new_slope = carry
            flatter = jnp.sum(new_slope**2) <= jnp.sum(slope**2) * (1 - 0.01 * length)
            better = (flatter & jnp.isfinite(new_loss)) | falls(length, new_loss)
            return ~better & (length > _SHORTEST)

        def shorten(carry):
            length = carry[0] / 4
            trial = choice + length * move
            return length, trial, *measure(shared, trial)

        whole = choice + move
        first = jnp.ones((), choice.dtype), whole, *measure(shared, whole)
        length, choice, new_loss, slope = jax.lax.while_loop(too_long, shorten, first)
        size = sup_norm(slope)
        progress = (size < 0.5 * iterate.least) | falls(length, new_loss)
        waited = jnp.where(progress, 0, iterate.waited + 1)
        better = size < iterate.least
        best = jnp.where(better, choice, iterate.best)
        least = jnp.where(better, size, iterate.least)
        return _Iterate(choice, new_loss, slope, best, least, waited, iterate.step + 1)

    loss, slope = measure((arrays,), start)
    size, nothing = sup_norm(slope), jnp.zeros((), jnp.int32)
    scale = jnp.where(size > 0, size, 1)
    shared = arrays, scale, slope
    floor = 4 * jnp.finfo(start.dtype).eps * (1 + size)

    def goes_on(iterate):
        hopeful = (iterate.waited < _PATIENCE) & (iterate.step < max_steps)
        return (iterate.least > floor) & (sup_norm(iterate.choice) < _FAR) & hopeful

    begin = _Iterate(start, loss, slope, start, size, nothing, nothing)
    found = jax.lax.while_loop(goes_on, lambda iterate: step(shared, iterate), begin)
    return found.best, found.choice, found.step
