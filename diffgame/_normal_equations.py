"""Scaled block programs and their normal equations, many at once.

All arrays end in an axis of lanes, one per program: each operation runs over whole vectors of them,
and the few states or inequalities of one program are written out.
"""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ._cholesky import block_products, products, triangular_solvers
from ._linear_program import LinearProgram

# With more rows `within` per state than this only the tightest are eliminated as rows.
_MANY = 2
# In place of the infinite stiffness of a variable that is 0.
_STIFFEST = 1e64


class Variables(eqx.Module):
    """One number per variable: of x, of the slacks t of the rows `within`, and of z.

    They are kept apart, as XLA turns one array of all of them into a case distinction per number.
    """

    x: Float[Array, "states blocks lanes"]
    t: Float[Array, "inequalities blocks lanes"]
    z: Float[Array, "slacks lanes"]


class Scaled(eqx.Module):
    """Programs with rows and costs of size one, in equality form A v = b, v >= 0.

    v consists of x, t and z. A row without coefficients reads t = 1, so that a strictly feasible
    point exists. Lanes come last, so that every operation runs over whole vectors of programs.
    """

    cost: Variables
    within: Float[Array, "inequalities states blocks lanes"]
    sums: Float[Array, "blocks lanes"] | None
    coupling: Float[Array, "coupling states blocks lanes"]
    slack_coupling: Float[Array, "rows slacks lanes"]
    idle: Float[Array, "inequalities blocks lanes"]
    target: Float[Array, "rows lanes"]
    within_size: Float[Array, "inequalities blocks lanes"]
    row_size: Float[Array, "rows lanes"]
    cost_size: Float[Array, " lanes"]

    def add_up(self, x: Float[Array, "states blocks lanes"]) -> Float[Array, "rows lanes"]:
        coupled = jnp.sum(products(self.coupling, x[None])[:, 0], axis=1)
        if self.sums is None:
            return coupled
        return jnp.concatenate([jnp.sum(self.sums[None] * x, axis=1), coupled])

    def price(self, rows: Float[Array, "rows lanes"]) -> Float[Array, "states blocks lanes"]:
        states, blocks, lanes = self.within.shape[1:]
        coupling = self.coupling.reshape(len(self.coupling), states * blocks, lanes)
        if self.sums is None:
            return products(coupling.swapaxes(0, 1), rows[None])[:, 0].reshape(
                states, blocks, lanes
            )
        summed = self.sums[None] * rows[:states, None]
        if not len(self.coupling):
            return summed
        coupled = products(coupling.swapaxes(0, 1), rows[None, states:])[:, 0]
        return summed + coupled.reshape(states, blocks, lanes)

    def forward(self, v: Variables):
        """A v: the rows `within`, and the others."""
        within = products(self.within, v.x[None])[:, 0] - v.t
        return within, self.add_up(v.x) + jnp.sum(self.slack_coupling * v.z[None], axis=1)

    def backward(self, within, rows) -> Variables:
        """A' y."""
        x = self.price(rows)
        if len(within):
            x = x + products(self.within.swapaxes(0, 1), within[None])[:, 0]
        return Variables(x, -within, jnp.sum(self.slack_coupling * rows[:, None], axis=0))


def _largest(array: Array, axis) -> Array:
    top = jnp.max(jnp.abs(array), axis=axis, initial=0.0)
    return jnp.where(top > 0, top, 1)


def scale(program: LinearProgram) -> Scaled:
    """Lanes last in all arrays of `program`."""
    within = program.within.transpose(1, 2, 0, 3)
    coupling = program.coupling.transpose(0, 2, 1, 3)
    states = within.shape[1]
    within_size = _largest(within, 1)
    row_size = jnp.max(jnp.abs(coupling), axis=(1, 2), initial=0.0)
    if program.sums is not None:
        largest = jnp.max(jnp.abs(program.sums), axis=0, initial=0.0)
        row_size = jnp.concatenate(
            [jnp.broadcast_to(largest[None], (states, *largest.shape)), row_size]
        )
    row_size = jnp.maximum(row_size, jnp.max(jnp.abs(program.slack_coupling), 1, initial=0.0))
    row_size = jnp.where(row_size > 0, row_size, 1)
    if program.sums is not None:
        # One size for all of them, so that they stay the sums of weighted blocks.
        common = jnp.max(row_size[:states], axis=0)
        row_size = row_size.at[:states].set(common[None])
        sums, coupled = program.sums / common[None], row_size[states:]
    else:
        sums, coupled = None, row_size
    # Slack costs are left as they are: prices of infeasibility would drown the costs that matter.
    cost_size = _largest(program.cost, (0, 1))
    idle = -1.0 * ~jnp.any(within != 0, axis=1)
    return Scaled(
        Variables(
            program.cost.swapaxes(0, 1) / cost_size[None, None],
            jnp.zeros_like(idle),
            program.slack_cost / cost_size[None],
        ),
        within / within_size[:, None],
        sums,
        coupling / coupled[:, None, None],
        program.slack_coupling / row_size[:, None],
        idle,
        program.target / row_size,
        within_size,
        row_size,
        cost_size,
    )


class _Choice(eqx.Module):
    """Which rows `within` are kept, each row's place in that order, and the weights of the others.

    `loose` is 0 for rows that are kept.
    """

    order: Int[Array, "kept blocks lanes"]
    rank: Int[Array, "inequalities blocks lanes"]
    loose: Float[Array, "inequalities blocks lanes"]


class _Kept(eqx.Module):
    """The rows `within` that are eliminated as rows; the others, if any, are pivots first.

    - `answer(prices)`: how x answers prices [n, states, blocks, lanes] of its coordinates.
    - `total`: that of all blocks to prices they share [states, states, lanes], by `sums`.
    """

    within: Float[Array, "kept states blocks lanes"]
    weight: Float[Array, "kept blocks lanes"]
    answer: Callable[[Array], Array]
    total: Float[Array, "states states lanes"] | None
    choice: _Choice | None


def _keep_all(scaled: Scaled, weight: Variables) -> _Kept:
    total = None
    if scaled.sums is not None:
        summed = jnp.sum((scaled.sums**2)[None] * weight.x, axis=1)
        total = jnp.eye(len(summed))[:, :, None] * summed[None]
    return _Kept(scaled.within, weight.t, lambda prices: prices * weight.x[None], total, None)


def _keep_tight(scaled: Scaled, weight: Variables) -> _Kept:
    """As many rows as a block has states: more cannot be tight at a vertex.

    The others weigh little in the optimum, so that adding them to what x costs (a matrix per block)
    loses no accuracy; doing so with tight rows would.
    """
    states = scaled.within.shape[1]
    order = jnp.argsort(weight.t, axis=0)
    rank = jnp.argsort(order, axis=0)
    order = order[:states]
    loose = jnp.where(rank < states, 0, 1 / weight.t)
    stiffness = jnp.eye(states)[:, :, None, None] * jnp.minimum(1 / weight.x, _STIFFEST)[None]
    rows = scaled.within.swapaxes(0, 1)
    stiffness = stiffness + products(rows * loose[None], rows)
    down, up = triangular_solvers(stiffness)

    def answer(prices):
        return up(down(prices.swapaxes(0, 1))).swapaxes(0, 1)

    total = None
    if scaled.sums is not None:
        eye = jnp.broadcast_to(jnp.eye(states)[:, :, None, None], stiffness.shape)
        total = jnp.sum((scaled.sums**2)[None, None] * answer(eye), axis=2)
    return _Kept(
        jnp.take_along_axis(scaled.within, order[:, None], axis=0),
        jnp.take_along_axis(weight.t, order, axis=0),
        answer,
        total,
        _Choice(order, rank, loose),
    )


def factorise(scaled: Scaled, weight: Variables):
    """Solver of the normal equations A diag(weight) A' y = rhs.

    Eliminating the blocks first is a Cholesky factorisation in an order that creates no fill,
    so it is as stable as the dense one and linear in the number of blocks.
    """
    inequalities, states = scaled.within.shape[:2]
    many = inequalities > _MANY * states
    kept = _keep_tight(scaled, weight) if many else _keep_all(scaled, weight)
    coupled = kept.answer(scaled.coupling)
    corner = block_products(coupled, scaled.coupling)
    if scaled.sums is not None and kept.total is not None:
        side = jnp.sum(scaled.sums[None, None] * coupled, axis=2)
        corner = _bordered(kept.total, side, corner)
    slacks = scaled.slack_coupling * weight.z[None]
    if slacks.shape[1]:
        corner = corner + products(slacks, scaled.slack_coupling)
    if not inequalities:
        down, up = triangular_solvers(corner)
        return lambda within, rows: (within, up(down(rows[:, None]))[:, 0])
    weighted = kept.answer(kept.within)
    eye = jnp.eye(len(weighted))[:, :, None, None]
    down, up = triangular_solvers(products(weighted, kept.within) + eye * kept.weight[:, None])
    border = down(weighted).swapaxes(0, 1)
    tied = products(scaled.coupling, border.swapaxes(0, 1))
    fill = block_products(tied, tied)
    if scaled.sums is not None:
        summed = scaled.sums[None, None] * border
        fill = _bordered(block_products(summed, summed), block_products(tied, summed), fill)
    down_corner, up_corner = triangular_solvers(corner - fill)

    def solve_kept(tight, moved, rows):
        first = _times_by(down, tight)
        drawn = _times(border, first) + moved
        y = _times_by(up_corner, _times_by(down_corner, rows - scaled.add_up(drawn)))
        price = scaled.price(y)
        return _times_by(up, first - _times(border.swapaxes(0, 1), price)), y, price

    def solve(within, rows):
        choice = kept.choice
        if choice is None:
            found, y, _ = solve_kept(within, jnp.zeros(()), rows)
            return found, y
        push = _times(scaled.within.swapaxes(0, 1), choice.loose * within)
        moved = kept.answer(push[None])[0]
        tight = jnp.take_along_axis(within, choice.order, axis=0) - _times(kept.within, moved)
        found, y, price = solve_kept(tight, moved, rows)
        pull = _times(kept.within.swapaxes(0, 1), found) + price + push
        rest = (within - _times(scaled.within, kept.answer(pull[None])[0])) * choice.loose
        own = jnp.take_along_axis(found, jnp.minimum(choice.rank, len(found) - 1), axis=0)
        return jnp.where(choice.rank < len(found), own, rest), y

    return solve


def _times(matrix: Float[Array, "n m *batch"], vector: Float[Array, "m *batch"]):
    return products(matrix, vector[None])[:, 0]


def _times_by(function: Callable, vector: Float[Array, "m *batch"]):
    return function(vector[:, None])[:, 0]


def _bordered(first, side, last):
    if not len(last):
        return first
    rows = [first, side.swapaxes(0, 1)], [side, last]
    return jnp.concatenate([jnp.concatenate(row, axis=1) for row in rows])
