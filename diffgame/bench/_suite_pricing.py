"""The suite `pricing`: Bertrand and Cournot competition, with logit and linear demand."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import optax

from .._newton import Automatic, LevenbergMarquardt, Newton
from .._policy import Constant
from .._response import Concave, Logit
from .._solver import Extragradient, GradientPlay
from ..games import Cournot, LinearBertrand, LogitBertrand, MultiProductBertrand
from ._peers import box_peers
from ._price_games import draw_prices, family_of, state_prices
from ._statement import TOLERANCE, judge, offer_shape
from ._suite import Answer, Game, Suite, Verdict
from ._through_solve import Posed, through_solve
from ._unilateral import SCOPE

BATCH = 32


def _read(found):
    return {"offer": found.profile.offer}


def pose_prices(arrays: Mapping[str, Any]) -> Posed:
    """The game as `diffgame.solve` takes it."""
    family, cost = family_of(arrays), arrays["cost"]
    response = Concave() if family in ("linear", "cournot") else Logit(1.0)
    if family == "logit":
        game = LogitBertrand(cost, arrays["quality"], arrays["sensitivity"], arrays["mass"])
    elif family == "products":
        firms, slots = cost.shape
        game = MultiProductBertrand(
            cost.ravel(),
            jnp.repeat(jnp.arange(firms), slots),
            arrays["tastes"].reshape(-1, firms * slots),
            arrays["sensitivity"],
            arrays["mass"],
            providers=firms,
            slots=slots,
        )
    elif family == "linear":
        game = LinearBertrand(cost, arrays["substitution"], arrays["wants"], arrays["mass"])
    else:
        game = Cournot(cost, arrays["willingness"], arrays["mass"], arrays["slope"])
    start = Constant(arrays["start"], arrays["lower"], arrays["upper"])
    return Posed(game, response, start, 1e-9, _read, {})


def check(game: Game, answer: Answer) -> Verdict:
    """The most that a firm gains alone, searched in NumPy, and its slopes."""
    return judge(state_prices(game), answer)


SUITE = Suite(
    name="pricing",
    title=(
        "Equilibria in prices or quantities: 4 firms under logit demand of 3 types, 3 firms with 2 "
        "products each under logit demand of 30 random tastes, 4 firms under linear demand of 3 "
        "types, and 5 firms in quantities, in turn."
    ),
    gap=(
        "the most that a firm was found to gain alone, or its steepest slope, in payoff; "
        f"certified up to {TOLERANCE:g}; {SCOPE}"
    ),
    draw=draw_prices,
    answer=offer_shape,
    check=check,
    solvers=(
        through_solve("diffgame Automatic", pose_prices, Automatic),
        through_solve(f"diffgame Automatic (batch {BATCH})", pose_prices, Automatic, BATCH),
        through_solve("diffgame LevenbergMarquardt", pose_prices, LevenbergMarquardt),
        through_solve("diffgame Newton", pose_prices, Newton),
        through_solve("diffgame Extragradient(0.1)", pose_prices, lambda: Extragradient(0.1)),
        through_solve(
            "diffgame GradientPlay(sgd(0.1))",
            pose_prices,
            lambda: GradientPlay(optax.sgd(0.1)),
        ),
        *box_peers(state_prices, pose_prices),
    ),
    pose=pose_prices,
)
