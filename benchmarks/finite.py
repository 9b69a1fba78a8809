"""Finite games: batched logit and Nash equilibria against Gambit and QuantEcon, one by one."""

import dataclasses
import importlib
import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffgame.finite import (
    NormalForm,
    check_logit,
    check_nash,
    lemke_howson,
    logit_equilibrium,
    nash_limit,
    zero_sum_equilibrium,
)

from ._harness import (
    Batched,
    Row,
    alternate,
    arguments,
    compile_batched,
    machine,
    median_seconds,
    report,
    require,
)

TOLERANCE = 1e-9
RATIONALITY = 5.0
_PARTS = 3


@dataclasses.dataclass(frozen=True)
class Gambit:
    """Where pygambit lives, and how long it may take for one answer."""

    python: Path
    limit: float

    def solve(self, work: str, tables: np.ndarray) -> dict[str, Any] | str:
        """Its answers to as many of the games as it gets done, or why there are none."""
        task = {
            "work": work,
            "rationality": RATIONALITY,
            "budget": self.limit / 2,
            "tables": tables.tolist(),
        }
        script = Path(__file__).with_name("_gambit.py")
        try:
            done = subprocess.run(
                [self.python, script],
                input=json.dumps(task),
                capture_output=True,
                text=True,
                timeout=self.limit,
                check=True,
            )
        except FileNotFoundError:
            return f"no interpreter {self.python}: name one that has pygambit by --gambit"
        except subprocess.TimeoutExpired:
            return f"no answer within {self.limit:.0f} s"
        except subprocess.CalledProcessError as error:
            lines = error.stderr.strip().splitlines() or ["no message"]
            return f"status {error.returncode}: {lines[-1]}"
        return json.loads(done.stdout)


def _size(shape: Sequence[int]) -> str:
    return f"{shape[0]}x{shape[1]}"


def _share(flags) -> float:
    return float(np.mean(flags))


def _uniform(seed: int, count: int, shape: Sequence[int]) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, *shape))


def compare_gambit(work: str, shape: Sequence[int], batch: int, sample: int, gambit: Gambit) -> Row:
    """Logit equilibria, or the limits of their paths, on payoffs uniform on [-1, 1]."""
    tables = _uniform(1, batch, shape)

    def one(table):
        if work == "logit":
            found = logit_equilibrium(NormalForm(table), RATIONALITY, tolerance=TOLERANCE)
        else:
            found = nash_limit(NormalForm(table), tolerance=TOLERANCE)
        return found.profile, found.check.certified

    def check(table, profile):
        if work == "logit":
            return check_logit(NormalForm(table), profile, RATIONALITY, TOLERANCE).residual
        return check_nash(NormalForm(table), profile, TOLERANCE).relative_regret

    ours = compile_batched(jax.vmap(one), jnp.asarray(tables))
    profile, certified = ours.all_cores()
    name = f"logit lambda={RATIONALITY:g}" if work == "logit" else "Nash limit"
    name = f"{name} {_size(shape)}"
    peer = "pygambit " + ("logit_solve_lambda" if work == "logit" else "nash.logit_solve")
    parts = np.array_split(tables[:sample], min(_PARTS, sample))
    seconds, _, answers = alternate(ours.all_cores, lambda part: gambit.solve(work, part), parts)
    failed = [answer for answer in answers if isinstance(answer, str)]
    solved = [
        (part[: len(answer["seconds"])], answer)
        for part, answer in zip(parts, answers, strict=True)
        if not isinstance(answer, str)
    ]
    own_share = _share(certified)
    if failed or not solved:
        return Row(
            name, batch, seconds, peer, math.nan, own_share, math.nan, ours.compile_seconds, 0,
            f"no figures of the peer: {failed[0]}",
        )  # fmt: skip
    done = np.concatenate([part for part, _ in solved])
    spent = np.concatenate([answer["seconds"] for _, answer in solved])
    theirs = tuple(
        jnp.asarray([mixed[player] for _, answer in solved for mixed in answer["profiles"]])
        for player in range(shape[0])
    )
    errors = np.asarray(jax.jit(jax.vmap(check))(jnp.asarray(done), theirs))
    places = np.concatenate(
        [
            own[: len(answer["seconds"])]
            for own, (_, answer) in zip(
                np.array_split(np.arange(sample), len(parts)), solved, strict=True
            )
        ]
    )
    gap = np.max(
        [
            np.abs(np.asarray(own)[places] - np.asarray(other)).max(axis=1)
            for own, other in zip(profile, theirs, strict=True)
        ],
        axis=0,
    )
    total = float(np.mean(spent) * batch)
    return Row(
        name,
        batch,
        seconds,
        f"{peer} ({solved[0][1]['version']}), its own process",
        total,
        own_share,
        _share(errors <= TOLERANCE),
        ours.compile_seconds,
        len(done),
        f"ratio on one core {total / median_seconds(ours.one_core):.0f}; "
        f"peer at 1e-6: {_share(errors <= 1e-6):.4g}; "
        f"same point to 1e-3 in {_share(gap <= 1e-3):.1%}",
    )


def _row(
    name: str,
    batch: int,
    ours: Batched,
    peer_name: str,
    peer: Callable[[Any], Any],
    parts: Sequence[Any],
    judge: Callable[[list[Any]], np.ndarray],
) -> Row:
    peer(parts[0])
    seconds, spent, answers = alternate(ours.all_cores, peer, parts)
    _, certified = ours.all_cores()
    alone = sum(spent) / median_seconds(ours.one_core)
    answers = [answer for part in answers for answer in part]
    return Row(
        name, batch, seconds, peer_name, sum(spent), _share(certified), _share(judge(answers)),
        ours.compile_seconds, batch, f"ratio on one core {alone:.2g}",
    )  # fmt: skip


def compare_quantecon(size: int, batch: int) -> list[Row]:
    """Bimatrix games by Lemke-Howson, both ways to call the peer; zero-sum games by minmax."""
    games = importlib.import_module("quantecon.game_theory")
    kernels = importlib.import_module("quantecon.game_theory.lemke_howson")
    minmax = importlib.import_module("quantecon.optimize").minmax
    tables = _uniform(2, batch, (2, size, size))

    def nash(table):
        found = lemke_howson(NormalForm(table), tolerance=TOLERANCE)
        return found.profile, found.check.certified

    def zero_sum(table):
        found = zero_sum_equilibrium(table, tolerance=TOLERANCE)
        return found.profile, found.check.certified

    @jax.jit
    @jax.vmap
    def recheck(table, first, second):
        return check_nash(NormalForm(table), (first, second), TOLERANCE).certified

    def judged(tables):
        def judge(answers):
            first, second = (jnp.asarray([pair[k] for pair in answers]) for k in (0, 1))
            return np.asarray(recheck(jnp.asarray(tables), first, second))

        return judge

    def call(part):
        return [games.lemke_howson(game) for game in part]

    def kernel(part):
        tableaux = tuple(np.empty((size, 2 * size + 1)) for _ in range(2))
        bases = tuple(np.empty(size, dtype=int) for _ in range(2))
        answers = []
        for game in part:
            kernels._lemke_howson_capping(game.payoff_arrays, tableaux, bases, 0, 10**6, 10**6)
            answers.append(kernels._get_mixed_actions(tableaux, bases))
        return answers

    def values(part):
        return [minmax(table)[1:] for table in part]

    made = [
        games.NormalFormGame([games.Player(first.copy()), games.Player(second.T.copy())])
        for first, second in tables
    ]
    cuts = np.array_split(np.arange(batch), _PARTS)
    parts = [[made[index] for index in cut] for cut in cuts]
    ours = compile_batched(jax.vmap(nash), jnp.asarray(tables))
    matrices = np.ascontiguousarray(tables[:, 0])
    programs = compile_batched(jax.vmap(zero_sum), jnp.asarray(matrices))
    opposed = np.stack([matrices, -matrices], axis=1)
    name = f"bimatrix {size}x{size}"
    return [
        _row(name, batch, ours, "quantecon lemke_howson, its public call", call, parts,
             judged(tables)),
        _row(name, batch, ours, "quantecon lemke_howson, its compiled kernel alone", kernel, parts,
             judged(tables)),
        _row(f"zero-sum {size}x{size}", batch, programs, "quantecon minmax", values,
             [matrices[cut] for cut in cuts], judged(opposed)),
    ]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    parser = arguments("finite", "Batched equilibria of finite games against other solvers.")
    parser.add_argument(
        "--gambit", metavar="PYTHON", type=Path, default=Path(sys.executable),
        help="an interpreter that has pygambit; default: this one",
    )  # fmt: skip
    parser.add_argument("--limit", type=float, default=120.0, help="seconds per call of Gambit")
    parser.add_argument("--batch", type=int, default=1000, help="games for Gambit; default: 1000")
    parser.add_argument("--sample", type=int, default=300, help="games Gambit is timed on")
    parser.add_argument("--matrices", type=int, default=10000, help="matrix games; default: 10000")
    options = parser.parse_args(argv)
    if min(options.batch, options.matrices) < _PARTS or not 1 <= options.sample <= options.batch:
        parser.error(f"--batch and --matrices must be at least {_PARTS}, --sample 1 to --batch")
    require("quantecon")
    jax.config.update("jax_enable_x64", True)
    gambit = Gambit(options.gambit, options.limit)
    if options.quick:
        rows = [compare_gambit("logit", (2, 2, 2), 6, 3, gambit), *compare_quantecon(2, 6)]
    else:
        sizes = (2, 10, 10), (3, 5, 5, 5)
        rows = [
            compare_gambit(work, shape, options.batch, options.sample, gambit)
            for work in ("logit", "nash")
            for shape in sizes
        ]
        rows += [row for n in (5, 10) for row in compare_quantecon(n, options.matrices)]
    report(rows, machine(["quantecon"]), options.json)


if __name__ == "__main__":
    main()
