"""Linear programs of the kind that recommendations make, and the check of an optimum."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Scalar


class LinearProgram(eqx.Module):
    """Minimise a linear cost over blocks of nonnegative numbers that few rows tie together.

        minimise    sum cost * x + sum slack_cost * z
        subject to  within[block] @ x[block] >= 0       for every block
                    sum coupling * x + slack_coupling @ z = target
                    x >= 0, z >= 0

    A block is one recommendation (an action, or a profile of actions), its coordinates are the
    states; the rows `within` are its obedience constraints. A row of zeros is no constraint.
    With `sums` there are rows before those of `coupling`, one per state: the sum over blocks of
    sums * x, as total probabilities are. `target` and `slack_coupling` have them first. Written as
    rows of `coupling` they would mean the same and cost as much as dense ones.
    Programs without blocks are ordinary ones in standard form in z alone.
    """

    cost: Float[Array, "blocks states"]
    slack_cost: Float[Array, " slacks"]
    within: Float[Array, "blocks inequalities states"]
    coupling: Float[Array, "coupling blocks states"]
    slack_coupling: Float[Array, "rows slacks"]
    target: Float[Array, " rows"]
    sums: Float[Array, " blocks"] | None = None

    def add_up(self, x: Float[Array, "blocks states"]) -> Float[Array, " rows"]:
        """What the blocks contribute to every row."""
        coupled = jnp.einsum("rbs,bs->r", self.coupling, x)
        if self.sums is None:
            return coupled
        return jnp.concatenate([self.sums @ x, coupled])

    def price(self, rows: Float[Array, " rows"]) -> Float[Array, "blocks states"]:
        """What multipliers of the rows make each coordinate of a block worth."""
        if self.sums is None:
            return jnp.einsum("rbs,r->bs", self.coupling, rows)
        states = self.cost.shape[1]
        coupled = jnp.einsum("rbs,r->bs", self.coupling, rows[states:])
        return self.sums[:, None] * rows[None, :states] + coupled


class Primal(eqx.Module):
    """A point of a program."""

    x: Float[Array, "blocks states"]
    z: Float[Array, " slacks"]


class Dual(eqx.Module):
    """Multipliers: of the rows `within` (nonnegative when feasible) and of the coupling rows."""

    within: Float[Array, "blocks inequalities"]
    rows: Float[Array, " rows"]


class Optimality(eqx.Module):
    """What a primal and a dual point prove together, in the units of the program.

    - `value`: cost of the primal point; `bound`: value of the dual point.
    - `primal_violation`, `dual_violation`: largest violation of any constraint.
    - `tolerance`: what was asked. `certified`: violations and |value - bound| are finite and at
        most the tolerance; those of the dual relative to 1 + |largest cost|, the gap relative to
        that plus |value|.
    """

    value: Scalar
    bound: Scalar
    primal_violation: Scalar
    dual_violation: Scalar
    certified: Bool[Array, ""]


def check_optimum(
    program: LinearProgram, primal: Primal, dual: Dual, tolerance: float = 1e-9
) -> Optimality:
    """Check from a primal and a dual point alone that both are optimal (weak duality).

    It shares nothing with any solver: a dual feasible point bounds the value of every feasible
    point, so equal values prove both optimal.
    """
    value = jnp.sum(program.cost * primal.x) + jnp.sum(program.slack_cost * primal.z)
    bound = jnp.sum(program.target * dual.rows)
    inequality = jnp.einsum("bis,bs->bi", program.within, primal.x)
    balance = program.add_up(primal.x) + program.slack_coupling @ primal.z - program.target
    reduced = (
        program.cost
        - jnp.einsum("bis,bi->bs", program.within, dual.within)
        - program.price(dual.rows)
    )
    reduced_slack = program.slack_cost - dual.rows @ program.slack_coupling

    def violation(*parts):
        return jnp.max(jnp.concatenate([jnp.zeros(1), *(-part.ravel() for part in parts)]))

    primal_violation = violation(primal.x, primal.z, inequality, balance, -balance)
    dual_violation = violation(reduced, reduced_slack, dual.within)
    costs = program.cost if program.cost.size else program.slack_cost
    scale = 1 + jnp.max(jnp.abs(costs), initial=0.0)
    gap = jnp.abs(value - bound) / (scale + jnp.abs(value))
    errors = jnp.stack([primal_violation, dual_violation / scale, gap])
    certified = jnp.all(jnp.isfinite(errors) & (errors >= 0) & (errors <= tolerance))
    finite = jnp.isfinite(value) & jnp.isfinite(bound)
    return Optimality(value, bound, primal_violation, dual_violation, certified & finite)
