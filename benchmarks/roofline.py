"""What bounds the solvers: steps and counted work against what one core can do at most.

For linear programs: microseconds per program, the number of steps, how many are carried out for it
(with a group of programs that goes on until its last has ended), and per step the microseconds, and
the bytes and floating-point operations that XLA counts in the compiled step; `rest` are the
microseconds that are not steps: start, answer, traffic. The roofline is the larger of the bytes of
all steps at the rate of a triad over as many bytes as the solver carries, and their operations at
the rate of multiply-adds in the cache; `share` is that time over the time taken. Equilibria are
timed stage by stage. All on one core, float64.
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffgame import _interior_point, _ray_solver, _row_solver
from diffgame._extreme_rays import rays_of_lanes
from diffgame._interior_point import solve_by_interior_point
from diffgame._lanes import lanes_last
from diffgame._ray_solver import solve_by_rays
from diffgame._revised_simplex import begin as begin_basis, pivot
from diffgame._row_solver import solve_by_rows
from diffgame.market._equilibrium_values import equilibrium_segment
from diffgame.market._frontier import find_frontiers
from diffgame.market._segment import make_segment

from ._harness import arguments, machine, write
from .market import _in_chunks, _settle_group, _settle_market, random_markets
from .market_programs import persuasion, random_programs
from .users import seconds

_REPEATS, _STEPS = 5, 20


@contextlib.contextmanager
def one_core() -> Generator[None]:
    """Keep this process on one core: XLA's threads too, if it has none yet."""
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("roofline: this system cannot keep a process on one core; run it on Linux")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def best_seconds(function: Callable[[], Any]) -> float:
    """Wall clock of several runs, after one that does not count."""
    jax.block_until_ready(function())
    return seconds(function, _REPEATS)[0]


def triad_rate(size: int) -> float:
    """Bytes per second of b = a + b / 2 where both arrays together have `size` bytes."""
    count = size // 16
    rounds = max(1, 400_000_000 // size)
    run = jax.jit(lambda a, b: jax.lax.fori_loop(0, rounds, lambda _, b: a + 0.5 * b, b))
    a = jnp.linspace(0.1, 0.2, count)
    return 24 * count * rounds / best_seconds(lambda: run(a, a))


def multiply_add_rate(count: int = 10_000, rounds: int = 100, terms: int = 64) -> float:
    """Operations per second of polynomials of numbers in the cache."""

    def evaluate(_, x):
        total = x
        for _ in range(terms):
            total = total * x + 0.25
        return total

    run = jax.jit(lambda x: jax.lax.fori_loop(0, rounds, evaluate, x))
    x = jnp.linspace(0.1, 0.2, count)
    return 2 * terms * count * rounds / best_seconds(lambda: run(x))


@dataclasses.dataclass(frozen=True)
class Method:
    """A solver of programs: how it starts, and one step of it.

    `width`: how many lanes advance together. `waits`: all of them until the last has ended.
    """

    name: str
    solve: Callable[[Any], Any]
    width: Callable[[Any], int]
    waits: bool
    begin: Callable[[Any], Any]
    step: Callable[[Any], Any]


def _begin_rays(program):
    rays = rays_of_lanes(program.within.transpose(1, 2, 0, 3))
    columns, _ = _ray_solver._columns(program, rays)
    start = _ray_solver._start(columns, program.cost.shape[1], len(columns.slack_cost))
    return columns, begin_basis(columns, start)


def _begin_interior(program):
    scaled = _interior_point.scale(program)
    return scaled, _interior_point._start(scaled)


RAYS = Method(
    "rays",
    solve_by_rays,
    lambda program: _ray_solver._LANES,
    True,
    _begin_rays,
    lambda own: (own[0], pivot(own[0], own[1], _ray_solver._MAX_PIVOTS)),
)
ROWS = Method(
    "rows",
    solve_by_rows,
    lambda program: _row_solver._WIDTH,
    False,
    _row_solver._begin,
    _row_solver._advance,
)
INTERIOR = Method(
    "interior",
    solve_by_interior_point,
    _interior_point._width,
    False,
    _begin_interior,
    lambda own: (own[0], _interior_point._advance(own[0], own[1], 1e-12, 60)),
)


def profile(method: Method, actions: int, states: int, batch: int) -> dict[str, Any]:
    """One method on random persuasion programs, without the check of its answers."""
    data = tuple(map(jnp.asarray, random_programs(actions, states, batch)))
    programs = jax.jit(jax.vmap(persuasion))(*data)
    solve = jax.jit(jax.vmap(method.solve)).lower(programs).compile()
    spent = best_seconds(lambda: solve(programs)) / batch
    lanes = lanes_last(programs)
    width = min(method.width(lanes), batch)
    taken = np.asarray(solve(programs)[2])
    steps = float(np.mean(taken))
    # Those that end first are carried along until the last of their group has ended.
    carried = float(np.mean(taken.reshape(-1, width).max(axis=1))) if method.waits else steps
    group = jax.tree.map(lambda leaf: leaf[..., :width], lanes)
    carry = jax.jit(method.begin)(group)
    again = jax.jit(
        lambda carry: jax.lax.fori_loop(0, _STEPS, lambda _, own: method.step(own), carry)
    )
    each = best_seconds(lambda: again(carry)) / _STEPS / width
    counted = jax.jit(method.step).lower(carry).compile().cost_analysis()
    assert counted is not None
    return {
        "program": f"{actions}x{states}",
        "method": method.name,
        "n": batch,
        "seconds": spent,
        "step_seconds": each,
        "steps": steps,
        "carried_steps": carried,
        "bytes_per_step": counted["bytes accessed"] / width,
        "flops_per_step": counted["flops"] / width,
        "triad_rate": triad_rate(sum(leaf.nbytes for leaf in jax.tree.leaves(carry))),
    }


def stages(markets: int) -> list[tuple[str, float]]:
    """Seconds per market of what a settled market needs, each stage with all before it."""

    def segments(prior, utility, objective):
        return jax.vmap(lambda *user: equilibrium_segment(prior, *user), in_axes=(0, 1))(
            utility, objective
        )

    def frontiers(prior, utility, objective):
        return jax.vmap(find_frontiers)(segments(prior, utility, objective))

    def shared(prior, utility, objective):
        users = objective.shape[1]
        return make_segment(prior, utility, objective / users, jnp.ones(users))

    found = []
    for users, named in (
        (1, {"segments": segments, "frontiers": frontiers, "settled": _settle_market}),
        (2, {"segments": shared, "settled": _settle_group}),
    ):
        arrays = tuple(map(jnp.asarray, random_markets(markets, users)))
        kind = "personalized, 1 user" if users == 1 else "anonymous, 2 users"
        for name, stage in named.items():
            run = jax.jit(functools.partial(_in_chunks, stage)).lower(*arrays).compile()
            spent = best_seconds(lambda run=run, arrays=arrays: run(*arrays)) / markets
            found.append((f"{kind}: {name}", spent))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = arguments("roofline", __doc__ or "")
    options = parser.parse_args(argv)
    with one_core():
        _measure(options.quick, options.json)


def _measure(quick: bool, out: Path | None) -> None:
    jax.config.update("jax_enable_x64", True)
    about = machine(())
    print("; ".join(f"{name} {value}" for name, value in about.items()))
    flops = multiply_add_rate()
    print(f"one core: {flops / 1e9:.0f} Gflop/s of multiply-adds in the cache\n")
    sizes = [(RAYS, 2, 2, 4096), (RAYS, 3, 3, 4096), (ROWS, 5, 5, 4096), (ROWS, 10, 10, 512)]
    sizes += [(INTERIOR, 50, 50, 1), (INTERIOR, 100, 20, 1)]
    if quick:
        sizes = [(RAYS, 2, 2, 64), (ROWS, 4, 4, 32)]
    heads = "us", "steps", "carried", "us/step", "rest us", "kB/step", "flop/step", "GB/s", "triad"
    print(f"{'program':9}{'method':9}{'n':>5}" + "".join(f"{head:>10}" for head in heads), end="")
    print(f"{'share':>8}")
    rows = []
    for size in sizes:
        row = profile(*size)
        rows.append(row)
        each = row["carried_steps"] / row["seconds"]
        moved, done = each * row["bytes_per_step"], each * row["flops_per_step"]
        row["share"] = max(moved / row["triad_rate"], done / flops)
        cells = (
            1e6 * row["seconds"],
            row["steps"],
            row["carried_steps"],
            1e6 * row["step_seconds"],
            1e6 * (row["seconds"] - row["carried_steps"] * row["step_seconds"]),
            row["bytes_per_step"] / 1e3,
            row["flops_per_step"],
            moved / 1e9,
            row["triad_rate"] / 1e9,
        )
        print(f"{row['program']:9}{row['method']:9}{row['n']:>5}", end="")
        print("".join(f"{cell:>10.3g}" for cell in cells) + f"{row['share']:>8.0%}")
    print()
    timed = [] if quick else stages(1000)
    for name, spent in timed:
        print(f"{name:34}{1e6 * spent:>8.1f} us per market")
    if out is not None:
        write(
            out,
            {
                "machine": about | {"multiply_adds": flops},
                "rows": rows,
                "stages": [{"stage": name, "seconds": spent} for name, spent in timed],
            },
        )


if __name__ == "__main__":
    main()
