"""Climb one function under constraints, by augmented Lagrangians."""

from collections.abc import Callable

import jax
import jax.flatten_util as flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Scalar

from ._ascent import ascend
from ._constraints import Constraints

_ROUNDS = 25
_LARGEST_PENALTY = 1e10


def violation(constraints: Constraints) -> Scalar:
    """The largest violation: 0 where all hold, NaN where one is not a number."""
    above = jnp.maximum(constraints.inequalities, 0)
    apart = jnp.abs(constraints.equalities)
    return jnp.max(jnp.concatenate([above, apart]), initial=0)


def ascend_within(
    value: Callable[[Float[Array, " n"]], tuple[Scalar, Constraints]],
    project: Callable[[Float[Array, " n"]], Float[Array, " n"]],
    start: Float[Array, " n"],
    steps: int | Int[Array, ""],
    feasible: float,
) -> tuple[Float[Array, " n"], Scalar]:
    """The end of a search for the largest value under constraints; -inf unless they hold.

    `value` returns a function and its constraints; `project` keeps the simple part of the set. At
    most 25 rounds of `steps` steps of projected ascent of the augmented Lagrangian, until no
    constraint is violated, or slack at a price, by more than a tenth of `feasible`. A point that
    violates one by more than `feasible` counts for nothing: its value is -inf. A local search.

    **Source:** Birgin, Martinez (2014), Practical Augmented Lagrangian Methods, algorithm 4.1.
    """
    first, limits = value(start)
    flat_limits, _ = flatten_util.ravel_pytree(limits)
    signed = flatten_util.ravel_pytree(
        Constraints(jnp.ones_like(limits.inequalities), jnp.zeros_like(limits.equalities))
    )[0]

    def push(prices, penalty, constraints):
        """What every constraint would cost next: at least 0 for inequalities."""
        raised = prices + penalty * flatten_util.ravel_pytree(constraints)[0]
        return jnp.where(signed > 0, jnp.maximum(raised, 0), raised)

    def goes_on(carry):
        _, _, _, apart, step = carry
        return ~(apart <= feasible / 10) & (step < _ROUNDS)

    def improve(carry):
        point, prices, penalty, apart, step = carry

        def lagrangian(point):
            reached, constraints = value(point)
            pushed = push(prices, penalty, constraints)
            return reached - jnp.sum(pushed**2) / (2 * penalty)

        point, _ = ascend(lagrangian, project, point, steps)
        _, constraints = value(point)
        pushed = push(prices, penalty, constraints)
        # How far a constraint is violated, or slack although it has a price.
        now = jnp.max(jnp.abs(pushed - prices) / penalty, initial=0)
        harder = jnp.minimum(10 * penalty, _LARGEST_PENALTY)
        penalty_next = jnp.where(now <= apart / 4, penalty, harder)
        return point, pushed, penalty_next, now, step + 1

    # A penalty of the order of the value, so that neither drowns the other.
    scale = jnp.clip(10 * (1 + jnp.abs(first)) / (1 + jnp.sum(flat_limits**2)), 1e-2, 1e3)
    carry = start, jnp.zeros_like(flat_limits), scale, jnp.inf * scale, jnp.array(0)
    point, *_ = jax.lax.while_loop(goes_on, improve, carry)
    reached, constraints = value(point)
    return point, jnp.where(violation(constraints) <= feasible, reached, -jnp.inf)
