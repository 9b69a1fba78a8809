"""Random games of two players, their check, and diffgame's own solvers for them."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..finite import NormalForm, check_nash
from ._suite import Answer, Budget, Game, Verdict

TOLERANCE = 1e-9
SIZES = (3, 5, 10)
GAP = (
    "the larger gain of a player from its best deviation, as a share of its range of payoffs; "
    f"certified up to {TOLERANCE:g}"
)


def draw_pair(seed: int, game: int) -> Game:
    """Both players' payoffs uniform on [-1, 1]; 3, 5 and 10 actions each, in turn."""
    size = SIZES[game % len(SIZES)]
    return {"payoffs": np.random.default_rng([seed, game]).uniform(-1, 1, (2, size, size))}


def draw_zero_sum(seed: int, game: int) -> Game:
    """The rows' payoffs, which the columns pay."""
    return {"payoffs": draw_pair(seed, game)["payoffs"][0]}


def mixed_actions(game: Game) -> Mapping[str, tuple[int, ...]]:
    """One probability per row and per column."""
    rows, columns = game["payoffs"].shape[-2:]
    return {"first": (rows,), "second": (columns,)}


@jax.jit
def _checked(payoffs, first, second):
    return check_nash(NormalForm(payoffs), (first, second), TOLERANCE)


def check_pair(game: Game, answer: Answer) -> Verdict:
    """Nash equilibrium of the tables."""
    found = _checked(game["payoffs"], answer["first"], answer["second"])
    gap = float(found.relative_regret)
    if found.certified:
        return Verdict(True, gap, "certified")
    lowest = min(float(np.min(values)) for values in answer.values())
    if lowest < 0 or float(found.simplex_violation) > TOLERANCE:
        return Verdict(False, gap, "no probabilities")
    return Verdict(False, gap, "somebody gains by deviating")


def check_zero_sum(game: Game, answer: Answer) -> Verdict:
    """Nash equilibrium of the game in which the columns pay the rows."""
    return check_pair({"payoffs": np.stack([game["payoffs"], -game["payoffs"]])}, answer)


def finite_solver(
    solve: Callable[..., Any], batched: bool = False, game: Callable[..., Any] = NormalForm
) -> Callable[[Budget], Callable[[Game], Answer]]:
    """The `make` of a solver of `diffgame.finite`, one game at a time or by `jax.vmap`."""

    def make(budget: Budget) -> Callable[[Game], Answer]:
        limits = (
            {} if budget.steps is None or game is not NormalForm else {"max_steps": budget.steps}
        )

        def one(payoffs):
            found = solve(game(payoffs), tolerance=TOLERANCE, **limits)
            first, second = found.profile
            answer = {"first": first, "second": second, "claimed": found.check.certified}
            return answer | ({"steps": found.steps} if game is NormalForm else {})

        run = jax.jit(jax.vmap(one) if batched else one)

        def answer(arrays: Game) -> Answer:
            found = run(jnp.asarray(arrays["payoffs"]))
            return {name: np.asarray(values) for name, values in found.items()}

        return answer

    return make
