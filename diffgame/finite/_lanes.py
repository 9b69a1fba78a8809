"""Loops over many games at once, in passes that keep the batch axis last and in the cache."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .._lanes import lanes_first, lanes_last

# How many unfinished games one pass advances, and by how many steps before the finished ones leave.
_WIDTH = 64
_STEPS = 8


def advance_lanes(
    goes_on: Callable[[Any], Any],
    step: Callable[[Any, Any], Any],
    shared: PyTree,
    carry: PyTree,
) -> PyTree:
    """Repeat `carry = step(shared, carry)` for every lane while `goes_on(carry)` holds for it.

    Leaves of `shared` and `carry` have a leading axis of lanes; `step` and `goes_on` see it last.
    A pass takes the first unfinished lanes together, so that none waits for the slowest of all,
    and a lane's result does not depend on its neighbours.
    """
    lanes = jax.tree.leaves(carry)[0].shape[0]
    width = min(lanes, _WIDTH)

    def keep(on, new, old):
        return jax.tree.map(lambda n, o: jnp.where(on[(None,) * (n.ndim - 1)], n, o), new, old)

    def one_pass(state):
        carry, on = state
        where = jnp.nonzero(on, size=width, fill_value=lanes)[0]
        inside = jnp.minimum(where, lanes - 1)
        mine, own = lanes_last(jax.tree.map(lambda leaf: leaf[inside], (shared, carry)))

        def one_step(state):
            count, own, going = state
            own = keep(going, step(mine, own), own)
            return count + 1, own, going & goes_on(own)

        def more(state):
            return (state[0] < _STEPS) & jnp.any(state[2])

        _, own, going = jax.lax.while_loop(more, one_step, (0, own, where < lanes))
        own = lanes_first(own)
        carry = jax.tree.map(lambda o, n: o.at[where].set(n, mode="drop"), carry, own)
        return carry, on.at[where].set(going, mode="drop")

    start = carry, goes_on(lanes_last(carry))
    return jax.lax.while_loop(lambda state: jnp.any(state[1]), one_pass, start)[0]


def over_lanes(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """A function of arrays with a leading axis of lanes, as a function of one lane.

    `jax.vmap` of the result adds lanes and calls `function` once for all of them.
    """

    @jax.custom_batching.custom_vmap
    def run(arguments):
        return function(*arguments)

    @run.def_vmap
    def add_lanes(size, batched, arguments):
        leaves, flags = jax.tree.leaves(arguments), jax.tree.leaves(batched[0])
        lanes = leaves[0].shape[1 if flags[0] else 0]

        def widen(leaf, is_batched):
            leaf = leaf if is_batched else jnp.broadcast_to(leaf[None], (size, *leaf.shape))
            return leaf.reshape(size * lanes, *leaf.shape[2:])

        found = run(jax.tree.map(widen, arguments, batched[0]))
        found = jax.tree.map(lambda leaf: leaf.reshape(size, lanes, *leaf.shape[1:]), found)
        return found, jax.tree.map(lambda leaf: True, found)

    def one(*arguments):
        found = run(jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], arguments))
        return jax.tree.map(lambda leaf: leaf[0], found)

    return one
