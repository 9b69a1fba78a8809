"""Random personalized markets, their check, and diffgame's own solvers for them."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._equilibrium import Equilibrium
from .._linear_program import check_optimum
from .._policy import ProbabilityTable
from .._program_solver import solve_linear_program
from .._response import Logit
from ..market import Market, Outside, meet, outside_options
from ..market._anneal import TEMPERATURES, anneal, unit_market
from ..market._best_response import capture_program
from ..market._dynamics import recommend, settle_user
from ..market._equilibrium_values import equilibrium_segment, nearest_equilibrium
from ..market._frontier import find_frontiers
from ..market._segment import unit_utility
from ._suite import Answer, Budget, Game, Verdict
from ._through_solve import Posed

TOLERANCE = 1e-6
_SLACKS = np.array([0.0, 1e-6, 1e-4, 1e-2])
USERS, PROVIDERS, ACTIONS, STATES = 2, 3, 3, 3
GAP = (
    "the most that anybody gains: a provider by its best deviation, as a share of its range of "
    "payoffs from a user, proved by dual programs; a user by not following a recommendation, as a "
    f"share of her range; certified up to {TOLERANCE:g}"
)


def draw_market(seed: int, game: int) -> Game:
    """Objectives uniform; utilities are mixes of them, plus up to half of something else."""
    rng = np.random.default_rng([seed, game])
    shape = USERS, ACTIONS, STATES
    objective = rng.uniform(size=(PROVIDERS, *shape))
    mix = np.einsum("ji,ijas->jas", rng.dirichlet(np.ones(PROVIDERS), USERS), objective)
    other = rng.uniform(size=shape)
    share = 0.0 if game % 2 == 0 else rng.uniform(0, 0.5)
    return {
        "prior": rng.dirichlet(np.ones(STATES)),
        "utility": (1 - share) * mix + share * other,
        "objective": objective,
    }


def recommendations(game: Game) -> Mapping[str, tuple[int, ...]]:
    """What each provider recommends each user, and whom she listens to at a tie."""
    providers, users, actions, states = game["objective"].shape
    return {"signal": (providers, users, actions, states), "chosen": (users,)}


def _bound(segment, outside: Outside, payoff, slack):
    """No signal that holds the user is worth more: from the dual of a program that asks less.

    Multipliers of any program of this kind bound all of them. Asked for `slack` less than what she
    has elsewhere, the program has an interior also where she has nearly full information's value.
    """
    held, nothing = jnp.ones(1, bool), jnp.zeros(1)

    def program(value):
        there = eqx.tree_at(lambda outside: outside.value, outside, value)
        return capture_program(segment, payoff, there, held, nothing, jnp.array(False))

    primal, dual, _ = solve_linear_program(program(outside.value - slack))
    found = check_optimum(program(outside.value), primal, dual)
    # A signal's numbers add up to the number of states; her surplus is at most 1.
    return found.dual_violation * (len(segment.prior) + 1) - found.bound


def _examine_user(prior, utility, objective, signal, chosen):
    segment = equilibrium_segment(prior, utility, objective)
    meeting = meet(segment, signal, chosen[None])

    def gain(provider):
        outside = outside_options(segment, meeting, provider)
        payoff = segment.provider_values()[provider]
        bounds = jax.vmap(lambda slack: _bound(segment, outside, payoff, slack))(_SLACKS)
        bounds = jnp.where(jnp.isfinite(bounds), bounds, jnp.inf)
        best = jnp.maximum(jnp.min(bounds), outside.payoff[0])
        return jnp.maximum(best - meeting.payoffs[provider, 0], 0)

    gains = jax.vmap(gain)(jnp.arange(len(objective)))
    # Joint weights [providers, recommended, states] of her payoffs from doing something else.
    joint = signal * prior[None, None]
    instead = jnp.einsum("kas,bs->kab", joint, segment.utility[0])
    followed = jnp.einsum("kas,as->ka", joint, segment.utility[0])
    return jnp.max(gains), jnp.max(jnp.max(instead, axis=2) - followed)


@jax.jit
def _examine(prior, utility, objective, signal, chosen):
    each = jax.vmap(_examine_user, in_axes=(None, 0, 1, 1, 0))
    gains, disobedience = each(prior, utility, objective, signal, chosen)
    return jnp.max(gains), jnp.max(disobedience)


def check_market(game: Game, answer: Answer) -> Verdict:
    """Does anybody gain by doing something else?"""
    signal, chosen = answer["signal"], answer["chosen"]
    providers = len(game["objective"])
    if np.min(signal) < 0 or np.max(np.abs(signal.sum(axis=2) - 1)) > 1e-9:
        return Verdict(False, float("nan"), "no probabilities")
    if not np.all(np.isin(chosen, np.arange(providers))):
        return Verdict(False, float("nan"), "no such provider")
    arrays = (game[name] for name in ("prior", "utility", "objective"))
    gain, disobedience = map(float, _examine(*arrays, signal, chosen.astype(int)))
    if not (0 <= disobedience <= TOLERANCE):
        return Verdict(False, disobedience, "a user gains by not following")
    certified = 0 <= gain <= TOLERANCE
    status = "certified" if certified else "a provider gains by deviating"
    return Verdict(certified, max(gain, disobedience), status)


def _settle_user(prior, utility, objective):
    segment = equilibrium_segment(prior, utility, objective)
    frontiers = find_frontiers(segment)
    silent = recommend(segment, jnp.ones((STATES, 1)))
    signal, incumbent = settle_user(
        segment,
        jnp.broadcast_to(silent, (len(objective), *silent.shape)),
        frontiers,
        lambda reached: nearest_equilibrium(segment, frontiers, reached)[1],
    )
    return signal, incumbent[0]


def exact_search(batched: bool = False) -> Callable[[Budget], Callable[[Game], Answer]]:
    """Best-response dynamics from babbling along exact frontiers, ended exactly."""

    def one(game):
        signal, chosen = jax.vmap(_settle_user, in_axes=(None, 0, 1))(
            game["prior"], game["utility"], game["objective"]
        )
        return {"signal": jnp.moveaxis(signal, 1, 0), "chosen": chosen, "claimed": True}

    return _compiled(one, batched)


def gradient_search(batched: bool = False) -> Callable[[Budget], Callable[[Game], Answer]]:
    """Gradient play against noisy users whose noise is lowered, then their best replies."""

    def one(game):
        market = _market(game)
        found = anneal(unit_market(market), _start(market))
        return _read_tables(market, found.probability)

    return _compiled(one, batched)


def _compiled(one, batched: bool) -> Callable[[Budget], Callable[[Game], Answer]]:
    def make(budget: Budget) -> Callable[[Game], Answer]:
        # Their numbers of steps are part of the methods.
        del budget
        run = jax.jit(jax.vmap(one) if batched else one)

        def answer(game: Game) -> Answer:
            found = run({name: jnp.asarray(values) for name, values in game.items()})
            return {name: np.asarray(values) for name, values in found.items()}

        return answer

    return make


def _market(arrays: Mapping[str, Any]) -> Market:
    users = arrays["utility"].shape[0]
    return Market(arrays["prior"], arrays["utility"], arrays["objective"], jnp.ones(users))


def _start(market: Market) -> ProbabilityTable:
    """Signals half as informative as full revelation: babbling is stationary."""
    providers, users, _, states = market.objective.shape
    table = (jnp.eye(states, market.messages) + 1 / market.messages) / 2
    return ProbabilityTable(jnp.broadcast_to(table, (providers, users, *table.shape)))


def _read_tables(market: Market, tables) -> dict[str, Any]:
    """Tables [providers, users, states, messages] as recommendations."""
    utility, _ = unit_utility(market.utility)

    def recommended(own, table):
        worth = jnp.einsum("as,s,sm->ma", own, market.prior, table)
        played = jax.nn.one_hot(jnp.argmax(worth, axis=1), own.shape[0], dtype=table.dtype)
        return jnp.einsum("ma,sm->as", played, table)

    per_user = jax.vmap(recommended)
    signal = jax.vmap(per_user, in_axes=(None, 0))(utility, tables)
    return {"signal": signal, "chosen": jnp.zeros(len(market.mass), int)}


def pose_market(arrays: Mapping[str, Any]) -> Posed:
    """Against users with noise of half a percent of their range; the answer is without noise."""
    market = _market(arrays)

    def read(found: Equilibrium):
        assert isinstance(found.profile, ProbabilityTable)
        # Stationary against noisy users claims nothing of users without noise.
        return _read_tables(market, found.profile.probability) | {"claimed": False}

    response = Logit(TEMPERATURES[-1])
    return Posed(unit_market(market), response, _start(market), 1e-6, read, {})
