"""The suite `generalized_nash`: decisions under constraints that everybody shares."""

from collections.abc import Mapping
from typing import Any

from .._nash_game import Passive
from .._newton import Automatic, LevenbergMarquardt, Newton
from .._policy import Constant
from .._solver import Extragradient
from ._nash_games import (
    Harker,
    LinearCosts,
    PullAndPush,
    QuadraticAgents,
    RationedDemand,
    River,
    ThreeAgents,
)
from ._peers_agents import nashopt_agents, scipy_best_responses, scipy_conditions
from ._quadratic_agents import (
    COMMON_PRICES,
    FEASIBLE,
    SCOPE,
    TOLERANCE,
    draw_agents,
    family_of,
    judge_agents,
)
from ._statement import offer_shape
from ._suite import Solver, Suite
from ._through_solve import Posed, through_solve

BATCH = 32
# Fields of each family's game, as its arrays are named.
_GAMES = {
    "three": (ThreeAgents, ("capacity",)),
    "suppliers": (LinearCosts, ("fall",)),
    "pull": (PullAndPush, ("target",)),
    "quadratic": (QuadraticAgents, ("curvature", "slope", "rows", "limits", "total")),
    "river": (River, ("limit",)),
    "common": (Harker, ("common",)),
    "rationed": (RationedDemand, ("base", "reaction", "cost", "served")),
}


def _read(found):
    return {"offer": found.profile.offer}


def pose_agents(arrays: Mapping[str, Any]) -> Posed:
    """The game as `diffgame.solve` takes it."""
    family = family_of(arrays)
    kind, names = _GAMES[family]
    game = kind(*(arrays[name] for name in names))
    start = Constant(arrays["start"], arrays["lower"], arrays["upper"])
    return Posed(game, Passive(), start, 1e-10, _read, {"normalized": family in COMMON_PRICES})


SUITE = Suite(
    name="generalized_nash",
    title=(
        "Generalized Nash equilibria, seven families in turn: three published by Bemporad (2025) "
        "and one by Salehisadaghiani, Shi, Pavel (2017) with their numbers drawn, the river basin "
        "of Haurie, Krawczyk (1997), the game of Harker (1991), and firms whose demand is rationed."
    ),
    gap=(
        "the most that an agent can gain alone, in payoff (with common prices: all together), or "
        f"the largest slope of a Lagrangian, relative; certified up to {TOLERANCE:g} with "
        f"constraints kept to {FEASIBLE:g}; {SCOPE}"
    ),
    draw=draw_agents,
    answer=offer_shape,
    check=judge_agents,
    solvers=(
        through_solve("diffgame Automatic", pose_agents, Automatic),
        through_solve(f"diffgame Automatic (batch {BATCH})", pose_agents, Automatic, BATCH),
        through_solve("diffgame LevenbergMarquardt", pose_agents, LevenbergMarquardt),
        through_solve("diffgame Newton", pose_agents, Newton),
        through_solve("diffgame Extragradient(0.05)", pose_agents, lambda: Extragradient(0.05)),
        Solver("nashopt", nashopt_agents, "nashopt"),
        Solver("scipy SLSQP best responses", scipy_best_responses, "scipy", step="round"),
        Solver("scipy root lm on KKT", scipy_conditions, "scipy"),
    ),
    pose=pose_agents,
)
