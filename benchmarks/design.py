"""Design of games through their equilibria: diffgame and nashopt on nashopt's own examples.

The games are those of the folder examples/game_design of nashopt's repository, written anew from
their mathematics: `game_design_1` (a target for one variable of a game with a shared circle and
half-space), `game_design_2` (ten quadratic players in a strip whose position is designed; the
example asks for any parameters, its second objective, the sum of all variables, is maximised too)
and `stackelberg` (a leader who pays for a load that followers share).
"""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from diffgame import (
    Constant,
    Design,
    DesignStatus,
    Passive,
    Status,
    design,
)

from ._design_games import Example, examples, nothing
from ._harness import arguments, machine, require


@dataclasses.dataclass(frozen=True)
class Answer:
    """One side's answer to one example, and how it was checked.

    - `residual`: sup norm of the KKT residual, each side's own. `moved`: how far nashopt's best
        responses lie from x, at most. `gain`: the most that ours finds a player to gain alone.
    - `first`, `repeat`: seconds with and without compilation.
    """

    game: str
    who: str
    loss: float
    residual: float
    moved: float
    gain: float
    first: float
    repeat: float
    status: str


def ours(example: Example, starts: int) -> tuple[Design, float, float]:
    """Our design, and the seconds of the first and of the second call."""
    objective = _objective(example.loss, tuple(example.kept.tolist()))

    def run():
        return design(
            objective,
            jnp.asarray(example.p),
            example.make,
            Passive(),
            example.start,
            key=jax.random.key(0),
            lower=jnp.asarray(example.low),
            upper=jnp.asarray(example.high),
            starts=starts,
        )

    return run_twice(run)


def run_twice(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """The second answer, and the seconds of the first and of the second call."""
    begin = time.perf_counter()
    jax.block_until_ready(eqx.filter(function(), eqx.is_array))
    middle = time.perf_counter()
    found = function()
    jax.block_until_ready(eqx.filter(found, eqx.is_array))
    return found, middle - begin, time.perf_counter() - middle


@functools.cache
def _objective(loss: Callable, kept: tuple[int, ...]) -> Callable:
    def objective(equilibrium, p):
        return -loss(equilibrium.outcome.offers[0].ravel()[jnp.array(kept)], p)

    return objective


def peer(example: Example) -> tuple[Any, Any, float, float]:
    """The problem of nashopt, its answer, and the seconds of its first and second call."""
    nashopt = require("nashopt")

    def cost(x, p, player):
        return -example.make(p).payoffs(example.pad(x))[player]

    def limits(x, p):
        profile = Constant(example.pad(x))
        return example.make(p).shared_constraints(profile, None)

    shape = jax.eval_shape(limits, jnp.zeros(sum(example.sizes)), jnp.asarray(example.p))
    players = range(len(example.sizes))
    options: dict[str, Any] = {"lb": example.flat(example.start.lower)}
    options |= {"ub": example.flat(example.start.upper)}
    if shape.equalities.size:
        options |= {"h": lambda x, p: limits(x, p).equalities, "nh": shape.equalities.size}
    problem = nashopt.ParametricGNEP(
        list(example.sizes),
        npar=len(example.p),
        f=[jax.jit(functools.partial(cost, player=player)) for player in players],
        g=jax.jit(lambda x, p: limits(x, p).inequalities),
        ng=shape.inequalities.size,
        **options,
    )
    loss = None if example.loss is nothing else example.loss

    def run():
        box = example.low, example.high
        return problem.solve(loss, *box, example.p, verbose=False, **example.options)

    return problem, *run_twice(run)


def moved_by(problem: Any, x: Any, p: Any) -> float:
    """How far nashopt's best response of any player is from x."""
    x, p = jnp.asarray(x), jnp.asarray(p)
    return max(
        float(jnp.max(jnp.abs(problem.best_response(player, x, p, rho=1e8).x - x)))
        for player in range(problem.N)
    )


def compare(example: Example, starts: int) -> list[Answer]:
    """Both sides on one example."""
    found, first, repeat = ours(example, starts)
    problem, theirs, peer_first, peer_repeat = peer(example)
    certificate = found.equilibrium.certificate
    # Nobody observes anything here, so what the one user is offered is the profile.
    x, p = example.flat(found.equilibrium.outcome.offers[0]), found.parameters
    certified = bool(found.equilibrium.status == Status.certified)
    status = "stationary" if bool(found.status == DesignStatus.stationary) else "other"
    return [
        Answer(
            example.name,
            "diffgame",
            float(example.loss(x, p)),
            float(certificate.residual) if certificate else np.nan,
            moved_by(problem, x, p),
            float(jnp.max(certificate.deviation_gains)) if certificate else np.nan,
            first,
            repeat,
            f"{status}, {'certified' if certified else 'not certified'}",
        ),
        Answer(
            example.name,
            "nashopt",
            float(example.loss(jnp.asarray(theirs.x), jnp.asarray(theirs.p))),
            float(np.max(np.abs(theirs.res))),
            moved_by(problem, theirs.x, theirs.p),
            np.nan,
            peer_first,
            peer_repeat,
            "",
        ),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    parser = arguments("design", "nashopt's design examples, solved by both.")
    parser.add_argument("--starts", type=int, default=1, help="of diffgame; nashopt has one")
    options = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    chosen = examples()[:1] if options.quick else examples()
    about = machine(["nashopt"])
    print("; ".join(f"{name} {value}" for name, value in about.items()))
    print("loss: smaller is better; KKT: sup norm of each side's own residual; best response: how")
    print("far nashopt's lie from x; gain: the most that diffgame finds one player to gain\n")
    line = "{:<22}{:<10}{:>16}{:>10}{:>10}{:>10}{:>9}{:>9}  {}"
    titles = ("game", "solver", "loss", "KKT", "best resp", "gain", "first s", "repeat s", "status")
    print(line.format(*titles))
    answers = []
    for example in chosen:
        for answer in compare(example, options.starts):
            answers.append(answer)
            numbers = f"{answer.loss:.10g}", f"{answer.residual:.1e}", f"{answer.moved:.1e}"
            times = f"{answer.gain:.1e}", f"{answer.first:.2f}", f"{answer.repeat:.3f}"
            print(line.format(answer.game, answer.who, *numbers, *times, answer.status))
    if options.json is not None:
        rows = [dataclasses.asdict(answer) for answer in answers]
        options.json.write_text(json.dumps({"machine": about, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
