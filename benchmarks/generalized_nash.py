"""Generalized Nash games: first call, repeat and a sweep, against nashopt in the same run."""

import sys
import time
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import diffgame as dg
from diffgame.bench._nash_games import Case, cases

from ._harness import Row, arguments, compile_batched, machine, report, require

DESCRIPTION = "Generalized Nash games against nashopt: first call, repeat, sweep."
TOLERANCE = 1e-10
VERIFIED = 1e-6
FEASIBLE = 1e-8


def evaluate(case: Case, game: dg.AbstractNashGame) -> tuple[Callable, Callable]:
    """Payoffs, and constraints (inequalities, equalities), of a plain vector."""

    def payoffs(x):
        return game.payoffs(_offers(case, x))

    def constraints(x):
        profile = dg.Constant(_offers(case, x), case.start.lower, case.start.upper)
        found = game.shared_constraints(profile, None)
        return found.inequalities, found.equalities

    return payoffs, constraints


def _offers(case: Case, x):
    """`Case.pack` for traced vectors."""
    place = jnp.asarray(case.pack(np.arange(1.0, sum(case.sizes) + 1))).astype(int)
    return jnp.where(place > 0, jnp.asarray(x)[jnp.maximum(place - 1, 0)], 0)


def regret(case: Case, game: dg.AbstractNashGame, x: np.ndarray, starts: int = 4) -> float:
    """The most that an agent gains alone, by SciPy's SLSQP from its decision and random ones.

    Independent of the solvers compared: infinite if `x` violates a constraint or a bound by more
    than FEASIBLE, or a number there is not finite.
    """
    optimize = require("scipy.optimize")
    payoffs, constraints = (jax.jit(function) for function in evaluate(case, game))
    slopes = jax.jit(jax.jacrev(payoffs))
    row_slopes = jax.jit(jax.jacrev(constraints))
    lower, upper = case.unpack(case.start.lower), case.unpack(case.start.upper)
    above, apart = constraints(x)
    worst = np.max([0.0, *np.asarray(above), *np.abs(apart), *(lower - x), *(x - upper)])
    here, gain = np.asarray(payoffs(x)), 0.0
    if not (worst <= FEASIBLE and np.all(np.isfinite(here))):
        return float("inf")
    rng = np.random.default_rng(0)
    ends = np.cumsum(case.sizes)
    for agent, (size, end) in enumerate(zip(case.sizes, ends, strict=True)):
        own = slice(end - size, end)

        def put(part, own=own):
            return np.concatenate([x[: own.start], part, x[own.stop :]])

        rows = [
            {
                "type": kind,
                "fun": lambda part, put=put, k=k, sign=sign: sign * constraints(put(part))[k],
                "jac": lambda part, put=put, k=k, sign=sign, own=own: (
                    sign * row_slopes(put(part))[k][:, own]
                ),
            }
            for k, (kind, sign) in enumerate((("ineq", -1.0), ("eq", 1.0)))
            if (above, apart)[k].size
        ]
        noise = rng.uniform(lower[own], upper[own], (starts, size))
        for start in [x[own], *noise]:
            found = optimize.minimize(
                lambda part, put=put, agent=agent: -payoffs(put(part))[agent],
                start,
                jac=lambda part, put=put, agent=agent, own=own: -slopes(put(part))[agent, own],
                bounds=list(zip(lower[own], upper[own], strict=True)),
                constraints=rows,
                method="SLSQP",
                options={"ftol": 1e-14, "maxiter": 200},
            )
            above, apart = constraints(put(found.x))
            if np.max([0.0, *np.asarray(above), *np.abs(apart)]) <= FEASIBLE:
                gain = max(gain, float(-found.fun - here[agent]))
    return gain


def nashopt_problem(case: Case, game: dg.AbstractNashGame):
    """The same game for the peer, as its documentation wants it."""
    nashopt = require("nashopt")
    payoffs, constraints = evaluate(case, game)
    above, apart = jax.eval_shape(constraints, jnp.zeros(sum(case.sizes)))
    options = {}
    if above.size:
        options |= {"g": lambda x: constraints(x)[0], "ng": above.size}
    if apart.size:
        options |= {"h": lambda x: constraints(x)[1], "nh": apart.size}
    return nashopt.GNEP(
        list(case.sizes),
        f=[lambda x, agent=agent: -payoffs(x)[agent] for agent in range(len(case.sizes))],
        lb=case.unpack(case.start.lower),
        ub=case.unpack(case.start.upper),
        variational=case.normalized,
        **options,
    )


def solve(case: Case, game: dg.AbstractNashGame) -> dg.Equilibrium:
    """Ours: no solver named."""
    return dg.solve(
        game,
        dg.Passive(),
        case.start,
        tolerance=TOLERANCE,
        max_steps=500,
        normalized=case.normalized,
        throw=False,
    )


def _timed(function: Callable):
    begin = time.perf_counter()
    found = jax.block_until_ready(function())
    return time.perf_counter() - begin, found


def compare(case: Case, sweep: int, measured: int) -> list[Row]:
    """First call, repeat, and a sweep over the case's number."""
    begin = case.unpack(case.start.offer)
    peer_name = f"nashopt, {'common' if case.normalized else 'own'} prices"

    def ask_peer(game):
        return nashopt_problem(case, game).solve(begin, verbose=0)

    compiled = eqx.filter_jit(lambda number: solve(case, case.vary(number)))
    base = jnp.asarray(case.base)
    first, ours = _timed(lambda: compiled(base))
    again, _ = _timed(lambda: compiled(base))
    peer_first, theirs = _timed(lambda: ask_peer(case.game))
    peer_again, theirs = _timed(lambda: ask_peer(case.game))
    x = case.unpack(ours.profile.offer)
    own_regret, peer_regret = regret(case, case.game, x), regret(case, case.game, theirs.x)
    apart = float(np.max(np.abs(x - theirs.x)))
    remark = (
        f"KKT residual {float(ours.residual):.1e} (peer's {_norm(theirs.res):.1e}); gain by SLSQP "
        f"{own_regret:.1e} (peer's {peer_regret:.1e}); answers differ by {apart:.1e}; peer's "
        f"own clock, solving only: {theirs.stats.elapsed_time:.2g} s"
    )
    shares = float(own_regret <= VERIFIED), float(peer_regret <= VERIFIED)
    rows = [
        Row(f"{case.name}: first", 1, first, peer_name, peer_first, *shares, first - again, 1),
        Row(f"{case.name}: again", 1, again, peer_name, peer_again, *shares, 0.0, 1, remark),
    ]

    numbers = np.linspace(*case.span, sweep)

    def one(number):
        found = solve(case, case.vary(number))
        return jax.tree.leaves(found.profile)[0], found.residual

    batch = compile_batched(jax.vmap(one), jnp.asarray(numbers))
    # One thread: on jaxlib 0.10 two programs with LAPACK calls can block each other.
    batch.one_core()
    seconds, (offers, residuals) = _timed(batch.one_core)
    chosen = np.linspace(0, sweep - 1, measured).astype(int)
    spent, good = [], []
    for k in chosen:
        game = case.vary(jnp.asarray(numbers[k]))
        taken, found = _timed(lambda game=game: ask_peer(game))
        spent.append(taken)
        good.append(regret(case, game, found.x) <= VERIFIED)
    fine = np.isfinite(residuals) & (residuals <= TOLERANCE)
    ours_checked = [
        regret(case, case.vary(jnp.asarray(numbers[k])), case.unpack(offers[k])) <= VERIFIED
        for k in chosen
    ]
    rows.append(
        Row(
            f"{case.name}: sweep",
            sweep,
            seconds,
            peer_name,
            float(np.mean(spent)) * sweep,
            float(np.mean(fine)),
            float(np.mean(good)),
            batch.compile_seconds,
            measured,
            f"ours: share with residual <= {TOLERANCE}; of the {measured} timed on the peer, "
            f"SLSQP verifies {sum(ours_checked)} of ours and {sum(good)} of the peer's",
        )
    )
    return rows


def _norm(residual) -> float:
    return float(np.max(np.abs(residual)))


def main(arguments_given: Sequence[str] | None = None) -> None:
    """Run the comparison and print its table."""
    options = arguments("generalized_nash", DESCRIPTION).parse_args(arguments_given)
    jax.config.update("jax_enable_x64", True)
    chosen = cases()[:1] if options.quick else cases()
    sweep, measured = (8, 1) if options.quick else (1_000, 5)
    rows = []
    for case in chosen:
        print(f"{case.name} ...", file=sys.stderr)
        rows += compare(case, sweep, measured)
    report(rows, machine(["nashopt", "scipy"]), options.json)


if __name__ == "__main__":
    main()
