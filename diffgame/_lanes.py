"""Many small problems at once: lanes, the last or the first axis of every array."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

# How many unfinished lanes one pass of `advance_lanes` takes, and how many steps it makes with them
# before the finished ones leave.
_WIDTH, _STEPS = 64, 8


def in_parts(function: Callable[..., PyTree], width: int) -> Callable[..., PyTree]:
    """A function of arrays whose last axis is one of lanes, called for `width` lanes at a time.

    The last part is filled up with the last lane, so that all have the shape for which the function
    was traced once, however often and wherever `jax.vmap` asks for it.
    """
    function = jax.jit(function)

    def run(*arguments):
        lanes = jax.tree.leaves(arguments)[0].shape[-1]
        parts = -(-lanes // width)
        index = jnp.minimum(jnp.arange(parts * width), lanes - 1).reshape(parts, width)

        def one_part(own):
            return function(*jax.tree.map(lambda leaf: leaf[..., own], arguments))

        if parts == 1:
            return jax.tree.map(lambda leaf: leaf[..., :lanes], one_part(index[0]))
        found = jax.lax.map(one_part, index)

        def join(leaf):
            return jnp.moveaxis(leaf, 0, -2).reshape(*leaf.shape[1:-1], parts * width)[..., :lanes]

        return jax.tree.map(join, found)

    return run


def over_lanes(function: Callable[..., PyTree], *, axis: Literal[0, -1]) -> Callable[..., PyTree]:
    """A function of arrays with an axis of lanes, their first or last, as a function of one lane.

    `jax.vmap` of the result adds lanes and calls `function` for all of them. What it closes over
    must not be batched.
    """
    function = jax.jit(function)

    @jax.custom_batching.custom_vmap
    def run(arguments):
        return function(*arguments)

    @run.def_vmap
    def add_lanes(size, batched, arguments):
        leaves, flags = jax.tree.leaves(arguments), jax.tree.leaves(batched[0])
        lanes = leaves[0].shape[axis or int(flags[0])]

        def widen(leaf, is_batched):
            leaf = leaf if is_batched else jnp.broadcast_to(leaf[None], (size, *leaf.shape))
            at = leaf.ndim - 2 if axis else 0
            moved = jnp.moveaxis(leaf, 0, at)
            return moved.reshape(*moved.shape[:at], size * lanes, *moved.shape[at + 2 :])

        def narrow(leaf):
            at = leaf.ndim - 1 if axis else 0
            split = leaf.reshape(*leaf.shape[:at], size, lanes, *leaf.shape[at + 1 :])
            return jnp.moveaxis(split, at, 0)

        found = jax.tree.map(narrow, run(jax.tree.map(widen, arguments, batched[0])))
        return found, jax.tree.map(lambda leaf: True, found)

    def one(*arguments):
        found = run(jax.tree.map(lambda leaf: jnp.expand_dims(leaf, axis), arguments))
        return jax.tree.map(lambda leaf: jnp.squeeze(leaf, axis), found)

    return one


def take(array: Array, place: Int[Array, "*batch"]) -> Array:
    """One entry per place of the batch, out of the axis before it."""
    before = array.ndim - place.ndim - 1
    index = place.reshape(*[1] * (before + 1), *place.shape)
    return jnp.take_along_axis(array, index, axis=before, mode="promise_in_bounds").squeeze(before)


def lanes_first(tree: PyTree) -> PyTree:
    """The last axis of every leaf becomes its first."""
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), tree)


def lanes_last(tree: PyTree) -> PyTree:
    """The first axis of every leaf becomes its last."""
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), tree)


def stream_lanes(
    start: Callable[[Any], Any],
    goes_on: Callable[[Any], Any],
    step: Callable[[Any], Any],
    answer: Callable[[Any], Any],
    items: PyTree,
    *,
    width: int,
    stay: int,
) -> PyTree:
    """The `answer` of every item after `carry = step(carry)` from `start(item)` to its end.

    Leaves of `items` and of the result have a leading axis of items, all else has lanes last.
    `step` must leave a lane as it is once `goes_on` fails for it. Only items and answers are stored
    for all, so this is for large carries and few steps.

    `width`: how many items advance together. `stay`: how few of them may run on before new ones
    join.
    """
    count = jax.tree.leaves(items)[0].shape[0]
    width = min(count, width)
    stay = min(stay, max(width - 1, 0))
    fresh = width - stay

    def load(begin, size):
        cut = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, begin, size), items)
        return begin + jnp.arange(size), start(lanes_last(cut))

    def one_pass(state):
        taken, stayed, answers = state
        # The last pass may start some items again: they end as they did.
        new = load(jnp.minimum(taken, count - fresh), fresh)
        where, carry = jax.tree.map(lambda *both: jnp.concatenate(both, axis=-1), stayed, new)
        taken = taken + fresh
        enough = jnp.where(taken < count, stay, 0)
        carry = jax.lax.while_loop(lambda own: jnp.sum(goes_on(own)) > enough, step, carry)
        # Those that run on are answered too: a later pass writes over it.
        own = lanes_first(answer(carry))
        answers = jax.tree.map(lambda known, new: known.at[where].set(new), answers, own)
        # As floats: the CPU has a fast program for these only.
        lanes = jax.lax.top_k(goes_on(carry).astype(jnp.float32), stay)[1]
        stayed = jax.tree.map(lambda leaf: leaf[..., lanes], (where, carry))
        return taken, stayed, answers

    shapes = jax.eval_shape(lambda: lanes_first(answer(load(0, width)[1])))
    answers = jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape[1:]), leaf.dtype), shapes)
    begin = jnp.asarray(stay), load(0, stay), answers
    return jax.lax.while_loop(lambda state: state[0] < count, one_pass, begin)[2]


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
