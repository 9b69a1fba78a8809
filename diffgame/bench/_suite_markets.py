"""The suite `markets`: equilibria of personalized markets for advice."""

import optax

from .._solver import GradientPlay
from ..market._anneal import along_rows
from ._market_games import (
    GAP,
    check_market,
    draw_market,
    exact_search,
    gradient_search,
    pose_market,
    recommendations,
)
from ._markets_highspy import highspy_best_responses
from ._suite import Solver, Suite
from ._through_solve import through_solve

_BATCH = 64


def _adam():
    return GradientPlay(optax.chain(along_rows(), optax.adam(0.02)))


SUITE = Suite(
    name="markets",
    title=(
        "An equilibrium of a market for advice: 3 providers commit to signals for each of 2 users "
        "that they tell apart, 3 states, 3 actions. Objectives uniform on [0, 1]; a user wants a "
        "mix of them, in every other market up to half something else."
    ),
    gap=GAP,
    draw=draw_market,
    answer=recommendations,
    check=check_market,
    solvers=(
        Solver("diffgame exact search", exact_search(), compiles=True),
        Solver(
            f"diffgame exact search (batch {_BATCH})",
            exact_search(batched=True),
            compiles=True,
            batch=_BATCH,
        ),
        Solver("diffgame gradient search", gradient_search(), compiles=True),
        through_solve("diffgame GradientPlay(adam(0.02))", pose_market, _adam),
        Solver("highspy best responses", highspy_best_responses, package="highspy", step="move"),
    ),
    pose=pose_market,
)
