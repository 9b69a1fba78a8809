"""Functions of many small problems at once, whose batch is the last axis of every array."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree


def _in_parts(function: Callable[..., PyTree], width: int, arguments: PyTree) -> PyTree:
    lanes = jax.tree.leaves(arguments)[0].shape[-1]
    parts = -(-lanes // width)
    # The last part is filled up with the last lane, so that all have the shape for which the
    # function was traced once, however often and wherever `jax.vmap` asks for it.
    index = jnp.minimum(jnp.arange(parts * width), lanes - 1).reshape(parts, width)

    def one_part(own):
        return function(*jax.tree.map(lambda leaf: leaf[..., own], arguments))

    if parts == 1:
        return jax.tree.map(lambda leaf: leaf[..., :lanes], one_part(index[0]))
    found = jax.lax.map(one_part, index)

    def join(leaf):
        return jnp.moveaxis(leaf, 0, -2).reshape(*leaf.shape[1:-1], parts * width)[..., :lanes]

    return jax.tree.map(join, found)


def over_last(function: Callable[..., PyTree], width: int | None = None) -> Callable[..., PyTree]:
    """A function of arrays whose last axis is one of lanes, as a function of one lane.

    `jax.vmap` of the result adds lanes and calls `function` for all of them, or for `width` lanes
    at a time. What it closes over must not be batched.
    """
    function = jax.jit(function)

    @jax.custom_batching.custom_vmap
    def run(arguments):
        return function(*arguments) if width is None else _in_parts(function, width, arguments)

    @run.def_vmap
    def add_lanes(size, batched, arguments):
        lanes = jax.tree.leaves(arguments)[0].shape[-1]

        def widen(leaf, is_batched):
            leaf = leaf if is_batched else jnp.broadcast_to(leaf[None], (size, *leaf.shape))
            return jnp.moveaxis(leaf, 0, -2).reshape(*leaf.shape[1:-1], size * lanes)

        found = run(jax.tree.map(widen, arguments, batched[0]))
        found = jax.tree.map(
            lambda leaf: jnp.moveaxis(leaf.reshape(*leaf.shape[:-1], size, lanes), -2, 0), found
        )
        return found, jax.tree.map(lambda leaf: True, found)

    def one(*arguments):
        found = run(jax.tree.map(lambda leaf: leaf[..., None], arguments))
        return jax.tree.map(lambda leaf: leaf[..., 0], found)

    return one
