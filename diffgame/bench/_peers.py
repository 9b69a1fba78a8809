"""Peers for games of offers in a box: root finding, best responses in turn, generalized Nash.

Each is a `make` of a `Solver`; the peer's package is imported there only.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._play import provider_payoffs, pseudogradient
from .._policy import Constant
from ._statement import Statement
from ._suite import Answer, Budget, Game, Solver
from ._through_solve import Posed

Pose = Callable[[Mapping[str, Any]], Posed]
Make = Callable[[Budget], Callable[[Game], Answer]]
TOLERANCE = 1e-10
_ROUNDS, _STEPS, _MOVED = 500, 1000, 1e-8


def scipy_root(state: Callable[[Game], Statement], method: str) -> Make:
    """`scipy.optimize.root` on the natural residual of the first-order conditions, in NumPy."""

    def make(budget: Budget) -> Callable[[Game], Answer]:
        optimize = importlib.import_module("scipy.optimize")
        # They count evaluations, not steps: these stay their own.
        del budget

        def answer(game: Game) -> Answer:
            statement = state(game)
            shape = statement.start.shape

            def residual(x):
                return statement.residual(x.reshape(shape)).ravel()

            found = optimize.root(residual, statement.start.ravel(), method=method, tol=TOLERANCE)
            return _answer(game, found.x, bool(found.success))

        return answer

    return make


def scipy_best_responses(state: Callable[[Game], Statement]) -> Make:
    """Providers maximise in turn from where they are, each by L-BFGS-B, until nobody moves."""

    def make(budget: Budget) -> Callable[[Game], Answer]:
        optimize = importlib.import_module("scipy.optimize")
        rounds = _ROUNDS if budget.steps is None else budget.steps

        def best(statement: Statement, offers: np.ndarray, provider: int) -> np.ndarray:
            low, high = statement.lower[provider], statement.upper[provider]

            def loss(x):
                moved = offers.copy()
                moved[provider] = x
                value = statement.payoff(offers, provider, x[None])[0]
                return -value, -statement.slopes(moved)[provider]

            return optimize.minimize(
                loss,
                offers[provider],
                jac=True,
                bounds=list(zip(low, high, strict=True)),
                method="L-BFGS-B",
                options={"ftol": 1e-16, "gtol": TOLERANCE},
            ).x

        def answer(game: Game) -> Answer:
            statement = state(game)
            offers, moved, done = statement.start.copy(), np.inf, 0
            while moved > _MOVED and done < rounds:
                before = offers.copy()
                for provider in range(len(offers)):
                    offers[provider] = best(statement, offers, provider)
                moved, done = float(np.max(np.abs(offers - before))), done + 1
            return _answer(game, offers, moved <= _MOVED) | {"steps": np.asarray(done)}

        return answer

    return make


def optimistix_root(pose: Pose, solver: str) -> Make:
    """`optimistix.root_find` on the natural residual of diffgame's field, jitted."""

    def make(budget: Budget) -> Callable[[Game], Answer]:
        optimistix = importlib.import_module("optimistix")
        chosen = getattr(optimistix, solver)(rtol=TOLERANCE, atol=TOLERANCE)
        steps = _STEPS if budget.steps is None else budget.steps

        def residual(offer, posed):
            box = posed.start
            profile = Constant(offer, box.lower, box.upper)
            field = pseudogradient(posed.game, posed.response, profile)
            return offer - jnp.clip(offer + field.offer, box.lower, box.upper)

        def one(arrays):
            posed = pose(arrays)
            found = optimistix.root_find(
                lambda offer, _: residual(offer, posed),
                chosen,
                _box(posed).offer,
                max_steps=steps,
                throw=False,
            )
            claimed = found.result == optimistix.RESULTS.successful
            return {"offer": found.value, "steps": found.stats["num_steps"], "claimed": claimed}

        run = jax.jit(one)
        return lambda game: {name: np.asarray(value) for name, value in run(game).items()}

    return make


def nashopt_box(pose: Pose) -> Make:
    """The GNEP solver of nashopt on diffgame's payoffs; it compiles anew for every game."""

    def make(budget: Budget) -> Callable[[Game], Answer]:
        nashopt = importlib.import_module("nashopt")
        del budget

        def answer(game: Game) -> Answer:
            posed = pose({name: jnp.asarray(values) for name, values in game.items()})
            start = _box(posed)
            shape = start.offer.shape

            def payoffs(x):
                profile = Constant(jnp.reshape(x, shape), start.lower, start.upper)
                return provider_payoffs(posed.game, posed.response, profile)

            sizes = [start.offer[0].size] * shape[0]
            problem = nashopt.GNEP(
                sizes,
                f=[lambda x, agent=agent: -payoffs(x)[agent] for agent in range(shape[0])],
                lb=np.asarray(start.lower).ravel(),
                ub=np.asarray(start.upper).ravel(),
            )
            found = problem.solve(np.asarray(start.offer).ravel(), verbose=0)
            claimed = bool(np.max(np.abs(found.res)) <= 1e-6)
            return _answer(game, found.x, claimed)

        return answer

    return make


def _box(posed: Posed) -> Constant:
    assert isinstance(posed.start, Constant)
    return posed.start


def _answer(game: Game, offers: np.ndarray, claimed: bool) -> Answer:
    return {
        "offer": np.asarray(offers, float).reshape(game["start"].shape),
        "claimed": np.asarray(claimed),
    }


def box_peers(
    state: Callable[[Game], Statement], pose: Pose, roots: Sequence[str] = ("hybr",)
) -> tuple[Solver, ...]:
    """The peers that any game of offers in a box can be given to."""
    return (
        *(Solver(f"scipy root {method}", scipy_root(state, method), "scipy") for method in roots),
        Solver("scipy best responses", scipy_best_responses(state), "scipy", step="round"),
        Solver("optimistix Newton", optimistix_root(pose, "Newton"), "optimistix", compiles=True),
        Solver("optimistix Dogleg", optimistix_root(pose, "Dogleg"), "optimistix", compiles=True),
        Solver("nashopt", nashopt_box(pose), "nashopt"),
    )
