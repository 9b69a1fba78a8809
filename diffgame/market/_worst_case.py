"""What users can lose, at most, in any equilibrium."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Scalar

from .._linear_program import Dual, LinearProgram, Primal, check_optimum
from .._program_solver import solve_linear_program
from ._best_response import SHORTFALL_PRICE
from ._market import Market
from ._segment import EQUAL, make_segment, unit_utility
from ._value import outcome

_TOLERANCE = 1e-9


class WorstCase(eqx.Module):
    """A bound on what users lose against full information in every (delta-)equilibrium.

    - `loss`: no equilibrium loses more; proved by multipliers alone, whatever the solver did.
    - `reached`: loss of the outcome found, which no provider leaves for full revelation if
        `shortfall` is 0; the bound cannot be sharper then. It need not be an equilibrium.
    - `shortfall`: by how much a provider's deviation to full revelation pays at that outcome
        beyond delta, as a share of the range of what one user is worth to it.
    - `certified`: whether `loss` equals `reached` to 1e-9 of the range of utilities, without
        shortfall: then `loss` is the exact optimum.
    """

    loss: Scalar
    reached: Scalar
    shortfall: Scalar
    certified: Bool[Array, ""]


class WorstCases(eqx.Module):
    """The worst case of the sum of all losses, and of each user's loss (leading axis users)."""

    total: WorstCase
    per_user: WorstCase


class _Setting(eqx.Module):
    """The market in units of one: what all objectives share.

    - `regret` [users, actions, states]: expected loss per conditional probability of an action,
        in units of utility. `gain`: likewise what each provider gets beyond full information.
    - `within`, `playable`: obedience of each user. `label` [users, segments]: who is in which.
    - `budget` [providers]: delta in units of `gain`.
    """

    regret: Float[Array, "users actions states"]
    gain: Float[Array, "providers users actions states"]
    within: Float[Array, "users actions inequalities states"]
    playable: Bool[Array, "users actions"]
    label: Float[Array, "users segments"]
    budget: Float[Array, " providers"]


def _setting(market: Market, delta: float | Scalar) -> _Setting:
    prior, utility = market.prior, market.utility
    users, _, states = utility.shape
    unit, _ = unit_utility(utility)

    def obey(own):
        empty = jnp.zeros((0, 1, *own.shape))
        segment = make_segment(prior, own[None], empty, jnp.ones(1))
        return segment.obedience(), segment.playable

    within, playable = jax.vmap(obey)(unit)
    best = jax.vmap(lambda own: outcome(jnp.ones(states), own, jnp.eye(states)))(utility)
    regret = jnp.max(utility, axis=1, keepdims=True) - utility
    full = jnp.einsum("jas,pjas->pjs", best, market.objective)
    gain = market.objective - full[:, :, None]
    spread = jnp.max(jnp.abs(market.objective), axis=(1, 2, 3), keepdims=True)
    gain = jnp.where(jnp.abs(gain) > EQUAL * spread, gain, 0) * market.mass[None, :, None, None]
    size = jnp.max(jnp.abs(gain), axis=(1, 2, 3))
    size = jnp.where(size > 0, size, 1)
    return _Setting(
        regret * prior[None, None, :],
        gain * prior[None, None, None, :] / size[:, None, None, None],
        within,
        playable,
        jax.nn.one_hot(market.observation, market.observations, dtype=prior.dtype),
        # No provider can miss more than one unit with each user.
        jnp.minimum(delta / size, users),
    )


def _program(setting: _Setting, cost: Float[Array, "users actions states"]) -> LinearProgram:
    """The program whose blocks are recommendations (user, action).

    Slack columns, in this order: what each provider misses in each segment and its surplus there,
    its unspent budget and its overdraft at a price. Often only full revelation is feasible; the
    overdraft gives the program an interior, and relaxes it, so that multipliers prove bounds for
    the program without it too.
    """
    users, actions, states = setting.regret.shape
    providers, segments = len(setting.budget), setting.label.shape[1]
    pairs = providers * segments
    playable = setting.playable * 1.0
    sums = jnp.einsum("uj,os,ja->uojas", jnp.eye(users), jnp.eye(states), playable)
    deviations = jnp.einsum("js,ja,pjay->psjay", setting.label, playable, setting.gain)
    spent = jnp.repeat(jnp.eye(providers), segments, axis=1)
    eye, own = jnp.eye(pairs), jnp.eye(providers)
    slack = jnp.concatenate(
        [
            jnp.zeros((users * states, 2 * pairs + 2 * providers)),
            jnp.concatenate([eye, -eye, jnp.zeros((pairs, 2 * providers))], axis=1),
            jnp.concatenate([spent, jnp.zeros((providers, pairs)), own, -own], axis=1),
        ]
    )
    blocks = users * actions
    rows = [
        sums.reshape(users * states, blocks, states),
        deviations.reshape(pairs, blocks, states),
        jnp.zeros((providers, blocks, states)),
    ]
    return LinearProgram(
        jnp.where(setting.playable[..., None], cost, 1.0).reshape(blocks, states),
        jnp.zeros(2 * pairs + 2 * providers).at[-providers:].set(SHORTFALL_PRICE),
        setting.within.reshape(blocks, actions - 1, states),
        jnp.concatenate(rows),
        slack,
        jnp.concatenate([jnp.ones(users * states), jnp.zeros(pairs), setting.budget]),
    )


def _feasible(setting: _Setting, program: LinearProgram, dual: Dual) -> Dual:
    """The best feasible multipliers that agree with the obedience and deviation rows of `dual`."""
    users, _, states = setting.regret.shape
    providers, segments = len(setting.budget), setting.label.shape[1]
    within = jnp.maximum(dual.within, 0)
    first, last = users * states, users * states + providers * segments
    pairs = jnp.clip(dual.rows[first:last], 0, SHORTFALL_PRICE)
    budget = -jnp.max(pairs.reshape(providers, segments), axis=1)
    reduced = (
        program.cost
        - jnp.einsum("bis,bi->bs", program.within, within)
        - jnp.einsum("rbs,r->bs", program.coupling[first:last], pairs)
    ).reshape(setting.regret.shape)
    reduced = jnp.where(setting.playable[..., None], reduced, jnp.inf)
    return Dual(within, jnp.concatenate([jnp.min(reduced, axis=1).ravel(), pairs, budget]))


def _solve(setting: _Setting, weight: Float[Array, " users"]) -> WorstCase:
    providers = len(setting.budget)
    regret = setting.regret * weight[:, None, None]
    size = jnp.max(regret)
    size = jnp.where(size > 0, size, 1)
    program = _program(setting, -regret / size)
    primal, dual, _ = solve_linear_program(program)
    primal = Primal(jnp.maximum(primal.x, 0), jnp.maximum(primal.z, 0))
    optimum = check_optimum(program, primal, _feasible(setting, program, dual), _TOLERANCE)
    shortfall = jnp.max(primal.z[-providers:])
    reached = -jnp.sum(program.cost * primal.x) * size
    certified = optimum.certified & (shortfall <= _TOLERANCE)
    # Nobody loses less than nothing, whatever rounding says.
    loss = jnp.where(optimum.bound >= 0, 0.0, -optimum.bound * size)
    return WorstCase(loss, reached, shortfall, certified)


def worst_case_losses(
    market: Market,
    delta: float | Scalar = 0.0,
    weight: Float[Array, " users"] | None = None,
) -> WorstCases:
    """Bound the users' losses over ALL delta-equilibria, by linear programming.

    Maximises `sum_j (full information - value)`, and each user's term, over obedient outcomes that
    no provider leaves for full revelation: with S running over the segments that providers can tell
    apart, provider i misses at most s_iS >= 0 in S, and sum_S s_iS <= `delta`. One code path for
    anonymous, segmented and personalized markets: `market.observation` says which. A loss of 0
    proves that every equilibrium gives full information; a positive one proves no bad equilibrium.
    Losses are in units of utility, in the total counted by `weight` [users], one each by default
    (`market.mass` counts by mass); `delta` is in units of the providers' payoffs. Actions that a
    user plays at no posterior (ties to the lowest index) are left out.

    **Source:** docs/certificates.md (worst-equilibrium certificate).

    >>> import jax, jax.numpy as jnp
    >>> from diffgame.market import Market, worst_case_losses
    >>> u = jnp.stack([jnp.eye(2), 1 - jnp.eye(2)])  # users who want opposite actions
    >>> market = Market(jnp.array([0.5, 0.5]), u, jnp.stack([jnp.stack([u[0]] * 2)]), jnp.ones(2))
    >>> print(jax.jit(worst_case_losses)(market).per_user.loss.round(6))
    [0.  0.5]
    """
    setting = _setting(market, delta)
    users = len(market.mass)
    total = jnp.ones(users) if weight is None else weight
    weights = jnp.concatenate([total[None], jnp.eye(users)])
    found = jax.vmap(lambda weight: _solve(setting, weight))(weights)
    total, per_user = (
        jax.tree.map(lambda leaf, at=at: leaf[at], found) for at in (0, slice(1, None))
    )
    return WorstCases(total, per_user)
