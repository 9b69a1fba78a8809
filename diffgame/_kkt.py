"""A user's problem: maximise a concave utility under convex constraints; its optimality system.

Written as one Lagrangian: multipliers of inequalities come first, those of equalities after them.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, Scalar

from ._cholesky import UNROLL, cholesky, cholesky_solve

# What a proximal term adds to the diagonal of multipliers, relative to rows and curvature of size
# one: it makes redundant constraints harmless and is removed by iterative refinement.
PROXIMITY = 1e-6
_REFINEMENTS = 3


class Point(eqx.Module):
    """A choice with multipliers of its inequalities and of its equalities."""

    choice: Float[Array, " n"]
    inequality_duals: Float[Array, " inequalities"]
    equality_duals: Float[Array, " equalities"]


def sup_norm(*parts: Array) -> Scalar:
    """The largest absolute entry of vectors, NaN if any is; 0 if all are empty."""
    return jnp.max(jnp.abs(jnp.concatenate([jnp.zeros(1, parts[0].dtype), *parts])))


def utility(choice: Float[Array, " n"], args: PyTree) -> Scalar:
    """What the user maximises; args: game, offers, user."""
    game, offers, user = args
    return game.user_utility(choice, offers, user)


def constraint_values(
    choice: Float[Array, " n"], args: PyTree
) -> tuple[Float[Array, " inequalities"], Float[Array, " equalities"]]:
    """What must be at most zero, and what must be zero; args: game, offers, user."""
    game, offers, user = args
    found = game.user_constraints(choice, offers, user)
    dtype = choice.dtype
    return found.inequalities.astype(dtype), found.equalities.astype(dtype)


def lagrangian(
    choice: Float[Array, " n"],
    inequality_duals: Float[Array, " inequalities"],
    equality_duals: Float[Array, " equalities"],
    args: PyTree,
) -> Scalar:
    """Minus utility plus priced constraints: convex in the choice, stationary at an optimum."""
    inequalities, equalities = constraint_values(choice, args)
    priced = jnp.sum(inequality_duals * inequalities) + jnp.sum(equality_duals * equalities)
    return priced - utility(choice, args)


def kkt_residual(point: Point, args: PyTree) -> Scalar:
    """Largest relative error of the optimality system; NaN where utility is not finite.

    It is zero exactly at a solution with its multipliers. Three sup norms: the gradient of the
    Lagrangian over 1 + |gradient of utility|; equalities over 1 + |choice|; and, over the smaller
    of both, `z - max(0, z + g)` for the inequalities g and their multipliers z.

    **Source:** Facchinei, Pang (2003), 1.3 and 1.5.
    """
    choice, inequality_duals = point.choice, point.inequality_duals
    value, slope = jax.value_and_grad(utility)(choice, args)
    stationary = jax.grad(lagrangian)(choice, inequality_duals, point.equality_duals, args)
    inequalities, equalities = constraint_values(choice, args)
    complementary = inequality_duals - jnp.maximum(0, inequality_duals + inequalities)
    steepness, size = 1 + sup_norm(slope), 1 + sup_norm(choice)
    relative = sup_norm(
        stationary / steepness, equalities / size, complementary / jnp.minimum(steepness, size)
    )
    return jnp.where(jnp.isfinite(value), relative, jnp.nan)


def condensed_solve(
    hessian: Float[Array, "n n"],
    jacobian: Float[Array, "m n"],
    active: Bool[Array, " m"],
    checked: Bool[Array, ""] | bool = False,
    advice: str = "",
):
    """A solver of the symmetric system of a given set of active constraints.

        [ hessian       jacobian' active ] [ y ]   [ first  ]
        [ active jacobian   active - 1   ] [ z ] = [ second ]

    Multipliers are eliminated under a proximal term, so that the matrix to factorise has n rows
    and is regular wherever y is unique, dependent rows or not; refinement restores the system.
    Where `checked`, a singular matrix raises with `advice`.

    **Source:** Friedlander, Orban (2012), A primal-dual regularized interior-point method for
    convex quadratic programs, section 2.
    """
    n = hessian.shape[0]
    on = active.astype(hessian.dtype)
    rows = jacobian * on[:, None]
    # Rows and the Hessian may have any size: the proximal term follows both.
    curvature = jnp.max(jnp.abs(hessian), initial=0.0)
    curvature = jnp.where(curvature > 0, curvature, 1)
    length = jnp.sum(rows**2, axis=1)
    proximity = jnp.where(length > 0, PROXIMITY * length / curvature, 1)
    diagonal = (1 - on) + on * proximity
    matrix = hessian + jnp.einsum("mi,m,mj->ij", rows, 1 / diagonal, rows)
    # Small systems without constraints are positive definite, and much faster without LAPACK.
    small = n <= UNROLL and not length.size
    if small:
        factors = cholesky(matrix)
        pivots = jnp.stack([1 / row[-1] ** 2 for row in factors])
    else:
        factors = jax.scipy.linalg.lu_factor(matrix)
        pivots = jnp.abs(jnp.diagonal(factors[0]))
    # A pivot that was lost comes back as a huge one.
    pivots = jnp.where(pivots < 1e100, pivots, 0)
    regular = jnp.min(pivots, initial=jnp.inf) > n * jnp.finfo(matrix.dtype).eps * curvature
    if advice:
        wrong = checked & jnp.all(jnp.isfinite(matrix)) & ~regular
        factors = eqx.error_if(factors, wrong, advice)

    def once(first, second):
        right = first + rows.T @ (second / diagonal)
        if small:
            y = cholesky_solve(factors, right[:, None])[:, 0]
        else:
            y = jax.scipy.linalg.lu_solve(factors, right)
        return y, (rows @ y - second) / diagonal

    def solve(first, second):
        y, z = once(first, second)
        # Without constraints there is no proximal term to remove.
        for _ in range(_REFINEMENTS if length.size else 0):
            left = first - hessian @ y - rows.T @ z
            right = second - rows @ y + (1 - on) * z
            more = once(left, right)
            y, z = y + more[0], z + more[1]
        return y, z

    return solve
