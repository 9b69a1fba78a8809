"""Small block programs by the simplex method over the extreme rays of their blocks."""

import functools

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ._extreme_rays import Rays, rays_of_lanes
from ._lanes import in_parts, over_lanes
from ._linear_program import Dual, LinearProgram, Primal
from ._revised_simplex import EACH, ZERO, Start, find_slacks, least, minimise, what_is_left
from ._simplex_columns import Columns, largest

_LANES = 64
_MAX_PIVOTS = 200
_DEAR = 1e3


class _Sizes(eqx.Module):
    cost: Float[Array, " lanes"]
    rows: Float[Array, "rows lanes"]


def _columns(program: LinearProgram, rays: Rays) -> tuple[Columns, _Sizes]:
    """Every ray and every slack as a column, rows and costs of size one; lanes last."""
    states, count, blocks, lanes = rays.ray.shape

    def along(table):
        """What a table [blocks, states, lanes] is worth along every ray."""
        return sum(table[None, :, s] * rays.ray[s] for s in range(states))

    cost_size = largest(program.cost if blocks else program.slack_cost[None], (0, 1))
    cost = jnp.where(rays.exists, along(program.cost) / cost_size[None, None], 1.0)
    coupled = [along(row) for row in program.coupling]
    if program.sums is not None:
        coupled = [program.sums[None] * rays.ray[s] for s in range(states)] + coupled
    matrix = jnp.stack(coupled) if blocks else jnp.zeros((len(program.target), count, 0, lanes))
    matrix = matrix.reshape(len(matrix), count * blocks, lanes)
    matrix = jnp.concatenate([matrix, program.slack_coupling], axis=1)
    row_size = largest(matrix, 1)
    columns = Columns(
        jnp.zeros((0, states, lanes)),
        jnp.concatenate(
            [cost.reshape(count * blocks, lanes), program.slack_cost / cost_size[None]]
        ),
        jnp.zeros((0, 0, states, lanes)),
        jnp.zeros((len(matrix), 0, states, lanes)),
        matrix / row_size[:, None],
        program.target / row_size,
    )
    return columns, _Sizes(cost_size, row_size)


def _own_columns(columns: Columns, first: int):
    """For each of the first rows a column without others of these, the cheapest first.

    Those come last that count against rows beyond, which would not be met then.
    """
    head = columns.slack_coupling[:first]
    pure = (head > 0) & (head >= jnp.sum(jnp.abs(head), axis=0)[None])
    spoils = jnp.any(columns.slack_coupling[first:] < -ZERO, axis=0)
    cost = columns.slack_cost + jnp.where(spoils, _DEAR, 0)
    found = [least(jnp.where(own, cost, jnp.inf)) for own in pure]
    exists = [
        jnp.isfinite(lowest) & (target >= 0)
        for (lowest, _), target in zip(found, columns.target[:first], strict=True)
    ]
    return jnp.stack(exists), jnp.stack([place for _, place in found])


def _start(columns: Columns, first: int, rays: int) -> Start:
    """Rays of one state for the first rows, slacks for the others."""
    lanes = columns.lanes
    matrix = columns.slack_coupling
    basic, chosen = jnp.zeros((0, lanes), bool), jnp.zeros((0, lanes), int)
    entry, below, cost = jnp.zeros((0, lanes)), matrix[first:, :0], jnp.zeros((0, lanes))
    if first:
        basic, chosen = _own_columns(columns, first)
        picked = jnp.take_along_axis(matrix, chosen[None], axis=1, mode="promise_in_bounds")
        picked = jnp.where(basic[None], picked, 0)
        entry = jnp.where(basic, jnp.stack([picked[row, row] for row in range(first)]), 1)
        below = picked[first:]
        cost = jnp.take_along_axis(columns.slack_cost, chosen, axis=0, mode="promise_in_bounds")
        cost = jnp.where(basic, cost, 0)
    left = what_is_left(columns.target, basic, entry, below)
    met, slack, size = find_slacks(columns.slack_cost[rays:], matrix[first:, rays:], left)
    return Start(
        jnp.concatenate([basic, met]),
        jnp.concatenate([chosen, rays + slack]),
        jnp.concatenate([entry, size]),
        below,
        cost,
        jnp.concatenate([columns.target[:first], left]),
    )


def _within(program: LinearProgram, rays: Rays, rows: Array) -> Float[Array, "blocks n lanes"]:
    """Multipliers of the rows `within` that prove no ray worth less than nothing."""
    states, _, blocks, lanes = rays.ray.shape
    if not len(rays.size):
        return jnp.zeros((blocks, 0, lanes))
    left = program.cost
    if program.sums is not None:
        left = left - program.sums[:, None] * rows[None, :states]
    first = len(rows) - len(program.coupling)
    for row, table in enumerate(program.coupling, first):
        left = left - rows[row][None, None] * table
    left = left.swapaxes(0, 1)
    multipliers = [sum(price[s] * left[s, None] for s in range(states)) for price in rays.prices]
    worst = functools.reduce(jnp.minimum, multipliers)
    worst = jnp.where(rays.exists, worst, -jnp.inf)
    best = worst >= jnp.max(worst, axis=0, keepdims=True) - EACH
    best = rays.exists & best & (jnp.cumsum(best, axis=0) == 1)
    needed = jnp.maximum(0, -jnp.min(left, axis=0))
    found = []
    for row, refutation in enumerate(rays.refutation):
        chosen = sum(
            jnp.where(best & (tight == row), multiplier, 0)
            for tight, multiplier in zip(rays.tight, multipliers, strict=True)
        )
        found.append(jnp.maximum(jnp.sum(chosen, axis=0), 0) + needed * refutation)
    return (jnp.stack(found) / rays.size).swapaxes(0, 1)


def _solve_lanes(program: LinearProgram, rays: Rays | None):
    if rays is None:
        rays = rays_of_lanes(program.within.transpose(1, 2, 0, 3))
    columns, sizes = _columns(program, rays)
    slacks = len(program.slack_cost)
    first = 0 if program.sums is None else program.cost.shape[1]
    count = len(columns.slack_cost) - slacks
    vertex = minimise(columns, _start(columns, first, count), _MAX_PIVOTS)
    rows = vertex.prices * sizes.cost[None] / sizes.rows
    weight = vertex.z[:count].reshape(rays.exists.shape)
    x = jnp.sum(rays.ray * weight[None], axis=1).swapaxes(0, 1)
    return (x, vertex.z[count:]), (_within(program, rays, rows), rows), vertex.pivots


_solve = over_lanes(in_parts(_solve_lanes, _LANES), axis=-1)


def solve_by_rays(
    program: LinearProgram, rays: Rays | None = None
) -> tuple[Primal, Dual, Int[Array, ""]]:
    """Solve one program whose blocks have few extreme rays; batch it with `jax.vmap`.

    Every nonnegative combination of a block's rays, and nothing else, meets its rows: so the rays
    are the columns of an equivalent program that has the other rows only.

    **Arguments:** `rays`: of `program.within`, if they are known.

    **Returns:** a vertex, its multipliers, and the number of pivots. Nothing is claimed about them:
    `check_optimum` says what they prove.

    **Source:** Dantzig, Wolfe (1960), Decomposition principle for linear programs.
    """
    primal, dual, pivots = _solve(program, rays)
    return Primal(*primal), Dual(*dual), pivots
