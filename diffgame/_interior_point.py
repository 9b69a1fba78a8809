"""Mehrotra's predictor-corrector interior point for block programs, many small ones at once.

All arrays end in an axis of lanes, one per program: each operation runs over whole vectors of them.
"""

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._lanes import over_lanes
from ._linear_program import Dual, LinearProgram, Primal
from ._normal_equations import Scaled, Variables, factorise, scale

# What the programs that are solved at a time may fill together, in numbers: a step's work should
# stay in the cache.
_PASS_SIZE = 8192
_LANES = 16, 64
_STEP = 0.995
# Finished lanes are given new programs once this part of all has finished.
_REFILL = 4


def _each(function, *parts: Variables | Array) -> Variables:
    """Apply to each kind of variable; numbers per lane count for all of them."""

    def spread(part):
        if isinstance(part, Variables):
            return part.x, part.t, part.z
        return part[None, None], part[None, None], part[None]

    return Variables(*map(function, *map(spread, parts)))


def _reduce(function, combine, *parts) -> Float[Array, " lanes"]:
    """Over all variables of each lane: `function` of an array and the axes, then `combine`."""
    found = [
        function(*arrays, axis=tuple(range(arrays[0].ndim - 1)))
        for arrays in zip(*map(jax.tree.leaves, parts), strict=True)
        if arrays[0].size
    ]
    return functools.reduce(combine, found)


def _inner(left: Variables, right: Variables) -> Float[Array, " lanes"]:
    return _reduce(lambda a, b, axis: jnp.sum(a * b, axis), jnp.add, left, right)


def _smallest(parts: Variables) -> Float[Array, " lanes"]:
    return _reduce(jnp.min, jnp.minimum, parts)


def _longest(value: Variables, move: Variables) -> Float[Array, " lanes"]:
    # Each number is used once: XLA may round two uses of the same one differently, and a sign
    # that was tested can be another when it is divided by.
    most = _reduce(lambda v, m, axis: jnp.max(-m / v, axis), jnp.maximum, value, move)
    return _STEP / jnp.maximum(_STEP, most)


class _Iterate(eqx.Module):
    primal: Variables
    slack: Variables
    within: Float[Array, "inequalities blocks lanes"]
    rows: Float[Array, "rows lanes"]


def _errors(scaled: Scaled, point: _Iterate):
    """Primal residuals, dual residual, complementarity, and the largest error of all three."""
    within, rows = scaled.forward(point.primal)
    primal = scaled.idle - within, scaled.target - rows
    prices = scaled.backward(point.within, point.rows)
    dual = _each(lambda c, p, s: c - p - s, scaled.cost, prices, point.slack)
    complementarity = _inner(point.primal, point.slack)
    worst = jnp.abs(complementarity)
    worst = jnp.maximum(worst, jnp.max(jnp.abs(primal[0]), axis=(0, 1), initial=0.0))
    worst = jnp.maximum(worst, jnp.max(jnp.abs(primal[1]), axis=0))
    largest = _reduce(lambda d, axis: jnp.max(jnp.abs(d), axis), jnp.maximum, dual)
    return primal, dual, complementarity, jnp.maximum(worst, largest)


# One turn of the loop is one of three things. They share a factorisation and two solves, so that
# a program is compiled once and not three times.
_START, _ADVANCE, _POLISH, _DONE = range(4)


def _inside(primal: Variables, slack: Variables, multipliers) -> _Iterate:
    """Mehrotra's starting point: least squares, shifted into the interior."""

    def positive(parts):
        return _each(jnp.add, parts, jnp.maximum(0, -1.5 * _smallest(parts)) + 1e-3)

    primal, slack = positive(primal), positive(slack)
    product = _inner(primal, slack)
    ones = _each(jnp.ones_like, primal)
    primal_shift, slack_shift = product / _inner(ones, slack), product / _inner(ones, primal)
    return _Iterate(
        _each(jnp.add, primal, 0.5 * primal_shift),
        _each(jnp.add, slack, 0.5 * slack_shift),
        *multipliers,
    )


def _pick(condition: Bool[Array, " lanes"], yes, no):
    """Choose lane by lane; all leaves end in lanes."""

    def choose(yes, no):
        return jnp.where(condition.reshape(*[1] * (yes.ndim - 1), -1), yes, no)

    return jax.tree.map(choose, yes, no)


def _turn(scaled: Scaled, point: _Iterate, errors, phase: Int[Array, " lanes"]) -> _Iterate:
    """Start from nothing, or advance by predictor and corrector, or polish.

    Polishing takes the rounding errors of the last steps out of the primal point: these weigh
    variables by primal / slack, over twenty orders of magnitude; weights of the square of the
    primal alone restore the rows to machine precision.
    """
    starting, polishing = phase == _START, phase == _POLISH
    primal, slack = point.primal, point.slack
    weight = _each(
        lambda p, s, first, last: jnp.where(first, 1, jnp.where(last, p**2, p / s)),
        primal,
        slack,
        starting,
        polishing,
    )
    (within, rows), dual, complementarity, _ = errors
    solve = factorise(scaled, weight)

    def respond(keep, shift):
        shift_within, shift_rows = scaled.forward(shift)
        multipliers = solve(
            keep[None, None] * within + shift_within, keep[None] * rows + shift_rows
        )
        return multipliers, scaled.backward(*multipliers)

    advancing = ~starting & ~polishing
    _, first = respond(
        jnp.ones_like(complementarity),
        _each(lambda w, d, p, on: jnp.where(on, w * d + p, 0), weight, dual, primal, advancing),
    )
    slack_move = _each(jnp.subtract, dual, first)
    primal_move = _each(lambda p, w, m: -p - w * m, primal, weight, slack_move)
    primal_step, dual_step = _longest(primal, primal_move), _longest(slack, slack_move)
    ahead = _inner(_along(primal, primal_step, primal_move), _along(slack, dual_step, slack_move))
    centring = (ahead / complementarity) ** 3
    # The second-order correction presumes full steps; weighing it by the steps that are possible
    # keeps badly centred iterates from stalling (Colombo, Gondzio 2008).
    count = sum(leaf.size for leaf in jax.tree.leaves(primal)) / max(len(complementarity), 1)
    level, both = centring * complementarity / count, primal_step * dual_step
    product = _each(
        lambda p, s, dp, ds, level, both: level - p * s - both * dp * ds,
        primal,
        slack,
        primal_move,
        slack_move,
        level,
        both,
    )
    shift = _each(
        lambda w, f, d, c, s, on: jnp.where(on, w * d - c / s, -w * f),
        weight,
        first,
        dual,
        product,
        slack,
        advancing,
    )
    shift = _each(lambda d, m, on: jnp.where(on, d, m), dual, shift, starting)
    multipliers, last = respond(jnp.where(starting, 0.0, 1.0), shift)
    slack_move = _each(jnp.subtract, dual, last)
    primal_move = _each(lambda c, p, m, s: (c - p * m) / s, product, primal, slack_move, slack)
    primal_step, dual_step = _longest(primal, primal_move), _longest(slack, slack_move)
    advanced = _Iterate(
        _along(primal, primal_step, primal_move),
        _along(slack, dual_step, slack_move),
        point.within + dual_step[None, None] * multipliers[0],
        point.rows + dual_step[None] * multipliers[1],
    )
    clean = _each(lambda p, w, f, e: jnp.maximum(p + w * (f + e), 0), primal, weight, first, last)
    clean_within, clean_rows = scaled.forward(clean)
    after = _sum_abs(scaled.idle - clean_within, scaled.target - clean_rows)
    better = after < _sum_abs(within, rows)
    polished = eqx.tree_at(lambda p: p.primal, point, _pick(better, clean, primal))
    started = _inside(first, slack_move, multipliers)
    return _pick(phase == _START, started, _pick(phase == _POLISH, polished, advanced))


def _along(value: Variables, step: Float[Array, " lanes"], move: Variables) -> Variables:
    return _each(lambda v, m, step: v + step * m, value, move, step)


def _sum_abs(within, rows):
    return jnp.sum(jnp.abs(within), axis=(0, 1)) + jnp.sum(jnp.abs(rows), axis=0)


class _Search(eqx.Module):
    """How far each lane is: where it is now, the best point so far, and their errors."""

    here: tuple[_Iterate, Any]
    best: tuple[_Iterate, Any]
    worst: Float[Array, " lanes"]
    steps: Int[Array, " lanes"]
    phase: Int[Array, " lanes"]


def _start(scaled: Scaled) -> _Search:
    nothing = _each(jnp.zeros_like, scaled.cost)
    blank = _Iterate(nothing, nothing, jnp.zeros_like(scaled.idle), jnp.zeros_like(scaled.target))
    start = blank, _errors(scaled, blank)
    steps = jnp.zeros(scaled.target.shape[-1], int)
    return _Search(start, start, jnp.full(steps.shape, jnp.inf), steps, steps + _START)


def _advance(scaled: Scaled, search: _Search, tolerance, max_steps) -> _Search:
    best, phase = search.best, search.phase
    point = _turn(scaled, *search.here, phase)
    here = point, _errors(scaled, point)
    *_, rest, error = here[1]
    better = ((error < search.worst) | (phase == _POLISH)) & (phase != _DONE)
    best = _pick(better, here, best)
    worst = jnp.where(phase == _DONE, search.worst, jnp.fmin(error, search.worst))
    steps = search.steps + (phase == _ADVANCE)
    # Once complementarity is gone, further steps only stir rounding errors.
    open_ = (worst > tolerance) & (rest > 1e-3 * tolerance) & (steps < max_steps)
    phase = jnp.where(phase >= _POLISH, _DONE, jnp.where(open_, _ADVANCE, _POLISH))
    return _Search(_pick(phase == _POLISH, best, here), best, worst, steps, phase)


def _solve_lanes(program: LinearProgram, width: int, tolerance, max_steps):
    """Solve `width` programs at a time: those that are done make room for the next."""
    count = program.target.shape[-1]
    room = max(width // _REFILL, 1)

    def fetch(index):
        inside = jnp.minimum(index, count - 1)
        return scale(jax.tree.map(lambda leaf: leaf[..., inside], program))

    def goes_on(carry):
        _, index, taken, _ = carry
        return (taken < count) | jnp.any(index < count)

    def work(carry):
        search, index, taken, answers = carry
        fresh = index == count
        following = taken + jnp.cumsum(fresh) - 1
        index = jnp.where(fresh, jnp.minimum(following, count), index)
        taken = jnp.minimum(taken + jnp.sum(fresh), count)
        fresh = fresh & (index < count)
        scaled = fetch(index)
        search = _pick(fresh, _start(scaled), search)

        def is_busy(search):
            busy = jnp.sum(search.phase < _DONE)
            return (busy > 0) & ((taken == count) | (busy > width - room))

        search = jax.lax.while_loop(
            is_busy, lambda search: _advance(scaled, search, tolerance, max_steps), search
        )
        ended = search.phase == _DONE
        best, _ = search.best
        found = (
            (best.primal.x.swapaxes(0, 1), best.primal.z),
            (
                (best.within * scaled.cost_size[None, None] / scaled.within_size).swapaxes(0, 1),
                best.rows * scaled.cost_size[None] / scaled.row_size,
            ),
            search.steps,
        )
        place = jnp.where(ended, index, count)
        answers = jax.tree.map(
            lambda answer, new: answer.at[..., place].set(new, mode="drop"), answers, found
        )
        return search, jnp.where(ended, count, index), taken, answers

    blank = _start(fetch(jnp.arange(width)))
    nothing = jax.tree.map(jnp.zeros_like, program)
    answers = (
        (nothing.cost, nothing.slack_cost),
        (nothing.within[:, :, 0], nothing.target),
        jnp.zeros(count, int),
    )
    idle = eqx.tree_at(lambda search: search.phase, blank, jnp.full(width, _DONE))
    carry = idle, jnp.full(width, count), jnp.array(0), answers
    return jax.lax.while_loop(goes_on, work, carry)[-1]


def _width(program: LinearProgram) -> int:
    """How many programs to solve at once."""
    leaves = jax.tree.leaves(program)
    size = sum(leaf.size for leaf in leaves) / max(program.target.shape[-1], 1)
    fitting = 2 ** int(math.log2(max(_PASS_SIZE / max(size, 1), 1)))
    return min(max(fitting, _LANES[0]), _LANES[1])


def solve_by_interior_point(
    program: LinearProgram, *, tolerance: float = 1e-12, max_steps: int = 60
) -> tuple[Primal, Dual, Int[Array, ""]]:
    """Solve one program by Mehrotra's predictor-corrector method; batch it with `jax.vmap`.

    **Returns:** the best point met, its multipliers, and the number of steps. Nothing is claimed
    about them: `check_optimum` says what they prove.

    **Source:** Mehrotra (1992), On the implementation of a primal-dual interior point method.
    """

    def solve(program):
        width = min(program.target.shape[-1], _width(program))
        return _solve_lanes(program, width, tolerance, max_steps)

    primal, dual, steps = over_lanes(solve, axis=-1)(program)
    return Primal(*primal), Dual(*dual), steps
