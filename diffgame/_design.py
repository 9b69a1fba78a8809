"""Design through the equilibrium: choose parameters of a game for what its equilibrium brings."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util as flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree, Scalar

from ._constraints import Constraints
from ._design_host import DesignStep, Host, Plan, Record, run, to_device
from ._design_search import Break, seek, violation
from ._equilibrium import Equilibrium, Status
from ._game import AbstractGame
from ._newton import Automatic
from ._policy import AbstractPolicy
from ._response import AbstractResponse
from ._solver import AbstractSolver


class DesignStatus(eqx.Enumeration):
    """What is known about a design; the text of each member says what to do next."""

    stationary = (
        "Stationary: no small change of the parameters helps to first order, within the bounds and "
        "constraints and along this branch of equilibria, and the equilibrium is certified. A "
        "local optimum at best: `scope` says what was searched."
    )
    inner_uncertified = (
        "The design is stationary, but the equilibrium at it has no certificate: see the text of "
        "`equilibrium.status`."
    )
    stopped_at_jump = (
        "The objective still rises towards parameters at which the equilibrium jumps to another "
        "branch with a lower objective: see `jumps`. The answer lies just before the jump and is "
        "not robust: constrain the parameters to keep a distance."
    )
    infeasible = (
        "The violation of the constraints is stationary: they cannot be met to first order from "
        "here. Relax them, or use more starts."
    )
    stalled = (
        "No step along the gradient raises the objective, although the residual exceeds the "
        "tolerance: usual at a kink of the equilibrium, where a bound of a provider or user "
        "becomes active. Also solve with a smaller `inner_tolerance`, or a larger `tolerance`."
    )
    inner_failed = (
        "The inner solve found no stationary profile, or a number or derivative was not finite, "
        "at the start or for all further steps: name a solver, start from another profile, or "
        "bound the parameters."
    )
    stopped = "`watch` asked to stop: go on from the answer's parameters and profile."
    max_steps = "The maximum number of steps was reached: raise `max_steps`, or go on from here."


class Jump(eqx.Module):
    """Two neighbouring parameters whose equilibria are far apart.

    The equilibria were reached one from the other, and halving the distance again and again did
    not bring them closer. `crossed`: whether the search went on from the far one.
    """

    parameters_before: PyTree
    parameters_after: PyTree
    profile_before: AbstractPolicy
    profile_after: AbstractPolicy
    objective_before: float
    objective_after: float
    crossed: bool


class Attempt(eqx.Module):
    """What one start led to.

    - `parameters`, `objective`, `equilibrium`, `violation`: as in the last `DesignStep`.
    - `multipliers`: prices of the planner's constraints, in units of the objective.
    - `residual`: sup norm of the planner's natural residual: `x - P(x + gradient of the
        Lagrangian)` with P onto the bounds, and of every inequality the smaller of price and slack.
    - `status`: a `DesignStatus`. `steps`: all that was accepted. `jumps`: all that were met.
    - `solves`: how many inner equilibria were computed.
    """

    parameters: PyTree
    objective: float
    equilibrium: Equilibrium
    multipliers: Constraints
    residual: float
    violation: float
    status: DesignStatus
    steps: tuple[DesignStep, ...]
    jumps: tuple[Jump, ...]
    solves: int


class Design(eqx.Module):
    """The best of all attempts, and the others.

    - `attempts`: one per start. `best`: the number of the best: the largest objective among those
        that meet the constraints and whose equilibrium is certified, if there are any.
    - `scope`: what was searched, in words.
    """

    attempts: tuple[Attempt, ...]
    best: int
    scope: str = eqx.field(static=True)

    @property
    def answer(self) -> Attempt:
        """The best attempt."""
        return self.attempts[self.best]

    @property
    def parameters(self) -> PyTree:
        """Of the best attempt."""
        return self.answer.parameters

    @property
    def objective(self) -> float:
        """Of the best attempt."""
        return self.answer.objective

    @property
    def equilibrium(self) -> Equilibrium:
        """Of the best attempt, with its certificate."""
        return self.answer.equilibrium

    @property
    def status(self) -> DesignStatus:
        """Of the best attempt."""
        return self.answer.status


def _attempt(host: Host, record: Record, tolerance: float) -> Attempt:
    """What is reported about one search."""
    unravel = host.plan.unravel
    end = record.end
    sample = record.first if end is None else end.last.sample
    reason = "inner_failed" if end is None else end.reason
    prices = np.full(sample.limits.shape, np.nan) if end is None else end.last.prices
    equilibrium: Any = record.steps[-1].equilibrium if record.steps else to_device(sample.inner)
    missed = violation(sample)
    if reason == "stationary" and not bool(equilibrium.status == Status.certified):
        reason = "inner_uncertified"
    if reason in ("stalled", "max_steps") and not missed <= tolerance:
        reason = "infeasible" if reason == "stalled" else reason

    def jump(met: Break) -> Jump:
        before: Any = to_device(met.before.inner)
        after: Any = to_device(met.after.inner)
        return Jump(
            unravel(jnp.asarray(met.before.point)),
            unravel(jnp.asarray(met.after.point)),
            before.profile,
            after.profile,
            met.before.value,
            met.after.value,
            met.crossed,
        )

    return Attempt(
        unravel(jnp.asarray(sample.point)),
        sample.value,
        equilibrium,
        Constraints(
            jnp.asarray(prices[sample.inequality]), jnp.asarray(prices[~sample.inequality])
        ),
        np.nan if end is None else end.last.residual,
        missed,
        getattr(DesignStatus, reason),
        tuple(record.steps),
        tuple(jump(met) for met in record.breaks),
        record.solves,
    )


def _rank(attempt: Attempt, tolerance: float) -> tuple[bool, bool, float]:
    certified = bool(attempt.equilibrium.status == Status.certified)
    value = attempt.objective if np.isfinite(attempt.objective) else -np.inf
    return attempt.violation <= tolerance, certified, value


def _bound(name: str, bound: PyTree, default: float, parameters: PyTree) -> np.ndarray:
    """A bound for every parameter, flat."""
    if bound is None:
        bound = default
    try:
        if jax.tree.structure(bound) != jax.tree.structure(parameters):
            bound = jax.tree.map(lambda leaf: bound, parameters)
        full = jax.tree.map(lambda leaf, own: jnp.broadcast_to(own, leaf.shape), parameters, bound)
    except ValueError as error:
        raise ValueError(
            f"design: {name} does not fit the parameters; give one number, or a pytree of the "
            "parameters' structure with leaves that broadcast to theirs."
        ) from error
    return np.asarray(flatten_util.ravel_pytree(full)[0], dtype=float)


def _draw(
    first: np.ndarray, lower: np.ndarray, upper: np.ndarray, starts: int, key: Key[Array, ""]
) -> list[np.ndarray]:
    """The given start, then others: uniform in the box, normal where it is unbounded."""
    bounded = np.isfinite(lower) & np.isfinite(upper)
    low, high = np.where(bounded, lower, 0), np.where(bounded, upper, 0)
    points = [np.clip(first, lower, upper)]
    for number in range(1, starts):
        size_key, own = jax.random.split(jax.random.fold_in(key, number))
        uniform = np.asarray(jax.random.uniform(own, first.shape), dtype=float)
        noise = np.asarray(jax.random.normal(own, first.shape), dtype=float)
        size = 10 ** float(jax.random.uniform(size_key, minval=-2.0, maxval=1.0))
        near = first + size * (1 + np.abs(first)) * noise
        drawn = np.where(bounded, low + (high - low) * uniform, near)
        points.append(np.clip(drawn, lower, upper))
    return points


def design(
    objective: Callable[[Equilibrium, Any], Scalar],
    parameters: PyTree,
    game: Callable[[Any], AbstractGame],
    response: AbstractResponse,
    profile: AbstractPolicy,
    solver: AbstractSolver | None = None,
    *,
    key: Key[Array, ""],
    constraints: Callable[[Equilibrium, Any], Constraints] | None = None,
    lower: PyTree = None,
    upper: PyTree = None,
    starts: int = 4,
    tolerance: float = 1e-8,
    max_steps: int = 100,
    inner_tolerance: float = 1e-10,
    inner_steps: int = 1000,
    certificate_tolerance: float = 1e-6,
    deviation_starts: int = 4,
    deviation_steps: int = 50,
    watch: Callable[[int, DesignStep], Any] | None = None,
) -> Design:
    """Choose the parameters of a game such that its equilibrium maximises an objective.

    A planner (regulator, platform) moves first, then the providers, then the users. The search is
    a projected quasi-Newton ascent; its gradients go through `solve` by the implicit function
    theorem, and all starts are evaluated in one compiled batch. Every inner search begins at the
    profile of the last accepted step, so that it follows one branch of equilibria.

    **Arguments:**

    - `objective(equilibrium, parameters)`: what to maximise, a scalar. For a worst group, add a
        floor to the parameters, maximise it, and constrain every group to be above it.
    - `parameters`: where to start: a pytree of floating arrays, of about the same scale.
    - `game(parameters)`: the game, the same in structure for all parameters. Pass functions that
        are defined once: a new function compiles anew.
    - `response`, `profile`, `solver`, `inner_tolerance`, `inner_steps`: of the inner `solve`.
    - `constraints(equilibrium, parameters)`: what must hold, as `Constraints`; e.g. a revenue.
    - `lower`, `upper`: bounds of the parameters: a number, or a pytree like them.
    - `starts`: how many searches: from `parameters`, and from random points (uniform in the box,
        normal around `parameters` where it is unbounded). `key`: for these and for deviations.
    - `tolerance`: of the planner's natural residual and constraints. `max_steps`: accepted steps.
    - `certificate_tolerance`, `deviation_starts`, `deviation_steps`: of `certify`, which runs at
        every accepted step. Steps whose inner solve is not stationary are never accepted; failures
        of the other parts of the certificate are recorded in the steps.
    - `watch(start, step)`: called at every accepted step; what is true stops all searches.

    **Jumps:** where the equilibrium (parameters of the profile, payoffs, crowd) misses the move
    that its derivatives predict by more than a tenth, the step is halved up to 20 times. A miss
    that keeps more than a twentieth of its size is a jump between branches. It is recorded; the
    search crosses it only if the objective is higher beyond. Not seen: jumps below a tenth of a
    step's move, or below 1e-3 of 1 + the size.

    **Returns:** a `Design`. Its status never claims a global optimum.

    One Jacobian column per parameter is computed: for up to some hundred parameters. Use float64.

    **Errors:** ValueError for settings out of range, and from games that do not fit.

    **Source:** Luo, Pang, Ralph (1996), Mathematical Programs with Equilibrium Constraints, for
    implicit programming; Outrata, Kocvara, Zowe (1998), Nonsmooth Approach to Optimization
    Problems with Equilibrium Constraints.

    >>> import jax, jax.numpy as jnp
    >>> from diffgame import Concave, Constant, design
    >>> from diffgame.games import Cournot
    >>> def total(equilibrium, subsidy):  # the subsidy only moves money
    ...     supply, found = equilibrium.profile.offer, equilibrium.outcome
    ...     return jnp.sum(found.utilities) + jnp.sum(found.payoffs) - subsidy * jnp.sum(supply)
    >>> def subsidised(subsidy):
    ...     return Cournot(cost=0.2 - subsidy * jnp.ones(2))
    >>> found = design(total, jnp.zeros(()), subsidised, Concave(), Constant(jnp.zeros(2)),
    ...                key=jax.random.key(0), starts=1)
    >>> print(f"{found.parameters:.6f}")  # (1 - cost) / 2 restores price = marginal cost
    0.400000
    """
    flat, unravel = flatten_util.ravel_pytree(parameters)
    if flat.size == 0 or not jnp.issubdtype(flat.dtype, jnp.floating):
        raise ValueError(
            f"design: parameters have {flat.size} numbers of type {flat.dtype}; give a pytree of "
            "floating arrays with at least one number."
        )
    for name, value in (("tolerance", tolerance), ("certificate_tolerance", certificate_tolerance)):
        if not value > 0:
            raise ValueError(f"design: {name} is {value}; give a positive number.")
    for name, value in (("starts", starts), ("max_steps", max_steps)):
        if value < 1:
            raise ValueError(f"design: {name} is {value}; it must be at least 1.")
    low = _bound("lower", lower, -np.inf, parameters)
    high = _bound("upper", upper, np.inf, parameters)
    if not np.all(low <= high):
        where = int(np.argmax(~(low <= high)))
        raise ValueError(
            f"design: bound {where} has lower {low[where]} and upper {high[where]}; lower must "
            "not exceed upper."
        )
    solver = Automatic() if solver is None else solver
    plan = Plan(
        objective, game, constraints, response, solver, unravel, inner_tolerance, inner_steps
    )
    host = Host(plan, key, certificate_tolerance, deviation_starts, deviation_steps)
    points = _draw(np.asarray(flat, dtype=float), low, high, starts, key)
    firsts = host.evaluate(points, [profile] * starts)
    records = [Record(seek(first, low, high, tolerance, max_steps), first) for first in firsts]
    run(host, records, watch)
    attempts = tuple(_attempt(host, record, tolerance) for record in records)
    best = max(range(starts), key=lambda number: _rank(attempts[number], tolerance))
    done = sum(bool(attempt.status == DesignStatus.stationary) for attempt in attempts)
    met = sum(len(attempt.jumps) for attempt in attempts)
    solves = sum(attempt.solves for attempt in attempts)
    scope = (
        f"searched: local ascent from {starts} starts, {done} of them to a stationary design with "
        f"a certified equilibrium, along the equilibria that follow from the given profile; {met} "
        f"jumps met; {solves} inner equilibria; nothing is known about other designs"
    )
    return Design(attempts, best, scope)
