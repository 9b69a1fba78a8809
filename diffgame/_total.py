"""Functions of one user for all of them, and mass-weighted totals: all that couples them."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ._shard import add_parts, over_parts, shared_out


def total(
    contribution: Callable[[PyTree, PyTree], PyTree],
    shared: PyTree,
    mass: Float[Array, " users"],
    members: PyTree,
    *,
    chunk: int | None = None,
) -> PyTree:
    """Sum over users of mass times `contribution(shared, member)`.

    `members` is a pytree whose leaves share the leading axis "users"; arrays enter through it and
    through `shared` alone. With `chunk`, users are streamed through in groups of that size,
    forward and backward, so that working memory does not grow with their number; choose a divisor
    of it, or the data of the users are copied once. Users that are spread over devices
    (`shard_users`) are added up part by part, each part streamed like that.

    >>> import jax.numpy as jnp
    >>> mass, members = jnp.array([1.0, 0.5]), jnp.array([2.0, 4.0])
    >>> print(total(lambda power, user: user**power, 2, mass, members))
    12.0
    """
    data = mass, members
    spread = shared_out(data)
    if spread is None:
        return _stream(contribution, shared, data, chunk)

    def add_up(shared, part):
        return _stream(contribution, shared, part, chunk)

    # Recomputing a part in the backward pass keeps only one part's residuals alive.
    add_up = eqx.filter_checkpoint(add_up)
    return add_parts(over_parts(add_up, shared, data, spread), spread)


def each(
    function: Callable[[PyTree, PyTree], PyTree],
    shared: PyTree,
    members: PyTree,
    *,
    chunk: int | None = None,
) -> PyTree:
    """`function(shared, member)` of all users, `chunk` at a time: leaves [users, ...].

    >>> import jax.numpy as jnp
    >>> print(each(lambda power, user: user**power, 2, jnp.array([2.0, 4.0])))
    [ 4. 16.]
    """

    def run(shared, members):
        def one(member):
            return function(shared, member)

        if chunk is None:
            return jax.vmap(one)(members)
        return jax.lax.map(one, members, batch_size=chunk)

    spread = shared_out(members)
    if spread is None:
        return run(shared, members)
    found = over_parts(run, shared, members, spread)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), found)


def _stream(contribution, shared, data, chunk):
    def contribute(shared, mass, members):
        contributions = jax.vmap(lambda member: contribution(shared, member))(members)
        return jax.tree.map(lambda leaf: jnp.tensordot(mass, leaf, axes=1), contributions)

    count = data[0].shape[0]
    if chunk is None or chunk >= count:
        return contribute(shared, *data)
    whole = count - count % chunk
    head = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, chunk, *leaf.shape[1:]), data)
    # Recomputing a group in the backward pass keeps only one group's residuals alive.
    recomputed = eqx.filter_checkpoint(contribute)

    def add(totals, group):
        return jax.tree.map(jnp.add, totals, recomputed(shared, *group)), None

    if whole < count:
        totals = contribute(shared, *jax.tree.map(lambda leaf: leaf[whole:], data))
    else:
        first = jax.tree.map(lambda leaf: leaf[0], head)
        shapes = eqx.filter_eval_shape(contribute, shared, *first)
        totals = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(add, totals, head)[0]
