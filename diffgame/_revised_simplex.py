"""The revised simplex method, many programs at once. All arrays end in an axis of lanes."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._lanes import take
from ._simplex_columns import Columns
from ._ties import infinitesimals

# Where rows, columns and costs are of size one: below this a number is rounding.
ZERO = 1e-11
_SMALLEST_PIVOT = 1e-9
EACH = 1e-14
# Right-hand sides are shifted by so much, each by another multiple: no two rows ever tie, though
# what would tie is known to rounding errors only.
_SHIFT = 1e-13


def least(values: Float[Array, "n lanes"], error: Float[Array, " lanes"] | float = EACH):
    """The least value and the first place that has it but for an error.

    A reduction to pairs would be many times slower. XLA may compute the values once for the least
    and again for its place, with other rounding errors: without allowance none might be equal.
    """
    n = len(values)
    found = jnp.min(values, axis=0)
    enough = (found + error)[None]
    place = jnp.min(jnp.where(values <= enough, jnp.arange(n)[:, None], n), axis=0)
    return found, jnp.minimum(place, n - 1)


class Start(eqx.Module):
    """A triangular basis: a column for each of the `first` rows, columns of one row for the rest.

    - `basic`: which rows have a column; the others get an artificial one. `column`: its number.
        `entry`: its coefficient in its own row.
    - `below`: coefficients of the first columns in the rest. `cost`: of the first columns; the
        others must cost nothing. Both are 0 where there is none.
    - `right`: right-hand sides of the first rows, and what the first columns leave of the rest.
    """

    basic: Bool[Array, "rows lanes"]
    column: Int[Array, "rows lanes"]
    entry: Float[Array, "rows lanes"]
    below: Float[Array, "rest first lanes"]
    cost: Float[Array, "first lanes"]
    right: Float[Array, "rows lanes"]


class Basis(eqx.Module):
    """Which columns are basic, and the inverse of their matrix.

    - `work`: a row per basic variable, then the prices of the second and of the first phase. In a
        row come the inverse, the shifted value of the variable, and what a unit of shift is of it.
    - `index`: of columns; those after the last are artificial, one per row.
    """

    work: Float[Array, "places places lanes"]
    index: Int[Array, "rows lanes"]
    artificial: Bool[Array, "rows lanes"]
    on: Bool[Array, " lanes"]
    pivots: Int[Array, " lanes"]


def what_is_left(
    target: Float[Array, "rows lanes"],
    basic: Bool[Array, "first lanes"],
    entry: Float[Array, "first lanes"],
    below: Float[Array, "rest first lanes"],
) -> Float[Array, "rest lanes"]:
    """Of the right-hand sides of the rest, after the first columns; see `Start`."""
    first = len(entry)
    each = jnp.where(basic, target[:first] / entry, 0)
    return target[first:] - jnp.sum(below * each[None], axis=1)


def find_slacks(
    cost: Float[Array, "slacks lanes"],
    matrix: Float[Array, "rows slacks lanes"],
    right: Float[Array, "rows lanes"],
):
    """For each row a column of this row alone that costs nothing and whose sign fits, if any."""
    count = len(cost)
    alone = (jnp.sum(matrix != 0, axis=0) == 1) & (cost == 0)
    # Its value is right / matrix.
    fits = alone[None] & (matrix != 0) & (right[:, None] * matrix >= 0)
    places = jnp.where(fits, jnp.arange(count)[None, :, None], count)
    place = jnp.min(places, axis=1, initial=count)
    entry = jnp.sum(jnp.where(places == place[:, None], matrix, 0), axis=1)
    found = place < count
    return found, place, jnp.where(found, entry, 1)


def begin(columns: Columns, start: Start) -> Basis:
    """The basis that a start describes."""
    count = sum(columns.sizes)
    rows, lanes = start.right.shape
    first = len(start.cost)
    entry = jnp.where(start.basic, start.entry, jnp.where(start.right < 0, -1.0, 1.0))
    inverse = jnp.eye(rows)[:, :, None] / entry[None]
    below = -start.below / entry[None, :first] / entry[first:, None]
    inverse = inverse.at[first:, :first].set(below)
    shift = jnp.broadcast_to(jnp.asarray(infinitesimals(rows))[:, None], (rows, lanes))
    value = start.right / entry + _SHIFT * shift
    body = jnp.concatenate([inverse, value[:, None], shift[:, None]], axis=1)
    second = jnp.zeros((rows + 2, lanes)).at[:first].set(start.cost / entry[:first])
    artificial = ~start.basic
    phase_one = jnp.sum(jnp.where(artificial[:, None], body, 0), axis=0)
    nothing = jnp.zeros(lanes, int)
    return Basis(
        jnp.concatenate([body, second[None], phase_one[None]]),
        jnp.where(start.basic, start.column, count + jnp.arange(rows)[:, None]),
        artificial,
        nothing == 0,
        nothing,
    )


def _values(basis: Basis) -> Float[Array, "rows lanes"]:
    """Of the basic variables, without the shift."""
    rows = len(basis.index)
    return basis.work[:rows, rows] - _SHIFT * basis.work[:rows, rows + 1]


def _is_infeasible(basis: Basis) -> Bool[Array, " lanes"]:
    return jnp.sum(jnp.where(basis.artificial, _values(basis), 0), axis=0) > ZERO


def pivot(columns: Columns, basis: Basis, max_pivots: int) -> Basis:
    """Dantzig's rule, on shifted right-hand sides."""
    rows, work = len(basis.index), basis.work
    first = _is_infeasible(basis)
    prices = jnp.where(first[None], work[rows + 1, :rows], work[rows, :rows])
    largest = jnp.max(jnp.abs(prices), axis=0)
    lowest, entering = least(columns.reduce_costs(prices, ~first), EACH / 2 * (1 + largest))
    improves = lowest < -EACH * (100 + largest)
    # Of the column in terms of the basis; in the rows of prices, less what it costs.
    image = columns.image(entering, work).at[rows].add(-columns.price(entering))
    change = image[:rows]
    # An artificial variable that is 0 in the second phase leaves at once, whatever its sign.
    stays = basis.artificial & ~first[None]
    usable = (change > _SMALLEST_PIVOT) | (stays & (jnp.abs(change) > _SMALLEST_PIVOT))
    divisor = jnp.where(usable, change, 1)
    ratio = jnp.where(stays, -1, jnp.maximum(work[:rows, rows], 0) / divisor)
    ratio = jnp.where(usable, ratio, jnp.inf)
    limit, leaving = least(ratio, ZERO / 100 * jnp.abs(jnp.min(ratio, axis=0)))
    on = basis.on & improves & jnp.isfinite(limit) & (basis.pivots < max_pivots)
    here = (jnp.arange(rows + 2)[:, None] == leaving[None]) & on[None]
    size = jnp.where(on, take(divisor, leaving), 1)
    row = jnp.take_along_axis(work, leaving[None, None], axis=0, mode="promise_in_bounds")[0]
    row = row / size[None]
    factor = jnp.where(here, image - 1, image) * on[None]
    return Basis(
        work - factor[:, None] * row[None],
        jnp.where(here[:rows], entering[None], basis.index),
        basis.artificial & ~here[:rows],
        on,
        basis.pivots + on,
    )


class Vertex(eqx.Module):
    """Where the method ended: values of the columns, multipliers of the rows, number of pivots."""

    x: Float[Array, "blocks states lanes"]
    z: Float[Array, "slacks lanes"]
    prices: Float[Array, "rows lanes"]
    pivots: Int[Array, " lanes"]


def refine(columns: Columns, basis: Basis) -> Vertex:
    """One step of iterative refinement: rounding errors of the pivots go."""
    rows = len(basis.index)
    inverse, values, prices = basis.work[:rows, :rows], _values(basis), basis.work[rows]
    feasible = ~_is_infeasible(basis)
    missing = columns.missing(*columns.spread(basis.index, values)) * feasible[None]
    values = jnp.maximum(values + jnp.sum(inverse * missing[None], axis=1), 0)
    prices = prices[:rows]
    reduced = columns.reduce_costs(prices, jnp.ones_like(feasible))
    count = len(reduced)
    inside = jnp.minimum(basis.index, count - 1)
    own = jnp.take_along_axis(reduced, inside, axis=0, mode="promise_in_bounds")
    own = jnp.where(basis.index < count, own, 0)
    prices = prices + jnp.sum(inverse * own[:, None], axis=0)
    x, z, _ = columns.spread(basis.index, values)
    return Vertex(x, z, prices, basis.pivots)


def minimise(columns: Columns, start: Start, max_pivots: int) -> Vertex:
    """The best vertex that pivots reach from a start.

    **Source:** Dantzig, Orchard-Hays (1954), The product form for the inverse in the simplex
    method.
    """
    basis = jax.lax.while_loop(
        lambda basis: jnp.any(basis.on),
        lambda basis: pivot(columns, basis, max_pivots),
        begin(columns, start),
    )
    return refine(columns, basis)
