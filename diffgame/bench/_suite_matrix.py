"""The suite `matrix`: Nash equilibria of two players with general payoffs."""

from ..finite import lemke_howson, nash_limit
from ._matrix_games import GAP, check_pair, draw_pair, finite_solver, mixed_actions
from ._matrix_peers import nashpy_lemke_howson, quantecon_lemke_howson
from ._suite import Solver, Suite

_BATCH = 64

SUITE = Suite(
    name="matrix",
    title=(
        "A Nash equilibrium of two players with 3, 5 and 10 actions each, in turn; all payoffs "
        "independent and uniform on [-1, 1]."
    ),
    gap=GAP,
    draw=draw_pair,
    answer=mixed_actions,
    check=check_pair,
    solvers=(
        Solver("diffgame lemke_howson", finite_solver(lemke_howson), compiles=True, step="pivot"),
        Solver(
            f"diffgame lemke_howson (batch {_BATCH})",
            finite_solver(lemke_howson, batched=True),
            compiles=True,
            batch=_BATCH,
        ),
        Solver("diffgame nash_limit", finite_solver(nash_limit), compiles=True, step="path step"),
        Solver(
            f"diffgame nash_limit (batch {_BATCH})",
            finite_solver(nash_limit, batched=True),
            compiles=True,
            batch=_BATCH,
        ),
        Solver(
            "quantecon lemke_howson",
            quantecon_lemke_howson,
            package="quantecon",
            compiles=True,
            step="pivot",
        ),
        Solver("nashpy lemke_howson", nashpy_lemke_howson, package="nashpy"),
        Solver("pygambit lcp_solve", None, package="pygambit", script="_gambit.py"),
        Solver("pygambit logit_solve", None, package="pygambit", script="_gambit.py"),
    ),
)
