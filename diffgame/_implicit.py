"""The implicit function theorem, once: for users' responses and for equilibria."""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.flatten_util as flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

_Root = TypeVar("_Root")

_ADVICE = (
    "implicit_root: the derivative of the residual with respect to the root is singular, so the "
    "root is not a differentiable function of its arguments here. Make the problem strongly "
    "concave (add curvature to the utility, or a temperature), or, if a whole manifold of roots "
    "is meant, pass cutoff=1e-8 for the minimum-norm derivative."
)


def _is_none(leaf: Any) -> bool:
    return leaf is None


def _solve(matrix: Float[Array, "n n"], vector: Float[Array, " n"]) -> Float[Array, " n"]:
    # The matrix is checked and never the vector, which has to stay linear. Partial pivoting
    # leaves a pivot of the size of rounding errors exactly where the matrix is singular.
    factors = jax.scipy.linalg.lu_factor(jax.lax.stop_gradient(matrix))
    pivots = jnp.abs(jnp.diagonal(factors[0]))
    floor = matrix.shape[0] * jnp.finfo(matrix.dtype).eps * jnp.max(pivots)
    regular = jnp.all(jnp.isfinite(pivots)) & (jnp.min(pivots) > floor)
    # A matrix that is not finite is no case for advice: NaN goes in and NaN comes out, so that
    # one broken game of a batch does not stop the others.
    broken = ~jnp.all(jnp.isfinite(matrix))
    factors = eqx.error_if(factors, ~(regular | broken), _ADVICE)
    return jax.lax.custom_linear_solve(
        lambda moving: matrix @ moving,
        vector,
        lambda _, right: jax.scipy.linalg.lu_solve(factors, right),
        lambda _, right: jax.scipy.linalg.lu_solve(factors, right, trans=1),
    )


@eqx.filter_custom_jvp
def _attach(residual, root, args, cutoff, symmetric_solver):
    del residual, args, cutoff, symmetric_solver
    return root


@_attach.def_jvp
def _attach_jvp(primals, tangents):
    residual, root, args, cutoff, symmetric_solver = primals
    _, _, args_tangent, _, _ = tangents
    # The rule calls itself, so that it is differentiable in turn: higher orders are right.
    root = _attach(residual, root, args, cutoff, symmetric_solver)
    flat_root, unravel = flatten_util.ravel_pytree(root)

    def flat_residual(flat, arguments):
        return flatten_util.ravel_pytree(residual(unravel(flat), arguments))[0]

    untouched = jax.tree.map(_is_none, args_tangent, is_leaf=_is_none)
    fixed, varied = eqx.partition(args, untouched, is_leaf=_is_none)
    _, forcing = jax.jvp(
        lambda moving: flat_residual(flat_root, eqx.combine(moving, fixed)),
        (varied,),
        (args_tangent,),
    )
    if symmetric_solver is not None:
        _, product = jax.linearize(lambda flat: flat_residual(flat, args), flat_root)
        frozen = eqx.filter(args, eqx.is_array, inverse=True)
        frozen = eqx.combine(jax.lax.stop_gradient(eqx.filter(args, eqx.is_array)), frozen)
        solver = symmetric_solver(jax.lax.stop_gradient(root), frozen)
        tangent = jax.lax.custom_linear_solve(
            product, -forcing, lambda _, right: solver(right), symmetric=True
        )
        return root, unravel(tangent)
    matrix = jax.jacfwd(flat_residual)(flat_root, args)
    if cutoff is None:
        tangent = _solve(matrix, -forcing)
    else:
        # The pseudoinverse has a derivative rule of its own, right where the rank is constant.
        tangent = -jnp.linalg.pinv(matrix, rtol=cutoff) @ forcing
    return root, unravel(tangent)


def implicit_root(
    residual: Callable[[_Root, PyTree], PyTree],
    root: _Root,
    args: PyTree,
    *,
    cutoff: float | None = None,
    symmetric_solver: Callable[[_Root, PyTree], Callable[[Array], Array]] | None = None,
) -> _Root:
    """Return `root`, differentiable in `args` because `residual(root, args) = 0`.

    The derivative is that of the implicit function theorem, `-(dr/droot)^-1 dr/dargs`, attached
    as a custom JVP that calls itself: forward mode, reverse mode and any order agree. How the
    root was found does not matter and is never differentiated.

    **Arguments:**

    - `residual`: a function `(root, args) -> pytree` of as many numbers as `root` has. It must
        be free of closed-over arrays that need derivatives: put these in `args`.
    - `root`: a pytree of floating arrays at which the residual vanishes.
    - `args`: any pytree; derivatives flow to its floating leaves.
    - `cutoff`: None if the root is isolated; a singular linear system then raises with advice.
        A number: roots may form a manifold, and the derivative is the one of minimum norm, with
        singular values of at most `cutoff` times the largest counted as zero.

    - `symmetric_solver`: for residuals whose derivative in the root is symmetric (gradients): a
        function of `root` and `args` that returns a function `right -> solution` of that linear
        system, for flat vectors. The matrix is then never formed here, and what happens where it
        is singular is the solver's concern.

    **Errors:** `eqx.EquinoxRuntimeError` when the matrix is singular and `cutoff` is None. What is
    not finite gives derivatives that are not finite, without an error.

    **Source:** Krantz, Parks (2002), The Implicit Function Theorem; Blondel et al. (2022),
    Efficient and Modular Implicit Differentiation.

    >>> import jax, jax.numpy as jnp
    >>> from diffgame import implicit_root
    >>> square_root = lambda a: implicit_root(lambda y, a: y**2 - a, jnp.sqrt(a), a)
    >>> print(jax.grad(square_root)(4.0), jax.grad(jax.grad(square_root))(4.0))
    0.25 -0.03125
    """
    root = jax.tree.map(jax.lax.stop_gradient, root)
    return _attach(residual, root, args, cutoff, symmetric_solver)
