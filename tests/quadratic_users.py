"""Users with a quadratic utility on a polytope, and an independent solver of their problems."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.optimize
from jaxtyping import Array, Float, PyTree

import diffgame as dg

NAMES = ("Q", "c", "A", "b", "E", "e")


class QuadraticUser(dg.AbstractGame):
    """u = c . y - y . Q . y / 2 on {A y <= b, E y = e}."""

    Q: Float[Array, "n n"]
    c: Float[Array, " n"]
    choice_set: dg.Polytope
    users: PyTree = eqx.field(default_factory=lambda: jnp.ones(1))
    mass: Float[Array, " users"] = eqx.field(default_factory=lambda: jnp.ones(1))

    def user_utility(self, choice, offers, user):
        return self.c @ choice - choice @ self.Q @ choice / 2

    def provider_payoffs(self, choice, offers, user):
        return jnp.sum(choice)[None]


def solve(Q, c, A, b, E, e) -> dg.UserOptimum:
    return dg.solve_user_problem(QuadraticUser(Q, c, dg.Polytope(A, b, E, e)), None, None)


def draw(seed: int, count: int, n: int, m: int, equalities: int) -> dict[str, np.ndarray]:
    """Strongly concave problems with a feasible point.

    Curvature between 0.1 and about 5, rows of unit normal numbers, slacks at the known point
    exponential or, one in ten, zero; one row in five is no constraint.
    """
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(count, n, n))
    Q = root @ root.swapaxes(1, 2) / n + 0.1 * np.eye(n)
    A, E = rng.normal(size=(count, m, n)), rng.normal(size=(count, equalities, n))
    point = rng.normal(size=(count, n))
    slack = rng.exponential(size=(count, m)) * (rng.uniform(size=(count, m)) < 0.9)
    b = np.einsum("kij,kj->ki", A, point) + slack
    off = rng.uniform(size=(count, m)) < 0.2
    A[off], b[off] = 0.0, 1.0
    e = np.einsum("kij,kj->ki", E, point)
    return dict(zip(NAMES, (Q, 3 * rng.normal(size=(count, n)), A, b, E, e), strict=True))


def residual(problem, choice, inequality_duals, equality_duals) -> float:
    """The sup norm of the natural residual, by NumPy, over 1 + |choice| + |gradient|."""
    Q, c, A, b, E, e = problem
    gradient = c - Q @ choice
    stationary = gradient - inequality_duals @ A - equality_duals @ E
    natural = inequality_duals - np.maximum(0, inequality_duals + A @ choice - b)
    parts = np.concatenate([stationary, natural, E @ choice - e])
    return np.max(np.abs(parts)) / (1 + np.max(np.abs(choice)) + np.max(np.abs(gradient)))


def least_distance(problem) -> np.ndarray:
    """The best choice by nonnegative least squares.

    **Source:** Lawson, Hanson (1974), Solving Least Squares Problems, 23.4 (LDP) and 23.6 (LSI).
    """
    Q, c, A, b, E, e = problem
    kept = np.any(A != 0, axis=1)
    A, b = A[kept], b[kept]
    base = np.linalg.lstsq(E, e, rcond=None)[0] if len(e) else np.zeros(len(c))
    free = scipy.linalg.null_space(E) if len(e) else np.eye(len(c))
    upper = scipy.linalg.cholesky(free.T @ Q @ free)
    centre = scipy.linalg.solve_triangular(upper, free.T @ (c - Q @ base), trans="T")
    # With x = upper v - centre: minimise |x| subject to rows @ x >= sides.
    rows = -scipy.linalg.solve_triangular(upper, (A @ free).T, trans="T").T
    sides = -(b - A @ base) - rows @ centre
    matrix = np.vstack([rows.T, sides])
    target = np.append(np.zeros(len(centre)), 1.0)
    weights, _ = scipy.optimize.nnls(matrix, target, maxiter=100 * matrix.shape[1])
    left = matrix @ weights - target
    x = -left[:-1] / left[-1]
    return base + free @ scipy.linalg.solve_triangular(upper, x + centre)
