"""The revised simplex method for programs with few rows, many programs at once.

Columns are the extreme rays of the blocks and the slacks. All arrays end in an axis of lanes.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._ties import infinitesimals

# Where rows, rays and costs are of size one: below this a number is rounding.
_ZERO = 1e-11
_SMALLEST_PIVOT = 1e-9
_EACH = 1e-14
_DEAR = 1e3
_REFINEMENTS = 2


class Columns(eqx.Module):
    """Minimise cost @ w subject to matrix @ w = target, w >= 0."""

    cost: Float[Array, "columns lanes"]
    matrix: Float[Array, "rows columns lanes"]
    target: Float[Array, "rows lanes"]


class _Basis(eqx.Module):
    """Which columns are basic, and the inverse of their matrix.

    - `work`: the inverse, the values of the basic variables, and a second right side that decides
        ties. `index`: of columns; those after the last are artificial, one per row.
    - `costs`: of the basic variables, in the second phase; `artificial`: their cost in the first.
    """

    work: Float[Array, "rows places lanes"]
    index: Int[Array, "rows lanes"]
    costs: Float[Array, "rows lanes"]
    artificial: Float[Array, "rows lanes"]
    on: Bool[Array, " lanes"]
    pivots: Int[Array, " lanes"]


def _least(values: Float[Array, "n lanes"]):
    """The least value and its first place: a reduction to pairs would be many times slower."""
    n = len(values)
    least = jnp.min(values, axis=0)
    place = jnp.min(jnp.where(values <= least[None], jnp.arange(n)[:, None], n), axis=0)
    return least, jnp.minimum(place, n - 1)


def _take(array: Float[Array, "*lead n lanes"], place: Int[Array, " lanes"]):
    index = place.reshape(*[1] * (array.ndim - 1), -1)
    return jnp.take_along_axis(array, index, axis=-2)[..., 0, :]


def _combine(vector: Float[Array, "rows lanes"], matrix: Float[Array, "rows n lanes"]):
    terms = [vector[None, i] * matrix[i] for i in range(len(vector))]
    return sum(terms[1:], terms[0])


def _own_columns(columns: Columns, crash: int):
    """For each of the first rows a column without others of these, the cheapest first.

    Those come last that count against rows beyond, which would not be met then.
    """
    head = columns.matrix[:crash]
    pure = (head > 0) & (head >= jnp.sum(jnp.abs(head), axis=0)[None])
    spoils = jnp.any(columns.matrix[crash:] < -_ZERO, axis=0)
    cost = columns.cost + jnp.where(spoils, _DEAR, 0)
    found = [_least(jnp.where(own, cost, jnp.inf)) for own in pure]
    exists = [
        jnp.isfinite(least) & (target >= 0)
        for (least, _), target in zip(found, columns.target[:crash], strict=True)
    ]
    return jnp.stack(exists), jnp.stack([place for _, place in found])


def _own_slacks(columns: Columns, first: int, rows: int):
    """For each of the last rows a column that counts against it alone and costs nothing."""
    count = len(columns.cost)
    matrix = columns.matrix[len(columns.target) - rows :, first:]
    alone = jnp.sum(columns.matrix[:, first:] != 0, axis=0) == 1
    own = (matrix < 0) & (alone & (columns.cost[first:] == 0))[None]
    places = jnp.where(own, jnp.arange(first, count)[None, :, None], count)
    place = jnp.min(places, axis=1, initial=count)
    size = jnp.min(jnp.where(own, matrix, 0), axis=1, initial=0.0)
    return size < 0, place, size


def _start(columns: Columns, crash: int, slacks: int) -> _Basis:
    """Columns and slacks that are feasible as they are, artificial variables for other rows."""
    rows, lanes = columns.target.shape
    count = len(columns.cost)
    low = rows - crash
    places = count + jnp.broadcast_to(jnp.arange(rows)[:, None], (rows, lanes))
    found, chosen = jnp.zeros((0, lanes), bool), jnp.zeros((0, lanes), int)
    each, below = jnp.zeros((0, lanes)), jnp.zeros((low, 0, lanes))
    if crash:
        found, chosen = _own_columns(columns, crash)
        picked = jnp.take_along_axis(columns.matrix, chosen[None], axis=1)
        own = jnp.stack([picked[row, row] for row in range(crash)])
        each = jnp.where(found, 1 / jnp.where(found, own, 1), 0)
        below = picked[crash:] * each[None]
    top, bottom = columns.target[:crash], columns.target[crash:]
    rest = bottom - sum((below[:, row] * top[row][None] for row in range(crash)), 0 * bottom)
    met, slack, size = _own_slacks(columns, count - slacks, low)
    met = met & (rest <= 0)
    scale = jnp.concatenate(
        [
            jnp.where(found, each, jnp.where(top < 0, -1.0, 1.0)),
            jnp.where(met, 1 / jnp.where(met, size, 1), jnp.where(rest < 0, -1.0, 1.0)),
        ]
    )
    inverse = jnp.eye(rows)[:, :, None] * scale[None]
    inverse = inverse.at[crash:, :crash].set(-scale[crash:, None] * below)
    value = scale * jnp.concatenate([top, rest])
    basic = jnp.concatenate([found, met])
    index = jnp.where(basic, jnp.concatenate([chosen, slack]), places)
    costs = jnp.where(found, jnp.take_along_axis(columns.cost, chosen, axis=0), 0)
    tie = jnp.broadcast_to(jnp.asarray(infinitesimals(rows))[:, None], (rows, lanes))
    work = jnp.concatenate([inverse, value[:, None], tie[:, None]], axis=1)
    nothing = jnp.zeros(lanes, int)
    return _Basis(
        work,
        index,
        jnp.concatenate([costs, jnp.zeros((low, lanes))]),
        jnp.where(basic, 0.0, 1.0),
        nothing == 0,
        nothing,
    )


def _pivot(columns: Columns, basis: _Basis, max_pivots: int) -> _Basis:
    """Dantzig's rule; among the rows that limit the step an infinitesimal perturbation decides."""
    rows = len(columns.target)
    value, tie = basis.work[:, rows], basis.work[:, rows + 1]
    missing = jnp.sum(basis.artificial * value, axis=0)
    first = missing > _ZERO
    prices = _combine(jnp.where(first[None], basis.artificial, basis.costs), basis.work)[:rows]
    reduced = jnp.where(first[None], 0, columns.cost) - _combine(prices, columns.matrix)
    least, entering = _least(reduced)
    largest = jnp.max(jnp.abs(prices), axis=0)
    improves = least < -_EACH * (100 + largest)
    column = _take(columns.matrix, entering)
    change = _combine(column, basis.work[:, :rows].swapaxes(0, 1))
    # An artificial variable that is 0 in the second phase leaves at once, whatever its sign.
    stays = (basis.artificial > 0) & ~first[None]
    usable = (change > _SMALLEST_PIVOT) | (stays & (jnp.abs(change) > _SMALLEST_PIVOT))
    divisor = jnp.where(usable, change, 1)
    ratio = jnp.where(usable, jnp.where(stays, 0, jnp.maximum(value, 0) / divisor), jnp.inf)
    limit = jnp.min(ratio, axis=0)
    tied = usable & (ratio <= (limit + _ZERO * (1 + limit))[None])
    second = jnp.where(tied, jnp.where(stays, -jnp.inf, tie / divisor), jnp.inf)
    _, leaving = _least(second)
    on = basis.on & improves & jnp.isfinite(limit) & (basis.pivots < max_pivots)
    here = (jnp.arange(rows)[:, None] == leaving[None]) & on[None]
    pivot = jnp.where(on, _take(divisor, leaving), 1)
    row = _take(basis.work.swapaxes(0, 1), leaving) / pivot[None]
    factor = jnp.where(here, change - 1, change) * on[None]
    return _Basis(
        basis.work - factor[:, None] * row[None],
        jnp.where(here, entering[None], basis.index),
        jnp.where(here, _take(columns.cost, entering)[None], basis.costs),
        jnp.where(here, 0.0, basis.artificial),
        on,
        basis.pivots + on,
    )


def solve_columns(
    columns: Columns, crash: int, slacks: int, max_pivots: int
) -> tuple[Float[Array, "rows lanes"], Int[Array, "rows lanes"], Array, Int[Array, " lanes"]]:
    """The values of the basic variables, their columns, the multipliers of the rows, the pivots.

    `crash`: so many rows are met by columns that have no other of these rows, where there are some.
    `slacks`: so many of the last columns may be slacks of the other rows.

    **Source:** Dantzig, Orchard-Hays (1954), The product form for the inverse in the simplex
    method.
    """
    rows, count = len(columns.target), len(columns.cost)
    basis = jax.lax.while_loop(
        lambda basis: jnp.any(basis.on),
        lambda basis: _pivot(columns, basis, max_pivots),
        _start(columns, crash, slacks),
    )
    inverse, value = basis.work[:, :rows], basis.work[:, rows]
    prices = _combine(basis.costs, inverse)
    # Rounding errors of the pivots go.
    genuine = basis.index < count
    inside = jnp.minimum(basis.index, count - 1)
    row = jnp.maximum(basis.index - count, 0)
    sign = jnp.sign(jnp.take_along_axis(inverse, row[:, None], axis=1)[:, 0])
    artificial = jnp.where(jnp.arange(rows)[:, None, None] == row[None], sign[None], 0)
    own = jnp.take_along_axis(columns.matrix, inside[None], axis=1)
    own = jnp.where(genuine[None], own, artificial)
    for _ in range(_REFINEMENTS):
        missing = columns.target - _combine(value, own.swapaxes(0, 1))
        value = value + _combine(missing, inverse.swapaxes(0, 1))
        prices = prices + _combine(basis.costs - _combine(prices, own), inverse)
    return value, basis.index, prices, basis.pivots
