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


class Carry(eqx.Module):
    """Where a search stands: all that its next step needs.

    - `field`, `residual` (sup norm, NaN if not finite), `bounded`: at `parameters`.
    - `state`: the solver's, arrays only. `steps`: taken so far.
    """

    parameters: PyTree
    field: PyTree
    residual: Scalar
    bounded: Bool[Array, ""]
    state: PyTree
    steps: Int[Array, ""]


def _largest(tree: PyTree) -> Scalar:
    """Sup norm; NaN if anything is not finite, whatever a reduction makes of NaN."""
    # Leaf by leaf: users' numbers are many, and may be spread over devices.
    sizes = jnp.stack([jnp.max(jnp.abs(leaf), initial=0) for leaf in jax.tree.leaves(tree)])
    finite = jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)])
    return jnp.where(jnp.all(finite), jnp.max(sizes), jnp.nan)


def _within(size: Scalar, bound: Scalar) -> Bool[Array, ""]:
    return jnp.isfinite(size) & (size >= 0) & (size <= bound)


def freeze(tree: PyTree) -> PyTree:
    """The same without derivatives: a search would carry tangents along with every step."""
    varied, fixed = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.lax.stop_gradient(varied), fixed)


def growth_bound(start: PyTree) -> Scalar:
    """A search from `start` with a parameter beyond this has diverged."""
    return _GROWTH * (1 + _largest(start))


def _measure(problem: AbstractProblem, parameters: PyTree, bound: Scalar):
    field = problem.field(parameters)
    residual = problem.residual(parameters, field)
    # A projection may hide a field that is not finite.
    residual = jnp.where(jnp.isfinite(_largest(field)), _largest(residual), jnp.nan)
    return field, residual, _within(_largest(parameters), bound)


def begin(
    problem: AbstractProblem, solver: AbstractSolver, start: PyTree, bound: Scalar
) -> tuple[Carry, PyTree]:
    """Before the first step; and what of the solver's state is no array and stays as it is."""
    state, fixed = eqx.partition(solver.init(problem, start), eqx.is_array)
    return Carry(start, *_measure(problem, start, bound), state, jnp.array(0)), fixed


def unfinished(carry: Carry, tolerance: Scalar) -> Bool[Array, ""]:
    """Whether there is something left to search for, and a finite place to search from."""
    return jnp.isfinite(carry.residual) & (carry.residual > tolerance) & carry.bounded


def advance(
    problem: AbstractProblem,
    solver: AbstractSolver,
    carry: Carry,
    fixed: PyTree,
    bound: Scalar,
    tolerance: Scalar,
    stop: Int[Array, ""],
) -> Carry:
    """Step until the search is finished, or `stop` steps were taken since it began."""

    def goes_on(carry):
        return unfinished(carry, tolerance) & (carry.steps < stop)

    def step(old):
        state = eqx.combine(old.state, fixed)
        parameters, state = solver.step(problem, old.parameters, old.field, state)
        measured = _measure(problem, parameters, bound)
        new = Carry(parameters, *measured, eqx.filter(state, eqx.is_array), old.steps + 1)
        # A game may bring in numbers of another precision than the search is in.
        return jax.tree.map(lambda leaf, before: leaf.astype(before.dtype), new, old)

    return jax.lax.while_loop(goes_on, step, carry)


def _natural(parameters: PyTree, problem: AbstractProblem) -> PyTree:
    return problem.residual(parameters, problem.field(parameters))


def judge(
    game: AbstractGame,
    response: AbstractResponse,
    parameters: PyTree,
    outcome: Outcome,
    residual: Scalar,
    bounded: Bool[Array, ""],
    tolerance: Scalar,
) -> Status:
    """What the end of a search is called."""
    finite = jnp.isfinite(_largest((parameters, outcome.payoffs, outcome.utilities, residual)))
    status = Status.where(_within(residual, tolerance), Status.stationary_only, Status.max_steps)
    status = Status.where(bounded, status, Status.diverged)
    status = Status.where(finite, status, Status.nonfinite)
    convex = is_convex_somewhere(*freeze((game, response, outcome)))
    return Status.where(convex, Status.not_concave, status)


def pose(problem: Problem, parameters: AbstractPolicy, weights, normalized: bool):
    """The problem to solve, and where the search begins."""
    if not has_constraints(problem.game):
        return problem, problem.project(parameters)
    leaf = jax.tree.leaves(parameters)[0]
    if weights is None:
        weights = jnp.ones(leaf.shape[0], leaf.dtype)
    joint = ConstrainedProblem(problem, weights, normalized)
    return joint, joint.start(parameters)


def prices_of(problem: AbstractProblem, parameters: PyTree) -> Multipliers | None:
    """The multipliers of a constrained problem; None without constraints."""
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
    problem, start = pose(plain, parameters, weights, normalized)
    frozen, fixed_solver, start = freeze((problem, solver, start))
    bound = growth_bound(start)
    carry, fixed = begin(frozen, fixed_solver, start, bound)
    end = advance(frozen, fixed_solver, carry, fixed, bound, tolerance, max_steps)
    parameters, residual = end.parameters, end.residual
    cutoff = float(jnp.finfo(residual.dtype).eps) ** 0.5
    parameters = implicit_root(_natural, parameters, problem, cutoff=cutoff)
    profile = problem.profile(parameters)
    outcome = play(game, response, profile, chunk=chunk)
    status = judge(game, response, parameters, outcome, residual, end.bounded, tolerance)
    if throw:
        # On one number: what it is attached to travels through the host.
        residual = status.error_if(residual, status != Status.stationary_only)
    return profile, outcome, residual, status, end.steps, prices_of(problem, parameters)


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
