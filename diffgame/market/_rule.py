"""The cheapest rule under which no equilibrium of a market leaves users much worse off."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util as flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree, Scalar

from .._design_search import End, Sample, Trial, seek, violation
from .._linear_program import Dual, LinearProgram, Primal, check_optimum
from .._program_solver import solve_linear_program
from ._market import Market
from ._worst_case import WorstCases, _feasible, _program, _setting, worst_case_losses


class RuleStatus(eqx.Enumeration):
    """What is known about a rule."""

    cheapest_nearby = (
        "Certified: in every delta-equilibrium users lose at most the largest loss allowed, and no "
        "small change of the rule is cheaper to first order. Other rules were not searched."
    )
    enough = (
        "Certified: in every delta-equilibrium users lose at most the largest loss allowed; but "
        "the search ended before the rule was the cheapest nearby: go on from it, or raise "
        "`max_steps`."
    )
    not_enough = (
        "The bound on the loss exceeds the largest loss allowed: start from a stricter rule (the "
        "bound is flat where nothing restrains providers), or allow more."
    )


class Rule(eqx.Module):
    """A rule, what it costs, and the bound on what users lose under it.

    - `parameters`, `cost`: of the rule. `worst_case`: bounds over all delta-equilibria, in total
        and per user.
    - `price`: by how much the cost falls per unit of loss allowed; NaN if the bound exceeds what is
        allowed. `residual`: sup norm of the
        natural residual of the first order conditions.
    - `status`: a `RuleStatus`. `solves`: rules that were evaluated.
    """

    parameters: PyTree
    cost: float
    worst_case: WorstCases
    price: float
    residual: float
    status: RuleStatus
    solves: int


def total_loss(market: Market, delta: float | Scalar) -> Scalar:
    """The bound on the users' total loss, differentiable in the market.

    The value is `worst_case_losses(market, delta).total.loss`. Its derivative is that of the
    program's Lagrangian at the optimum: right where outcome and multipliers are unique, and the
    slope of one side, or between both, where they are not.

    **Source:** Gal (1979), Postoptimal Analyses, Parametric Programming, and Related Topics.
    """
    return _bound(market, delta)[0]


def _bound(market: Market, delta: float | Scalar) -> tuple[Scalar, Bool[Array, ""]]:
    """The bound on the total loss, and whether it is the exact optimum."""
    setting = _setting(market, delta)
    size = jax.lax.stop_gradient(jnp.max(setting.regret))
    size = jnp.where(size > 0, size, 1)
    program = _program(setting, -setting.regret / size)
    fixed = jax.lax.stop_gradient((setting, program))
    primal, dual, _ = solve_linear_program(fixed[1])
    primal = Primal(jnp.maximum(primal.x, 0), jnp.maximum(primal.z, 0))
    dual = _feasible(*fixed, dual)
    found = check_optimum(fixed[1], primal, dual)
    # The value is the bound's, the derivative the Lagrangian's.
    lagrangian = _lagrangian(program, primal, dual)
    value = found.bound + lagrangian - jax.lax.stop_gradient(lagrangian)
    short = jnp.max(primal.z[-len(setting.budget) :])
    return -value * size, found.certified & (short <= 1e-9)


def _lagrangian(program: LinearProgram, primal: Primal, dual: Dual) -> Scalar:
    cost = jnp.sum(program.cost * primal.x) + jnp.sum(program.slack_cost * primal.z)
    met = jnp.einsum("rbs,bs->r", program.coupling, primal.x) + program.slack_coupling @ primal.z
    obeyed = jnp.einsum("bis,bs,bi->", program.within, primal.x, dual.within)
    return cost + jnp.sum(dual.rows * (program.target - met)) - obeyed


_worst_case_losses = jax.jit(worst_case_losses)


@eqx.filter_jit
def _evaluate(market: Callable, cost: Callable, unravel: Callable, point, delta):
    def read(point):
        parameters = unravel(point)
        loss, exact = _bound(market(parameters), delta)
        numbers = cost(parameters), loss
        return numbers, (numbers, exact)

    slopes, (numbers, exact) = jax.jacfwd(read, has_aux=True)(point)
    return slopes, numbers, exact


def cheapest_rule(
    cost: Callable[[Any], Scalar],
    market: Callable[[Any], Market],
    parameters: PyTree,
    *,
    largest_loss: float,
    delta: float,
    lower: Float[Array, " n"] | float = -np.inf,
    upper: Float[Array, " n"] | float = np.inf,
    tolerance: float = 1e-8,
    max_steps: int = 100,
) -> Rule:
    """Find the cheapest rule that bounds the users' total loss in EVERY delta-equilibrium.

    The loss is against full information, bounded by `worst_case_losses`: no equilibrium has to be
    computed, and none can be missed.

    **Arguments:**

    - `market(parameters)`: the market under the rule; `cost(parameters)`: what the rule costs.
    - `parameters`: a rule to start from that is strict enough: a pytree of floating arrays.
    - `largest_loss`: what users may lose together, in units of utility, positive. `delta`: of the
        equilibria, in units of the providers' payoffs, positive: at 0 the bound is all or nothing.
    - `lower`, `upper`: of the flattened parameters. `tolerance`: of the residual and of the loss.

    **Errors:** ValueError for settings out of range.

    **Source:** docs/certificates.md (worst-equilibrium certificate); for the search, `design`.

    >>> import jax.numpy as jnp
    >>> from diffgame.market import Market
    >>> from diffgame.market._rule import cheapest_rule
    >>> agree = jnp.stack([jnp.eye(2)] * 2)  # two users who want the same
    >>> hostile = jnp.array([[1.0, -2.0], [-2.0, 1.0]])[..., None, None] * agree[None]
    >>> def mixed(share):  # every provider must give the users' utility this weight
    ...     objective = (1 - share) * hostile + share * agree[None]
    ...     everybody = jnp.zeros(2, int)  # providers cannot tell users apart
    ...     masses = jnp.ones(2)
    ...     return Market(jnp.full(2, 0.5), agree, objective, masses, everybody, observations=1)
    >>> rule = cheapest_rule(lambda share: share, mixed, jnp.array(0.9), largest_loss=0.1,
    ...                      delta=0.01, lower=0.0, upper=1.0)
    >>> print(f"{rule.parameters:.6f} {rule.worst_case.total.loss:.6f}")
    0.400000 0.100000
    """
    for name, value in (("largest_loss", largest_loss), ("delta", delta), ("tolerance", tolerance)):
        if not value > 0:
            raise ValueError(f"cheapest_rule: {name} is {value}; give a positive number.")
    if max_steps < 1:
        raise ValueError(f"cheapest_rule: max_steps is {max_steps}; it must be at least 1.")
    flat, unravel = flatten_util.ravel_pytree(parameters)
    low = np.broadcast_to(np.asarray(lower, dtype=float), flat.shape)
    high = np.broadcast_to(np.asarray(upper, dtype=float), flat.shape)
    solves = 0

    def evaluate(point: np.ndarray) -> Sample:
        nonlocal solves
        solves += 1
        answer = _evaluate(market, cost, unravel, jnp.asarray(point), delta)
        (spent_slope, loss_slope), (spent, loss), exact = jax.device_get(answer)
        return Sample(
            point,
            -float(spent),
            -spent_slope,
            np.atleast_1d(loss - largest_loss),
            loss_slope[None],
            np.array([True]),
            # Optima of programs have no branches to fall from.
            np.zeros(0),
            np.zeros((0, flat.size)),
            bool(np.isfinite(loss) & np.isfinite(spent) & exact),
            None,
        )

    first = evaluate(np.clip(np.asarray(flat, dtype=float), low, high))
    if not first.usable:
        raise ValueError(
            "cheapest_rule: the bound at the first rule is not certified or not finite; check the "
            "market's numbers, or start from another rule."
        )
    search, reply, end = seek(first, low, high, tolerance, max_steps), None, None
    while not isinstance(end, End):
        try:
            asked = search.send(reply)
            reply = evaluate(asked.point) if isinstance(asked, Trial) else None
        except StopIteration as stop:
            end = stop.value
    sample = end.last.sample
    status, price = RuleStatus.not_enough, np.nan
    if violation(sample) <= tolerance:
        done = end.reason == "stationary"
        status = RuleStatus.cheapest_nearby if done else RuleStatus.enough
        price = float(end.last.prices[0])
    return Rule(
        unravel(jnp.asarray(sample.point)),
        -sample.value,
        _worst_case_losses(market(unravel(jnp.asarray(sample.point))), delta),
        price,
        end.last.residual,
        status,
        solves,
    )
