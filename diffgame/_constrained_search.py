"""Search for a user's best choice under convex constraints, and for evidence that there is none.

Every function works for one user; `jax.vmap` batches them, and only unfinished users go on.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, Scalar

from ._kkt import Point, condensed_solve, constraint_values, lagrangian, sup_norm, utility
from ._loop import while_lanes

# Of the scaled problem: where the interior point stops, gives up, and how far it steps.
_CLOSE = 1e-13
_NEAR = 1e-8
_FAR = 1e13
_PATIENCE = 20
_PATIENCE_NEAR = 2
_INSIDE = 0.995
_CENTRAL = 1e-3
_PROXIMAL = 1e-10
_EQUALITY_PROXIMAL = 1e-8
_BACKTRACKS = 1.0, 0.25, 0.05, 0.005
_POLISHES = 8


class Scale(eqx.Module):
    """What makes utility and constraints numbers of size one at the start."""

    utility: Scalar
    inequalities: Float[Array, " inequalities"]
    equalities: Float[Array, " equalities"]


class _Iterate(eqx.Module):
    """An interior point of the scaled problem; `error` is infinite before the first step.

    `waited` counts steps since the error last fell by a tenth below all before, `least`.
    """

    point: Point
    slack: Float[Array, " inequalities"]
    error: Scalar
    least: Scalar
    waited: Int[Array, ""]
    step: Int[Array, ""]


def _inverse(sizes: Array) -> Array:
    return jnp.where((sizes > 0) & jnp.isfinite(sizes), 1 / jnp.where(sizes > 0, sizes, 1), 1)


def make_scale(choice: Float[Array, " n"], args: PyTree) -> Scale:
    rows = jax.jacfwd(constraint_values)(choice, args)
    slope, curve = jax.linearize(lambda choice: jax.grad(utility)(choice, args), choice)
    size = sup_norm(slope)
    curvature = curve(jnp.where(size > 0, slope / jnp.where(size > 0, size, 1), 1))
    lengths = [jnp.sqrt(jnp.sum(part**2, axis=1)) for part in rows]
    return Scale(_inverse(sup_norm(slope, curvature)), *map(_inverse, lengths))


def _lagrangian(point: Point, scale: Scale, args: PyTree):
    """The scaled Lagrangian as a function of the choice alone; its own values come with it."""
    prices = (
        point.inequality_duals * scale.inequalities / scale.utility,
        point.equality_duals * scale.equalities / scale.utility,
    )
    return lambda choice: scale.utility * lagrangian(choice, *prices, args)


def scaled_values(choice: Float[Array, " n"], scale: Scale, args: PyTree):
    inequalities, equalities = constraint_values(choice, args)
    return inequalities * scale.inequalities, equalities * scale.equalities


def _derivatives(point: Point, scale: Scale, args: PyTree):
    """Gradient of the Lagrangian and constraints, with their Jacobians, in one sweep."""

    def system(choice):
        found = (
            jax.grad(_lagrangian(point, scale, args))(choice),
            *scaled_values(choice, scale, args),
        )
        return found, found

    return jax.jacfwd(system, has_aux=True)(point.choice)


def _rest(point: Point, slack: Array, scale: Scale, args: PyTree) -> tuple[Array, ...]:
    """All of the optimality system but the products; NaN where utility is not finite."""
    value, stationary = jax.value_and_grad(_lagrangian(point, scale, args))(point.choice)
    # Slopes may be finite where utility is not: beyond its domain nothing counts.
    stationary = jnp.where(jnp.isfinite(value), stationary, jnp.nan)
    inequalities, equalities = scaled_values(point.choice, scale, args)
    return stationary, inequalities + slack, equalities


def _errors(
    point: Point, slack: Array, target: Scalar, scale: Scale, args: PyTree
) -> tuple[Scalar, Scalar]:
    """Sup norm of what is left, and what a step towards `target` wants to see fall."""
    parts = _rest(point, slack, scale, args)
    products = slack * point.inequality_duals
    squares = [jnp.sum(part**2) for part in (*parts, products - target)]
    return sup_norm(*parts, products), sum(squares, jnp.zeros((), target.dtype))


def _advance(scale: Scale, args: PyTree, iterate: _Iterate) -> _Iterate:
    """One predictor and corrector step, shortened where the residual does not fall."""
    point, slack = iterate.point, iterate.slack
    (hessian, rows, equality_rows), (stationary, inequalities, equalities) = _derivatives(
        point, scale, args
    )
    z, count = point.inequality_duals, slack.size
    n = point.choice.size
    matrix = (
        hessian
        + _PROXIMAL * jnp.eye(n, dtype=hessian.dtype)
        + jnp.einsum("mi,m,mj->ij", rows, z / slack, rows)
        + equality_rows.T @ equality_rows / _EQUALITY_PROXIMAL
    )
    factors = jax.scipy.linalg.lu_factor(matrix)
    lacking = inequalities + slack

    def move(products):
        inner = (z * lacking - products) / slack
        first = stationary + rows.T @ inner + equality_rows.T @ (equalities / _EQUALITY_PROXIMAL)
        choice = jax.scipy.linalg.lu_solve(factors, -first)
        change = rows @ choice
        duals = Point(
            choice,
            z / slack * change + inner,
            (equality_rows @ choice + equalities) / _EQUALITY_PROXIMAL,
        )
        return duals, -lacking - change

    def longest(change, slack_change):
        ratios = jnp.concatenate([change.inequality_duals / z, slack_change / slack])
        return 1 / jnp.maximum(1, jnp.max(-ratios, initial=0.0) / _INSIDE)

    def at(length, change, slack_change):
        moved = jax.tree.map(lambda old, new: old + length * new, point, change)
        return moved, slack + length * slack_change

    affine, affine_slack = move(slack * z)
    target = jnp.zeros((), slack.dtype)
    directions = [(affine, affine_slack)]
    if count:
        ahead, ahead_slack = at(longest(affine, affine_slack), affine, affine_slack)
        now = jnp.sum(slack * z) / count
        then = jnp.sum(ahead_slack * ahead.inequality_duals) / count
        # Products must not vanish before the rest does: curved constraints may keep it up.
        rest = sup_norm(stationary, lacking, equalities)
        left = sup_norm(*_rest(ahead, ahead_slack, scale, args))
        kept = jnp.clip(jnp.where(left < rest, left / rest, 1.0), 0.0, 1.0) ** 3
        shrunk = now * jnp.clip(then / now, 1e-8, 1.0) ** 3
        target = jnp.maximum(shrunk, kept * jnp.minimum(now, rest))
        second = affine_slack * affine.inequality_duals
        # The correction helps where long steps are possible; without it short ones always do.
        directions = [move(slack * z - target + second), move(slack * z - target)]
    backtracks = jnp.asarray(_BACKTRACKS, slack.dtype)
    lengths = jnp.concatenate([longest(*direction) * backtracks for direction in directions])
    changes = jax.tree.map(
        lambda *leaves: jnp.repeat(jnp.stack(leaves), backtracks.size, axis=0), *directions
    )

    def attempt(length, change):
        moved, moved_slack = at(length, *change)
        return moved, moved_slack, *_errors(moved, moved_slack, target, scale, args)

    points, slacks, errors, merits = jax.vmap(attempt)(lengths, changes)
    _, before = _errors(point, slack, target, scale, args)
    falls = merits <= before * (1 - 0.01 * lengths)
    finite = jnp.isfinite(merits)
    chosen = jnp.argmin(jnp.where(finite, merits, jnp.inf))
    chosen = jnp.where(jnp.any(falls), jnp.argmax(falls), chosen)
    if count:
        # Products far below their mean would block all later steps (Wright 1997, chapter 6).
        products = slacks * points.inequality_duals
        central = falls & (jnp.min(products, axis=1) >= _CENTRAL * jnp.mean(products, axis=1))
        chosen = jnp.where(jnp.any(central), jnp.argmax(central), chosen)
    taken = jax.tree.map(lambda leaf: leaf[chosen], (points, slacks, errors))
    # Without a finite trial the search stays where it is, and NaN ends it.
    stay = point, slack, jnp.full_like(iterate.error, jnp.nan)
    point, slack, error = jax.tree.map(
        lambda new, old: jnp.where(finite[chosen], new, old), taken, stay
    )
    waited = jnp.where(error < 0.9 * iterate.least, 0, iterate.waited + 1)
    least = jnp.minimum(error, iterate.least)
    return _Iterate(point, slack, error, least, waited, iterate.step + 1)


def _goes_on(max_steps: int):
    def goes_on(iterate: _Iterate):
        size = sup_norm(*jax.tree.leaves(iterate.point))
        # NaN ends the search: no comparison with it is true.
        patience = jnp.where(iterate.error < _NEAR, _PATIENCE_NEAR, _PATIENCE)
        hopeful = (iterate.waited < patience) & (iterate.step < max_steps)
        return (iterate.error > _CLOSE) & (size < _FAR) & hopeful

    return goes_on


def _polish(scale: Scale, args: PyTree, point: Point) -> Point:
    """One Newton step on the system whose active set is that of multipliers above slacks."""
    (hessian, rows, equality_rows), (stationary, inequalities, equalities) = _derivatives(
        point, scale, args
    )
    active = point.inequality_duals + inequalities > 0
    on = jnp.where(active, 1.0, 0.0).astype(hessian.dtype)
    solve = condensed_solve(
        hessian,
        jnp.concatenate([rows, equality_rows]),
        jnp.concatenate([active, jnp.ones(equalities.size, bool)]),
    )
    # The multipliers of inactive constraints are dropped at once.
    stationary = stationary - rows.T @ ((1 - on) * point.inequality_duals)
    kept = on * point.inequality_duals
    right = jnp.concatenate([on * inequalities, equalities])
    choice, duals = solve(-stationary, -right)
    return Point(
        point.choice + choice,
        kept + on * duals[: kept.size],
        point.equality_duals + duals[kept.size :],
    )


def maximise(
    start: Float[Array, " n"], args: PyTree, max_steps: int, wanted: Bool[Array, ""]
) -> tuple[Point, Int[Array, ""]]:
    """Mehrotra's predictor-corrector method, then Newton steps on the active set it found.

    Works on a scaled problem: utility by its slope and curvature, each constraint by its slope, at
    `start`, which need not be feasible. Unless `wanted` no step is taken.

    **Returns:** the best point met, about which nothing is claimed, and the number of steps.

    **Source:** Mehrotra (1992), On the implementation of a primal-dual interior point method;
    Wright (1997), Primal-Dual Interior-Point Methods, chapters 10 and 11.
    """
    arrays, static = eqx.partition(args, eqx.is_array)
    scale = make_scale(start, args)
    inequalities, equalities = scaled_values(start, scale, args)
    slack = jnp.maximum(-inequalities, 1)
    infinite, nothing = jnp.asarray(jnp.inf, start.dtype), jnp.zeros((), jnp.int32)
    point = Point(start, jnp.ones_like(inequalities), jnp.zeros_like(equalities))
    begin = _Iterate(point, slack, infinite, infinite, nothing, nothing)
    # An error of zero ends the search before it begins.
    begin = eqx.tree_at(lambda it: it.error, begin, jnp.where(wanted, infinite, 0))

    def advance(shared, iterate):
        scale, arrays = shared
        return _advance(scale, eqx.combine(arrays, static), iterate)

    last = while_lanes(_goes_on(max_steps), advance, (scale, arrays), begin)

    def measure(shared, point):
        scale, arrays = shared
        prices = point.inequality_duals, point.equality_duals
        args = eqx.combine(arrays, static)
        value, residual = jax.value_and_grad(_lagrangian(point, scale, args))(point.choice)
        residual = jnp.where(jnp.isfinite(value), residual, jnp.nan)
        inequalities, equalities = scaled_values(point.choice, scale, args)
        natural = prices[0] - jnp.maximum(0, prices[0] + inequalities)
        return sup_norm(residual, natural, equalities)

    def polish(shared, carry):
        best, error, trial, count = carry
        trial = _polish(shared[0], eqx.combine(shared[1], static), trial)
        found = measure(shared, trial)
        better = found < error
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), trial, best)
        return best, jnp.where(better, found, error), trial, count + 1

    def unpolished(carry):
        _, error, _, count = carry
        return (error > 1e-15) & (count < _POLISHES)

    shared = scale, arrays
    error = jnp.where(wanted, measure(shared, last.point), 0)
    carry = last.point, error, last.point, nothing
    best = while_lanes(unpolished, polish, shared, carry)[0]
    found = Point(
        best.choice,
        best.inequality_duals * scale.inequalities / scale.utility,
        best.equality_duals * scale.equalities / scale.utility,
    )
    return found, last.step
