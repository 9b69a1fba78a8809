"""What a suite of games is, and what a solver of it is: the words that the whole bench speaks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# One game and one answer: plain arrays by name, which travel between processes as they are. A
# game's sizes are read off the shapes of its arrays, never off their values.
Game = dict[str, np.ndarray]
Answer = dict[str, np.ndarray]


@dataclass(frozen=True)
class Budget:
    """What a solver may spend on one game.

    - `steps`: None leaves the number to the solver; a solver that has no steps ignores it.
    - `seconds`: of wall clock; beyond them its process is killed.
    """

    steps: int | None
    seconds: float


@dataclass(frozen=True)
class Verdict:
    """What the independent check says of one answer.

    - `certified`: is it what the suite asks for?
    - `gap`: how far from it, nonnegative, 0 at an exact answer, in the suite's unit.
    - `status`: "certified", or in a few words what failed.
    """

    certified: bool
    gap: float
    status: str


@dataclass(frozen=True)
class Solver:
    """One way to solve the games of a suite. It runs in a process of its own.

    - `name`: as tables show it, for example "quantecon lemke_howson".
    - `make`: called once in that process, and the only place that may import a peer
        (`importlib.import_module`). Returns the function from a game to an answer, which is all
        that is timed: from plain arrays to plain arrays, so conversions count on every side.
        Whatever either of them raises becomes the row's status, in one line: raise RuntimeError
        with the reason where a solver itself says that it has no answer.
    - `package`: the distribution that it needs beyond diffgame's own, as imported ("scipy"); None
        for diffgame itself. Where it is not installed, the rows say so.
    - `compiles`: its first call for games of one shape takes longer (JAX, numba): that call is
        made beforehand and reported apart.
    - `batch`: how many games one call takes. With more than 1 the function gets arrays with a
        leading axis of that length and returns such; time per game is the call's over its games.
    - `step`: what one of its steps is, if it counts them in the answer's `steps`; "" otherwise.
        Solvers with the same word are compared by steps as well.
    - `script`: a file that an interpreter without diffgame runs (`_gambit.py`); `make` is None.

    Besides what the suite wants, an answer may hold `steps` (a number) and `claimed` (a truth
    value: whether the solver takes it for a solution; it is compared with the verdict, never
    believed).
    """

    name: str
    make: Callable[[Budget], Callable[[Game], Answer]] | None
    package: str | None = None
    compiles: bool = False
    batch: int = 1
    step: str = ""
    script: str | None = None


@dataclass(frozen=True)
class Suite:
    """A family of games, what counts as solving one, and who tries.

    - `name`, `title`: one word, and one sentence for the page: what the games are, what is asked.
    - `gap`: what `Verdict.gap` measures, and up to what it is certified; one phrase for the page.
    - `draw`: the game number `game` (from 0) of a seed, the same on every machine: draw from
        `numpy.random.default_rng([seed, game])`.
    - `answer`: the shape of every array that an answer to this game must hold. Wrong names or
        shapes, complex numbers and numbers that are not finite are caught before the check.
    - `check`: judges an answer from the game's arrays alone, sharing nothing with the solvers; it
        runs in the process that prints the table, with float64 on, and never raises for an answer
        of the right shape.
    - `solvers`: diffgame's own and peers. `names` must be different.
    - `pose`: the same game for `diffgame.solve`, if it is one of offers: with it a user's own
        solver can enter, and `through_solve` makes solvers out of diffgame's. It must be
        traceable: `jax.jit` and `jax.vmap` go around it.
    """

    name: str
    title: str
    gap: str
    draw: Callable[[int, int], Game]
    answer: Callable[[Game], Mapping[str, tuple[int, ...]]]
    check: Callable[[Game, Answer], Verdict]
    solvers: tuple[Solver, ...]
    pose: Callable[[Mapping[str, Any]], Any] | None = None
