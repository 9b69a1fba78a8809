"""Solvers of diffgame's one loop as entries of a suite."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._equilibrium import Equilibrium, Status
from .._game import AbstractGame
from .._policy import AbstractPolicy
from .._response import AbstractResponse
from .._solve import solve
from .._solver import AbstractSolver
from ._suite import Answer, Budget, Game, Solver

STEP = "solver step"
_STEPS = 10_000


@dataclass(frozen=True)
class Posed:
    """A game as `diffgame.solve` takes it.

    - `tolerance`: of the natural residual, small enough for the suite's check to pass.
    - `read`: the arrays that the suite's check wants, from the equilibrium that `solve` returns.
        Its `claimed`, if any, stands in for "the residual is within the tolerance".
    - `settings`: further keywords of `solve` (`weights`, `normalized`, ...).
    """

    game: AbstractGame
    response: AbstractResponse
    start: AbstractPolicy
    tolerance: float
    read: Callable[[Equilibrium], Mapping[str, Any]]
    settings: Mapping[str, Any]


def solving(
    pose: Callable[[Mapping[str, Any]], Posed],
    solver: Callable[[], AbstractSolver],
    batched: bool = False,
) -> Callable[[Budget], Callable[[Game], Answer]]:
    """The `make` of a `Solver`: pose the game, run `solve`'s loop, read the answer."""

    def make(budget: Budget) -> Callable[[Game], Answer]:
        steps = _STEPS if budget.steps is None else budget.steps
        chosen = solver()

        def one(arrays):
            posed = pose(arrays)
            found = solve(
                posed.game,
                posed.response,
                posed.start,
                chosen,
                tolerance=posed.tolerance,
                max_steps=steps,
                throw=False,
                **posed.settings,
            )
            claimed = found.status == Status.stationary_only
            return {"steps": found.steps, "claimed": claimed, **posed.read(found)}

        run = jax.jit(jax.vmap(one) if batched else one)

        def answer(game: Game) -> Answer:
            arrays = {name: jnp.asarray(values) for name, values in game.items()}
            return {name: np.asarray(values) for name, values in run(arrays).items()}

        return answer

    return make


def through_solve(
    name: str,
    pose: Callable[[Mapping[str, Any]], Posed],
    solver: Callable[[], AbstractSolver],
    batch: int = 1,
) -> Solver:
    """An entry of a suite that runs one of diffgame's solvers, or `batch` games by `jax.vmap`."""
    make = solving(pose, solver, batched=batch > 1)
    # Batched, the same solver takes the same steps: nothing to compare.
    step = STEP if batch == 1 else ""
    return Solver(name, make, compiles=True, batch=batch, step=step)
