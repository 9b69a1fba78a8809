"""One leader's problem with the followers' optimality system in place of their choices."""

import equinox as eqx
import jax
import jax.flatten_util as flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, Scalar

from ._constraints import Constraints
from ._crowd_search import make_offers
from ._game import AbstractGame
from ._policy import Constant

# Penalties and relaxations in scaled units; see `climb`.
_FIRST_PENALTY, _LARGEST_PENALTY = 10.0, 1e9
_LARGEST_DAMPING = 1e12
_ROUND = 40
_FEASIBLE, _STATIONARY = 1e-10, 1e-8
# Pairs of a dual and its slack count as both zero below the first number, or below the second if
# their product has not become zero: where both vanish at a solution, it falls slowly.
_BOTH_ZERO, _NEARLY_ZERO, _PRODUCT = 1e-6, 1e-2, 1e-11


class Unknowns(eqx.Module):
    """What the leader's problem decides upon: the offer, and the users' optimality system.

    Multipliers, slacks and constraints of users count in the units of `Units`.
    """

    offer: Float[Array, " n"]
    choices: Float[Array, "users coordinates"]
    inequality_duals: Float[Array, "users inequalities"]
    slacks: Float[Array, "users inequalities"]
    equality_duals: Float[Array, "users equalities"]


class Units(eqx.Module):
    """What numbers are divided by, so that slopes are near 1 where the search begins."""

    payoff: Scalar
    limits: Constraints
    utility: Float[Array, " users"]
    inequalities: Float[Array, "users inequalities"]


def with_offer(profile: Constant, offer: Float[Array, " n"]) -> Constant:
    """The profile of the one leader with another offer."""
    return eqx.tree_at(lambda it: it.offer, profile, offer.reshape(profile.offer.shape))


def leader_values(
    game: AbstractGame, profile: Constant, choices: Float[Array, "users coordinates"]
) -> tuple[Scalar, Constraints]:
    """The leader's payoff at any choices of the users, and all constraints that bind it."""

    def one(user, choice):
        return game.provider_payoffs(choice, make_offers(game, profile, user), user)

    contributions = jax.vmap(one)(game.users, choices)
    totals = jax.tree.map(lambda leaf: jnp.tensordot(game.mass, leaf, axes=1), contributions)
    own = game.provider_constraints(profile, totals, jnp.array(0))
    shared = game.shared_constraints(profile, totals)
    return game.settle(totals)[0], Constraints(
        jnp.concatenate([own.inequalities, shared.inequalities]),
        jnp.concatenate([own.equalities, shared.equalities]),
    )


def _largest_slope(function, *points: Array) -> Array:
    """The largest derivative of every entry of a vector, at least 1."""
    rows = jax.jacfwd(function, argnums=tuple(range(len(points))))(*points)
    flat = [jnp.abs(row.reshape(row.shape[0], -1)) for row in rows]
    return jnp.maximum(1, jnp.max(jnp.concatenate(flat, axis=1), axis=1, initial=1))


def make_units(
    game: AbstractGame,
    profile: Constant,
    offer: Float[Array, " n"],
    choices: Float[Array, "users coordinates"],
) -> Units:
    """The slopes at one point."""

    def upper(offer, choices):
        payoff, limits = leader_values(game, with_offer(profile, offer), choices)
        return jnp.concatenate([payoff[None], limits.inequalities, limits.equalities])

    _, limits = leader_values(game, with_offer(profile, offer), choices)
    slopes = _largest_slope(upper, offer, choices)
    split = 1 + limits.inequalities.size

    def lower(user, choice):
        def utility(choice):
            return game.user_utility(choice, make_offers(game, here, user), user)[None]

        def inequalities(choice):
            offers = make_offers(game, here, user)
            return game.user_constraints(choice, offers, user).inequalities

        return _largest_slope(utility, choice)[0], _largest_slope(inequalities, choice)

    here = with_offer(profile, offer)
    utility, inequalities = jax.vmap(lower)(game.users, choices)
    limits = Constraints(slopes[1:split], slopes[split:])
    return Units(slopes[0], limits, utility, inequalities)


def evaluate(
    point: Unknowns, data: tuple[AbstractGame, Constant, Units]
) -> tuple[Scalar, Array, Array]:
    """Minus the payoff, what must be 0, and what must be at most 0; all scaled."""
    game, profile, units = data
    profile = with_offer(profile, point.offer)
    payoff, limits = leader_values(game, profile, point.choices)

    def one(user, choice, duals, slacks, equality_duals, utility_unit, inequality_unit):
        offers = make_offers(game, profile, user)

        def lagrangian(choice):
            found = game.user_constraints(choice, offers, user)
            inequalities = found.inequalities / inequality_unit
            priced = jnp.sum(duals * inequalities) + jnp.sum(equality_duals * found.equalities)
            value = priced - game.user_utility(choice, offers, user) / utility_unit
            return value, (inequalities, found.equalities)

        slope, (inequalities, equalities) = jax.grad(lagrangian, has_aux=True)(choice)
        return jnp.concatenate([slope, inequalities + slacks, equalities])

    systems = jax.vmap(one)(
        game.users,
        point.choices,
        point.inequality_duals,
        point.slacks,
        point.equality_duals,
        units.utility,
        units.inequalities,
    )
    zeros = jnp.concatenate([systems.ravel(), limits.equalities / units.limits.equalities])
    return -payoff / units.payoff, zeros, limits.inequalities / units.limits.inequalities


def _bounds(point: Unknowns, profile: Constant) -> tuple[Array, Array]:
    free = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.inf), point)
    nothing = jnp.zeros_like(point.slacks)
    lower = jax.tree.map(jnp.negative, free)
    lower = eqx.tree_at(
        lambda it: (it.offer, it.inequality_duals, it.slacks),
        lower,
        (jnp.broadcast_to(profile.lower, profile.offer.shape).ravel(), nothing, nothing),
    )
    top = jnp.broadcast_to(profile.upper, profile.offer.shape).ravel()
    upper = eqx.tree_at(lambda it: it.offer, free, top)
    return flatten_util.ravel_pytree(lower)[0], flatten_util.ravel_pytree(upper)[0]


class Solution(eqx.Module):
    """A point with the prices of its equations and of the leader's constraints."""

    point: Unknowns
    zero_prices: Float[Array, " zeros"]
    limit_prices: Float[Array, " limits"]


class _Search(eqx.Module):
    point: Float[Array, " w"]
    zero_prices: Float[Array, " zeros"]
    limit_prices: Float[Array, " limits"]
    penalty: Scalar
    relaxation: Scalar
    damping: Scalar
    wanted: Scalar
    apart: Scalar
    stationary: Scalar
    inner: Int[Array, ""]
    step: Int[Array, ""]


def climb(
    start: Unknowns, data: tuple[AbstractGame, Constant, Units], max_steps: Int[Array, ""]
) -> Solution:
    """A stationary point of the leader's problem near `start`, if the search got there.

    Complementarity is relaxed to duals * slacks <= t, with t tenfold smaller from round to round
    until it is 0. Every round minimises an augmented Lagrangian over the bounds that offers, duals
    and slacks have, by damped Newton steps in the variables that are free to move. A local search.

    **Source:** Scholtes (2001), Convergence properties of a regularization scheme for mathematical
    programs with complementarity constraints; Birgin, Martinez (2014), Practical Augmented
    Lagrangian Methods, algorithm 4.1; Bertsekas (1982), Projected Newton methods.
    """
    flat, unravel = flatten_util.ravel_pytree(start)
    lower, upper = _bounds(start, data[1])
    _, zeros, limits = jax.eval_shape(lambda it: evaluate(it, data), start)
    pairs = start.slacks.size

    def measure(point, relaxation):
        unknowns = unravel(point)
        value, zeros, limits = evaluate(unknowns, data)
        products = (unknowns.inequality_duals * unknowns.slacks).ravel()
        return value, zeros, jnp.concatenate([limits, products - relaxation])

    def augmented(point, search):
        value, zeros, limits = measure(point, search.relaxation)
        penalty = search.penalty
        pushed = jnp.maximum(search.limit_prices + penalty * limits, 0)
        equal = jnp.sum(search.zero_prices * zeros) + penalty * jnp.sum(zeros**2) / 2
        return value + equal + jnp.sum(pushed**2) / (2 * penalty), (zeros, limits, pushed)

    slope = jax.value_and_grad(augmented, has_aux=True)

    def curved(point, search):
        def gradient(point):
            (value, parts), slopes = slope(point, search)
            return slopes, (value, parts, slopes)

        hessian, (value, parts, slopes) = jax.jacfwd(gradient, has_aux=True)(point)
        return value, parts, slopes, hessian

    def goes_on(search):
        done = (search.apart <= _FEASIBLE) & (search.stationary <= _STATIONARY)
        done &= search.relaxation <= 0
        return ~done & (search.step < max_steps)

    def improve(search):
        point = search.point
        value, (zeros, limits, pushed), slopes, hessian = curved(point, search)
        stationary = jnp.max(jnp.abs(point - jnp.clip(point - slopes, lower, upper)))

        held = ((point <= lower) & (slopes > 0)) | ((point >= upper) & (slopes < 0))
        free = ~held
        matrix = jnp.where(free[:, None] & free[None, :], hessian, 0)
        matrix += jnp.diag(jnp.where(held, 1, search.damping))
        factor = jax.scipy.linalg.cho_factor(matrix, lower=True)
        shift = -jax.scipy.linalg.cho_solve(factor, jnp.where(held, 0, slopes))
        trial = jnp.clip(point + shift, lower, upper)
        moved = trial - point
        predicted = -(jnp.sum(slopes * moved) + jnp.sum(moved * (hessian @ moved)) / 2)
        reached, _ = augmented(trial, search)
        noise = 8 * jnp.finfo(point.dtype).eps * (1 + jnp.abs(value))
        gain = value - reached
        works = jnp.isfinite(reached) & (gain >= 1e-4 * jnp.maximum(predicted, 0) - noise)
        works &= predicted > -noise
        easy = gain >= 0.5 * predicted - noise
        damping = jnp.where(works, search.damping * jnp.where(easy, 0.1, 1), search.damping * 8)
        damping = jnp.clip(damping, 1e-10, 10 * _LARGEST_DAMPING)

        settled = (stationary <= search.wanted) | (search.inner >= _ROUND)
        settled |= search.damping > _LARGEST_DAMPING
        slack = jnp.maximum(limits, -search.limit_prices / search.penalty)
        apart = jnp.max(jnp.abs(jnp.concatenate([zeros, slack])), initial=0)
        harder = jnp.minimum(10 * search.penalty, _LARGEST_PENALTY)
        # The relaxation moves the products itself: their change is no failure of the penalty.
        fallen = apart <= jnp.maximum(search.apart / 4, search.relaxation)
        smaller = search.relaxation / 10
        next_round = _Search(
            point,
            jnp.clip(search.zero_prices + search.penalty * zeros, -1e8, 1e8),
            jnp.minimum(pushed, 1e8),
            jnp.where(fallen, search.penalty, harder),
            jnp.where(smaller < 1e-9, 0, smaller),
            jnp.full_like(damping, 1e-4),
            jnp.maximum(search.wanted / 10, _STATIONARY),
            apart,
            stationary,
            jnp.zeros_like(search.inner),
            search.step + 1,
        )
        same_round = eqx.tree_at(
            lambda it: (it.point, it.damping, it.inner, it.step),
            search,
            (jnp.where(works, trial, point), damping, search.inner + 1, search.step + 1),
        )
        return jax.tree.map(lambda a, b: jnp.where(settled, a, b), next_round, same_round)

    one = jnp.ones((), flat.dtype)
    none = jnp.zeros((), jnp.int32)
    search = _Search(
        jnp.clip(flat, lower, upper),
        jnp.zeros(zeros.shape, flat.dtype),
        jnp.zeros(limits.shape[0] + pairs, flat.dtype),
        _FIRST_PENALTY * one,
        0.1 * one,
        1e-2 * one,
        0.1 * one,
        jnp.inf * one,
        jnp.inf * one,
        none,
        none,
    )
    search = jax.lax.while_loop(goes_on, improve, search)
    prices = search.limit_prices[: limits.shape[0]]
    return Solution(unravel(search.point), search.zero_prices, prices)


class Activity(eqx.Module):
    """Which variables rest at their lower or upper bound, and which constraints bind."""

    low: Bool[Array, " w"]
    high: Bool[Array, " w"]
    limits: Bool[Array, " limits"]


def activity(solution: Solution, data: tuple[AbstractGame, Constant, Units]) -> Activity:
    """What binds at a solution: of a dual and its slack the smaller, or both if both vanish."""
    point = solution.point
    flat, _ = flatten_util.ravel_pytree(point)
    lower, upper = _bounds(point, data[1])

    def priced(it):
        value, zeros, limits = evaluate(it, data)
        prices = jnp.sum(solution.zero_prices * zeros) + jnp.sum(solution.limit_prices * limits)
        return value + prices, limits

    slopes, limits = jax.grad(priced, has_aux=True)(point)
    slopes, _ = flatten_util.ravel_pytree(slopes)
    larger = jnp.maximum(point.inequality_duals, point.slacks)
    unresolved = point.inequality_duals * point.slacks > _PRODUCT
    both = (larger <= _BOTH_ZERO) | ((larger <= _NEARLY_ZERO) & unresolved)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, bool), point)
    smaller = eqx.tree_at(
        lambda it: (it.inequality_duals, it.slacks),
        nothing,
        (
            both | (point.inequality_duals <= point.slacks),
            both | (point.slacks < point.inequality_duals),
        ),
    )
    offers = eqx.tree_at(lambda it: it.offer, nothing, jnp.ones(point.offer.shape, bool))
    smaller, offers = (flatten_util.ravel_pytree(it)[0] for it in (smaller, offers))
    low = smaller | (offers & (flat <= lower) & (slopes > 0))
    high = offers & (flat >= upper) & (slopes < 0) & ~low
    return Activity(low, high, solution.limit_prices + limits > 0)


def conditions(solution: Solution, args: PyTree) -> Solution:
    """The optimality system of the leader's problem, given what binds; a root at a solution."""
    data, active = args
    point = solution.point
    flat, unravel = flatten_util.ravel_pytree(point)
    lower, upper = _bounds(point, data[1])

    def priced(flat):
        value, zeros, limits = evaluate(unravel(flat), data)
        on = jnp.where(active.limits, solution.limit_prices * limits, 0)
        return value + jnp.sum(solution.zero_prices * zeros) + jnp.sum(on), (zeros, limits)

    slopes, (zeros, limits) = jax.grad(priced, has_aux=True)(flat)
    # An infinite bound never binds, and must not enter a subtraction.
    floor = jnp.where(active.low, lower, 0)
    ceiling = jnp.where(active.high, upper, 0)
    rows = jnp.where(active.high, flat - ceiling, slopes)
    rows = jnp.where(active.low, flat - floor, rows)
    limits = jnp.where(active.limits, limits, solution.limit_prices)
    return Solution(unravel(rows), zeros, limits)


def polish(solution: Solution, args: PyTree) -> Solution:
    """Newton steps on the optimality system, as far as they reduce its residual."""
    flat, unravel = flatten_util.ravel_pytree(solution)

    def residual(flat):
        rows = flatten_util.ravel_pytree(conditions(unravel(flat), args))[0]
        return rows, rows

    def step(_, carry):
        # One evaluation serves as this step's residual and derivative and judges the last one.
        flat, trial, size = carry
        matrix, here = jax.jacfwd(residual, has_aux=True)(trial)
        error = jnp.linalg.norm(here)
        near = jnp.max(jnp.abs(trial - flat)) <= 1e-2 * (1 + jnp.max(jnp.abs(flat)))
        better = near & (error < size)
        flat = jnp.where(better, trial, flat)
        shift = jnp.linalg.pinv(matrix, rtol=1e-10) @ here
        return flat, jnp.where(better, trial - shift, flat), jnp.where(better, error, size)

    start = flat, flat, jnp.full((), jnp.inf, flat.dtype)
    return unravel(jax.lax.fori_loop(0, 5, step, start)[0])
