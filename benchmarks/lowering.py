"""What of the hot path lowers for CPU, CUDA GPUs and TPUs: every program exported for each.

`jax.export` writes a program for a platform without having it. The table has the bytes of each
module and the custom calls found in it; the command fails if one does not lower, or if a module
for `cuda` or `tpu` calls what only a CPU has (LAPACK). Checks that raise (`eqx.error_if`) call the
host, which cannot be exported from a machine without the platform; the programs are therefore
those of EQX_ON_ERROR=nan, where such a check turns results into NaN, otherwise the same.
"""

import dataclasses
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import export

import diffgame as dg
from benchmarks import _harness
from benchmarks.users import write
from diffgame._certificate import _certify
from diffgame._interior_point import solve_by_interior_point
from diffgame._linear_program import LinearProgram
from diffgame._ray_solver import solve_by_rays
from diffgame._row_solver import solve_by_rows
from diffgame.batch import _search
from diffgame.batch._source import Made
from diffgame.finite import (
    NormalForm,
    correlated_equilibrium,
    lemke_howson,
    logit_equilibrium,
    nash_limit,
    stackelberg_commitment,
    zero_sum_equilibrium,
)
from diffgame.games import (
    Adoption,
    LinearBertrand,
    LogitBertrand,
    MarkupIteration,
    MultiProductBertrand,
)
from diffgame.market import Market, _audit, _search as _market_search, _settle, persuade

PLATFORMS = ("cpu", "cuda", "tpu")
_ONLY_CPU = re.compile(r"lapack|_cpu_|^cpu_|hwloc|onednn|eigen", re.IGNORECASE)
_CALL = re.compile(r"custom_call @([A-Za-z_][\w.$]*)")
# Marks of the compiler, not calls.
_MARKS = {"Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape", "annotate_device_placement"}


@dataclasses.dataclass(frozen=True)
class Lowered:
    """One program for one platform: bytes and custom calls, or why it does not lower."""

    size: int
    calls: tuple[str, ...]
    error: str = ""

    @property
    def wrong(self) -> tuple[str, ...]:
        """Calls that only a CPU can answer."""
        return tuple(name for name in self.calls if _ONLY_CPU.search(name))


def lower(function: Callable, arguments: Any, platform: str) -> Lowered:
    """Export `function(*arguments)`, in which what is no array is part of the program."""
    arrays, static = eqx.partition(arguments, eqx.is_array)

    def flat(arrays):
        return jax.tree.leaves(eqx.filter(function(*eqx.combine(arrays, static)), eqx.is_array))

    shapes = jax.tree.map(jax.typeof, arrays)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), shapes)
    try:
        module = export.export(jax.jit(flat), platforms=(platform,))(shapes)
    except (NotImplementedError, ValueError) as error:
        return Lowered(0, (), str(error).splitlines()[0])
    calls = set(_CALL.findall(module.mlir_module())) - _MARKS
    return Lowered(len(module.mlir_module_serialized), tuple(sorted(calls)))


def _pricing():
    owner = jnp.array([0, 0, 1])
    quality = jnp.linspace(0.0, 3.0, 24).reshape(8, 3)
    game = MultiProductBertrand(jnp.ones(3), owner, quality, jnp.linspace(0.8, 1.2, 8))
    return game, dg.Logit(1.0), game.post(jnp.full(3, 1.5))


def _linear():
    substitution = jnp.array([[1.0, 0.5], [0.5, 1.0]])
    game = LinearBertrand(jnp.zeros(2), substitution, jnp.ones((4, 2)))
    return game, dg.Concave(), dg.Constant(jnp.full(2, 0.2))


def _adoption():
    game = Adoption(effect=jnp.array(1.0), users=jnp.linspace(-1.0, 1.0, 8))
    return game, dg.Logit(1.0), dg.Constant(jnp.array([1.0]))


def _solve(solver: dg.AbstractSolver) -> Callable:
    def run(game, response, profile):
        found = dg.solve(game, response, profile, solver, throw=False)
        return found.profile, found.outcome, found.residual, found.status, found.steps

    return run


def _play_all(game, response, profile):
    value = dg.provider_payoffs(game, response, profile, chunk=4)
    return dg.play(game, response, profile), value, dg.pseudogradient(game, response, profile)


def _stream(game, response, profile):
    return dg.pseudogradient(game, response, profile, chunk=4)


def _examine(game, response, profile):
    key, limit = jax.random.key(0), jnp.asarray(1e-6)
    return _certify(
        game, response, profile, None, dg.Status.stationary_only, key, limit, 4, jnp.array(20), None
    )


def _make(index, key):
    del index
    cost, quality = jax.random.uniform(key, (2, 2))
    return LogitBertrand(cost, quality, jnp.ones(1)), dg.Constant(cost + 0.5)


def _lanes(step: str) -> tuple[Callable, Any]:
    source = Made(_make, jax.random.key(0))
    limits = jnp.asarray(1e-8), jnp.array(100), jnp.array(20)
    search = _search.Search(source, dg.Logit(1.0), dg.Automatic(), *limits, "float64")
    numbers = jnp.arange(4)

    def begin(search, numbers):
        return jax.vmap(lambda index: _search.begin(search, index, None))(numbers)

    if step == "begin":
        return begin, (search, numbers)
    if step == "advance":

        def advance(search, numbers):
            carry = begin(search, numbers)
            mode = jnp.zeros_like(numbers)
            return jax.vmap(lambda *lane: _search.advance(search, lane))(numbers, mode, carry)

        return advance, (search, numbers)

    def examine(search, numbers):
        carry = begin(search, numbers)
        shared = _search.Examination(search, jax.random.key(1), 1e-6, 2, 10)
        limit = jnp.full(numbers.shape, 1e-6)
        lanes = numbers, carry.parameters, carry.residual, carry.bounded, limit
        return jax.vmap(lambda *lane: _search.examine(shared, lane))(*lanes)

    return examine, (search, numbers)


def _market() -> Market:
    utility = jnp.array([[[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.5, 1.0]]])
    objective = jnp.stack([utility, -utility])
    prior, mass = jnp.array([0.6, 0.4]), jnp.full(2, 0.5)
    return Market(prior, utility, objective, mass).with_messages(3)


def _market_programs() -> dict[str, tuple[Callable, Any]]:
    market = _market()
    _, tables, _ = _market_search._begin(market, jnp.array(0), 2)
    profiles = jnp.asarray(_settle.played_profiles(market))
    group = tables[:, :, 0]
    each = jnp.stack([group, group], axis=2)
    keys = jax.random.split(jax.random.key(0), len(group))

    def program(function: Any, *arguments: Any) -> tuple[Callable, Any]:
        return function.__wrapped__, arguments

    return {
        "market: smooth": program(_settle.smooth, market, tables),
        "market: settle_users": program(_settle.settle_users, market, each),
        "market: settle_group": program(_settle.settle_group, market, profiles, group),
        "market: settle_crowd": program(_settle.settle_crowd, market, group, keys),
        "market: user facts": program(_audit._user_facts, market),
        "market: ranges": program(_audit._ranges, market),
    }


def _persuasion() -> tuple[Callable, Any]:
    """The linear program of the best deviation, 8 at once."""
    utility = jnp.linspace(0.0, 1.0, 8 * 9).reshape(8, 3, 3)
    prior = jnp.array([0.5, 0.3, 0.2])
    one_user = utility[:, None], utility[::-1][:, None]
    return jax.vmap(persuade, in_axes=(None, 0, 0, None)), (prior, *one_user, jnp.ones(1))


def _plain_programs(solve: Callable) -> tuple[Callable, Any]:
    def one(rows):
        count, slacks = rows.shape
        nothing = jnp.zeros((0, 1)), jnp.ones(slacks), jnp.zeros((0, 0, 1))
        return solve(LinearProgram(*nothing, jnp.zeros((count, 0, 1)), rows, rows[:, 0]))

    return jax.vmap(one), (jnp.linspace(-1.0, 1.0, 8 * 15).reshape(8, 3, 5),)


def _of_games(solver: Callable) -> Callable:
    return jax.vmap(lambda table: solver(NormalForm(table)))


def programs() -> dict[str, tuple[Callable, Any]]:
    """All that the table shows: a name, a function and its arguments."""
    table = jnp.linspace(-1.0, 1.0, 8 * 2 * 9).reshape(8, 2, 3, 3)
    pricing = _pricing()
    solvers = {
        "GradientPlay": dg.GradientPlay(optax.sgd(0.1)),
        "Extragradient": dg.Extragradient(0.1),
        "Newton": dg.Newton(),
        "LevenbergMarquardt": dg.LevenbergMarquardt(),
        "Automatic": dg.Automatic(),
        "MarkupIteration": MarkupIteration(),
    }
    finite = {
        "logit path": lambda game: logit_equilibrium(game, 2.0),
        "nash_limit": nash_limit,
        "lemke_howson": lemke_howson,
        "zero_sum": lambda game: zero_sum_equilibrium(game.payoffs[0]),
        "correlated": correlated_equilibrium,
        "commitment": stackelberg_commitment,
    }
    return {
        "play, payoffs, pseudogradient": (_play_all, pricing),
        "pseudogradient, chunk": (_stream, pricing),
        **{f"solve: {name}": (_solve(solver), pricing) for name, solver in solvers.items()},
        "solve: Automatic, Concave users": (_solve(dg.Automatic()), _linear()),
        "solve: Automatic, crowd": (_solve(dg.Automatic()), _adoption()),
        "certify": (_examine, pricing),
        "certify, Concave users": (_examine, _linear()),
        **{f"solve_many: {step}": _lanes(step) for step in ("begin", "advance", "examine")},
        "linear program, interior points": _plain_programs(solve_by_interior_point),
        "linear program, rays": _plain_programs(solve_by_rays),
        "linear program, rows": _plain_programs(solve_by_rows),
        "linear program, persuasion": _persuasion(),
        **_market_programs(),
        **{f"finite: {name}": (_of_games(solver), (table,)) for name, solver in finite.items()},
    }


def line(name: str, found: dict[str, Lowered], seconds: float) -> str:
    """A row of the table, and one per platform on which something is to be said."""
    sizes = "".join(
        f"{found[platform].size or 'no':>10}" if platform in found else "" for platform in PLATFORMS
    )
    rows = [f"{name:<34}{sizes}{seconds:>8.1f}"]
    for platform in PLATFORMS:
        lowered = found[platform]
        if lowered.error:
            rows.append(f"    {platform}: {lowered.error}")
        elif lowered.calls:
            mark = "NOT OF THIS PLATFORM: " if platform != "cpu" and lowered.wrong else ""
            rows.append(f"    {platform}: {mark}{', '.join(lowered.calls)}")
    return "\n".join(rows)


def failures(found: dict[str, Lowered]) -> list[str]:
    """What is wrong with a program, per platform other than the CPU."""
    return [
        f"{platform}: {lowered.error or ', '.join(lowered.wrong)}"
        for platform, lowered in found.items()
        if platform != "cpu" and (lowered.error or lowered.wrong)
    ]


def main(arguments: list[str] | None = None) -> None:
    """Print the table; exit with status 1 if something does not lower."""
    parser = _harness.arguments("lowering", __doc__ or "")
    parser.add_argument("--only", metavar="TEXT", default="", help="programs named like this")
    chosen = parser.parse_args(arguments)
    if os.environ.get("EQX_ON_ERROR") != "nan":
        # Equinox reads it when it is imported.
        given = sys.argv[1:] if arguments is None else arguments
        command = [sys.executable, "-m", "benchmarks.lowering", *given]
        raise SystemExit(subprocess.call(command, env=os.environ | {"EQX_ON_ERROR": "nan"}))
    jax.config.update("jax_enable_x64", True)
    names = programs()
    if chosen.quick:
        names = {name: names[name] for name in ("pseudogradient, chunk", "finite: lemke_howson")}
    print(f"jax {jax.__version__}; bytes of the exported module, float64; s: all platforms")
    print(f"{'program':<34}" + "".join(f"{name:>10}" for name in PLATFORMS) + f"{'s':>8}")
    wrong, rows = [], {}
    for name, (function, given) in names.items():
        if chosen.only not in name:
            continue
        begin = time.perf_counter()
        found = {platform: lower(function, given, platform) for platform in PLATFORMS}
        print(line(name, found, time.perf_counter() - begin), flush=True)
        wrong += [f"{name}: {what}" for what in failures(found)]
        rows[name] = {platform: dataclasses.asdict(one) for platform, one in found.items()}
    if chosen.json:
        write(chosen.json, _harness.machine(()), rows)
    if wrong:
        raise SystemExit("does not lower:\n" + "\n".join(wrong))
    print(f"{len(rows)} programs lower for {', '.join(PLATFORMS)}; none calls LAPACK outside cpu")


if __name__ == "__main__":
    main()
