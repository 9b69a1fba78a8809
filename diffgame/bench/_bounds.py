"""How far a decision can be from the best one of a concave problem, by multipliers, in NumPy."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Bound(NamedTuple):
    """What an agent could still gain at most, and by how much constraints are violated.

    - `gain`: in units of payoff; an upper bound for concave payoffs and convex constraints.
    - `residual`: sup norm of the Lagrangian's slope, in payoff per unit of decision.
    - `violation`: largest violation of a constraint, in its units.
    - `multipliers`: of the inequalities, then of the equalities.
    """

    gain: float
    residual: float
    violation: float
    multipliers: np.ndarray


def gain_bound(
    slope: np.ndarray,
    rows: np.ndarray,
    values: np.ndarray,
    equality_rows: np.ndarray,
    equality_values: np.ndarray,
    rest_gain: Callable[[np.ndarray], float],
) -> Bound:
    """A bound on u(y') - u(y) over y' with g(y') <= 0 and h(y') = 0.

    With multipliers z >= 0 and w, concavity of u, convexity of g and affine h give
    u(y') - u(y) <= rest (y' - y) - (what u is curved) - z g - w h, with the Lagrangian's slope
    rest = slope - rows' z - equality_rows' w. The multipliers are the non-negative least squares
    of rest and of the products z_j g_j.

    - `slope` [n] of the payoff at y, `rows` [m, n] and `values` [m] of g, likewise of h.
    - `rest_gain(rest)`: a bound on the first two terms, as `within` and `curved` give it.
    """
    numbers = (slope, rows, values, equality_rows, equality_values)
    if not all(np.all(np.isfinite(part)) for part in numbers):
        return Bound(np.nan, np.nan, np.nan, np.full(len(values) + len(equality_values), np.nan))
    count, equalities = len(values), len(equality_values)
    columns = np.concatenate([rows, equality_rows, -equality_rows]).T
    weight = np.concatenate([np.abs(values), np.zeros(2 * equalities)])
    matrix = np.concatenate([columns, np.diag(weight)])
    right = np.concatenate([slope, np.zeros(len(weight))])
    found = nonnegative_least_squares(matrix, right)
    z = found[:count]
    w = found[count : count + equalities] - found[count + equalities :]
    rest = slope - rows.T @ z - equality_rows.T @ w
    gain = rest_gain(rest) + z @ np.abs(values) + np.abs(w) @ np.abs(equality_values)
    residual = np.max(np.abs(rest), initial=0.0)
    violation = max(np.max(values, initial=0.0), np.max(np.abs(equality_values), initial=0.0))
    multipliers = np.concatenate([z, w])
    return Bound(float(gain), float(residual), float(violation), multipliers)


def within(radius: float) -> Callable[[np.ndarray], float]:
    """The bound over decisions no farther off than `radius`."""
    return lambda rest: float(np.linalg.norm(rest)) * radius


def curved(hessian: np.ndarray) -> Callable[[np.ndarray], float]:
    """The bound over all decisions for u with the Hessian -`hessian`, positive definite."""
    return lambda rest: float(rest @ np.linalg.solve(hessian, rest)) / 2


def nonnegative_least_squares(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The x >= 0 that minimises |matrix x - right|.

    **Source:** Lawson, Hanson (1974), Solving Least Squares Problems, algorithm 23.10.
    """
    columns = matrix.shape[1]
    x, passive = np.zeros(columns), np.zeros(columns, bool)
    scale = np.max(np.abs(matrix), initial=1.0) * np.max(np.abs(right), initial=1.0)
    tolerance = 1e-14 * scale * max(matrix.shape)
    for _ in range(3 * columns + 10):
        pull = matrix.T @ (right - matrix @ x)
        pull[passive] = -np.inf
        if not columns or np.max(pull) <= tolerance:
            break
        passive[np.argmax(pull)] = True
        while True:
            trial = np.zeros(columns)
            trial[passive] = np.linalg.lstsq(matrix[:, passive], right, rcond=None)[0]
            low = passive & (trial <= 0)
            if not np.any(low):
                x = trial
                break
            share = np.min(x[low] / (x[low] - trial[low]))
            x = x + share * (trial - x)
            gone = passive & (x <= 1e-15 * np.max(x, initial=0.0))
            passive &= ~(gone | (low & (x <= 0)))
            x[~passive] = 0
            if not np.any(passive):
                break
    return x
