"""The one loop: step until no provider gains by a small move."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, Scalar

from ._concavity import is_convex_somewhere
from ._equilibrium import Equilibrium, Status
from ._game import AbstractGame
from ._implicit import implicit_root
from ._influence import check_influence
from ._newton import Automatic
from ._play import Outcome, play, split
from ._policy import AbstractPolicy
from ._problem import AbstractProblem, ConstrainedProblem, Multipliers, Problem, has_constraints
from ._response import AbstractResponse
from ._solver import AbstractSolver

_GROWTH = 1e8


def _largest(tree: PyTree) -> Scalar:
    """Sup norm; NaN if anything is not finite, whatever a reduction makes of NaN."""
    leaves = [leaf.ravel() for leaf in jax.tree.leaves(tree)]
    values = jnp.concatenate(leaves)
    return jnp.where(jnp.all(jnp.isfinite(values)), jnp.max(jnp.abs(values)), jnp.nan)


def _within(size: Scalar, bound: Scalar) -> Bool[Array, ""]:
    return jnp.isfinite(size) & (size >= 0) & (size <= bound)


def _freeze(tree: PyTree) -> PyTree:
    # The search is never differentiated; without this every step would carry tangents along.
    varied, fixed = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.lax.stop_gradient(varied), fixed)


def _search(
    problem: AbstractProblem,
    solver: AbstractSolver,
    start: PyTree,
    tolerance: Scalar,
    max_steps: Int[Array, ""],
) -> tuple[PyTree, Scalar, Bool[Array, ""], Int[Array, ""]]:
    """Parameters, their residual's sup norm, whether they stayed bounded, and the steps taken."""
    bound = _GROWTH * (1 + _largest(start))

    def measure(parameters):
        field = problem.field(parameters)
        residual = problem.residual(parameters, field)
        # A projection may hide a field that is not finite.
        residual = jnp.where(jnp.isfinite(_largest(field)), _largest(residual), jnp.nan)
        return field, residual, _within(_largest(parameters), bound)

    def goes_on(carry):
        _, (_, residual, bounded), _, step = carry
        return jnp.isfinite(residual) & (residual > tolerance) & bounded & (step < max_steps)

    state = solver.init(problem, start)
    varied, fixed = eqx.partition(state, eqx.is_array)

    def advance(carry):
        parameters, (field, _, _), varied, step = carry
        state = eqx.combine(varied, fixed)
        parameters, state = solver.step(problem, parameters, field, state)
        return parameters, measure(parameters), eqx.filter(state, eqx.is_array), step + 1

    carry = start, measure(start), varied, jnp.array(0)
    parameters, (_, residual, bounded), _, steps = jax.lax.while_loop(goes_on, advance, carry)
    return parameters, residual, bounded, steps


def _natural(parameters: PyTree, problem: AbstractProblem) -> PyTree:
    return problem.residual(parameters, problem.field(parameters))


def _judge(
    parameters: PyTree,
    outcome: Outcome,
    residual: Scalar,
    bounded: Bool[Array, ""],
    tolerance: Scalar,
) -> Status:
    finite = jnp.isfinite(_largest((parameters, outcome.payoffs, outcome.utilities, residual)))
    status = Status.where(_within(residual, tolerance), Status.stationary_only, Status.max_steps)
    status = Status.where(bounded, status, Status.diverged)
    return Status.where(finite, status, Status.nonfinite)


def _pose(problem: Problem, parameters: AbstractPolicy, weights, normalized: bool):
    """The problem to solve, and where the search begins."""
    if not has_constraints(problem.game):
        return problem, problem.project(parameters)
    leaf = jax.tree.leaves(parameters)[0]
    if weights is None:
        weights = jnp.ones(leaf.shape[0], leaf.dtype)
    joint = ConstrainedProblem(problem, weights, normalized)
    return joint, joint.start(parameters)


def _prices(problem: AbstractProblem, parameters: PyTree) -> Multipliers | None:
    if isinstance(problem, ConstrainedProblem):
        return problem.prices(parameters.multipliers)
    return None


@eqx.filter_jit
def _solve(
    game,
    response,
    profile,
    solver,
    tolerance,
    max_steps,
    weights,
    normalized,
    anticipate,
    chunk,
    throw,
):
    parameters, rest = split(profile)
    plain = Problem(game, response, rest, anticipate, chunk)
    problem, start = _pose(plain, parameters, weights, normalized)
    fixed_problem, fixed_solver, start = _freeze((problem, solver, start))
    parameters, residual, bounded, steps = _search(
        fixed_problem, fixed_solver, start, tolerance, max_steps
    )
    cutoff = float(jnp.finfo(residual.dtype).eps) ** 0.5
    parameters = implicit_root(_natural, parameters, problem, cutoff=cutoff)
    profile = problem.profile(parameters)
    outcome = play(game, response, profile, chunk=chunk)
    status = _judge(parameters, outcome, residual, bounded, tolerance)
    convex = is_convex_somewhere(*_freeze((game, response, outcome)))
    status = Status.where(convex, Status.not_concave, status)
    found = profile, outcome, residual, status, steps, _prices(problem, parameters)
    return status.error_if(found, status != Status.stationary_only) if throw else found


def solve(
    game: AbstractGame,
    response: AbstractResponse,
    profile: AbstractPolicy,
    solver: AbstractSolver | None = None,
    *,
    tolerance: float = 1e-6,
    max_steps: int = 10_000,
    weights: Float[Array, " providers"] | None = None,
    normalized: bool = True,
    anticipate: bool = True,
    chunk: int | None = None,
    throw: bool = True,
) -> Equilibrium:
    """Search for a stationary profile from `profile`, which is first projected.

    **Arguments:**

    - `game`, `response`: what is played, and how users choose.
    - `profile`: where to start: one policy, leaves with a leading "providers" axis.
    - `solver`: the algorithm with its hyperparameters; default: `Automatic()`. Make it once and
        reuse it: a new optax optimiser compiles anew.
    - `tolerance`: the search ends when the sup norm of the natural residual, in units of the
        parameters, is finite and at most this, whichever the solver.
    - `max_steps`: of the solver.
    - `weights`, `normalized`: for games with `shared_constraints`. Normalized: all providers pay
        one common price per constraint, provider i that price divided by `weights[i]` (positive;
        default: 1). Not normalized: a price for each; of the many equilibria that there usually
        are, the search ends at one near its start.
    - `anticipate`: False finds a stationary point of naive providers instead, who take responses
        as fixed.
    - `chunk`: stream users in groups of this size; see `provider_payoffs`.
    - `throw`: raise if the search failed. A batch raises if any of its games failed.

    **Returns:** an `Equilibrium` with status `stationary_only`, or, with `throw=False`, possibly
    `max_steps`, `diverged` (a parameter beyond 1e8 times 1 + the largest at the start),
    `not_concave` or `nonfinite`. Stationary is first order only: `certify` says more.

    It is differentiable in the game, the response and the fixed parts of the profile, any order
    and mode, by the implicit function theorem at the answer (in the profile's starting parameters
    the derivative is zero). Where equilibria form a manifold, the derivative is the one of minimum
    norm, with singular values below the square root of the machine precision counted as zero. It
    holds to the accuracy of the answer, so differentiate with a small tolerance. Jit outermost
    and differentiate inside.

    **Errors:** `eqx.EquinoxRuntimeError` with the status's text, if `throw`; ValueError for
    settings out of range, payoffs or utilities of a wrong shape, and a utility that does not
    depend on the offers.

    >>> import jax, jax.numpy as jnp
    >>> from diffgame import Concave, Constant, Newton, solve
    >>> from diffgame.games import Cournot
    >>> def quantity(cost):
    ...     start = Constant(jnp.zeros(2))
    ...     return solve(Cournot(cost=cost), Concave(), start, Newton()).profile.offer
    >>> print(jax.jit(jax.jacrev(quantity))(jnp.zeros(2)).round(4))
    [[-0.6667  0.3333]
     [ 0.3333 -0.6667]]
    """
    if not tolerance > 0:
        raise ValueError(f"solve: tolerance is {tolerance}; give a positive number.")
    if max_steps < 1:
        raise ValueError(f"solve: max_steps is {max_steps}; it must be at least 1.")
    if isinstance(profile, AbstractSolver):
        raise TypeError(
            f"solve: the third argument is the solver {type(profile).__name__}; the order is "
            "solve(game, response, profile, solver)."
        )
    if not jax.tree.leaves(split(profile)[0]):
        raise ValueError(
            f"solve: the policy {type(profile).__name__} has no parameters; `parameters()` must "
            "be True for at least one array."
        )
    check_influence(game, response, profile)
    solver = Automatic() if solver is None else solver
    # As arrays, so that another tolerance or number of steps does not compile anew.
    limits = jnp.asarray(tolerance), jnp.asarray(max_steps)
    profile, outcome, residual, status, steps, multipliers = _solve(
        game,
        response,
        profile,
        solver,
        *limits,
        weights,
        normalized,
        anticipate,
        chunk,
        throw,
    )
    name = eqx.tree_pformat(solver, width=1_000)
    how = f"{name}, tolerance={tolerance}, max_steps={max_steps}, anticipate={anticipate}"
    if multipliers is not None:
        how += f", normalized={normalized}"
    return Equilibrium(profile, outcome, residual, status, steps, how, multipliers=multipliers)
