"""Block programs by the simplex method over all rows, those of the blocks too."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ._lanes import lanes_first, lanes_last, over_lanes, stream_lanes
from ._linear_program import Dual, LinearProgram, Primal
from ._revised_simplex import (
    Basis,
    Start,
    begin,
    find_slacks,
    least,
    pivot,
    refine,
    what_is_left,
)
from ._simplex_columns import Columns, largest

# How many programs advance together, and how few of them may run on before new ones join.
_WIDTH, _STAY = 16, 5
_MAX_PIVOTS = 2000


def _start(columns: Columns) -> Start:
    """For every state the cheapest block whose rows its probability can only help, and slacks."""
    blocks, _, states, lanes = columns.within.shape
    x, slacks, surplus = columns.sizes
    first = 0 if columns.sums is None else states
    basic, chosen = jnp.zeros((0, lanes), bool), jnp.zeros((0, lanes), int)
    entry, cost = jnp.zeros((0, lanes)), jnp.zeros((0, lanes))
    below = jnp.zeros((len(columns.target) - first + surplus, 0, lanes))
    if columns.sums is not None:
        fits = jnp.all(columns.within >= 0, axis=1) & (columns.sums > 0)[:, None]
        costs = jnp.where(fits, columns.cost, jnp.inf)
        _, block = least(costs.reshape(blocks, states * lanes))
        block = block.reshape(states, lanes)
        cost = jnp.take_along_axis(costs, block[None], axis=0, mode="promise_in_bounds")[0]
        basic = jnp.isfinite(cost) & (columns.target[:states] >= 0)
        cost = jnp.where(basic, cost, 0)
        entry = jnp.take_along_axis(columns.sums, block, axis=0, mode="promise_in_bounds")
        entry = jnp.where(basic, entry, 1)
        chosen = block * states + jnp.arange(states)[:, None]
        used = (block[None] == jnp.arange(blocks)[:, None, None]) & basic[None]
        coupled = jnp.sum(jnp.where(used[None], columns.coupling, 0), axis=1)
        own = jnp.where(used[:, None], columns.within, 0).reshape(surplus, states, lanes)
        below = jnp.concatenate([coupled, own])
    target = jnp.concatenate([columns.target, jnp.zeros((surplus, lanes))])
    left = what_is_left(target, basic, entry, below)
    ties = len(columns.target) - first
    met, slack, size = find_slacks(columns.slack_cost, columns.slack_coupling[first:], left[:ties])
    numbers = jnp.broadcast_to(jnp.arange(surplus)[:, None], (surplus, lanes))
    return Start(
        jnp.concatenate([basic, met, left[ties:] <= 0]),
        jnp.concatenate([chosen, x + slack, x + slacks + numbers]),
        jnp.concatenate([entry, size, -jnp.ones((surplus, lanes))]),
        below,
        cost,
        jnp.concatenate([target[:first], left]),
    )


class _Sizes(eqx.Module):
    """The largest entries: rows and costs are divided by them."""

    cost: Float[Array, " lanes"]
    within: Float[Array, "blocks inequalities lanes"]
    ties: Float[Array, "ties lanes"]


class _Search(eqx.Module):
    columns: Columns
    sizes: _Sizes
    basis: Basis


@jax.jit
def _begin(program: LinearProgram) -> _Search:
    blocks, _, states, lanes = program.within.shape
    ties = [largest(program.coupling, (1, 2))]
    sums = None
    if program.sums is not None:
        size = largest(program.sums, 0)
        ties = [jnp.broadcast_to(size[None], (states, lanes)), *ties]
        sums = program.sums / size[None]
    costs = jnp.concatenate([program.cost.reshape(blocks * states, lanes), program.slack_cost])
    sizes = _Sizes(largest(costs, 0), largest(program.within, 2), jnp.concatenate(ties))
    columns = Columns(
        program.cost / sizes.cost[None, None],
        program.slack_cost / sizes.cost[None],
        program.within / sizes.within[:, :, None],
        program.coupling / ties[-1][:, None, None],
        program.slack_coupling / sizes.ties[:, None],
        program.target / sizes.ties,
        sums,
    )
    return _Search(columns, sizes, begin(columns, _start(columns)))


@jax.jit
def _advance(search: _Search) -> _Search:
    basis = pivot(search.columns, search.basis, _MAX_PIVOTS)
    return _Search(search.columns, search.sizes, basis)


@jax.jit
def _answer(search: _Search):
    sizes = search.sizes
    vertex = refine(search.columns, search.basis)
    ties = len(sizes.ties)
    within = jnp.maximum(vertex.prices[ties:], 0).reshape(sizes.within.shape)
    dual = (
        within * sizes.cost[None, None] / sizes.within,
        vertex.prices[:ties] * sizes.cost[None] / sizes.ties,
    )
    return (vertex.x, vertex.z), dual, vertex.pivots


def _solve_lanes(program: LinearProgram):
    count = program.target.shape[-1]
    # One width and two passes at least: the functions are traced once, and XLA makes the same of
    # them, so that numbers do not depend on the batch.
    fill = jnp.minimum(jnp.arange(max(count, 2 * _WIDTH)), count - 1)
    answers = stream_lanes(
        _begin,
        lambda search: search.basis.on,
        _advance,
        _answer,
        jax.tree.map(lambda leaf: leaf[fill], lanes_first(program)),
        width=_WIDTH,
        stay=_STAY,
    )
    return lanes_last(jax.tree.map(lambda leaf: leaf[:count], answers))


_solve = over_lanes(_solve_lanes, axis=-1)


def solve_by_rows(program: LinearProgram) -> tuple[Primal, Dual, Int[Array, ""]]:
    """Solve one program with some tens of rows in all; batch it with `jax.vmap`.

    It begins where every state is told, and where rows do not allow that, with artificial
    variables.

    **Returns:** a vertex, its multipliers, and the number of pivots. Nothing is claimed about them:
    `check_optimum` says what they prove.
    """
    primal, dual, pivots = _solve(program)
    return Primal(*primal), Dual(*dual), pivots
