"""Bilevel problems as NumPy functions with derivatives: of the literature, and random ones."""

import abc
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ._bilevel_problem import BilevelProblem
from ._suite import Game


class BilevelFunctions(abc.ABC):
    """min F(x, y) over x within `bounds` and G <= 0, where y minimises f(x, .) under g <= 0.

    - `n`, `k`, `m`: how many x, y and g there are. `own`: where the follower's search starts.
    - `positive(w, relaxation)`: for w = (x, y, z) with multipliers z of g, what is at least zero
        in the relaxed optimality system: -g, -G and relaxation + z g. `zero(w)`: the slope of the
        follower's Lagrangian.
    """

    bounds: list[tuple[float, float]]
    n: int
    k: int
    m: int
    own: np.ndarray
    F: Callable[..., np.ndarray]
    G: Callable[..., np.ndarray]
    f: Callable[..., np.ndarray]
    f_slope: Callable[..., np.ndarray]
    g: Callable[..., np.ndarray]
    g_rows: Callable[..., np.ndarray]
    value: Callable[..., np.ndarray]
    slope: Callable[..., np.ndarray]
    zero: Callable[..., np.ndarray]
    zero_rows: Callable[..., np.ndarray]
    positive: Callable[..., np.ndarray]
    positive_rows: Callable[..., np.ndarray]


class JittedFunctions(BilevelFunctions):
    """A problem of the literature, its functions jitted."""

    def __init__(self, problem: BilevelProblem):
        self.bounds = list(zip(problem.lower, problem.upper, strict=True))
        n, k = len(problem.lower), problem.size
        middle = jnp.asarray(problem.profile().offer[0])
        self.n, self.k, self.m = n, k, problem.g(middle, jnp.zeros(k)).size
        self.own = np.array(problem.start or (0.0,) * k)
        self.F = self._numpy(problem.F)
        self.G = self._numpy(problem.G)
        self.f, self.f_slope = self._numpy(problem.f), self._numpy(jax.grad(problem.f, 1))
        self.g, self.g_rows = self._numpy(problem.g), self._numpy(jax.jacfwd(problem.g, 1))

        def value(w):
            return problem.F(w[:n], w[n : n + k])

        def stationarity(w):
            x, y, z = w[:n], w[n : n + k], w[n + k :]
            return jax.grad(lambda y: problem.f(x, y) + z @ problem.g(x, y))(y)

        def at_least_zero(w, relaxation):
            x, y, z = w[:n], w[n : n + k], w[n + k :]
            rows = problem.g(x, y)
            return jnp.concatenate([-rows, -problem.G(x, y), relaxation + z * rows])

        self.value, self.slope = self._numpy(value), self._numpy(jax.grad(value))
        self.zero, self.zero_rows = self._numpy(stationarity), self._numpy(jax.jacfwd(stationarity))
        self.positive = self._numpy(at_least_zero)
        self.positive_rows = self._numpy(jax.jacfwd(at_least_zero))

    @staticmethod
    def _numpy(function: Callable) -> Callable[..., np.ndarray]:
        jitted = jax.jit(function)
        return lambda *arrays: np.asarray(jitted(*arrays), float)


class QuadraticFunctions(BilevelFunctions):
    """F = weight |x - a|^2 / 2 + |y - t|^2 / 2 over 0 <= x <= 1; y minimises a convex quadratic.

    f = y'Hy / 2 + (C x + d)'y under g = A y - B x - b <= 0, with y = 0 feasible.
    """

    def __init__(self, game: Game):
        hessian, cross, linear = game["hessian"], game["cross"], game["linear"]
        rows, shift, limits = game["rows"], game["shift"], game["limits"]
        aim_offer, aim_choice, weight = game["aim_offer"], game["aim_choice"], game["weight"]
        self.bounds = list(zip(game["lower"], game["upper"], strict=True))
        self.m, self.k = rows.shape
        self.n = len(game["lower"])
        self.own = np.zeros(self.k)
        n, k, m = self.n, self.k, self.m
        empty = np.zeros((m, n + k + m))
        empty[:, :n], empty[:, n : n + k] = shift, -rows
        zero_rows = np.concatenate([cross, hessian, rows.T], axis=1)

        def split(w):
            return w[:n], w[n : n + k], w[n + k :]

        def leader(x, y):
            return weight * np.sum((x - aim_offer) ** 2) / 2 + np.sum((y - aim_choice) ** 2) / 2

        def slope(w):
            x, y, _ = split(w)
            return np.concatenate([weight * (x - aim_offer), y - aim_choice, np.zeros(m)])

        def positive(w, relaxation):
            x, y, z = split(w)
            values = self.g(x, y)
            return np.concatenate([-values, relaxation + z * values])

        def positive_rows(w, relaxation):
            x, y, z = split(w)
            products = -z[:, None] * empty
            products[:, n + k :] = np.diag(self.g(x, y))
            return np.concatenate([empty, products])

        self.F, self.G = leader, lambda x, y: np.zeros(0)
        self.f = lambda x, y: y @ hessian @ y / 2 + (cross @ x + linear) @ y
        self.f_slope = lambda x, y: hessian @ y + cross @ x + linear
        self.g = lambda x, y: rows @ y - shift @ x - limits
        self.g_rows = lambda x, y: rows
        self.value, self.slope = lambda w: leader(*split(w)[:2]), slope
        self.zero = lambda w: zero_rows @ w + linear
        self.zero_rows = lambda w: zero_rows
        self.positive, self.positive_rows = positive, positive_rows


class ExactFollower:
    """The follower's answers of a random problem: every set of binding constraints is tried.

    On each set the answer is affine in x; the right one satisfies all constraints and has
    multipliers of at least 0.
    """

    def __init__(self, game: Game):
        rows, hessian = game["rows"], game["hessian"]
        self._rows, self._shift, self._limits = rows, game["shift"], game["limits"]
        self._maps: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        count, k = rows.shape
        inverse = np.linalg.inv(hessian)
        free = -inverse @ game["cross"], -inverse @ game["linear"]
        for size in range(min(count, k) + 1):
            for held in itertools.combinations(range(count), size):
                chosen = list(held)
                own = rows[chosen]
                gram = own @ inverse @ own.T
                if size and np.linalg.cond(gram) > 1e12:
                    continue
                # Multipliers, then the answer, as affine maps of x.
                pull = np.linalg.solve(gram, own @ free[0] - self._shift[chosen])
                push = np.linalg.solve(gram, own @ free[1] - self._limits[chosen])
                back = inverse @ own.T
                self._maps.append((free[0] - back @ pull, free[1] - back @ push, pull, push))

    def __call__(self, offers: np.ndarray) -> np.ndarray:
        """Of offers [trials, n]: answers [trials, k]."""
        answers, wrong = [], []
        for slope, base, pull, push in self._maps:
            answer = offers @ slope.T + base
            values = answer @ self._rows.T - offers @ self._shift.T - self._limits
            duals = offers @ pull.T + push
            answers.append(answer)
            wrong.append(np.maximum(np.max(values, axis=1), np.max(-duals, axis=1, initial=0.0)))
        best = np.argmin(np.array(wrong), axis=0)
        return np.array(answers)[best, np.arange(len(offers))]


def follower_starts(functions: BilevelFunctions, y: np.ndarray) -> Sequence[np.ndarray]:
    """The point itself, the follower's own start, and six around it, always the same."""
    rng = np.random.default_rng(0)
    around = [y + (1 + np.abs(y)) * rng.normal(size=y.size) for _ in range(6)]
    return [y, functions.own, *around]
