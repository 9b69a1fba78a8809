"""Mehrotra's predictor-corrector interior point for small block programs, many at once.

All arrays end in an axis of lanes, one per program: each operation runs over whole vectors of them,
and the few states or inequalities of one program are written out.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._cholesky import cholesky, cholesky_solve, products
from ._linear_program import Dual, LinearProgram, Primal

# What the programs of one pass of the loop may fill together, in numbers: a step's work should
# stay in the cache, and a pass lasts as long as its slowest program.
_PASS_SIZE = 8192
_LANES = 16, 64
_STEP = 0.995


class _Scaled(eqx.Module):
    """Programs with rows and costs of size one, in equality form A v = b, v >= 0.

    v stacks x, the slacks t of the rows `within`, and z. A row without coefficients reads t = 1,
    so that a strictly feasible point exists. Lanes come last, so that every operation runs over
    whole vectors of programs.
    """

    cost: Float[Array, "variables lanes"]
    within: Float[Array, "inequalities states blocks lanes"]
    coupling: Float[Array, "rows states blocks lanes"]
    slack_coupling: Float[Array, "rows slacks lanes"]
    idle: Float[Array, "inequalities blocks lanes"]
    target: Float[Array, "rows lanes"]
    within_size: Float[Array, "inequalities blocks lanes"]
    row_size: Float[Array, "rows lanes"]
    cost_size: Float[Array, " lanes"]

    def stack(self, x, t, z):
        lanes = self.target.shape[-1]
        return jnp.concatenate([x.reshape(-1, lanes), t.reshape(-1, lanes), z])

    def unstack(self, v):
        inequalities, states, blocks, lanes = self.within.shape
        x, t, z = jnp.split(v, [states * blocks, (states + inequalities) * blocks])
        return x.reshape(states, blocks, lanes), t.reshape(inequalities, blocks, lanes), z

    def forward(self, v):
        x, t, z = self.unstack(v)
        within = products(self.within, x[None])[:, 0] - t
        rows = jnp.sum(products(self.coupling, x[None])[:, 0], axis=1)
        return within, rows + jnp.sum(self.slack_coupling * z[None], axis=1)

    def backward(self, within, rows):
        x = jnp.sum(self.within * within[:, None], axis=0)
        x = x + jnp.sum(self.coupling * rows[:, None, None], axis=0)
        return self.stack(x, -within, jnp.sum(self.slack_coupling * rows[:, None], axis=0))


def _largest(array: Array, axis) -> Array:
    top = jnp.max(jnp.abs(array), axis=axis, initial=0.0)
    return jnp.where(top > 0, top, 1)


def _scale(program: LinearProgram) -> _Scaled:
    within = program.within.transpose(1, 2, 0, 3)
    coupling = program.coupling.transpose(0, 2, 1, 3)
    within_size = _largest(within, 1)
    row_size = jnp.maximum(
        jnp.max(jnp.abs(coupling), axis=(1, 2), initial=0.0),
        jnp.max(jnp.abs(program.slack_coupling), axis=1, initial=0.0),
    )
    row_size = jnp.where(row_size > 0, row_size, 1)
    # Slack costs are left as they are: prices of infeasibility would drown the costs that matter.
    cost_size = _largest(program.cost, (0, 1))
    idle = -1.0 * ~jnp.any(within != 0, axis=1)
    lanes = program.target.shape[-1]
    cost = jnp.concatenate(
        [
            program.cost.swapaxes(0, 1).reshape(-1, lanes),
            jnp.zeros((idle.shape[0] * idle.shape[1], lanes)),
            program.slack_cost,
        ]
    )
    return _Scaled(
        cost / cost_size[None],
        within / within_size[:, None],
        coupling / row_size[:, None, None],
        program.slack_coupling / row_size[:, None],
        idle,
        program.target / row_size,
        within_size,
        row_size,
        cost_size,
    )


def _factorise(scaled: _Scaled, weight: Float[Array, "variables lanes"]):
    """Solver of the normal equations A diag(weight) A' y = rhs.

    Eliminating the blocks first is a Cholesky factorisation in an order that creates no fill,
    so it is as stable as the dense one and linear in the number of blocks.
    """
    x_weight, t_weight, z_weight = scaled.unstack(weight)
    inequalities = t_weight.shape[0]
    weighted = scaled.within * x_weight[None]
    eye = jnp.eye(inequalities)[:, :, None, None]
    block = products(weighted, scaled.within) + eye * t_weight[:, None]
    border = products(weighted, scaled.coupling)
    corner = jnp.sum(products(scaled.coupling * x_weight[None], scaled.coupling), axis=2)
    slacks = scaled.slack_coupling * z_weight[None]
    if slacks.shape[1]:
        corner = corner + products(slacks, scaled.slack_coupling)
    blocks = cholesky(block)
    eliminated = cholesky_solve(blocks, border)
    if inequalities:
        fill = products(border.swapaxes(0, 1), eliminated.swapaxes(0, 1))
        corner = corner - jnp.sum(fill, axis=2)
    corners = cholesky(corner)

    def solve(within, rows):
        first = cholesky_solve(blocks, within[:, None])[:, 0]
        rest = rows - jnp.sum(border * first[:, None], axis=(0, 2))
        y = cholesky_solve(corners, rest[:, None])[:, 0]
        return first - jnp.sum(eliminated * y[None, :, None], axis=1), y

    return solve


def _longest(value, move):
    # Each number is used once: XLA may round two uses of the same one differently, and a sign
    # that was tested can be another when it is divided by.
    return _STEP / jnp.maximum(_STEP, jnp.max(-move / value, axis=0))


class _Iterate(eqx.Module):
    primal: Float[Array, "variables lanes"]
    slack: Float[Array, "variables lanes"]
    within: Float[Array, "inequalities blocks lanes"]
    rows: Float[Array, "rows lanes"]


def _errors(scaled: _Scaled, point: _Iterate):
    """Primal residuals, dual residual, complementarity, and the largest error of all three."""
    within, rows = scaled.forward(point.primal)
    primal = scaled.idle - within, scaled.target - rows
    dual = scaled.cost - scaled.backward(point.within, point.rows) - point.slack
    complementarity = jnp.sum(point.primal * point.slack, axis=0)
    worst = jnp.abs(complementarity)
    worst = jnp.maximum(worst, jnp.max(jnp.abs(primal[0]), axis=(0, 1), initial=0.0))
    worst = jnp.maximum(worst, jnp.max(jnp.abs(primal[1]), axis=0))
    worst = jnp.maximum(worst, jnp.max(jnp.abs(dual), axis=0))
    return primal, dual, complementarity, worst


# One turn of the loop is one of three things. They share a factorisation and two solves, so that
# a program is compiled once and not three times.
_START, _ADVANCE, _POLISH, _DONE = range(4)


def _inside(primal, slack, multipliers) -> _Iterate:
    """Mehrotra's starting point: least squares, shifted into the interior."""
    primal = primal + jnp.maximum(0, -1.5 * jnp.min(primal, axis=0))[None] + 1e-3
    slack = slack + jnp.maximum(0, -1.5 * jnp.min(slack, axis=0))[None] + 1e-3
    product = jnp.sum(primal * slack, axis=0)
    primal_shift, slack_shift = product / jnp.sum(slack, axis=0), product / jnp.sum(primal, axis=0)
    return _Iterate(
        primal + 0.5 * primal_shift[None], slack + 0.5 * slack_shift[None], *multipliers
    )


def _pick(condition: Bool[Array, " lanes"], yes, no):
    """Choose lane by lane; all leaves end in lanes."""

    def choose(yes, no):
        return jnp.where(condition.reshape(*[1] * (yes.ndim - 1), -1), yes, no)

    return jax.tree.map(choose, yes, no)


def _turn(scaled: _Scaled, point: _Iterate, errors, phase: Int[Array, " lanes"]) -> _Iterate:
    """Start from nothing, or advance by predictor and corrector, or polish.

    Polishing takes the rounding errors of the last steps out of the primal point: these weigh
    variables by primal / slack, over twenty orders of magnitude; weights of the square of the
    primal alone restore the rows to machine precision.
    """
    starting, polishing = phase[None] == _START, phase[None] == _POLISH
    primal, slack = point.primal, point.slack
    weight = jnp.where(starting, 1, jnp.where(polishing, primal**2, primal / slack))
    (within, rows), dual, complementarity, _ = errors
    solve = _factorise(scaled, weight)

    def respond(keep, shift):
        shift_within, shift_rows = scaled.forward(shift)
        multipliers = solve(keep[None] * within + shift_within, keep * rows + shift_rows)
        return multipliers, scaled.backward(*multipliers)

    advancing = ~starting & ~polishing
    _, first = respond(jnp.ones_like(weight[:1]), jnp.where(advancing, weight * dual + primal, 0))
    slack_move = dual - first
    primal_move = -primal - weight * slack_move
    primal_step, dual_step = _longest(primal, primal_move), _longest(slack, slack_move)
    ahead = (primal + primal_step[None] * primal_move) * (slack + dual_step[None] * slack_move)
    centring = (jnp.sum(ahead, axis=0) / complementarity) ** 3
    # The second-order correction presumes full steps; weighing it by the steps that are possible
    # keeps badly centred iterates from stalling (Colombo, Gondzio 2008).
    second = (primal_step * dual_step)[None] * primal_move * slack_move
    product = (centring * complementarity / len(primal))[None] - primal * slack - second
    shift = jnp.where(polishing, -weight * first, weight * dual - product / slack)
    multipliers, last = respond(jnp.where(starting, 0.0, 1.0), jnp.where(starting, dual, shift))
    slack_move = dual - last
    primal_move = (product - primal * slack_move) / slack
    primal_step, dual_step = _longest(primal, primal_move), _longest(slack, slack_move)
    advanced = _Iterate(
        primal + primal_step[None] * primal_move,
        slack + dual_step[None] * slack_move,
        point.within + dual_step[None, None] * multipliers[0],
        point.rows + dual_step[None] * multipliers[1],
    )
    clean = jnp.maximum(primal + weight * (first + last), 0)
    clean_within, clean_rows = scaled.forward(clean)
    after = _sum_abs(scaled.idle - clean_within, scaled.target - clean_rows)
    better = after < _sum_abs(within, rows)
    polished = eqx.tree_at(lambda p: p.primal, point, jnp.where(better[None], clean, primal))
    started = _inside(first, slack_move, multipliers)
    return _pick(phase == _START, started, _pick(phase == _POLISH, polished, advanced))


def _sum_abs(within, rows):
    return jnp.sum(jnp.abs(within), axis=(0, 1)) + jnp.sum(jnp.abs(rows), axis=0)


def _solve_lanes(program: LinearProgram, tolerance, max_steps):
    scaled = _scale(program)

    def goes_on(carry):
        return jnp.any(carry[-1] < _DONE)

    def turn(carry):
        (point, errors), best, worst, step, phase = carry
        point = _turn(scaled, point, errors, phase)
        there = point, _errors(scaled, point)
        *_, rest, error = there[1]
        polishing = phase == _POLISH
        better = ((error < worst) | polishing) & (phase != _DONE)
        best = _pick(better, there, best)
        worst = jnp.where(phase == _DONE, worst, jnp.fmin(error, worst))
        step = step + (phase == _ADVANCE)
        # Once complementarity is gone, further steps only stir rounding errors.
        open_ = (worst > tolerance) & (rest > 1e-3 * tolerance) & (step < max_steps)
        phase = jnp.where(phase >= _POLISH, _DONE, jnp.where(open_, _ADVANCE, _POLISH))
        return _pick(phase == _POLISH, best, there), best, worst, step, phase

    lanes = program.target.shape[-1]
    nothing = jnp.zeros_like(scaled.cost)
    blank = _Iterate(nothing, nothing, jnp.zeros_like(scaled.idle), jnp.zeros_like(scaled.target))
    start = blank, _errors(scaled, blank)
    steps = jnp.zeros(lanes, int)
    carry = start, start, jnp.full(lanes, jnp.inf), steps, steps + _START
    _, (best, _), _, steps, _ = jax.lax.while_loop(goes_on, turn, carry)
    x, _, z = scaled.unstack(best.primal)
    within = best.within * scaled.cost_size[None, None] / scaled.within_size
    rows = best.rows * scaled.cost_size[None] / scaled.row_size
    return (x.swapaxes(0, 1), z), (within.swapaxes(0, 1), rows), steps


def _width(program: LinearProgram) -> int:
    """How many programs to solve at once."""
    leaves = jax.tree.leaves(program)
    size = sum(leaf.size for leaf in leaves) / max(program.target.shape[-1], 1)
    fitting = 2 ** int(math.log2(max(_PASS_SIZE / max(size, 1), 1)))
    return min(max(fitting, _LANES[0]), _LANES[1])


def _solve_many(tolerance: float, max_steps: int):
    """Programs with lanes as the last axis; `jax.vmap` adds its axis to the lanes."""

    @jax.custom_batching.custom_vmap
    def solve(program: LinearProgram):
        lanes, width = program.target.shape[-1], _width(program)
        if lanes <= width:
            return _solve_lanes(program, tolerance, max_steps)
        passes = -(-lanes // width)
        index = jnp.arange(passes * width)
        index = jnp.where(index < lanes, index, 0).reshape(passes, width)
        parts = jax.tree.map(lambda leaf: jnp.moveaxis(leaf[..., index], -2, 0), program)
        found = jax.lax.map(lambda part: _solve_lanes(part, tolerance, max_steps), parts)
        return jax.tree.map(
            lambda leaf: jnp.moveaxis(leaf, 0, -2).reshape(*leaf.shape[1:-1], passes * width)[
                ..., :lanes
            ],
            found,
        )

    @solve.def_vmap
    def add_lanes(size, batched, program):
        lanes = program.target.shape[-1]

        def widen(leaf, is_batched):
            leaf = leaf if is_batched else jnp.broadcast_to(leaf[None], (size, *leaf.shape))
            return jnp.moveaxis(leaf, 0, -2).reshape(*leaf.shape[1:-1], size * leaf.shape[-1])

        found = solve(jax.tree.map(widen, program, batched[0]))

        def narrow(leaf):
            return jnp.moveaxis(leaf.reshape(*leaf.shape[:-1], size, lanes), -2, 0)

        found = jax.tree.map(narrow, found)
        return found, jax.tree.map(lambda leaf: True, found)

    return solve


def solve_linear_program(
    program: LinearProgram, *, tolerance: float = 1e-12, max_steps: int = 60
) -> tuple[Primal, Dual, Int[Array, ""]]:
    """Solve one program by Mehrotra's predictor-corrector method; batch it with `jax.vmap`.

    **Returns:** the best point met, its multipliers, and the number of steps. Nothing is claimed
    about them: `check_optimum` says what they prove.

    **Source:** Mehrotra (1992), On the implementation of a primal-dual interior point method.
    """
    one = jax.tree.map(lambda leaf: leaf[..., None], program)
    found = _solve_many(tolerance, max_steps)(one)
    primal, dual, steps = jax.tree.map(lambda leaf: leaf[..., 0], found)
    return Primal(*primal), Dual(*dual), steps
