"""The revised simplex method for programs with few rows, many programs at once.

Columns are the extreme rays of the blocks and the slacks. All arrays end in an axis of lanes.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ._cholesky import products

# Where rows, rays and costs are of size one: below this a number is rounding.
_ZERO = 1e-11
_SMALLEST_PIVOT = 1e-9
_EACH = 1e-14


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


def _start(columns: Columns, crash: int) -> _Basis:
    """An artificial basis, but for the first `crash` rows columns of those rows alone."""
    rows, lanes = columns.target.shape
    count = len(columns.cost)
    places = jnp.arange(rows)
    index = jnp.broadcast_to(count + places[:, None], (rows, lanes))
    sign = jnp.where(columns.target < 0, -1.0, 1.0)
    artificial, costs = jnp.ones((rows, lanes)), jnp.zeros((rows, lanes))
    inverse = jnp.eye(rows)[:, :, None] * sign[None]
    value = jnp.abs(columns.target)
    if crash:
        own = jnp.eye(crash) > 0
        head = columns.matrix[:crash]
        total = jnp.sum(jnp.abs(head), axis=0)
        pure = (head > 0) & (head >= total[None])
        found, chosen = [], []
        for row in range(crash):
            best, place = _least(jnp.where(pure[row], columns.cost, jnp.inf))
            found.append(jnp.isfinite(best) & (columns.target[row] >= 0))
            chosen.append(place)
        found, chosen = jnp.stack(found), jnp.stack(chosen)
        picked = jnp.take_along_axis(columns.matrix, chosen[None], axis=1)
        size = jnp.sum(jnp.where(own[:, :, None], picked[:crash], 0), axis=0)
        each = jnp.where(found, 1 / jnp.where(found, size, 1), 0)
        below = picked[crash:] * each[None]
        met = jnp.where(found, columns.target[:crash], 0)
        rest = columns.target[crash:] - jnp.sum(below * met[None], axis=1)
        sign = sign.at[crash:].set(jnp.where(rest < 0, -1.0, 1.0))
        top = jnp.where(found, each, sign[:crash])
        inverse = jnp.eye(rows)[:, :, None] * jnp.concatenate([top, sign[crash:]])[None]
        inverse = inverse.at[crash:, :crash].set(-sign[crash:, None] * below)
        value = jnp.concatenate([top * columns.target[:crash], jnp.abs(rest)])
        index = index.at[:crash].set(jnp.where(found, chosen, index[:crash]))
        artificial = artificial.at[:crash].set(jnp.where(found, 0, 1))
        costs = costs.at[:crash].set(
            jnp.where(found, jnp.take_along_axis(columns.cost, chosen, axis=0), 0)
        )
    # Fixed irrational numbers, so that ties never tie again.
    drawn = 0.5 + np.modf(np.arange(1, rows + 1) * np.sqrt(np.arange(2, rows + 2)))[0]
    tie = jnp.broadcast_to(jnp.asarray(drawn)[:, None], (rows, lanes))
    work = jnp.concatenate([inverse, value[:, None], tie[:, None]], axis=1)
    nothing = jnp.zeros(lanes, int)
    return _Basis(work, index, costs, artificial, nothing == 0, nothing)


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
    columns: Columns, crash: int, max_pivots: int
) -> tuple[Float[Array, "rows lanes"], Int[Array, "rows lanes"], Array, Int[Array, " lanes"]]:
    """The values of the basic variables, their columns, the multipliers of the rows, the pivots.

    `crash`: so many rows are tried to be met by columns that have no other of these rows.

    **Source:** Dantzig, Orchard-Hays (1954), The product form for the inverse in the simplex
    method.
    """
    rows, count = len(columns.target), len(columns.cost)
    basis = jax.lax.while_loop(
        lambda basis: jnp.any(basis.on),
        lambda basis: _pivot(columns, basis, max_pivots),
        _start(columns, crash),
    )
    # Rounding errors of the pivots go: Newton's method for the inverse of the basic columns.
    inverse = basis.work[:, :rows]
    inside = jnp.minimum(basis.index, count - 1)
    eye = jnp.eye(rows)[:, :, None]
    own = jnp.where(
        (basis.index < count)[None], jnp.take_along_axis(columns.matrix, inside[None], 1), eye
    )
    sign = jnp.where(basis.index < count, 1.0, jnp.sign(jnp.sum(inverse * eye, 1)))
    own = own * sign[None]
    for _ in range(2):
        rest = 2 * eye - products(own, inverse.swapaxes(0, 1))
        inverse = products(inverse, rest.swapaxes(0, 1))
    value = _combine(columns.target, inverse.swapaxes(0, 1))
    prices = _combine(basis.costs, inverse)
    return value, basis.index, prices, basis.pivots
