"""The suite `bilevel`: one leader before a follower under constraints."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._bilevel import BilevelStatus, solve_bilevel
from .._choice_set import Constrained
from .._constraints import Constraints
from .._game import AbstractGame
from .._newton import Automatic
from .._policy import Constant
from .._response import Concave
from ._bilevel_functions import (
    BilevelFunctions,
    ExactFollower,
    JittedFunctions,
    QuadraticFunctions,
)
from ._bilevel_problems import PROBLEMS
from ._bounds import gain_bound, within
from ._peers_bilevel import from_starts, nested_end, relaxed_end
from ._suite import Answer, Budget, Game, Solver, Suite, Verdict
from ._through_solve import Posed, through_solve
from ._unilateral import examine

# Of the follower's gap, of violations, and of the leader's loss relative to 1 + |F|.
TOLERANCE = 1e-6
# As `solve_bilevel` has by default; SciPy begins from as many.
STARTS, NESTED_STARTS = 16, 4
_LEADER, _FOLLOWER, _ROWS = 2, 3, 4
_MARK = "problem"


def draw(seed: int, game: int) -> Game:
    """A random quadratic problem and one of the literature in turn, the start at random.

    A problem of the literature is known by the name of its only array, the start.
    """
    rng = np.random.default_rng([seed, game])
    if game % 2:
        number = game // 2 % len(PROBLEMS)
        problem = PROBLEMS[number]
        return {f"{_MARK}{number}": rng.uniform(problem.lower, problem.upper)}
    root = rng.normal(size=(_FOLLOWER, _FOLLOWER))
    drawn = {
        "hessian": root @ root.T / 2 + np.eye(_FOLLOWER) / 2,
        "cross": rng.normal(size=(_FOLLOWER, _LEADER)),
        "linear": rng.normal(size=_FOLLOWER),
        "rows": rng.normal(size=(_ROWS, _FOLLOWER)),
        "shift": rng.uniform(-0.4, 0.4, (_ROWS, _LEADER)),
        "limits": rng.uniform(0.8, 1.2, _ROWS),
        "aim_offer": rng.uniform(0.0, 1.0, _LEADER),
        "aim_choice": rng.normal(size=_FOLLOWER),
        "weight": rng.uniform(0.0, 0.5, ()),
        "start": rng.uniform(0.0, 1.0, _LEADER),
        "lower": np.zeros(_LEADER),
        "upper": np.ones(_LEADER),
    }
    return {name: np.asarray(values) for name, values in drawn.items()}


def problem_number(game: Mapping[str, Any]) -> int | None:
    """Which problem of the literature a game is; None for a random one."""
    return None if len(game) > 1 else int(next(iter(game)).removeprefix(_MARK))


class QuadraticGame(AbstractGame):
    """A random problem as a game; see `QuadraticFunctions`. The arrays are those of the game."""

    users: Float[Array, " users"]
    mass: Float[Array, " users"]
    choice_set: Constrained
    arrays: Mapping[str, Array]

    def __init__(self, arrays: Mapping[str, Array]):
        self.users, self.mass = jnp.zeros(1), jnp.ones(1)
        self.choice_set = Constrained(arrays["linear"].shape[0])
        self.arrays = dict(arrays)

    def user_utility(self, choice, offers, user):
        """Minus the follower's objective."""
        linear = self.arrays["cross"] @ offers[0] + self.arrays["linear"]
        return -(choice @ self.arrays["hessian"] @ choice) / 2 - linear @ choice

    def user_constraints(self, choice, offers, user):
        """The follower's constraints."""
        room = self.arrays["shift"] @ offers[0] + self.arrays["limits"]
        return Constraints(self.arrays["rows"] @ choice - room)

    def provider_payoffs(self, choice, offers, user):
        """Minus the leader's objective."""
        apart = jnp.sum((offers[0] - self.arrays["aim_offer"]) ** 2)
        apart = self.arrays["weight"] * apart
        return -(apart + jnp.sum((choice - self.arrays["aim_choice"]) ** 2))[None] / 2


def _read(found):
    return {"offer": found.profile.offer[0], "choice": found.outcome.choices[0]}


def pose_bilevel(arrays: Mapping[str, Any]) -> Posed:
    """The game for `diffgame.solve`: the leader climbs through the follower's response."""
    number = problem_number(arrays)
    if number is None:
        game = QuadraticGame(arrays)
        start = Constant(arrays["start"][None], arrays["lower"][None], arrays["upper"][None])
    else:
        game, profile = PROBLEMS[number].game(), PROBLEMS[number].profile()
        start = Constant(next(iter(arrays.values()))[None], profile.lower, profile.upper)
    return Posed(game, Concave(), start, 1e-9, _read, {})


def _solve_bilevel(starts: int) -> Callable[[Budget], Callable[[Game], Answer]]:
    def make(budget: Budget) -> Callable[[Game], Answer]:
        limits = {} if budget.steps is None else {"max_steps": budget.steps}

        def one(arrays):
            posed = pose_bilevel(arrays)
            found = solve_bilevel(
                posed.game,
                posed.start,
                key=jax.random.key(0),
                starts=starts,
                throw=False,
                **limits,
            )
            return {
                "offer": found.profile.offer[0],
                "choice": found.choices[0],
                "claimed": found.status == BilevelStatus.best_found,
            }

        run = jax.jit(one)

        def answer(game: Game) -> Answer:
            found = run({name: jnp.asarray(values) for name, values in game.items()})
            return {name: np.asarray(values) for name, values in found.items()}

        return answer

    return make


@functools.cache
def _literature(number: int) -> JittedFunctions:
    return JittedFunctions(PROBLEMS[number])


def functions_of(game: Game) -> BilevelFunctions:
    """The problem in NumPy; functions of the literature are jitted once per process."""
    number = problem_number(game)
    return QuadraticFunctions(game) if number is None else _literature(number)


def answer_shapes(game: Game) -> dict[str, tuple[int, ...]]:
    """The leader's offer, and the follower's choice."""
    number = problem_number(game)
    if number is None:
        return {"offer": game["lower"].shape, "choice": game["linear"].shape}
    problem = PROBLEMS[number]
    return {"offer": (len(problem.lower),), "choice": (problem.size,)}


def check(game: Game, answer: Answer) -> Verdict:
    """The follower's gap by multipliers, all constraints, and the leader's loss.

    The loss is against the best value known for a problem of the literature; for a random one
    against the best of a search over offers with exact answers, both found in NumPy.
    """
    x, y = (np.asarray(answer[name], float) for name in ("offer", "choice"))
    shapes = answer_shapes(game)
    if (x.shape, y.shape) != (shapes["offer"], shapes["choice"]) or not (
        np.all(np.isfinite(x)) and np.all(np.isfinite(y))
    ):
        return Verdict(False, np.inf, "not finite numbers of the right shape")
    functions = functions_of(game)
    lower, upper = np.array(functions.bounds).T
    inside = np.clip(x, lower, upper)
    values = functions.g(x, y)
    violation = float(
        np.max(np.concatenate([values, functions.G(x, y), lower - x, x - upper, np.zeros(1)]))
    )
    bound = gain_bound(
        -functions.f_slope(x, y),
        functions.g_rows(x, y),
        values,
        np.zeros((0, y.size)),
        np.zeros(0),
        within(1 + float(np.linalg.norm(y))),
    )
    loss = _loss(game, functions, inside, y)
    gap = float(np.max([violation, bound.gain, loss]))
    if not np.isfinite(gap):
        return Verdict(False, np.inf, "a value there is not finite")
    if violation > TOLERANCE:
        return Verdict(False, gap, "violates a constraint")
    if bound.gain > TOLERANCE:
        return Verdict(False, gap, "the follower could gain")
    if loss > TOLERANCE:
        return Verdict(False, gap, "the leader could gain")
    return Verdict(True, gap, "certified")


def _loss(game: Game, functions: BilevelFunctions, x: np.ndarray, y: np.ndarray) -> float:
    """How much better the leader could do, over 1 + |F|; 0 where it does better than known."""
    here, number = float(functions.F(x, y)), problem_number(game)
    if not np.isfinite(here):
        return np.inf
    if number is not None:
        problem = PROBLEMS[number]
        known = problem.best_known
        return max(0.0, here - known - problem.precision) / (1 + abs(known))
    follower = ExactFollower(game)
    aim_offer, aim_choice, weight = game["aim_offer"], game["aim_choice"], game["weight"]

    def payoff(provider, offers):
        del provider
        apart = weight * np.sum((offers - aim_offer) ** 2, axis=1)
        return -(apart + np.sum((follower(offers) - aim_choice) ** 2, axis=1)) / 2

    lower, upper = np.array(functions.bounds).T
    gain = examine(payoff, x[None], lower[None], upper[None]).gain
    # The value at the answer itself: a choice beside the exact one is judged by what it brings.
    exact = -float(payoff(0, x[None])[0])
    return float(np.max([gain, gain + here - exact, 0.0])) / (1 + abs(exact))


_SLSQP_NESTED = functools.partial(nested_end, method="SLSQP")
_NELDER_MEAD = functools.partial(nested_end, method="Nelder-Mead")

SUITE = Suite(
    name="bilevel",
    title=(
        "One leader's best offer to a follower under constraints: random convex quadratic "
        f"followers ({_LEADER} offers, {_FOLLOWER} choices, {_ROWS} constraints), and "
        f"{len(PROBLEMS)} problems of the literature, in turn."
    ),
    gap=(
        "the largest of the follower's gain (a bound by multipliers, over choices no farther off "
        "than 1 + |choice|), of violations, and of the leader's loss over 1 + |F|: against the "
        "best value known, to the digits published, or against a search in NumPy over offers with "
        f"exact answers (local knowledge); certified up to {TOLERANCE:g}"
    ),
    draw=draw,
    answer=answer_shapes,
    check=check,
    solvers=(
        Solver(f"diffgame solve_bilevel ({STARTS} starts)", _solve_bilevel(STARTS), compiles=True),
        Solver("diffgame solve_bilevel (1 start)", _solve_bilevel(1), compiles=True),
        through_solve("diffgame solve Automatic", pose_bilevel, Automatic),
        Solver(
            f"scipy SLSQP relaxed conditions ({STARTS} starts)",
            from_starts(functions_of, relaxed_end, STARTS),
            "scipy",
            compiles=True,
        ),
        Solver(
            f"scipy SLSQP nested ({NESTED_STARTS} starts)",
            from_starts(functions_of, _SLSQP_NESTED, NESTED_STARTS),
            "scipy",
            compiles=True,
        ),
        Solver(
            "scipy Nelder-Mead nested (1 start)",
            from_starts(functions_of, _NELDER_MEAD, 1),
            "scipy",
            compiles=True,
        ),
    ),
    pose=pose_bilevel,
)
