"""Cholesky factorisations of many small matrices at once, their batch in the last axes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Up to this size sums and factorisations are written out as operations on whole batches; beyond,
# they are loops of such operations. Batched LAPACK calls are avoided on purpose: two of them that
# do not depend on each other can block one another for ever in XLA's CPU thread pool (jaxlib 0.10).
UNROLL = 12
# Sums of more terms are matrix products: XLA fuses what is written out into every use of it, and
# computes it again there.
_WRITTEN = 6
_SMALLEST_PIVOT = 1e-15


def _pivot(value: Array, diagonal: Array) -> Array:
    # A pivot lost to rounding belongs to a redundant row; a huge one leaves that row's multiplier
    # alone (Wright 1999, Modified Cholesky factorizations in interior-point algorithms).
    return jnp.sqrt(jnp.where(value > _SMALLEST_PIVOT * diagonal, value, 1e128))


def products(left: Float[Array, "n s *batch"], right: Float[Array, "m s *batch"]):
    """Sums over the second axis of all products [n, m, *batch]."""
    if left.shape[1] > _WRITTEN:
        return jnp.einsum("ns...,ms...->nm...", left, right)
    terms = [left[:, None, s] * right[None, :, s] for s in range(left.shape[1])]
    return sum(terms[1:], terms[0])


def block_products(
    left: Float[Array, "n s blocks lanes"], right: Float[Array, "m s blocks lanes"]
) -> Float[Array, "n m lanes"]:
    """The same, summed over blocks too."""
    if left.shape[1] > _WRITTEN:
        return jnp.einsum("nsbl,msbl->nml", left, right)
    return jnp.sum(products(left, right), axis=2)


def cholesky(matrix):
    n = matrix.shape[0]
    columns: list[list[Array]] = []
    for j in range(n):
        column = [matrix[i, j] for i in range(j, n)]
        for k, done in enumerate(columns):
            column = [entry - done[i - k] * done[j - k] for i, entry in enumerate(column, j)]
        pivot = _pivot(column[0], matrix[j, j])
        columns.append([pivot, *(entry / pivot for entry in column[1:])])
    return [[columns[j][i - j] for j in range(i + 1)] for i in range(n)]


def _down(factor, rhs) -> list[Array]:
    done: list[Array] = []
    for i in range(len(rhs)):
        value = rhs[i]
        for k, before in enumerate(done):
            value = value - factor[i][k][None] * before
        done.append(value / factor[i][i][None])
    return done


def _up(factor, rhs) -> Array:
    n, done = len(rhs), []
    for i in reversed(range(n)):
        value = rhs[i]
        for k, before in enumerate(done):
            value = value - factor[n - 1 - k][i][None] * before
        done.append(value / factor[i][i][None])
    return jnp.stack(done[::-1])


def cholesky_solve(factor, rhs):
    return _up(factor, _down(factor, rhs)) if len(rhs) else rhs


def _inverse_factor(matrix: Float[Array, "n n *batch"]) -> Float[Array, "n n *batch"]:
    """L^-1 of matrix = L L', by elimination in place: column k of L^-1 takes that of the matrix."""
    n = len(matrix)
    diagonal = jnp.stack([matrix[i, i] for i in range(n)])
    place = jnp.arange(n).reshape(n, *[1] * (matrix.ndim - 2))

    def eliminate(k, work):
        pivot = _pivot(work[k, k], diagonal[k])
        here = place == k
        row = jnp.where(here, 1, work[k]) / pivot[None]
        column = jnp.where(place > k, work[:, k], 0) / pivot[None]
        work = jnp.where(here[None], 0, work) - column[:, None] * row[None]
        return work.at[k].set(row)

    lower = (place[:, None] >= place[None]).reshape(n, n, *[1] * (matrix.ndim - 2))
    return jnp.where(lower, jax.lax.fori_loop(0, n, eliminate, matrix), 0)


def triangular_solvers(matrix: Float[Array, "n n *batch"]) -> tuple[Callable, Callable]:
    """Products with L^-1 and with its transpose, matrix = L L'; right-hand sides [n, m, *batch]."""
    if len(matrix) <= _WRITTEN:
        factor = cholesky(matrix)
        return lambda rhs: jnp.stack(_down(factor, rhs)), lambda rhs: _up(factor, rhs)
    inverse = _inverse_factor(matrix)
    return (
        lambda rhs: products(inverse, rhs.swapaxes(0, 1)),
        lambda rhs: products(inverse.swapaxes(0, 1), rhs.swapaxes(0, 1)),
    )
