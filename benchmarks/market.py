"""Linear programs and equilibria of markets: batched in JAX, against HiGHS."""

import concurrent.futures
import functools
import multiprocessing
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from diffgame.market import exploitability, meet
from diffgame.market._dynamics import recommend, settle_together, settle_user
from diffgame.market._equilibrium_values import equilibrium_segment, nearest_equilibrium
from diffgame.market._frontier import find_frontiers
from diffgame.market._segment import make_segment

from ._harness import (
    Row,
    alternate,
    arguments,
    compile_batched,
    cores,
    machine,
    median_seconds,
    report,
    require,
)
from .market_programs import PARTS, compare_one, compare_programs, share

EXPLOITABILITY = 1e-6
_CHUNK = 256


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


def _settle_group(prior, utility, objective):
    """The same where all users see one signal: what is proposed in turn, until nobody leaves."""
    providers, users = objective.shape[:2]
    segment = make_segment(prior, utility, objective / users, jnp.ones(users))
    silent = recommend(segment, jnp.ones((len(prior), 1)))
    start = jnp.broadcast_to(silent, (providers, *silent.shape))
    meeting, gains = settle_together(segment, start)
    return jnp.max(meeting.values, axis=0), jnp.max(gains.upper)


def _in_chunks(settle, *arrays):
    """All markets in chunks that fit the cache; the last one is filled up with the first market."""
    count = len(arrays[0])
    index = jnp.arange(-(-count // _CHUNK) * _CHUNK)
    index = jnp.where(index < count, index, 0).reshape(-1, _CHUNK)
    found = jax.lax.map(lambda chunk: jax.vmap(settle)(*(part[chunk] for part in arrays)), index)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], found)


def compare_equilibria(markets: int, users: int, seed: int = 0) -> Row:
    """Certified personalized equilibria of random markets, each from babbling."""
    from . import _highs

    data = random_markets(markets, users, seed)
    arrays = tuple(jnp.asarray(part) for part in data)
    ours = compile_batched(functools.partial(_in_chunks, _settle_market), *arrays)
    highs = _highs.solver()

    def peer(part):
        answers = []
        for market in part:
            prior, utility, objective = (piece[market] for piece in data)
            for user in range(users):
                model = _highs.User(highs, prior, utility[user], objective[:, user])
                answers.append(_highs.settle(model))
        return answers

    parts = np.array_split(np.arange(markets), PARTS)
    seconds, peer_seconds, answers = alternate(ours.all_cores, peer, parts)
    values, gains = ours.all_cores()
    alone = sum(peer_seconds) / median_seconds(ours.one_core)
    answers = np.array([answer for part in answers for answer in part])
    peer_values, peer_gains = answers.reshape(markets, users, 2).transpose(2, 0, 1)

    def certified(gains):
        fine = np.isfinite(gains) & (gains <= EXPLOITABILITY)
        return np.all(fine, axis=1)

    same = share(np.abs(values - peer_values) <= 1e-6)
    return Row(
        f"personalized equilibrium, {users} user{'s' * (users > 1)}",
        markets,
        seconds,
        "highspy, same dynamics, one after another",
        sum(peer_seconds),
        share(certified(gains)),
        share(certified(peer_gains)),
        ours.compile_seconds,
        markets,
        f"{markets / seconds:.0f} against {markets / sum(peer_seconds):.0f} per second; "
        f"ratio on one core {alone:.1f}; "
        f"largest gain {gains.max():.1e}, {peer_gains.max():.1e}; same value in {same:.1%}",
    )


def compare_anonymous(markets: int, users: int = 2, seed: int = 0) -> Row:
    """Random markets whose users all see one signal, settled from babbling and assessed."""
    from . import _highs, _highs_anonymous

    data = random_markets(markets, users, seed)
    arrays = tuple(jnp.asarray(part) for part in data)
    ours = compile_batched(functools.partial(_in_chunks, _settle_group), *arrays)
    highs = _highs.solver()

    def peer(part):
        models = (
            _highs_anonymous.Group(highs, *(piece[market] for piece in data)) for market in part
        )
        return [_highs_anonymous.settle(model) for model in models]

    parts = np.array_split(np.arange(markets), PARTS)
    seconds, peer_seconds, answers = alternate(ours.all_cores, peer, parts)
    values, gains = ours.all_cores()
    alone = sum(peer_seconds) / median_seconds(ours.one_core)
    peer_gains = np.array([gain for part in answers for gain, _ in part])
    peer_values = np.array([value for part in answers for _, value in part])
    fine, peer_fine = gains <= EXPLOITABILITY, peer_gains <= EXPLOITABILITY
    same = np.all(np.abs(values - peer_values) <= 1e-6, axis=1)
    known = share(np.isfinite(gains)), share(np.isfinite(peer_gains))
    return Row(
        f"anonymous audit, {users} users",
        markets,
        seconds,
        "highspy, same steps, one after another",
        sum(peer_seconds),
        *known,
        ours.compile_seconds,
        markets,
        f"{markets / seconds:.0f} against {markets / sum(peer_seconds):.0f} per second; "
        f"ratio on one core {alone:.1f}; in equilibrium {share(fine):.1%}, {share(peer_fine):.1%}, "
        f"same verdict in {share(fine == peer_fine):.1%}, same values in {share(same):.1%}; "
        "certified = gain bounded on both sides",
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    parser = arguments("market", "Batched solves against HiGHS.")
    parser.add_argument("--markets", type=int, default=1000, help="default: 1000")
    parser.add_argument("--batch", type=int, default=4096, help="programs per call; default: 4096")
    options = parser.parse_args(argv)
    if options.markets < PARTS or options.batch < PARTS:
        parser.error(f"--markets and --batch must be at least {PARTS}")
    require("highspy")
    jax.config.update("jax_enable_x64", True)
    if options.quick:
        sizes, large, users = [(3, 24)], [(8, 3)], [1]
        markets = 12
    else:
        sizes, large = [(size, options.batch) for size in (2, 3, 5, 10)], [(50, 50), (100, 20)]
        users, markets = [1, 3], options.markets
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(cores(), mp_context=spawn) as pool:
        rows = [compare_programs(size, size, batch, pool) for size, batch in sizes]
    rows += [compare_one(*size) for size in large]
    rows += [compare_equilibria(markets, count) for count in users]
    if not options.quick:
        # Compiling it takes longer than a quick look may.
        rows.append(compare_anonymous(markets))
    report(rows, machine(["highspy"]), options.json)


if __name__ == "__main__":
    main()
