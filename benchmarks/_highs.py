"""The peer: persuasion programs and equilibrium search with HiGHS, one program after another."""

import functools
import time
from typing import Any

import highspy
import numpy as np

from diffgame.bench._markets_highspy import (
    User as _User,
    find_nearest,
    linear_program as _linear_program,
    make_solver,
    run_dynamics,
    signal_matrix,
)

FREE = highspy.kHighsInf
OPTIMAL = highspy.HighsModelStatus.kOptimal


solver = functools.partial(make_solver, highspy)
linear_program = functools.partial(_linear_program, highspy)


def persuasion_program(prior, utility, objective) -> highspy.HighsLp:
    """The signal [actions, states] of a lone provider that maximises its expected objective."""
    matrix = signal_matrix(prior, utility)
    states = len(prior)
    obedience = len(matrix) - states
    lower = np.concatenate([np.zeros(obedience), np.ones(states)])
    upper = np.concatenate([np.full(obedience, FREE), np.ones(states)])
    return linear_program((-objective * prior).ravel(), matrix, lower, upper)


def solve_each(programs: list[highspy.HighsLp]) -> list[tuple[bool, Any, Any]]:
    """Whether each is optimal, with its primal point and multipliers of the rows."""
    return _solve_each(solver(), programs)


def _solve_each(highs: highspy.Highs, programs) -> list[tuple[bool, Any, Any]]:
    answers = []
    for program in programs:
        highs.passModel(program)
        highs.run()
        solution = highs.getSolution()
        optimal = highs.getModelStatus() == OPTIMAL
        answers.append((optimal, solution.col_value, solution.row_dual))
    return answers


def solve_share(data) -> tuple[float, list[tuple[bool, Any, Any]]]:
    """In a process of its own: seconds without building models, and what `solve_each` returns."""
    programs = [persuasion_program(*item) for item in zip(*data, strict=True)]
    begin = time.perf_counter()
    answers = solve_each(programs)
    seconds = time.perf_counter() - begin
    return seconds, [(one, np.array(x), np.array(rows)) for one, x, rows in answers]


def solve_by_interior_point(programs: list[highspy.HighsLp]) -> list[tuple[bool, Any, Any]]:
    """The same by HiGHS's interior point, without crossover, which only adds to its time."""
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    for option, value in (("solver", "ipm"), ("presolve", "off"), ("run_crossover", "off")):
        highs.setOptionValue(option, value)
    return _solve_each(highs, programs)


class User(_User):
    """One user of a personalized market, and what the programs of her model prove."""

    def __init__(self, highs: highspy.Highs, prior, utility, objective):
        super().__init__(highspy, highs, prior, utility, objective)

    def bound(self) -> float:
        """What the multipliers of the last program prove of its maximum, by weak duality."""
        rows = np.array(self.highs.getSolution().row_dual)
        rows = np.where(np.isfinite(self.lower) | (rows < 0), rows, 0)
        rows = np.where(np.isfinite(self.upper) | (rows > 0), rows, 0)
        reduced = self.cost - rows @ self.matrix
        sides = np.where(rows > 0, self.lower, self.upper)
        sides = np.where(rows == 0, 0, sides)
        # Probabilities and the value are at most 1, whatever the rest says.
        reach = np.append(np.ones(len(reduced) - 1), min(self.high, 1.0))
        floor = np.append(np.zeros(len(reduced) - 1), self.low)
        return -float(sides @ rows + np.sum(np.where(reduced < 0, reach, floor) * reduced))


def settle(user: User) -> tuple[float, float]:
    """Her value where dynamics from babbling end, and what a provider can gain there, proved."""
    reached, _ = run_dynamics(user)
    signal = find_nearest(user, reached)
    value = float(user.utility @ signal)
    gains = []
    for gain in user.objective:
        if user.maximise(gain, low=min(value, user.best)) is None:
            return value, np.inf
        gains.append(user.bound() - float(gain @ signal))
    return value, max(gains)
