"""Mass-weighted totals over users: all that couples them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


def total(
    contribution: Callable[[PyTree], PyTree],
    mass: Float[Array, " users"],
    members: PyTree,
    *,
    chunk: int | None = None,
) -> PyTree:
    """Sum over users of mass times `contribution(member)`.

    `members` is a pytree whose leaves share the leading axis "users". With `chunk`, users are
    streamed through in groups of that size, forward and backward, so that working memory does not
    grow with their number; choose a divisor of it, or the data of the users are copied once.

    >>> import jax.numpy as jnp
    >>> print(total(lambda user: user**2, jnp.array([1.0, 0.5]), jnp.array([2.0, 4.0])))
    12.0
    """

    def contribute(mass, members):
        contributions = jax.vmap(contribution)(members)
        return jax.tree.map(lambda leaf: jnp.tensordot(mass, leaf, axes=1), contributions)

    count = mass.shape[0]
    if chunk is None or chunk >= count:
        return contribute(mass, members)
    whole = count - count % chunk
    data = (mass, members)
    head = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, chunk, *leaf.shape[1:]), data)
    # Recomputing a group in the backward pass keeps only one group's residuals alive.
    recomputed = jax.checkpoint(contribute)

    def add(totals, group):
        return jax.tree.map(jnp.add, totals, recomputed(*group)), None

    if whole < count:
        totals = contribute(*jax.tree.map(lambda leaf: leaf[whole:], data))
    else:
        shapes = jax.eval_shape(contribute, *jax.tree.map(lambda leaf: leaf[0], head))
        totals = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(add, totals, head)[0]
