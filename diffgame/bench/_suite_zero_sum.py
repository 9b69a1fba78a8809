"""The suite `zero_sum`: optimal play of matrix games."""

from ..finite import zero_sum_equilibrium
from ._matrix_games import GAP, check_zero_sum, draw_zero_sum, finite_solver, mixed_actions
from ._matrix_peers import (
    highspy_program,
    nashpy_linear_program,
    quantecon_minmax,
    scipy_linprog,
)
from ._suite import Solver, Suite

_BATCH = 64


def _table(payoffs):
    return payoffs


SUITE = Suite(
    name="zero_sum",
    title=(
        "Optimal play of two players of whom one pays the other, with 3, 5 and 10 actions each, in "
        "turn; payoffs independent and uniform on [-1, 1]."
    ),
    gap=GAP,
    draw=draw_zero_sum,
    answer=mixed_actions,
    check=check_zero_sum,
    solvers=(
        Solver(
            "diffgame zero_sum_equilibrium",
            finite_solver(zero_sum_equilibrium, game=_table),
            compiles=True,
        ),
        Solver(
            f"diffgame zero_sum_equilibrium (batch {_BATCH})",
            finite_solver(zero_sum_equilibrium, batched=True, game=_table),
            compiles=True,
            batch=_BATCH,
        ),
        Solver("quantecon minmax", quantecon_minmax, package="quantecon", compiles=True),
        Solver("highspy", highspy_program, package="highspy"),
        Solver("scipy linprog", scipy_linprog, package="scipy"),
        Solver("nashpy linear_program", nashpy_linear_program, package="nashpy"),
        Solver("pygambit lp_solve", None, package="pygambit", script="_gambit.py"),
    ),
)
