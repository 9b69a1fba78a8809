"""The best choice under constraints, with multipliers, a status and derivatives."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, Scalar

from ._choice_set import AbstractConstrainedSet
from ._constrained_search import make_scale, maximise
from ._game import AbstractGame
from ._implicit import implicit_root
from ._kkt import (
    Point,
    condensed_solve,
    constraint_values,
    kkt_residual,
    lagrangian,
    sup_norm,
    utility,
)
from ._no_optimum import (
    View,
    least_violation,
    proves_infeasible,
    proves_unbounded,
    view_far,
    view_near,
)
from ._unconstrained_search import conjugate_gradients, maximise_freely

# Relative to slopes: what counts as a multiplier, or a slack, of zero.
_WEAK = 1e-8
_FEASIBLE = 1e-9
# Without constraints, Hessians of more coordinates than this are never formed.
_DENSE = 256

_ADVICE = (
    "solve_user_problem: the best choice is not isolated, so it is not a differentiable function "
    "of its data here. Make the utility strongly concave along the active constraints (add "
    "curvature to it)."
)


class UserStatus(eqx.Enumeration):
    """What is known about one user's problem; the text says what to do next."""

    optimal = (
        "Optimal to the tolerance, for a concave utility and convex constraints; every active "
        "constraint has a positive multiplier: nothing is left to do."
    )
    weakly_active = (
        "Optimal to the tolerance, but a constraint is active with a multiplier of zero, so only "
        "one-sided derivatives exist: the derivative given is that of leaving it out. Move the "
        "data a little, or accept it."
    )
    infeasible = (
        "No choice within a million times the size of the one given satisfies the constraints, as "
        "the multipliers prove: relax the constraints that have positive multipliers."
    )
    unbounded = (
        "Utility rises without end along `ray`, as far as a million times the size of the choice: "
        "bound the choice by a constraint, or add curvature to the utility."
    )
    max_steps = (
        "Neither a solution to the tolerance nor proof that there is none: raise `max_steps` or "
        "`tolerance`, rescale constraints and utility to numbers near one, or check that utility "
        "is concave, constraints are convex and some choice satisfies them strictly."
    )
    nonfinite = (
        "Utility, a constraint or a derivative of theirs is not finite: check the data of the user "
        "and the offers, and start where all are defined (`start` of `Constrained`)."
    )


class UserOptimum(eqx.Module):
    """What is known about one user's best choice.

    - `choice`: the best one; the choice of least violation if `infeasible`; where the ray starts if
        `unbounded`; else the best met.
    - `inequality_duals`, `equality_duals`: gains in utility per unit by which a constraint is
        relaxed. If `infeasible`, the multipliers that prove it; if `unbounded`, zeros.
    - `ray`: the direction in which utility rises without end if `unbounded`, else zeros.
    - `residual`: largest relative error of the optimality system, in the sup norm: the gradient of
        utility minus priced constraints, over 1 + |gradient of utility|; equalities over
        1 + |choice|; and, over the smaller of both, `z - max(0, z + g)` for inequalities g with
        multipliers z.
    - `status`: a `UserStatus`; print `UserStatus[status]`. `steps`: of the search.
    """

    choice: Float[Array, " coordinates"]
    inequality_duals: Float[Array, " inequalities"]
    equality_duals: Float[Array, " equalities"]
    ray: Float[Array, " coordinates"]
    residual: Scalar
    status: UserStatus
    steps: Int[Array, ""]


def _weak(point: Point, args: PyTree) -> Bool[Array, " inequalities"]:
    """Which inequalities are active with a multiplier of zero; rows of zeros never are."""
    values, _ = constraint_values(point.choice, args)
    rows = jax.jacfwd(lambda choice: constraint_values(choice, args)[0])(point.choice)
    length = jnp.sqrt(jnp.sum(rows**2, axis=1))
    slope = 1 + sup_norm(jax.grad(utility)(point.choice, args))
    size = 1 + sup_norm(point.choice)
    touched = jnp.abs(values) <= _WEAK * length * size
    return touched & (length > 0) & (point.inequality_duals * length <= _WEAK * slope)


def _conditions(point: Point, data: PyTree) -> Point:
    """The optimality system of given active constraints; its matrix is symmetric."""
    args, active, _ = data
    on = active.astype(point.choice.dtype)
    duals = on * point.inequality_duals
    slope = jax.grad(lagrangian)(point.choice, duals, point.equality_duals, args)
    inequalities, equalities = constraint_values(point.choice, args)
    # A constraint that is left out may be infinite or NaN, and must not be multiplied by 0.
    inequalities = jnp.where(active, inequalities, 0)
    return Point(slope, inequalities - (1 - on) * point.inequality_duals, equalities)


def _linear_solver(point: Point, data: PyTree):
    """Solve the linearised conditions; NaN for users without an optimum."""
    args, active, exists = data
    n, m = point.choice.size, active.size + point.equality_duals.size
    priced = jax.grad(lagrangian)

    def slope(choice):
        return priced(choice, point.inequality_duals, point.equality_duals, args)

    if m == 0 and n > _DENSE:
        _, curve = jax.linearize(slope, point.choice)

        def matrix_free(right):
            found = conjugate_gradients(curve, right, 1e-13)
            return jnp.where(exists, found, jnp.nan)

        return matrix_free
    rows = jax.jacfwd(constraint_values)(point.choice, args)
    equalities = jnp.ones(point.equality_duals.size, bool)
    solve = condensed_solve(
        jax.jacfwd(slope)(point.choice),
        jnp.concatenate(rows),
        jnp.concatenate([active, equalities]),
        exists,
        _ADVICE,
    )

    def condensed(right):
        found = jnp.concatenate(solve(right[:n], right[n:]))
        return jnp.where(exists, found, jnp.nan)

    return condensed


def _is_optimal(point: Point, args: PyTree, tolerance: float) -> Bool[Array, ""]:
    residual = kkt_residual(point, args)
    return jnp.isfinite(residual) & (residual >= 0) & (residual <= tolerance)


class _Attempt(eqx.Module):
    """What is known after a search for a solution, and one for a ray where there was none."""

    view: View
    start: Float[Array, " n"]
    point: Point
    ray: Float[Array, " n"]
    exists: Bool[Array, ""]
    infeasible: Bool[Array, ""]
    searches: Int[Array, ""]
    steps: Int[Array, ""]


def _search_constrained(start, point, args, tolerance, max_steps) -> _Attempt:
    game, offers, user = args
    scale = make_scale(start, args)

    def goes_on(attempt):
        return (attempt.searches < 2) & ~attempt.exists & ~attempt.infeasible

    def search(attempt):
        # One loop for both searches, so that their code is compiled once.
        first = attempt.searches == 0
        wanted = goes_on(attempt)
        found, steps = maximise(attempt.start, (attempt.view, offers, user), max_steps, wanted)
        exists = first & _is_optimal(found, args, tolerance)
        violation = least_violation(start, scale, args, wanted & first & ~exists)
        infeasible = first & ~exists & proves_infeasible(violation, scale, args)
        proof = Point(
            violation.choice,
            violation.inequalities * scale.inequalities,
            violation.equalities * scale.equalities,
        )
        best = jax.tree.map(lambda new, old: jnp.where(infeasible, new, old), proof, found)
        best = jax.tree.map(lambda new, old: jnp.where(first, new, old), best, attempt.point)
        ray = found.choice / jnp.linalg.norm(found.choice)
        near = jnp.where(first, violation.choice, attempt.view.near)
        return _Attempt(
            eqx.tree_at(lambda view: view.game, view_far(near, args), game),
            jnp.zeros_like(start),
            best,
            ray,
            exists,
            infeasible,
            attempt.searches + 1,
            attempt.steps + steps,
        )

    no, zero = jnp.zeros((), bool), jnp.zeros((), jnp.int32)
    ray = jnp.zeros_like(start)
    begin = _Attempt(view_near(game, start), start, point, ray, no, no, zero, zero)
    arrays, static = eqx.partition(begin, eqx.is_array)

    def body(arrays):
        return eqx.filter(search(eqx.combine(arrays, static)), eqx.is_array)

    arrays = jax.lax.while_loop(lambda arrays: goes_on(eqx.combine(arrays, static)), body, arrays)
    return eqx.combine(arrays, static)


def _search_freely(start, point, args, tolerance, max_steps) -> _Attempt:
    dense = start.size <= _DENSE
    choice, last, steps = maximise_freely(start, args, max_steps, dense=dense)
    point = Point(choice, point.inequality_duals, point.equality_duals)
    ray = (last - start) / jnp.linalg.norm(last - start)
    exists, no = _is_optimal(point, args, tolerance), jnp.zeros((), bool)
    return _Attempt(view_far(start, args), start, point, ray, exists, no, steps, steps)


# Jitted so that the many plays within one program share one trace of the search.
@eqx.filter_jit
def _search(args: PyTree, tolerance: float, max_steps: int):
    game, _, _ = args
    start = game.choice_set.centre()
    point = Point(start, *constraint_values(start, args))
    constrained = point.inequality_duals.size + point.equality_duals.size > 0
    search = _search_constrained if constrained else _search_freely
    found = search(start, point, args, tolerance, max_steps)
    point, exists, infeasible, near = found.point, found.exists, found.infeasible, found.view.near
    weak = _weak(point, args)
    active = (point.inequality_duals > -constraint_values(point.choice, args)[0]) & ~weak

    unbounded = ~exists & ~infeasible
    unbounded &= proves_unbounded(near, found.ray, make_scale(start, args), args)
    without = Point(near, *(jnp.zeros_like(duals) for duals in _parts(point)[1:]))
    point = jax.tree.map(lambda new, old: jnp.where(unbounded, new, old), without, point)
    residual = kkt_residual(point, args)
    status = UserStatus.where(jnp.isfinite(residual), UserStatus.max_steps, UserStatus.nonfinite)
    status = UserStatus.where(unbounded, UserStatus.unbounded, status)
    status = UserStatus.where(infeasible, UserStatus.infeasible, status)
    best = UserStatus.where(jnp.any(weak), UserStatus.weakly_active, UserStatus.optimal)
    status = UserStatus.where(exists, best, status)
    ray = jnp.where(unbounded, found.ray, 0)
    return point, active, exists, UserOptimum(*_parts(point), ray, residual, status, found.steps)


def _parts(point: Point):
    return point.choice, point.inequality_duals, point.equality_duals


def solve_user_problem(
    game: AbstractGame,
    offers: PyTree,
    user: PyTree,
    *,
    tolerance: float = 1e-9,
    max_steps: int = 200,
) -> UserOptimum:
    """Maximise one user's concave utility under the game's `user_constraints`; batch with `vmap`.

    The search (a primal-dual interior point, then Newton steps on the active constraints) always
    goes on until rounding stops it, or `max_steps`; `tolerance` is what the status compares the
    residual with.
    The status is a claim about this user alone, and no user's numbers depend on another's.

    Choice and multipliers are differentiable to any order, by the implicit function theorem. Where
    active constraints depend on each other linearly, multipliers are not unique and a solution
    near the centre of them is taken. Derivatives are NaN without an optimum. They raise where the
    choice is not isolated.

    Without constraints, more than 256 coordinates are solved matrix-free, by conjugate gradients.

    **Errors:** TypeError unless the choice set is an `AbstractConstrainedSet`.

    **Source:** Mehrotra (1992), On the implementation of a primal-dual interior point method;
    Fiacco (1983), Introduction to Sensitivity and Stability Analysis in Nonlinear Programming.

    >>> import jax.numpy as jnp
    >>> from diffgame import AbstractGame, Constraints, Constrained, UserStatus, solve_user_problem
    >>> class Shopping(AbstractGame):  # two goods at the prices offered, out of an income of 7
    ...     users = mass = jnp.ones(1)
    ...     choice_set = Constrained(2)
    ...     def user_utility(self, choice, offers, user):
    ...         return jnp.sum(choice - choice**2 / 8)
    ...     def user_constraints(self, choice, offers, user):
    ...         return Constraints(jnp.append(-choice, jnp.sum(offers * choice) - 7))
    ...     def provider_payoffs(self, choice, offers, user):
    ...         return offers * choice
    >>> best = solve_user_problem(Shopping(), jnp.array([1.0, 2.0]), None)
    >>> print(best.choice.round(6), jnp.abs(best.inequality_duals).round(6))
    [3. 2.] [0.   0.   0.25]
    >>> print(best.status == UserStatus.optimal)
    True
    """
    if not isinstance(game.choice_set, AbstractConstrainedSet):
        raise TypeError(
            f"solve_user_problem: the choice set is {type(game.choice_set).__name__}; use Polytope "
            "or Constrained."
        )
    args = game, offers, user
    varied, fixed = eqx.partition(args, eqx.is_inexact_array)
    frozen = eqx.combine(jax.lax.stop_gradient(varied), fixed)
    point, active, exists, optimum = _search(frozen, tolerance, max_steps)
    point = implicit_root(
        _conditions, point, (args, active, exists), symmetric_solver=_linear_solver
    )
    return eqx.tree_at(
        lambda it: (it.choice, it.inequality_duals, it.equality_duals), optimum, _parts(point)
    )


def optimality_gap(
    game: AbstractGame, offers: PyTree, user: PyTree, choice: Float[Array, " coordinates"]
) -> Scalar:
    """How much utility `choice` leaves on the table: a bound; inf if it is infeasible or none is.

    With the optimum y, its multipliers z >= 0 and w, and q, the gradient of the Lagrangian there,
    every feasible x satisfies u(x) <= u(y) - z . g(y) - w . h(y) - q . (x - y), by concavity of u
    and convexity of g. The last term is bounded for x no farther from y than 1 + |y|. Feasible is a
    choice within a billionth of 1 + its size.
    """
    best = solve_user_problem(game, offers, user)
    args = game, offers, user
    inequalities, equalities = constraint_values(best.choice, args)
    duals = best.inequality_duals, best.equality_duals
    slack = jnp.sum(jnp.abs(duals[0] * inequalities)) + jnp.sum(jnp.abs(duals[1] * equalities))
    slope = jax.grad(lagrangian)(best.choice, *duals, args)
    slack += jnp.linalg.norm(slope) * (1 + jnp.linalg.norm(best.choice))
    gap = utility(best.choice, args) + slack - utility(choice, args)

    inequalities, equalities = constraint_values(choice, args)
    violation = sup_norm(jnp.maximum(inequalities, 0), equalities)
    known = (best.status == UserStatus.optimal) | (best.status == UserStatus.weakly_active)
    known &= violation <= _FEASIBLE * (1 + sup_norm(choice))
    broken = (best.status == UserStatus.nonfinite) | jnp.isnan(violation)
    return jnp.where(known, gap, jnp.where(broken, jnp.nan, jnp.inf))
