"""Bilevel problems of the literature: best known values, ours, and SciPy's, in one run."""

import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffgame._bilevel import BilevelOptimum, BilevelStatus, solve_bilevel
from diffgame._constrained_response import solve_user_problem
from diffgame.bench._bilevel_functions import JittedFunctions, follower_starts
from diffgame.bench._bilevel_problem import BilevelProblem
from diffgame.bench._bilevel_problems import PROBLEMS
from diffgame.bench._peers_bilevel import follow, relaxed_end

from ._harness import arguments, machine, require

DESCRIPTION = "Bilevel problems of the literature against best known values and SciPy."
STARTS = 16
# For violations and gaps; relative to 1 + |F| for what counts as equal.
TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True)
class Verified:
    """What SciPy says of one point: F, the follower's gap there, and the largest violation."""

    value: float
    gap: float
    violation: float

    @property
    def holds(self) -> bool:
        """Feasible, and the follower gains no more than the tolerance."""
        return (
            math.isfinite(self.value) and 0 <= self.violation <= TOLERANCE and self.gap <= TOLERANCE
        )


def verify(functions: JittedFunctions, x: np.ndarray, y: np.ndarray) -> Verified:
    """Recompute F at (x, y), all constraints, and what the follower could gain, by SciPy."""
    rows = np.concatenate([functions.g(x, y), functions.G(x, y)])
    outside = [max(low - a, a - high) for (low, high), a in zip(functions.bounds, x, strict=True)]
    violation = float(np.max([0.0, *rows, *outside]))
    best = follow(functions, x, follower_starts(functions, y))
    gap = math.inf if best is None else float(functions.f(x, y) - functions.f(x, best))
    return Verified(float(functions.F(x, y)), gap, violation)


def scipy_best(functions: JittedFunctions, offers: np.ndarray) -> tuple[float, float]:
    """The least F by SLSQP on the same relaxed optimality system from the same offers; seconds.

    Every end counts only if it holds at the follower's exact answer.
    """
    begin, least = time.perf_counter(), math.inf
    for offer in offers:
        end = relaxed_end(functions, offer)
        if end is None:
            continue
        checked = verify(functions, *end)
        if checked.holds:
            least = min(least, checked.value)
    return least, time.perf_counter() - begin


def grid_best(problem: BilevelProblem, around: np.ndarray) -> float:
    """The least F at exact answers over a grid of offers; NaN with more than two coordinates.

    2,001 offers, or 61 x 61 over the whole box and as many within 1/20 of it around `around`.
    """
    n, game = len(problem.lower), problem.game()
    if n > 2:
        return math.nan
    lower, upper = np.array(problem.lower), np.array(problem.upper)
    points = []
    for low, high in (
        (lower, upper),
        (around - (upper - lower) / 40, around + (upper - lower) / 40),
    ):
        low, high = np.maximum(low, lower), np.minimum(high, upper)
        axes = [np.linspace(a, b, 2001 if n == 1 else 61) for a, b in zip(low, high, strict=True)]
        points.append(np.stack([axis.ravel() for axis in np.meshgrid(*axes)], axis=1))

    def judge(offer):
        best = solve_user_problem(game, offer[None], game.users[0])
        value = problem.F(offer, best.choice)
        limits = jnp.concatenate([problem.G(offer, best.choice), problem.g(offer, best.choice)])
        fine = (jnp.max(limits, initial=0.0) <= TOLERANCE) & (best.residual <= 1e-9)
        return jnp.where(fine & jnp.isfinite(value), value, jnp.inf)

    return float(jnp.min(jax.jit(jax.vmap(judge))(np.concatenate(points))))


@dataclasses.dataclass(frozen=True)
class BilevelRow:
    """One problem: what is known, ours verified, SciPy's, and seconds."""

    problem: BilevelProblem
    optimum: BilevelOptimum
    verified: Verified
    first: float
    repeat: float
    peer: float
    peer_seconds: float
    grid: float

    @property
    def margin(self) -> float:
        """What counts as equal to the best known value."""
        known = self.problem.best_known
        return self.problem.precision + TOLERANCE * (1 + abs(known))

    @property
    def solved(self) -> bool:
        """At the best known value or better, verified twice."""
        gap = float(jnp.max(self.optimum.user_gap))
        return (
            self.verified.holds
            and 0 <= gap <= TOLERANCE
            and self.verified.value <= self.problem.best_known + self.margin
        )

    @property
    def beaten(self) -> bool:
        """Better than the best known value."""
        return self.solved and self.verified.value < self.problem.best_known - self.margin

    @property
    def peer_solved(self) -> bool:
        """Whether SciPy is at the best known value or better."""
        return self.peer <= self.problem.best_known + self.margin

    def record(self) -> dict[str, Any]:
        """The row as it goes into the file."""
        return {
            "problem": self.problem.name,
            "source": self.problem.source,
            "best_known": self.problem.best_known,
            "ours": self.verified.value,
            "x": np.asarray(self.optimum.profile.offer[0]).tolist(),
            "y": np.asarray(self.optimum.choices[0]).tolist(),
            "user_gap": float(self.optimum.user_gap[0]),
            "scipy_gap": self.verified.gap,
            "violation": self.verified.violation,
            "solved": self.solved,
            "beaten": self.beaten,
            "first_seconds": self.first,
            "repeat_seconds": self.repeat,
            "scipy": self.peer,
            "scipy_seconds": self.peer_seconds,
            "grid": self.grid,
        }


def run(problem: BilevelProblem, starts: int, *, grid: bool, peer: bool) -> BilevelRow:
    """Solve one problem twice, from other random starts, and verify the first answer."""
    game, profile, seconds, answers = problem.game(), problem.profile(), [], []
    for seed in range(2):
        begin = time.perf_counter()
        found = solve_bilevel(game, profile, key=jax.random.key(seed), starts=starts, throw=False)
        answers.append(jax.block_until_ready(found))
        seconds.append(time.perf_counter() - begin)
    optimum = answers[0]
    x, y = np.asarray(optimum.profile.offer[0]), np.asarray(optimum.choices[0])
    functions = JittedFunctions(problem)
    verified = verify(functions, x, y)
    value, taken = math.inf, math.nan
    if peer:
        drawn = [
            profile.sample(jax.random.fold_in(jax.random.key(0), number)).offer[0]
            for number in range(1, starts)
        ]
        offers = np.array([profile.offer[0], *drawn])
        value, taken = scipy_best(functions, offers)
    around = grid_best(problem, x) if grid else math.nan
    return BilevelRow(problem, optimum, verified, seconds[0], seconds[1], value, taken, around)


def _print(row: BilevelRow) -> None:
    mark = "beaten" if row.beaten else "" if row.solved else "MISSED"
    gap = max(float(row.optimum.user_gap[0]), row.verified.gap)
    status = BilevelStatus[row.optimum.status].split(" to the")[0].split(" at ")[0]
    print(
        f"{row.problem.name:33}{row.problem.best_known:11.6g}{row.verified.value:13.6f}"
        f"{gap:9.1e}{row.first:7.1f}{row.repeat:7.3f}{row.peer:13.6f}{row.peer_seconds:7.2f}"
        f"{row.grid:13.6f} {mark:7}{status}",
        flush=True,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; see `--help`."""
    parser = arguments("bilevel", DESCRIPTION)
    parser.add_argument("--grid", action="store_true", help="also try a grid of offers")
    options = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    require("scipy")
    problems = PROBLEMS[:2] if options.quick else PROBLEMS
    starts = 4 if options.quick else STARTS
    about = machine(("scipy",))
    print("; ".join(f"{name} {value}" for name, value in about.items()))
    if flags := os.environ.get("XLA_FLAGS"):
        print(f"XLA_FLAGS {flags}")
    print(f"F is minimised; {starts} starts, the same offers for both; seconds on one core")
    print("gap: the follower's, the larger of our bound and what SciPy's SLSQP finds\n")
    print(
        f"{'problem':33}{'best known':>11}{'ours':>13}{'gap':>9}{'first':>7}{'again':>7}"
        f"{'SciPy':>13}{'time':>7}{'grid':>13} {'':7}status"
    )
    rows = []
    for problem in problems:
        rows.append(run(problem, starts, grid=options.grid, peer=True))
        _print(rows[-1])
    solved = sum(row.solved for row in rows)
    print(f"\nat the best known value or better: ours {solved} of {len(rows)}, ", end="")
    print(f"SciPy {sum(row.peer_solved for row in rows)} of {len(rows)}")
    for title, chosen in (
        ("beaten", [row for row in rows if row.beaten]),
        ("missed", [row for row in rows if not row.solved]),
        ("SciPy is better", [row for row in rows if row.peer < row.verified.value - row.margin]),
        ("grid is better", [row for row in rows if row.grid < row.verified.value - row.margin]),
    ):
        print(f"{title}: {', '.join(row.problem.name for row in chosen) or 'none'}")
    for row in rows:
        if row.problem.remark:
            print(f"{row.problem.name}: {row.problem.remark}")
    if options.json is not None:
        content = {"machine": about, "rows": [row.record() for row in rows]}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
