"""Mehrotra's predictor-corrector interior point for one small block program; batch with vmap."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Scalar

from ._linear_program import Dual, LinearProgram, Primal

# Up to this size a factorisation is written out as operations on whole batches; beyond, it is a
# loop of such operations. Batched LAPACK calls are avoided on purpose: two of them that do not
# depend on each other can block one another for ever in XLA's CPU thread pool (jaxlib 0.10).
_UNROLL = 12
_SMALLEST_PIVOT = 1e-15
_STEP = 0.995


def _pivot(value: Array, diagonal: Array) -> Array:
    # A pivot lost to rounding belongs to a redundant row; a huge one leaves that row's multiplier
    # alone (Wright 1999, Modified Cholesky factorizations in interior-point algorithms).
    return jnp.sqrt(jnp.where(value > _SMALLEST_PIVOT * diagonal, value, 1e128))


def _cholesky(matrix: Float[Array, "*batch n n"]) -> Float[Array, "*batch n n"]:
    n = matrix.shape[-1]
    if n == 0:
        return matrix
    if n > _UNROLL:
        return _cholesky_loop(matrix)
    columns: list[list[Array]] = []
    for j in range(n):
        column = [matrix[..., i, j] for i in range(j, n)]
        for k, done in enumerate(columns):
            column = [entry - done[i - k] * done[j - k] for i, entry in enumerate(column, j)]
        pivot = _pivot(column[0], matrix[..., j, j])
        columns.append([pivot, *(entry / pivot for entry in column[1:])])
    zero = jnp.zeros_like(matrix[..., 0, 0])
    rows = [[columns[j][i - j] if i >= j else zero for j in range(n)] for i in range(n)]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def _cholesky_loop(matrix: Float[Array, "*batch n n"]) -> Float[Array, "*batch n n"]:
    n = matrix.shape[-1]
    diagonal = jnp.diagonal(matrix, axis1=-2, axis2=-1)

    def eliminate(j, work):
        column = work[..., j]
        pivot = _pivot(column[..., j], diagonal[..., j])
        column = jnp.where(jnp.arange(n) > j, column / pivot[..., None], 0)
        work = work - column[..., :, None] * column[..., None, :]
        return work.at[..., j].set(column.at[..., j].set(pivot))

    return jnp.tril(jax.lax.fori_loop(0, n, eliminate, matrix))


def _cholesky_solve(
    factor: Float[Array, "*batch n n"], rhs: Float[Array, "*batch n m"]
) -> Float[Array, "*batch n m"]:
    n = factor.shape[-1]
    if n == 0:
        return rhs
    if n > _UNROLL:
        return _cholesky_solve_loop(factor, rhs)
    forward: list[Array] = []
    for i in range(n):
        value = rhs[..., i, :]
        for k, done in enumerate(forward):
            value = value - factor[..., i, k, None] * done
        forward.append(value / factor[..., i, i, None])
    back: list[Array] = []
    for i in reversed(range(n)):
        value = forward[i]
        for k, done in enumerate(back):
            value = value - factor[..., n - 1 - k, i, None] * done
        back.append(value / factor[..., i, i, None])
    return jnp.stack(back[::-1], -2)


def _cholesky_solve_loop(factor, rhs):
    n = factor.shape[-1]

    def forward(i, work):
        entry = work[..., i, :] / factor[..., i, i, None]
        below = jnp.where(jnp.arange(n) > i, factor[..., i], 0)
        work = work - below[..., :, None] * entry[..., None, :]
        return work.at[..., i, :].set(entry)

    def backward(step, work):
        i = n - 1 - step
        entry = work[..., i, :] / factor[..., i, i, None]
        before = jnp.where(jnp.arange(n) < i, factor[..., i, :], 0)
        work = work - before[..., :, None] * entry[..., None, :]
        return work.at[..., i, :].set(entry)

    return jax.lax.fori_loop(0, n, backward, jax.lax.fori_loop(0, n, forward, rhs))


class _Scaled(eqx.Module):
    """The program with rows and costs of size one, in equality form A v = b, v >= 0.

    v stacks x, the slacks t of the rows `within`, and z. A row without coefficients reads t = 1,
    so that a strictly feasible point exists.
    """

    program: LinearProgram
    within_size: Float[Array, "blocks inequalities"]
    row_size: Float[Array, " rows"]
    cost_size: Scalar

    def cost(self):
        p = self.program
        idle = jnp.zeros(p.within.shape[:2])
        return self.stack(p.cost, idle, p.slack_cost)

    def target(self):
        idle = ~jnp.any(self.program.within != 0, axis=-1)
        return jnp.where(idle, -1.0, 0.0), self.program.target

    def stack(self, x, t, z):
        return jnp.concatenate([x.ravel(), t.ravel(), z])

    def unstack(self, v):
        p = self.program
        inner = p.within.shape[0] * p.within.shape[1]
        x, t, z = jnp.split(v, [p.cost.size, p.cost.size + inner])
        return x.reshape(p.cost.shape), t.reshape(p.within.shape[:2]), z

    def forward(self, v):
        x, t, z = self.unstack(v)
        within = jnp.einsum("bis,bs->bi", self.program.within, x) - t
        rows = jnp.einsum("rbs,bs->r", self.program.coupling, x)
        return within, rows + self.program.slack_coupling @ z

    def backward(self, within, rows):
        x = jnp.einsum("bis,bi->bs", self.program.within, within)
        x = x + jnp.einsum("rbs,r->bs", self.program.coupling, rows)
        return self.stack(x, -within, rows @ self.program.slack_coupling)


def _scale(program: LinearProgram) -> _Scaled:
    def size(*parts):
        top = jnp.stack([jnp.max(jnp.abs(part), axis=-1, initial=0.0) for part in parts]).max(0)
        return jnp.where(top > 0, top, 1)

    count = len(program.target)
    within_size = size(program.within)
    row_size = size(program.coupling.reshape(count, -1), program.slack_coupling)
    # Slack costs are left as they are: prices of infeasibility would drown the costs that matter.
    block_cost = jnp.max(jnp.abs(program.cost), initial=0.0)
    cost_size = jnp.where(block_cost > 0, block_cost, 1)
    scaled = LinearProgram(
        program.cost / cost_size,
        program.slack_cost / cost_size,
        program.within / within_size[..., None],
        program.coupling / row_size[:, None, None],
        program.slack_coupling / row_size[:, None],
        program.target / row_size,
    )
    return _Scaled(scaled, within_size, row_size, cost_size)


def _factorise(scaled: _Scaled, weight: Float[Array, " variables"]):
    """Solver of the normal equations A diag(weight) A' y = rhs.

    Eliminating the blocks first is a Cholesky factorisation in an order that creates no fill,
    so it is as stable as the dense one and linear in the number of blocks.
    """
    program = scaled.program
    x_weight, t_weight, z_weight = scaled.unstack(weight)
    weighted = program.within * x_weight[:, None, :]
    block = jnp.einsum("bis,bjs->bij", weighted, program.within)
    block = block + jax.vmap(jnp.diag)(t_weight)
    border = jnp.einsum("bis,rbs->bir", weighted, program.coupling)
    corner = jnp.einsum("rbs,bs,qbs->rq", program.coupling, x_weight, program.coupling)
    corner = corner + (program.slack_coupling * z_weight[None, :]) @ program.slack_coupling.T
    blocks = _cholesky(block)
    eliminated = _cholesky_solve(blocks, border)
    schur = corner - jnp.einsum("bir,biq->rq", border, eliminated)
    corners = _cholesky(schur)

    def solve(within, rows):
        first = _cholesky_solve(blocks, within[..., None])[..., 0]
        rest = rows - jnp.einsum("bir,bi->r", border, first)
        y = _cholesky_solve(corners, rest[:, None])[:, 0]
        return first - jnp.einsum("bir,r->bi", eliminated, y), y

    return solve


def _longest(value, move):
    return jnp.minimum(1.0, _STEP * jnp.min(jnp.where(move < 0, -value / move, jnp.inf)))


class _Iterate(eqx.Module):
    primal: Float[Array, " variables"]
    slack: Float[Array, " variables"]
    within: Float[Array, "blocks inequalities"]
    rows: Float[Array, " rows"]


def _errors(scaled: _Scaled, point: _Iterate):
    """Primal residuals, dual residual, complementarity, and the largest error of all three."""
    within, rows = scaled.forward(point.primal)
    within_target, rows_target = scaled.target()
    primal = within_target - within, rows_target - rows
    dual = scaled.cost() - scaled.backward(point.within, point.rows) - point.slack
    complementarity = jnp.dot(point.primal, point.slack)
    worst = jnp.max(
        jnp.stack(
            [
                jnp.max(jnp.abs(primal[0]), initial=0.0),
                jnp.max(jnp.abs(primal[1])),
                jnp.max(jnp.abs(dual)),
                jnp.abs(complementarity),
            ]
        )
    )
    return primal, dual, complementarity, worst


# One turn of the loop is one of three things. They share a factorisation and two solves, so that
# a program is compiled once and not three times.
_START, _ADVANCE, _POLISH, _DONE = range(4)


def _inside(primal, slack, multipliers) -> _Iterate:
    """Mehrotra's starting point: least squares, shifted into the interior."""
    primal = primal + jnp.maximum(0, -1.5 * jnp.min(primal)) + 1e-3
    slack = slack + jnp.maximum(0, -1.5 * jnp.min(slack)) + 1e-3
    product = jnp.dot(primal, slack)
    primal_shift, slack_shift = product / jnp.sum(slack), product / jnp.sum(primal)
    return _Iterate(primal + 0.5 * primal_shift, slack + 0.5 * slack_shift, *multipliers)


def _turn(scaled: _Scaled, point: _Iterate, phase: Int[Array, ""]) -> _Iterate:
    """Start from nothing, or advance by predictor and corrector, or polish.

    Polishing takes the rounding errors of the last steps out of the primal point: these weigh
    variables by primal / slack, over twenty orders of magnitude; weights of the square of the
    primal alone restore the rows to machine precision.
    """
    starting, polishing = phase == _START, phase == _POLISH
    primal, slack = point.primal, point.slack
    weight = jnp.where(starting, 1, jnp.where(polishing, primal**2, primal / slack))
    (within, rows), dual, complementarity, _ = _errors(scaled, point)
    solve = _factorise(scaled, weight)

    def respond(keep, shift):
        shift_within, shift_rows = scaled.forward(shift)
        multipliers = solve(keep * within + shift_within, keep * rows + shift_rows)
        return multipliers, scaled.backward(*multipliers)

    advancing = ~starting & ~polishing
    _, first = respond(1.0, jnp.where(advancing, weight * dual + primal, 0))
    slack_move = dual - first
    primal_move = -primal - weight * slack_move
    primal_step, dual_step = _longest(primal, primal_move), _longest(slack, slack_move)
    ahead = jnp.dot(primal + primal_step * primal_move, slack + dual_step * slack_move)
    centring = (ahead / complementarity) ** 3
    # The second-order correction presumes full steps; weighing it by the steps that are possible
    # keeps badly centred iterates from stalling (Colombo, Gondzio 2008).
    second = primal_step * dual_step * primal_move * slack_move
    product = centring * complementarity / primal.size - primal * slack - second
    shift = jnp.where(polishing, -weight * first, weight * dual - product / slack)
    multipliers, last = respond(jnp.where(starting, 0.0, 1.0), jnp.where(starting, dual, shift))
    slack_move = dual - last
    primal_move = (product - primal * slack_move) / slack
    primal_step, dual_step = _longest(primal, primal_move), _longest(slack, slack_move)
    advanced = _Iterate(
        primal + primal_step * primal_move,
        slack + dual_step * slack_move,
        point.within + dual_step * multipliers[0],
        point.rows + dual_step * multipliers[1],
    )
    clean = jnp.maximum(primal + weight * (first + last), 0)
    (clean_within, clean_rows), *_ = _errors(scaled, eqx.tree_at(lambda p: p.primal, point, clean))
    better = _sum_abs(clean_within, clean_rows) < _sum_abs(within, rows)
    polished = eqx.tree_at(lambda p: p.primal, point, jnp.where(better, clean, primal))
    started = _inside(first, slack_move, multipliers)
    return jax.tree.map(
        lambda *leaves: jnp.where(starting, leaves[0], jnp.where(polishing, *leaves[1:])),
        started, polished, advanced,
    )


def _sum_abs(*arrays):
    return sum(jnp.sum(jnp.abs(array)) for array in arrays)


def solve_linear_program(
    program: LinearProgram, *, tolerance: float = 1e-12, max_steps: int = 60
) -> tuple[Primal, Dual, Int[Array, ""]]:
    """Solve one program by Mehrotra's predictor-corrector method; batch it with `jax.vmap`.

    **Returns:** the best point met, its multipliers, and the number of steps. Nothing is claimed
    about them: `check_optimum` says what they prove.

    **Source:** Mehrotra (1992), On the implementation of a primal-dual interior point method.
    """
    scaled = _scale(program)

    def goes_on(carry):
        return carry[-1] < _DONE

    def turn(carry):
        point, best, worst, step, phase = carry
        point = _turn(scaled, point, phase)
        *_, rest, error = _errors(scaled, point)
        polishing = phase == _POLISH
        better = (error < worst) | polishing
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), point, best)
        worst = jnp.fmin(error, worst)
        step = step + (phase == _ADVANCE)
        # Once complementarity is gone, further steps only stir rounding errors.
        open_ = (worst > tolerance) & (rest > 1e-3 * tolerance) & (step < max_steps)
        phase = jnp.where(polishing, _DONE, jnp.where(open_, _ADVANCE, _POLISH))
        point = jax.tree.map(lambda new, old: jnp.where(phase == _POLISH, new, old), best, point)
        return point, best, worst, step, phase

    nothing = jnp.zeros_like(scaled.cost())
    blank = _Iterate(
        nothing, nothing, jnp.zeros(program.within.shape[:2]), jnp.zeros(len(program.target))
    )
    carry = blank, blank, jnp.array(jnp.inf), jnp.array(0), jnp.array(_START)
    _, best, _, steps, _ = jax.lax.while_loop(goes_on, turn, carry)
    x, _, z = scaled.unstack(best.primal)
    within = best.within * scaled.cost_size / scaled.within_size
    rows = best.rows * scaled.cost_size / scaled.row_size
    return Primal(x, z), Dual(within, rows), steps
