"""The anonymous equilibria in menus that are worst and best for users: searched for, certified.

All providers post one menu, which is enough (docs/menus.md). Users' welfare is moved along menus
that nobody leaves, as in `_welfare_descent.py`: the multipliers of the best deviation that holds
given users bound it from above, whatever users get elsewhere, so that a step is a linear program.
"""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Scalar

from .._interior_point import solve_by_interior_point
from .._linear_program import LinearProgram
from ._market import Market
from ._menu import capture_sets_of, stakes_of
from ._menu_meeting import menu_exploitability, recommend_branches
from ._menu_program import TypedUsers, direct_menu, menu_program, typed_users
from ._search import MarketStatus
from ._segment import unit_utility
from ._settle import in_batches
from ._value import full_information
from ._welfare_descent import PRICES
from ._worst_case import worst_case_losses


@dataclasses.dataclass(frozen=True)
class CommonMenu:
    """A menu that all providers post, and what was proved about it; NumPy, units the market's.

    - `status`: see `MarketStatus`. `user_values` [users]; `provider_payoffs` [providers].
    - `lower`, `upper` [providers]: bracket of each provider's gain from its best other menu, when
        everybody listens to the first provider (the lowest index at a tie).
    - `branches` [users, actions, states]: each user's signal, whose messages recommend actions;
        columns sum to 1, no user prefers another's branch.
    """

    status: MarketStatus
    user_values: Float[np.ndarray, " users"]
    provider_payoffs: Float[np.ndarray, " providers"]
    lower: Float[np.ndarray, " providers"]
    upper: Float[np.ndarray, " providers"]
    branches: Float[np.ndarray, "users actions states"]


@dataclasses.dataclass(frozen=True)
class MenuExtremes:
    """The worst and the best anonymous equilibrium in menus, for users, that were found.

    - `worst`, `best`: by utility counted by mass, with their statuses.
    - `loss`: what users lose in `worst` of full information, counted by mass; `bound`: at most in
        any equilibrium (`worst_case_losses`). The difference is what is not known.
    - `certified`, `searched`: how many end points stand.
    """

    worst: CommonMenu
    best: CommonMenu
    loss: float
    bound: float
    certified: int
    searched: int


class _Setting(eqx.Module):
    """The market in units of one; `payoff`: what recommendations are worth to providers."""

    typed: TypedUsers
    payoff: Float[Array, "providers users actions states"]
    weight: Float[Array, " users"]
    sets: Bool[Array, "sets users"]


def _tangent(typed: TypedUsers, payoff, value, captured) -> tuple[Scalar, Float[Array, " users"]]:
    """What holding exactly `captured` is worth at most: constant + slope @ (values elsewhere).

    Tight at `value`; by weak duality it is a bound whatever the values.
    """
    users, _, states = typed.utility.shape
    program = menu_program(typed, payoff, value, captured, jnp.zeros(users, bool), jnp.array(False))
    # From the middle of what is optimal a descent gets further than from a vertex of it.
    _, dual, _ = solve_by_interior_point(program)
    first = users * states + users * (users - 1)
    slope = -jnp.where(captured, 1.0, -1.0) * dual.rows[first : first + users]
    return -program.target @ dual.rows - slope @ value, slope


def _step_program(
    setting: _Setting, branches: Float[Array, "users actions states"], sign: Scalar, price: Scalar
) -> LinearProgram:
    """The common menu of most welfare (least, for a negative sign) with tangents at a price.

    The program of a menu that holds everybody whatever she gets, with one more row per provider
    and set: a bound of what the provider gains by holding that set. Slacks: surplus and excess.
    """
    typed, users = setting.typed, len(setting.weight)
    user = typed.values()
    welfare = sign * setting.weight[:, None, None] * user
    everyone, nobody = jnp.ones(users, bool), jnp.zeros(users, bool)
    menu = menu_program(typed, welfare, jnp.zeros(users), everyone, nobody, jnp.array(False))
    value = jnp.einsum("jas,jas->j", user, branches)

    def row(payoff, captured):
        constant, slope = _tangent(typed, payoff, value, captured)
        return constant, slope[:, None, None] * user - captured[:, None, None] * payoff

    each_set = jax.vmap(row, in_axes=(None, 0))
    constants, gains = jax.vmap(each_set, in_axes=(0, None))(setting.payoff, setting.sets)
    constants, gains = constants.ravel(), gains.reshape(-1, *user.shape)
    gains = jnp.where(typed.playable[None, ..., None], gains, 0)
    count, blocks = len(constants), len(menu.cost)
    gains = jnp.pad(gains.reshape(count, blocks, -1), ((0, 0), (0, 0), (0, users - 1)))
    slacks = jnp.pad(menu.slack_coupling, ((0, 0), (0, 2 * count)))
    own = jnp.concatenate([-jnp.eye(count), jnp.eye(count)], axis=1)
    own = jnp.pad(own, ((0, 0), (slacks.shape[1] - 2 * count, 0)))
    return LinearProgram(
        menu.cost,
        jnp.concatenate([menu.slack_cost, jnp.zeros(count), jnp.full(count, price)]),
        menu.within,
        jnp.concatenate([menu.coupling, -gains]),
        jnp.concatenate([slacks, own]),
        jnp.concatenate([menu.target, constants]),
    )


def _move(setting: _Setting, branches, sign: Scalar) -> Float[Array, "users actions states"]:
    """From a common menu towards an equilibrium of as much (little) welfare as can be had."""

    def step(branches, price):
        primal, _, _ = solve_by_interior_point(_step_program(setting, branches, sign, price))
        new = direct_menu(setting.typed, primal.x)
        # A program that was not solved is no step.
        return jnp.where(jnp.all(jnp.isfinite(new)), new, branches), None

    return jax.lax.scan(step, branches, jnp.array(PRICES))[0]


@eqx.filter_jit
def _find_ends(market: Market, experiments: Float[Array, "starts branches states messages"]):
    """Downwards from each start, upwards, then the first two: menus, meetings; and the bound."""
    users, providers = len(market.mass), len(market.objective)
    joint = jnp.broadcast_to(market.prior, (users, 1, len(market.prior)))
    utility, objective = market.utility[:, None], market.objective[:, :, None]
    typed = typed_users(joint, utility, "before")
    stakes = jax.vmap(lambda own: stakes_of(joint, own, market.mass))(objective)
    weight = market.mass * typed.size
    sets = capture_sets_of("find_menu_extremes", typed, "before")
    setting = _Setting(typed, stakes.unit, weight / jnp.sum(weight), sets)
    starts = jax.vmap(lambda menu: recommend_branches(joint, utility, menu))(experiments)
    signs = jnp.repeat(jnp.array([-1.0, 1.0]), len(starts))
    both = jnp.concatenate([starts, starts])
    moved = in_batches(lambda pair: _move(setting, *pair), (both, signs))

    def assess(branches):
        menus = jnp.broadcast_to(branches, (providers, *branches.shape))
        nobody = jnp.zeros(users, int)
        return menu_exploitability(joint, utility, objective, market.mass, menus, nobody)

    ends = jnp.concatenate([moved, starts[:2]])
    bound = worst_case_losses(market, weight=market.mass).total.loss
    return ends, in_batches(assess, ends), bound


def _experiments(market: Market, starts: int, seed: int) -> Float[Array, "starts users states m"]:
    """Babbling, full revelation, random menus; every second one with one branch for all."""
    users, actions, states = market.utility.shape
    messages = max(actions, states)
    drawn = jax.random.dirichlet(jax.random.key(seed), jnp.ones(messages), (starts, users, states))
    drawn = drawn.at[1::2].set(drawn[1::2, :1])
    plain = jnp.stack([jnp.eye(messages)[:1].repeat(states, 0), jnp.eye(states, messages)])
    return jnp.concatenate([jnp.broadcast_to(plain[:, None], (2, *drawn.shape[1:])), drawn])


def _small(gain: Float[np.ndarray, "*ends providers"], limit: Float[np.ndarray, " providers"]):
    return np.all(np.isfinite(gain) & (gain >= 0) & (gain <= limit), axis=-1)


def find_menu_extremes(
    market: Market,
    *,
    starts: int = 16,
    seed: int = 0,
    tolerance: float = 1e-6,
    progress: Callable[[str], None] = lambda text: None,
) -> MenuExtremes:
    """Search for the anonymous equilibria in menus that are worst and best for users, by mass.

    Providers see nothing of the users (`market.observation` is not used) but post several signals,
    of which each user picks one: to exact users, conversations of any length amount to that.
    Users' welfare descends and ascends along common menus that nobody leaves, from babbling, full
    revelation and `starts` random menus; exact best responses over all menus decide about the
    status of what comes out.

    **Arguments:** `tolerance`: gain from a deviation that counts as none, as a share of the range
    of the provider's payoffs; `progress`: called with a line of text before each stage.

    **Errors:** ValueError for more than four users, for which deviations are not exhausted, for
    one provider, or without float64.

    **Source:** docs/menus.md; the descent is a convex-concave procedure (Yuille, Rangarajan 2003).

    >>> import jax.numpy as jnp
    >>> from diffgame.market import Market
    >>> from diffgame.market import find_menu_extremes
    >>> own = jnp.array([[0.0, 0.0], [1.0, -3.0], [-3.0, 1.0]])
    >>> users = jnp.stack([own, own[jnp.array([0, 2, 1])]])
    >>> objective = jnp.stack([users[:1].repeat(2, 0), users[1:].repeat(2, 0)])
    >>> market = Market(jnp.array([0.5, 0.5]), users, objective, jnp.ones(2))
    >>> found = find_menu_extremes(market, starts=4)
    >>> print(abs(found.worst.user_values.round(6)), found.best.user_values.round(6))
    [0. 0.] [1. 1.]
    """
    if market.prior.dtype != jnp.float64:
        raise ValueError(
            f"find_menu_extremes: the market is in {market.prior.dtype}; certificates need "
            'float64: set jax.config.update("jax_enable_x64", True) before making it.'
        )
    if len(market.objective) < 2:
        raise ValueError(
            "find_menu_extremes: objective has 1 provider; a common menu needs two or more: for "
            "one, use monopoly_values."
        )
    progress(f"moving {2 * (starts + 2)} menus")
    found = _find_ends(market.anonymous(), _experiments(market, starts, seed))
    ends, meetings, bound = jax.device_get(found)
    # Everybody listens to the first provider.
    values, payoffs = meetings.values[:, 0], meetings.payoffs[:, :, 0].sum(axis=2)
    mass = np.asarray(market.mass)
    scale = np.asarray(unit_utility(market.objective)[1]) @ mass
    limit, gains = tolerance * scale, meetings.gains
    stands = _small(gains.upper, limit)
    # Rounded: among equals, and if none stands, the one that is left for least is picked.
    rank = np.where(stands, np.round(values @ mass, 9), 0)

    def pick(direction: int) -> CommonMenu:
        least = np.max(gains.upper / scale, axis=1)
        place = np.lexsort((least, direction * rank, ~stands))[0]
        lower, upper = gains.lower[place], gains.upper[place]
        status = MarketStatus.exploitable
        if _small(lower, limit):
            status = MarketStatus.certified if stands[place] else MarketStatus.local
        return CommonMenu(status, values[place], payoffs[place], lower, upper, ends[place])

    worst, best = pick(1), pick(-1)
    full = jax.vmap(full_information, in_axes=(None, 0))(market.prior, market.utility)
    loss = float(mass @ (np.asarray(full) - worst.user_values))
    return MenuExtremes(worst, best, loss, float(bound), int(stands.sum()), len(stands))
