"""Persuasion programs: many small ones at once, and large ones, against HiGHS."""

import functools
import time
from concurrent.futures import Executor

import jax
import jax.numpy as jnp
import numpy as np

from diffgame._linear_program import Dual, LinearProgram, Primal, check_optimum
from diffgame._program_solver import solve_linear_program

from ._harness import Row, alternate, compile_batched, cores

GAP = 1e-9
LARGE_GAP = 1e-8
PARTS = 3
_MEASURED = 900


def share(flags) -> float:
    """Of flags that are true."""
    return float(np.mean(np.asarray(flags)))


def persuasion(prior, utility, objective) -> LinearProgram:
    """Which signal [actions, states] serves a lone provider best."""
    actions, states = utility.shape
    others = np.array([[b for b in range(actions) if b != a] for a in range(actions)])
    lead = (utility[:, None] - utility[others]) * prior[None, None]
    none = jnp.zeros((0, actions, states)), jnp.zeros((states, 0))
    return LinearProgram(
        -objective * prior[None],
        jnp.zeros(0),
        lead,
        *none,
        target=jnp.ones(states),
        sums=jnp.ones(actions),
    )


def _solve(prior, utility, objective, tolerance=GAP):
    program = persuasion(prior, utility, objective)
    primal, dual, _ = solve_linear_program(program)
    return check_optimum(program, primal, dual, tolerance)


@functools.partial(jax.jit, static_argnames="tolerance")
@functools.partial(jax.vmap, in_axes=(0, 0, 0, 0, 0, 0, None))
def _recheck(prior, utility, objective, signal, within, rows, tolerance):
    """The same check for the peer's answers."""
    program = persuasion(prior, utility, objective)
    return check_optimum(program, Primal(signal, jnp.zeros(0)), Dual(within, rows), tolerance)


def _check_answers(data, answers, tolerance):
    """Which of the peer's answers are optimal, by the same check, and their largest gap."""
    _, actions, states = data[1].shape
    signal = np.array([answer[1] for answer in answers]).reshape(-1, actions, states)
    rows = np.array([answer[2] for answer in answers])
    within = rows[:, :-states].reshape(-1, actions, actions - 1)
    checked = _recheck(*map(jnp.asarray, (*data, signal, within, rows[:, -states:])), tolerance)
    optimal = np.array([answer[0] for answer in answers]) & np.asarray(checked.certified)
    return optimal, float(jnp.max(jnp.abs(checked.value - checked.bound)))


def random_programs(actions: int, states: int, batch: int, seed: int = 0):
    """Prior from a flat Dirichlet law, utilities and objectives uniform on [0, 1]."""
    rng = np.random.default_rng(seed)
    prior = rng.dirichlet(np.ones(states), size=batch)
    return prior, *rng.uniform(size=(2, batch, actions, states))


def compare_programs(actions: int, states: int, batch: int, pool: Executor) -> Row:
    """Random persuasion programs; the peer solves them in one process per core, then in one."""
    from . import _highs

    data = random_programs(actions, states, batch)
    measured = min(batch, _MEASURED)
    ours = compile_batched(jax.vmap(_solve), *map(jnp.asarray, data))
    parts = [tuple(piece[part:measured:PARTS] for piece in data) for part in range(PARTS)]
    programs = [
        [_highs.persuasion_program(*item) for item in zip(*part, strict=True)] for part in parts
    ]

    def together(part):
        """Seconds of the slowest process, models built beforehand, and all answers."""
        shares = [tuple(piece[core :: cores()] for piece in part) for core in range(cores())]
        found = list(pool.map(_highs.solve_share, shares))
        return max(seconds for seconds, _ in found), [answer for _, own in found for answer in own]

    seconds, _, shared = alternate(ours.all_cores, together, parts)
    alone, alone_seconds, answers = alternate(ours.one_core, _highs.solve_each, programs)
    each = sum(part_seconds for part_seconds, _ in shared) / measured
    found = ours.all_cores()
    ordered = [np.concatenate([part[at] for part in parts]) for at in range(len(data))]
    optimal, peer_gap = _check_answers(ordered, [one for own in answers for one in own], GAP)
    gap = float(np.max(np.abs(found.value - found.bound)))
    return Row(
        f"persuasion program {actions}x{states}",
        batch,
        seconds,
        f"highspy, {cores()} processes",
        each * batch,
        share(found.certified),
        share(optimal),
        ours.compile_seconds,
        measured,
        f"one core against one: {alone / batch * 1e6:.3g} us, "
        f"ratio {sum(alone_seconds) / measured * batch / alone:.1f}; "
        f"largest gap: ours {gap:.1e}, peer {peer_gap:.1e}",
    )


def compare_one(actions: int, states: int, programs: int = PARTS) -> Row:
    """Large persuasion programs, one after another on both sides, against an interior point."""
    from . import _highs

    data = random_programs(actions, states, programs)
    begin = time.perf_counter()
    solve = functools.partial(_solve, tolerance=LARGE_GAP)
    first = tuple(jnp.asarray(piece[0]) for piece in data)
    compiled = jax.jit(solve).lower(*first).compile()
    compile_seconds = time.perf_counter() - begin

    def ours():
        items = zip(*map(jnp.asarray, data), strict=True)
        return [jax.block_until_ready(compiled(*item)) for item in items]

    models = [[_highs.persuasion_program(*item)] for item in zip(*data, strict=True)]
    seconds, peer_seconds, answers = alternate(ours, _highs.solve_by_interior_point, models)
    found = ours()
    optimal, peer_gap = _check_answers(data, [own[0] for own in answers], LARGE_GAP)
    gap = max(float(abs(one.value - one.bound)) for one in found)
    return Row(
        f"one persuasion program {actions}x{states}",
        programs,
        seconds,
        "HiGHS ipm",
        sum(peer_seconds),
        share([one.certified for one in found]),
        share(optimal),
        compile_seconds,
        programs,
        f"each program by itself; largest gap: ours {gap:.1e}, peer {peer_gap:.1e}",
    )
