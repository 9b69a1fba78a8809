"""SciPy on bilevel problems: one relaxed program, or the follower's problem inside the leader's."""

import importlib
import math
from collections.abc import Callable, Sequence

import numpy as np

from ._bilevel_functions import BilevelFunctions
from ._suite import Answer, Budget, Game

RELAXATIONS = (1.0, 1e-2, 1e-4, 1e-6, 1e-8)
# What an end may violate, and what a follower's answer may.
_VIOLATION, _FOLLOWER = 1e-6, 1e-8
_NOWHERE = 1e6
Functions = Callable[[Game], BilevelFunctions]


def follow(
    functions: BilevelFunctions, x: np.ndarray, starts: Sequence[np.ndarray]
) -> np.ndarray | None:
    """The follower's best answer to x by SLSQP from several starts; None if none is feasible."""
    minimize = importlib.import_module("scipy.optimize").minimize
    rows = {
        "type": "ineq",
        "fun": lambda y: -functions.g(x, y),
        "jac": lambda y: -functions.g_rows(x, y),
    }
    best, least = None, math.inf
    for start in starts:
        found = minimize(
            lambda y: float(functions.f(x, y)),
            start,
            jac=lambda y: functions.f_slope(x, y),
            constraints=[rows],
            method="SLSQP",
            options={"maxiter": 200, "ftol": 1e-15},
        )
        feasible = np.max(functions.g(x, found.x), initial=0.0) <= _FOLLOWER
        if feasible and np.isfinite(found.fun) and found.fun < least:
            best, least = found.x, float(found.fun)
    return best


def relaxed_end(
    functions: BilevelFunctions, offer: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """SLSQP on the relaxed optimality system from one offer; its end with an exact answer to it."""
    minimize = importlib.import_module("scipy.optimize").minimize
    n, k, m = functions.n, functions.k, functions.m
    bounds = [*functions.bounds, *[(None, None)] * k, *[(0.0, None)] * m]
    answer = follow(functions, offer, [functions.own])
    begin = functions.own if answer is None else answer
    point = np.concatenate([offer, begin, np.full(m, 0.1)])
    for relaxation in RELAXATIONS:
        constraints = [
            {"type": "eq", "fun": functions.zero, "jac": functions.zero_rows},
            {
                "type": "ineq",
                "fun": functions.positive,
                "jac": functions.positive_rows,
                "args": (relaxation,),
            },
        ]
        found = minimize(
            lambda w: float(functions.value(w)),
            point,
            jac=functions.slope,
            bounds=bounds,
            constraints=constraints,
            method="SLSQP",
            options={"maxiter": 200, "ftol": 1e-12},
        )
        if not np.all(np.isfinite(found.x)):
            break
        point = found.x
    x = np.clip(point[:n], *np.array(functions.bounds).T)
    answer = follow(functions, x, [point[n : n + k], functions.own])
    return None if answer is None else (x, answer)


def nested_end(
    functions: BilevelFunctions, offer: np.ndarray, method: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """`method` on the leader's value at the follower's answers, found by SLSQP at every call."""
    minimize = importlib.import_module("scipy.optimize").minimize
    last = functions.own

    def answer(x):
        nonlocal last
        found = follow(functions, x, [last])
        if found is None:
            found = follow(functions, x, [functions.own])
        if found is not None:
            last = found
        return found

    def value(x):
        y = answer(x)
        return _NOWHERE if y is None else float(functions.F(x, y))

    def room(x):
        y = answer(x)
        return -functions.G(x, functions.own if y is None else y)

    def penalised(x):
        return value(x) + 1e3 * np.sum(np.maximum(0, -room(x)))

    options = {"maxiter": 200}
    if method == "SLSQP":
        limited = room(offer).size > 0
        constraints = [{"type": "ineq", "fun": room}] if limited else []
        found = minimize(
            value,
            offer,
            bounds=functions.bounds,
            constraints=constraints,
            method=method,
            options=options,
        )
    else:
        options |= {"xatol": 1e-8, "fatol": 1e-9}
        found = minimize(penalised, offer, bounds=functions.bounds, method=method, options=options)
    x = np.clip(found.x, *np.array(functions.bounds).T)
    y = answer(x)
    return None if y is None else (x, y)


def start_of(game: Game) -> np.ndarray:
    """Where searches begin: the only array of a problem of the literature."""
    return game["start"] if "start" in game else next(iter(game.values()))


def from_starts(
    functions: Functions,
    end: Callable[[BilevelFunctions, np.ndarray], tuple[np.ndarray, np.ndarray] | None],
    starts: int,
) -> Callable[[Budget], Callable[[Game], Answer]]:
    """The `make` of a solver: the best feasible end from the game's start and random offers."""

    def make(budget: Budget) -> Callable[[Game], Answer]:
        importlib.import_module("scipy.optimize")
        # Its iterations are of inner programs, not of one search: their numbers stay its own.
        del budget

        def answer(game: Game) -> Answer:
            problem = functions(game)
            lower, upper = np.array(problem.bounds).T
            rng = np.random.default_rng(0)
            offers = [start_of(game), *rng.uniform(lower, upper, (starts - 1, problem.n))]
            ends = [found for offer in offers if (found := end(problem, offer)) is not None]
            fine = [
                (float(problem.F(x, y)), x, y)
                for x, y in ends
                if np.max(problem.G(x, y), initial=0.0) <= _VIOLATION
            ]
            if not fine:
                raise RuntimeError(f"no feasible end from {starts} starts")
            _, x, y = min(fine, key=lambda found: found[0])
            return {"offer": x, "choice": y}

        return answer

    return make
