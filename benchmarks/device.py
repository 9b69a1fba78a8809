"""What an accelerator does to the work of this package, against the CPU of the same machine.

    python -m benchmarks.device

runs the same functions on both, in one process and in turn: linear programs of persuasion, games
of `solve_many`, personalized equilibria, and one game with 10 million users. Compile time stands
apart; every answer is certified in float64 where it was found. The rows belong into the table of
docs/scale.md. Without an accelerator only the CPU is measured, and one line says so.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _harness, market, market_programs, users
from diffgame import Constant, Logit, provider_payoffs, pseudogradient
from diffgame.batch import CertificateSettings, solve_many
from diffgame.games import LogitBertrand

_REPEATS = 3


def _persuasion(batch: int, device: Any) -> Callable[[], float]:
    rng = np.random.default_rng(0)
    prior = rng.dirichlet(np.ones(3), size=batch)
    utility, objective = rng.uniform(size=(2, batch, 3, 3))
    data = jax.device_put((prior, utility, objective), device)
    function = jax.jit(jax.vmap(market_programs._solve))
    return lambda: float(np.mean(function(*data).certified))


def _equilibria(markets: int, device: Any) -> Callable[[], float]:
    """Three providers, one user, 3 states and actions, as in `benchmarks.market`."""
    prior, utility, objective = market.random_markets(markets, 1)
    data = jax.device_put((prior, utility[:, 0], objective[:, :, 0]), device)
    function = jax.jit(jax.vmap(market._settle_user))

    def run():
        _, gain = (np.asarray(part) for part in function(*data))
        return float(np.mean(np.isfinite(gain) & (gain >= 0) & (gain <= market.EXPLOITABILITY)))

    return run


def _make(index: jax.Array, key: jax.Array):
    del index
    cost, quality = jax.random.uniform(key, (2, 2))
    return LogitBertrand(cost=cost, quality=quality, users=jnp.ones(1)), Constant(jnp.ones(2))


def _games(count: int, device: Any) -> Callable[[], float]:
    settings = CertificateSettings(starts=1, steps=20)

    def run():
        found = solve_many(
            _make,
            Logit(0.5),
            count=count,
            key=jax.random.key(0),
            certificate=settings,
            devices=[device],
        )
        return float(np.mean(found.certified))

    return run


def _users(count: int, device: Any) -> Callable[[], float]:
    """Value and gradient; certified: the payoffs are those of NumPy to 1e-10."""
    game = users.make(count)
    expected = users.by_numpy(game, 1.5)
    profile = game.post(jnp.full(users.PRODUCTS, 1.5))
    game, profile = jax.device_put((game, profile), device)

    @jax.jit
    def both(game, profile):
        value = provider_payoffs(game, users.RESPONSE, profile, chunk=users.CHUNK)
        field = pseudogradient(game, users.RESPONSE, profile, chunk=users.CHUNK)
        return value, field.offer

    def run():
        value, field = jax.block_until_ready(both(game, profile))
        near = np.abs(np.asarray(value) - expected) <= 1e-10 * np.abs(expected)
        return float(np.all(near) and np.all(np.isfinite(field)))

    return run


WORK = (
    ("persuasion programs 3x3", _persuasion, 4096, 64),
    ("games of solve_many", _games, 4096, 64),
    ("personalized equilibria", _equilibria, 1000, 16),
    ("users of one game", _users, 10_000_000, 1_000),
)


def measure(make: Callable[[int, Any], Callable[[], float]], count: int, device: Any):
    """Seconds of the first run beyond a later one, of the best later run, certified share."""
    with jax.default_device(device):
        run = make(count, device)
        begin = time.perf_counter()
        share = run()
        first = time.perf_counter() - begin
        seconds = []
        for _ in range(_REPEATS):
            begin = time.perf_counter()
            share = min(share, run())
            seconds.append(time.perf_counter() - begin)
    return max(first - min(seconds), 0.0), min(seconds), share


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = _harness.arguments("device", __doc__ or "")
    parser.add_argument("--only", metavar="TEXT", default="", help="work named like this")
    chosen = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", True)
    processor, accelerator = jax.devices("cpu")[0], jax.devices()[0]
    devices = [processor]
    if accelerator.platform == "cpu":
        print("no accelerator: jax sees only the CPU, which is measured alone", flush=True)
    else:
        devices.append(accelerator)
    about = _harness.machine(())
    print("; ".join(f"{name} {value}" for name, value in about.items()))
    print(f"{'work':<26}{'n':>10}  {'device':<24}{'compile s':>10}{'run s':>10}", end="")
    print(f"{'certified':>10}{'x CPU':>8}")
    rows: list[dict[str, Any]] = []
    for name, make, full, tiny in WORK:
        if chosen.only not in name:
            continue
        count, base = tiny if chosen.quick else full, float("nan")
        for device in devices:
            compile_seconds, seconds, share = measure(make, count, device)
            base = seconds if device is processor else base
            kind = f"{device.platform} {device.device_kind}"
            print(f"{name:<26}{count:>10}  {kind[:22]:<24}{compile_seconds:>10.1f}", end="")
            print(f"{seconds:>10.4f}{share:>10.4g}{base / seconds:>8.3g}", flush=True)
            row = {"work": name, "n": count, "device": kind, "compile_seconds": compile_seconds}
            rows.append(row | {"run_seconds": seconds, "certified": share, "ratio": base / seconds})
    if chosen.json:
        users.write(chosen.json, about, rows)


if __name__ == "__main__":
    main()
