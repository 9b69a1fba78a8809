"""Cholesky factorisations of many small matrices at once, their batch in the last axes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Up to this size sums and factorisations are written out as operations on whole batches; beyond,
# they are loops of such operations. Batched LAPACK calls are avoided on purpose: two of them that
# do not depend on each other can block one another for ever in XLA's CPU thread pool (jaxlib 0.10).
UNROLL = 12
_SMALLEST_PIVOT = 1e-15


def _pivot(value: Array, diagonal: Array) -> Array:
    # A pivot lost to rounding belongs to a redundant row; a huge one leaves that row's multiplier
    # alone (Wright 1999, Modified Cholesky factorizations in interior-point algorithms).
    return jnp.sqrt(jnp.where(value > _SMALLEST_PIVOT * diagonal, value, 1e128))


def products(left: Float[Array, "n s *batch"], right: Float[Array, "m s *batch"]):
    """Sums over the second axis of all products [n, m, *batch]."""
    if left.shape[1] > UNROLL:
        return jnp.sum(left[:, None] * right[None], axis=2)
    terms = [left[:, None, s] * right[None, :, s] for s in range(left.shape[1])]
    return sum(terms[1:], terms[0])


def cholesky(matrix):
    n = matrix.shape[0]
    if n > UNROLL:
        return _cholesky_loop(matrix)
    columns: list[list[Array]] = []
    for j in range(n):
        column = [matrix[i, j] for i in range(j, n)]
        for k, done in enumerate(columns):
            column = [entry - done[i - k] * done[j - k] for i, entry in enumerate(column, j)]
        inverse = 1 / _pivot(column[0], matrix[j, j])
        columns.append([inverse, *(entry * inverse for entry in column[1:])])
    return [[columns[j][i - j] for j in range(i + 1)] for i in range(n)]


def _cholesky_loop(matrix):
    n = matrix.shape[0]
    diagonal = jnp.stack([matrix[i, i] for i in range(n)])
    below = jnp.arange(n).reshape(n, *[1] * (matrix.ndim - 2))

    def eliminate(j, work):
        column = work[:, j]
        inverse = 1 / _pivot(column[j], diagonal[j])
        column = jnp.where(below > j, column * inverse[None], 0)
        work = work - column[:, None] * column[None]
        return work.at[:, j].set(column.at[j].set(inverse))

    return jax.lax.fori_loop(0, n, eliminate, matrix)


def cholesky_solve(factor, rhs):
    n = rhs.shape[0]
    if n == 0:
        return rhs
    if n > UNROLL:
        return _cholesky_solve_loop(factor, rhs)
    forward: list[Array] = []
    for i in range(n):
        value = rhs[i]
        for k, done in enumerate(forward):
            value = value - factor[i][k][None] * done
        forward.append(value * factor[i][i][None])
    back: list[Array] = []
    for i in reversed(range(n)):
        value = forward[i]
        for k, done in enumerate(back):
            value = value - factor[n - 1 - k][i][None] * done
        back.append(value * factor[i][i][None])
    return jnp.stack(back[::-1])


def _cholesky_solve_loop(factor, rhs):
    n = rhs.shape[0]
    place = jnp.arange(n).reshape(n, *[1] * (factor.ndim - 2))

    def forward(i, work):
        entry = work[i] * factor[i, i][None]
        below = jnp.where(place > i, factor[:, i], 0)
        work = work - below[:, None] * entry[None]
        return work.at[i].set(entry)

    def backward(step, work):
        i = n - 1 - step
        entry = work[i] * factor[i, i][None]
        before = jnp.where(place < i, factor[i], 0)
        work = work - before[:, None] * entry[None]
        return work.at[i].set(entry)

    return jax.lax.fori_loop(0, n, backward, jax.lax.fori_loop(0, n, forward, rhs))
