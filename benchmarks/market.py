"""Persuasion programs and personalized equilibria: batched in JAX against HiGHS one by one."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from diffgame._interior_point import solve_linear_program
from diffgame._linear_program import Dual, LinearProgram, Primal, check_optimum
from diffgame.market import exploitability, meet
from diffgame.market._dynamics import recommend, settle_user
from diffgame.market._equilibrium_values import equilibrium_segment, nearest_equilibrium
from diffgame.market._frontier import find_frontiers

from ._harness import (
    Row,
    alternate,
    arguments,
    compile_batched,
    machine,
    median_seconds,
    report,
    require,
)

GAP = 1e-9
EXPLOITABILITY = 1e-6
_PARTS = 3
_CHUNK = 128


def persuasion(prior, utility, objective) -> LinearProgram:
    """Which signal [actions, states] serves a lone provider best."""
    actions, states = utility.shape
    others = np.array([[b for b in range(actions) if b != a] for a in range(actions)])
    lead = (utility[:, None] - utility[others]) * prior[None, None]
    rows = jnp.broadcast_to(jnp.eye(states)[:, None], (states, actions, states))
    empty = jnp.zeros((states, 0))
    return LinearProgram(
        -objective * prior[None], jnp.zeros(0), lead, rows, empty, jnp.ones(states)
    )


def _solve(prior, utility, objective):
    program = persuasion(prior, utility, objective)
    primal, dual, _ = solve_linear_program(program)
    return check_optimum(program, primal, dual, GAP)


@jax.jit
@jax.vmap
def _recheck(prior, utility, objective, signal, within, rows):
    """The same check for the peer's answers."""
    program = persuasion(prior, utility, objective)
    return check_optimum(program, Primal(signal, jnp.zeros(0)), Dual(within, rows), GAP)


def _share(flags) -> float:
    return float(np.mean(np.asarray(flags)))


def compare_programs(actions: int, states: int, batch: int, seed: int = 0) -> Row:
    """Random persuasion programs: prior from a flat Dirichlet law, payoffs uniform on [0, 1]."""
    from . import _highs

    rng = np.random.default_rng(seed)
    prior = rng.dirichlet(np.ones(states), size=batch)
    utility, objective = rng.uniform(size=(2, batch, actions, states))
    data = tuple(jnp.asarray(part) for part in (prior, utility, objective))
    measured = min(batch, 900)
    programs = [
        _highs.persuasion_program(*part)
        for part in zip(prior[:measured], utility[:measured], objective[:measured], strict=True)
    ]
    ours = compile_batched(jax.vmap(_solve), *data)
    parts = [programs[part::_PARTS] for part in range(_PARTS)]
    seconds, peer_seconds, answers = alternate(ours.all_cores, _highs.solve_each, parts)
    found = ours.all_cores()
    order = np.concatenate([np.arange(measured)[part::_PARTS] for part in range(_PARTS)])
    flat = [answer for part in answers for answer in part]
    signal = np.array([answer[1] for answer in flat]).reshape(-1, actions, states)
    rows = np.array([answer[2] for answer in flat])
    checked = _recheck(
        *(part[order] for part in data),
        jnp.asarray(signal),
        jnp.asarray(rows[:, :-states].reshape(-1, actions, actions - 1)),
        jnp.asarray(rows[:, -states:]),
    )
    optimal = np.array([answer[0] for answer in flat]) & np.asarray(checked.certified)
    alone = sum(peer_seconds) / measured * batch / median_seconds(ours.one_core)
    gap = float(np.max(np.abs(found.value - found.bound)))
    peer_gap = float(jnp.max(jnp.abs(checked.value - checked.bound)))
    return Row(
        f"persuasion program {actions}x{states}",
        batch,
        seconds,
        "highspy, one after another",
        sum(peer_seconds) / measured * batch,
        _share(found.certified),
        _share(optimal),
        ours.compile_seconds,
        measured,
        f"ratio on one core {alone:.1f}; largest gap: ours {gap:.1e}, peer {peer_gap:.1e}",
    )


def random_markets(markets: int, users: int, seed: int = 0):
    """Priors, utilities [markets, users, 3, 3] and objectives [markets, 3, users, 3, 3].

    Weak alignment is exact: each user's utility is a random mix of the providers' objectives.
    """
    rng = np.random.default_rng(seed)
    prior = rng.dirichlet(np.ones(3), size=markets)
    objective = rng.uniform(size=(markets, 3, users, 3, 3))
    weights = rng.dirichlet(np.ones(3), size=(markets, users))
    utility = np.einsum("mji,mijas->mjas", weights, objective)
    low = utility.min(axis=(2, 3), keepdims=True)
    utility = (utility - low) / np.ptp(utility, axis=(2, 3), keepdims=True)
    low = objective.min(axis=(3, 4), keepdims=True)
    return prior, utility, (objective - low) / np.ptp(objective, axis=(3, 4), keepdims=True)


def _settle_user(prior, utility, objective):
    """From babbling: dynamics, exact end, what a provider can gain there, and her value."""
    segment = equilibrium_segment(prior, utility, objective)
    frontiers = find_frontiers(segment)
    silent = recommend(segment, jnp.ones((len(prior), 1)))
    start = jnp.broadcast_to(silent, (len(objective), *silent.shape))
    signal, incumbent = settle_user(
        segment,
        start,
        frontiers,
        lambda reached: nearest_equilibrium(segment, frontiers, reached)[1],
    )
    meeting = meet(segment, signal, incumbent)
    gain = exploitability(segment, meeting)
    return jnp.max(meeting.values), jnp.max(gain.upper)


def _settle_market(prior, utility, objective):
    return jax.vmap(functools.partial(_settle_user, prior), in_axes=(0, 1))(utility, objective)


def _settle_markets(prior, utility, objective):
    """All markets in chunks that fit the cache; the last one is filled up with the first market."""
    count = len(prior)
    index = jnp.arange(-(-count // _CHUNK) * _CHUNK)
    index = jnp.where(index < count, index, 0).reshape(-1, _CHUNK)
    found = jax.lax.map(
        lambda chunk: jax.vmap(_settle_market)(
            *(part[chunk] for part in (prior, utility, objective))
        ),
        index,
    )
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], found)


def compare_equilibria(markets: int, users: int, seed: int = 0) -> Row:
    """Certified personalized equilibria of random markets, each from babbling."""
    from . import _highs

    data = random_markets(markets, users, seed)
    arrays = tuple(jnp.asarray(part) for part in data)
    ours = compile_batched(_settle_markets, *arrays)
    highs = _highs.solver()

    def peer(part):
        answers = []
        for market in part:
            prior, utility, objective = (piece[market] for piece in data)
            for user in range(users):
                model = _highs.User(highs, prior, utility[user], objective[:, user])
                answers.append(_highs.settle(model))
        return answers

    parts = np.array_split(np.arange(markets), _PARTS)
    seconds, peer_seconds, answers = alternate(ours.all_cores, peer, parts)
    values, gains = ours.all_cores()
    alone = sum(peer_seconds) / median_seconds(ours.one_core)
    answers = np.array([answer for part in answers for answer in part])
    peer_values, peer_gains = answers.reshape(markets, users, 2).transpose(2, 0, 1)

    def certified(gains):
        fine = np.isfinite(gains) & (gains <= EXPLOITABILITY)
        return np.all(fine, axis=1)

    same = _share(np.abs(values - peer_values) <= 1e-6)
    return Row(
        f"personalized equilibrium, {users} user{'s' * (users > 1)}",
        markets,
        seconds,
        "highspy, same dynamics, one after another",
        sum(peer_seconds),
        _share(certified(gains)),
        _share(certified(peer_gains)),
        ours.compile_seconds,
        markets,
        f"{markets / seconds:.0f} against {markets / sum(peer_seconds):.0f} per second; "
        f"ratio on one core {alone:.1f}; "
        f"largest gain {gains.max():.1e}, {peer_gains.max():.1e}; same value in {same:.1%}",
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    parser = arguments("market", "Batched solves against HiGHS, one after another.")
    parser.add_argument("--markets", type=int, default=1000, help="default: 1000")
    parser.add_argument("--batch", type=int, default=4096, help="programs per call; default: 4096")
    options = parser.parse_args(argv)
    if options.markets < _PARTS or options.batch < _PARTS:
        parser.error(f"--markets and --batch must be at least {_PARTS}")
    require("highspy")
    jax.config.update("jax_enable_x64", True)
    if options.quick:
        sizes, users = [(3, 24)], [1]
        markets = 12
    else:
        sizes = [(2, options.batch), (3, options.batch), (5, options.batch)]
        sizes.append((10, max(options.batch // 8, _PARTS)))
        users, markets = [1, 3], options.markets
    rows = [compare_programs(size, size, batch) for size, batch in sizes]
    rows += [compare_equilibria(markets, count) for count in users]
    report(rows, machine(["highspy"]), options.json)


if __name__ == "__main__":
    main()
