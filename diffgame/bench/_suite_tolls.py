"""The suite `tolls`: providers who toll roads, and a seller with network effects."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import optax

from .._joint_response import Wardrop
from .._newton import Automatic, LevenbergMarquardt, Newton
from .._policy import Constant
from .._response import Logit
from .._solver import BestResponse, GradientPlay
from ..games import Adoption, Congestion
from ._peers import box_peers
from ._statement import TOLERANCE, judge, offer_shape
from ._suite import Answer, Game, Suite, Verdict
from ._through_solve import Posed, through_solve
from ._toll_games import draw_tolls, family_of, state_tolls
from ._unilateral import SCOPE

BATCH = 32


def _read(found):
    return {"offer": found.profile.offer}


def pose_tolls(arrays: Mapping[str, Any]) -> Posed:
    """The game as `diffgame.solve` takes it."""
    family = family_of(arrays)
    if family == "adoption":
        game = Adoption(arrays["effect"], arrays["values"], arrays["mass"], arrays["cost"])
    else:
        power = arrays["power"] if family == "noisy" else jnp.ones_like(arrays["free"])
        game = Congestion(arrays["paths"], arrays["free"], arrays["rate"], power, arrays["tolled"])
    response = Wardrop() if family == "exact" else Logit(arrays["temperature"])
    start = Constant(arrays["start"], arrays["lower"], arrays["upper"])
    return Posed(game, response, start, 1e-9, _read, {})


def check(game: Game, answer: Answer) -> Verdict:
    """The most that a provider gains alone, searched in NumPy, and its slopes."""
    return judge(state_tolls(game), answer)


SUITE = Suite(
    name="tolls",
    title=(
        "Equilibria in tolls before travellers respond: 3 tolled roads and a free one with exact "
        "travellers, a network with a shortcut, parallel roads with noisy travellers, and the "
        "price of one seller with network effects, in turn."
    ),
    gap=(
        "the most that a provider was found to gain alone, or its steepest slope, in payoff; "
        f"certified up to {TOLERANCE:g}; {SCOPE}"
    ),
    draw=draw_tolls,
    answer=offer_shape,
    check=check,
    solvers=(
        through_solve("diffgame Automatic", pose_tolls, Automatic),
        through_solve(f"diffgame Automatic (batch {BATCH})", pose_tolls, Automatic, BATCH),
        through_solve("diffgame LevenbergMarquardt", pose_tolls, LevenbergMarquardt),
        through_solve("diffgame Newton", pose_tolls, Newton),
        through_solve("diffgame BestResponse", pose_tolls, BestResponse),
        through_solve(
            "diffgame GradientPlay(sgd(0.1))",
            pose_tolls,
            lambda: GradientPlay(optax.sgd(0.1)),
        ),
        *box_peers(state_tolls, pose_tolls),
    ),
    pose=pose_tolls,
)
