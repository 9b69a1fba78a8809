"""Elimination for many small systems at once."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Up to this many unknowns the elimination is written out as operations on whole batches.
_UNROLL = 16


def weighted_sum(
    table: Float[Array, "*shape lanes"], axis: int, weights: Float[Array, "n lanes"]
) -> Array:
    """The sum over one axis of the table, weighted lane by lane."""
    table = jnp.moveaxis(table, axis, 0)
    between = (slice(None), *[None] * (table.ndim - 2), slice(None))
    if len(table) > _UNROLL:
        return jnp.sum(table * weights[between], axis=0)
    terms = [entry * weight for entry, weight in zip(table, weights[between], strict=True)]
    return functools.reduce(jnp.add, terms)


def eliminate(
    rows: Float[Array, "n columns lanes"],
) -> tuple[Float[Array, "n right lanes"], Float[Array, " lanes"]]:
    """Solve M X = R given as rows [M, R], without pivoting.

    **Returns:** X and the sign of det M, which the pivots give away. Where a pivot is lost, X is
    not finite or useless: callers judge it by what it does to the residual.
    """
    return _unrolled(rows) if len(rows) <= _UNROLL else _looped(rows)


def _unrolled(rows):
    sign = jnp.ones_like(rows[0, 0])
    upper = []
    while len(rows):
        inverse = 1 / rows[0, 0]
        sign = sign * jnp.sign(inverse)
        first = rows[0, 1:] * inverse[None]
        upper.append(first)
        rows = rows[1:, 1:] - rows[1:, :1] * first[None]
    right = upper[-1].shape[0]
    found: list[Array] = []
    for row in reversed(upper):
        value = row[len(row) - right :]
        for coefficient, known in zip(row, found, strict=False):
            value = value - coefficient[None] * known
        found.insert(0, value)
    return jnp.stack(found), sign


def _looped(rows):
    n = len(rows)

    def clear(j, state):
        rows, sign = state
        inverse = 1 / rows[j, j]
        pivot_row = rows[j] * inverse[None]
        rows = rows - rows[:, j][:, None] * pivot_row[None]
        return rows.at[j].set(pivot_row), sign * jnp.sign(inverse)

    rows, sign = jax.lax.fori_loop(0, n, clear, (rows, jnp.ones_like(rows[0, 0])))
    return rows[:, n:], sign


def solve_pivoted(matrix: Float[Array, "n n"], right: Float[Array, " n"]) -> Float[Array, " n"]:
    """Solve one system by Gauss-Jordan elimination with partial pivoting; batch with `jax.vmap`.

    No LAPACK: two of its batched calls, from two threads or in one program, can block each other
    for ever in XLA's CPU thread pool (jaxlib 0.10). Not finite where the matrix is singular.
    """
    place = jnp.arange(len(right))

    def clear(j, rows):
        best = jnp.argmax(jnp.where(place >= j, jnp.abs(rows[:, j]), -1))
        here = place == best
        chosen = jnp.sum(jnp.where(here[:, None], rows, 0), axis=0)
        pivot_row = chosen / chosen[j]
        rows = jnp.where(here[:, None], rows[j][None], rows)
        rows = rows - rows[:, j][:, None] * pivot_row[None]
        return jnp.where((place == j)[:, None], pivot_row[None], rows)

    rows = jnp.concatenate([matrix, right[:, None]], axis=1)
    return jax.lax.fori_loop(0, len(right), clear, rows)[:, -1]
