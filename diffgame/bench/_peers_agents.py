"""Peers for generalized Nash games: nashopt, and SciPy in two ways."""

import importlib
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from ._quadratic_agents import Agents, state_agents
from ._suite import Answer, Budget, Game

_TOLERANCE, _ROUNDS, _MOVED = 1e-12, 500, 1e-9


def _answer(game: Game, agents: Agents, x: np.ndarray, claimed: bool) -> Answer:
    offers = game["lower"].ravel().copy()
    offers[agents.place] = x
    return {"offer": offers.reshape(game["start"].shape), "claimed": np.asarray(claimed)}


def nashopt_agents(budget: Budget) -> Callable[[Game], Answer]:
    """The GNEP solver of nashopt on the quadratic payoffs; it compiles anew for every game."""
    nashopt = importlib.import_module("nashopt")
    del budget

    def answer(game: Game) -> Answer:
        agents = state_agents(game)
        curvature, slope = jnp.asarray(agents.curvature), jnp.asarray(agents.slope)
        rows, limits = jnp.asarray(agents.rows), jnp.asarray(agents.limits)
        equal, right = jnp.asarray(agents.equality_rows), jnp.asarray(agents.equality_limits)

        def loss(agent):
            return lambda x: x @ curvature[agent] @ x / 2 + slope[agent] @ x

        options = {}
        if limits.size:
            options |= {"g": lambda x: rows @ x - limits, "ng": limits.size}
        if right.size:
            options |= {"h": lambda x: equal @ x - right, "nh": right.size}
        problem = nashopt.GNEP(
            agents.sizes,
            f=[loss(agent) for agent in range(len(agents.sizes))],
            lb=agents.lower,
            ub=agents.upper,
            variational=agents.common_prices,
            **options,
        )
        found = problem.solve(agents.start, verbose=0)
        return _answer(game, agents, found.x, bool(np.max(np.abs(found.res)) <= 1e-6))

    return answer


def scipy_best_responses(budget: Budget) -> Callable[[Game], Answer]:
    """Agents maximise in turn, each by SLSQP under all constraints, until nobody moves."""
    optimize = importlib.import_module("scipy.optimize")
    rounds = _ROUNDS if budget.steps is None else budget.steps

    def best(agents: Agents, x: np.ndarray, agent: int) -> np.ndarray:
        own = agents.owner == agent

        def put(part):
            moved = x.copy()
            moved[own] = part
            return moved

        def loss(part):
            moved = put(part)
            return -agents.payoff(agent, moved), -agents.payoff_slopes(moved)[own]

        def constraint(kind, rows, limits):
            return {
                "type": kind,
                "fun": lambda part: limits - rows @ put(part),
                "jac": lambda part: -rows[:, own],
            }

        kinds = (
            ("ineq", agents.rows, agents.limits),
            ("eq", agents.equality_rows, agents.equality_limits),
        )
        found = optimize.minimize(
            loss,
            x[own],
            jac=True,
            bounds=list(zip(agents.lower[own], agents.upper[own], strict=True)),
            constraints=[constraint(*kind) for kind in kinds if kind[2].size],
            method="SLSQP",
            options={"ftol": _TOLERANCE, "maxiter": 200},
        )
        return put(found.x)

    def answer(game: Game) -> Answer:
        agents = state_agents(game)
        if agents.common_prices:
            raise RuntimeError(
                "not applicable: best responses end at equilibria with prices of everybody's own, "
                "not with common ones"
            )
        x, moved, done = agents.start.copy(), np.inf, 0
        while moved > _MOVED and done < rounds:
            before = x
            for agent in range(len(agents.sizes)):
                x = best(agents, x, agent)
            moved, done = float(np.max(np.abs(x - before))), done + 1
        return _answer(game, agents, x, moved <= _MOVED) | {"steps": np.asarray(done)}

    return answer


def scipy_conditions(budget: Budget) -> Callable[[Game], Answer]:
    """`scipy.optimize.root` (lm) on everybody's optimality conditions, multipliers included."""
    optimize = importlib.import_module("scipy.optimize")
    # It counts evaluations, not steps: these stay its own.
    del budget

    def answer(game: Game) -> Answer:
        agents = state_agents(game)
        n, m, e = agents.start.size, agents.limits.size, agents.equality_limits.size
        count = 1 if agents.common_prices else len(agents.sizes)
        payer = np.zeros(n, int) if agents.common_prices else agents.owner

        def residual(unknowns):
            x, z, w = np.split(unknowns, [n, n + count * m])
            z, w = z.reshape(count, m), w.reshape(count, e)
            paid = np.einsum("jk,kj->j", z[payer], agents.rows)
            paid = paid + np.einsum("jk,kj->j", w[payer], agents.equality_rows)
            there = np.clip(x + agents.payoff_slopes(x) - paid, agents.lower, agents.upper)
            slack = agents.limits - agents.rows @ x
            apart = agents.equality_rows @ x - agents.equality_limits
            complementary = np.minimum(z, slack).ravel()
            return np.concatenate([x - there, complementary, np.tile(apart, count)])

        start = np.concatenate([agents.start, np.zeros(count * (m + e))])
        found = optimize.root(residual, start, method="lm", tol=_TOLERANCE)
        holds = bool(found.success and np.max(np.abs(found.fun)) <= 1e-8)
        return _answer(game, agents, found.x[:n], holds)

    return answer
