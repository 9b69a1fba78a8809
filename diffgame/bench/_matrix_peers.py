"""Peers for games of two players: each a `make` of a `Solver`."""

import importlib
from collections.abc import Callable

import numpy as np

from ._suite import Answer, Budget, Game

Make = Callable[[Budget], Callable[[Game], Answer]]


def _answer(first: np.ndarray, second: np.ndarray, claimed: bool = True) -> Answer:
    return {"first": first, "second": second, "claimed": np.array(claimed)}


def _probabilities(mixed: np.ndarray) -> np.ndarray:
    # Programs end with entries such as -1e-17: no error of the method's.
    mixed = np.maximum(mixed, 0)
    return mixed / np.sum(mixed)


def quantecon_lemke_howson(budget: Budget) -> Callable[[Game], Answer]:
    """Its public call, at most `budget.steps` pivots."""
    games = importlib.import_module("quantecon.game_theory")
    pivots = 10**6 if budget.steps is None else budget.steps

    def solve(game: Game) -> Answer:
        first, second = game["payoffs"]
        made = games.NormalFormGame(
            [games.Player(first.copy()), games.Player(np.ascontiguousarray(second.T))]
        )
        mixed, found = games.lemke_howson(made, max_iter=pivots, full_output=True)
        return _answer(mixed[0], mixed[1], found.converged) | {"steps": np.array(found.num_iter)}

    return solve


def quantecon_minmax(budget: Budget) -> Callable[[Game], Answer]:
    """Its simplex method for games of constant sum."""
    del budget
    minmax = importlib.import_module("quantecon.optimize").minmax

    def solve(game: Game) -> Answer:
        _, first, second = minmax(np.ascontiguousarray(game["payoffs"]))
        return _answer(first, second)

    return solve


def nashpy_lemke_howson(budget: Budget) -> Callable[[Game], Answer]:
    """From the first label; it may pivot for ever."""
    del budget
    nashpy = importlib.import_module("nashpy")

    def solve(game: Game) -> Answer:
        return _answer(*nashpy.Game(*game["payoffs"]).lemke_howson(initial_dropped_label=0))

    return solve


def nashpy_linear_program(budget: Budget) -> Callable[[Game], Answer]:
    """Its two linear programs for a game of zero sum."""
    del budget
    nashpy = importlib.import_module("nashpy")

    def solve(game: Game) -> Answer:
        first, second = nashpy.Game(game["payoffs"]).linear_program()
        return _answer(_probabilities(first), _probabilities(second))

    return solve


def scipy_linprog(budget: Budget) -> Callable[[Game], Answer]:
    """The columns' program by `scipy.optimize.linprog` (HiGHS); its multipliers are the rows'."""
    del budget
    linprog = importlib.import_module("scipy.optimize").linprog

    def solve(game: Game) -> Answer:
        payoffs = game["payoffs"]
        rows, columns = payoffs.shape
        found = linprog(
            np.append(np.zeros(columns), 1.0),
            A_ub=np.column_stack([payoffs, -np.ones(rows)]),
            b_ub=np.zeros(rows),
            A_eq=np.append(np.ones(columns), 0.0)[None],
            b_eq=[1.0],
            bounds=[(0, None)] * columns + [(None, None)],
        )
        if found.x is None:
            raise RuntimeError(found.message)
        return _answer(
            _probabilities(-found.ineqlin.marginals),
            _probabilities(found.x[:-1]),
            found.status == 0,
        )

    return solve


def highspy_program(budget: Budget) -> Callable[[Game], Answer]:
    """The columns' program by HiGHS itself, one model after another in one solver."""
    del budget
    highspy = importlib.import_module("highspy")
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    for side in ("primal", "dual"):
        highs.setOptionValue(f"{side}_feasibility_tolerance", 1e-10)
    unbounded = highspy.kHighsInf

    def solve(game: Game) -> Answer:
        payoffs = game["payoffs"]
        rows, columns = payoffs.shape
        matrix = np.zeros((rows + 1, columns + 1))
        matrix[:rows, :columns], matrix[:rows, columns] = payoffs, -1
        matrix[rows, :columns] = 1
        program = highspy.HighsLp()
        program.num_row_, program.num_col_ = matrix.shape
        program.col_cost_ = np.append(np.zeros(columns), 1.0)
        program.col_lower_ = np.append(np.zeros(columns), -unbounded)
        program.col_upper_ = np.full(columns + 1, unbounded)
        program.row_lower_ = np.append(np.full(rows, -unbounded), 1.0)
        program.row_upper_ = np.append(np.zeros(rows), 1.0)
        used = matrix != 0
        program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        program.a_matrix_.num_row_, program.a_matrix_.num_col_ = matrix.shape
        starts = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
        program.a_matrix_.start_ = starts.astype(np.int32)
        program.a_matrix_.index_ = np.nonzero(used)[1].astype(np.int32)
        program.a_matrix_.value_ = matrix[used]
        highs.passModel(program)
        highs.run()
        found = highs.getSolution()
        optimal = highs.getModelStatus() == highspy.HighsModelStatus.kOptimal
        return _answer(
            _probabilities(-np.array(found.row_dual[:rows])),
            _probabilities(np.array(found.col_value[:columns])),
            optimal,
        )

    return solve
