"""Loops whose lanes end at different times: `jax.vmap` of a plain loop waits for the slowest."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree


def _rows(mask, leaf):
    return mask.reshape(-1, *[1] * (leaf.ndim - 1))


def while_lanes(
    goes_on: Callable[[Any], Any],
    step: Callable[[Any, Any], Any],
    shared: PyTree,
    carry: PyTree,
    *,
    width: int = 64,
) -> PyTree:
    """`jax.lax.while_loop` of `step(shared, carry)`; under `jax.vmap` only unfinished lanes work.

    `width`: how many unfinished lanes one pass advances. The last ones take whole passes: fewer
    for steps that are long.

    Functions see arrays through `shared` and `carry` alone: what they close over must not be
    batched. A lane's result does not depend on its neighbours. Not differentiable.

    >>> import jax, jax.numpy as jnp
    >>> halve = lambda x: while_lanes(lambda x: x > 1, lambda _, x: x / 2, (), x)
    >>> print(jax.vmap(halve)(jnp.array([3.0, 0.5, 1000.0])))
    [0.75      0.5       0.9765625]
    """
    # Traced once for all numbers of lanes that `jax.vmap` asks for.
    step = jax.jit(step)

    @jax.custom_batching.custom_vmap
    def run(shared, carry):
        lanes = jax.tree.leaves(carry)[0].shape[0]
        most = min(lanes, width)

        def unfinished(state):
            return jnp.any(state[1])

        def advance(state):
            carry, on = state
            if lanes <= most:
                new = jax.vmap(step)(shared, carry)
                carry = jax.tree.map(lambda n, o: jnp.where(_rows(on, n), n, o), new, carry)
                return carry, on & jax.vmap(goes_on)(carry)
            where = jnp.nonzero(on, size=most, fill_value=lanes)[0]
            inside = jnp.minimum(where, lanes - 1)
            mine, own = jax.tree.map(lambda leaf: leaf[inside], (shared, carry))
            new = jax.vmap(step)(mine, own)
            again = jax.vmap(goes_on)(new)
            carry = jax.tree.map(lambda o, n: o.at[where].set(n, mode="drop"), carry, new)
            return carry, on.at[where].set(again, mode="drop")

        start = carry, jax.vmap(goes_on)(carry)
        return jax.lax.while_loop(unfinished, advance, start)[0]

    @run.def_vmap
    def add_lanes(size, batched, shared, carry):
        lanes = jax.tree.leaves(carry)[0].shape[1 if jax.tree.leaves(batched[1])[0] else 0]

        def widen(leaf, is_batched):
            leaf = leaf if is_batched else jnp.broadcast_to(leaf[None], (size, *leaf.shape))
            return leaf.reshape(size * lanes, *leaf.shape[2:])

        found = run(*jax.tree.map(widen, (shared, carry), (batched[0], batched[1])))
        found = jax.tree.map(lambda leaf: leaf.reshape(size, lanes, *leaf.shape[1:]), found)
        return found, jax.tree.map(lambda leaf: True, found)

    one = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], (shared, carry))
    return jax.tree.map(lambda leaf: leaf[0], run(*one))
