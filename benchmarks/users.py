"""One game with 1,000 to 10,000,000 users: time and memory of its value and its gradient.

The game is logit price competition (`MultiProductBertrand`): 5 firms with 2 products each, buyers
with a taste for every product and a price sensitivity of their own, float64, streamed in chunks.
Every size runs in a process of its own, which also measures what the machine can do at most: bytes
per second of a stream triad (NumPy, one core), and exponentials per second (JAX, one core at a
size within the cache). A user is 12 numbers to read and 11 exponentials, so the roofline of one
pass is the larger of 96 bytes and 11 exponentials at these rates. Payoffs are checked against
NumPy, and the command fails if they differ by more than 1e-10, relatively.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import _harness
from diffgame import Logit, provider_payoffs, pseudogradient, shard_users
from diffgame.games import MultiProductBertrand

FIRMS, PRODUCTS, CHUNK = 5, 10, 625
RESPONSE = Logit(1.0)
SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
QUICK = (1_000, 5_000)
_ELEMENTS = 8_000_000
_TOLERANCE = 1e-10


def make(users: int) -> MultiProductBertrand:
    """The game, drawn on the device: its arrays are all the memory that grows with it."""

    def draw(key):
        first, second = jax.random.split(key)
        quality = 2 + jax.random.normal(first, (users, PRODUCTS))
        return quality, jnp.exp(0.3 * jax.random.normal(second, (users,)))

    quality, sensitivity = jax.jit(draw)(jax.random.key(0))
    owner = jnp.arange(PRODUCTS) % FIRMS
    return MultiProductBertrand(jnp.ones(PRODUCTS), owner, quality, sensitivity)


def by_numpy(game: MultiProductBertrand, price: float) -> np.ndarray:
    """The firms' payoffs if every product has this price."""
    quality, sensitivity = np.asarray(game.users.quality), np.asarray(game.users.sensitivity)
    sales = np.zeros(PRODUCTS)
    for first in range(0, len(quality), 10_000):
        rows = slice(first, first + 10_000)
        weight = np.exp(quality[rows] - price * sensitivity[rows, None])
        sales += np.asarray(game.mass[rows]) @ (weight / (1 + weight.sum(axis=1, keepdims=True)))
    return np.bincount(np.asarray(game.owner), sales * (price - 1.0))


def seconds(function: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Best wall clock and best processor seconds of a function that has run before."""
    wall, processor = [], []
    for _ in range(repeats):
        begin, begin_processor = time.perf_counter(), time.process_time()
        jax.block_until_ready(function())
        wall.append(time.perf_counter() - begin)
        processor.append(time.process_time() - begin_processor)
    return min(wall), min(processor)


def triad(repeats: int = 5) -> float:
    """Bytes per second of a = b + 3 c, in NumPy's two passes: 16 and 24 bytes per element."""
    a, b, c = np.zeros(_ELEMENTS), np.ones(_ELEMENTS), np.ones(_ELEMENTS)

    def run():
        np.multiply(c, 3.0, out=a)
        np.add(a, b, out=a)

    return 40 * _ELEMENTS / seconds(run, repeats)[0]


def exponentials(repeats: int = 20) -> float:
    """Exponentials per second of numbers that stay in the cache."""
    numbers = jnp.linspace(-3.0, 3.0, 20_000)
    rounds = 50

    @jax.jit
    def run(numbers):
        def once(added, shift):
            return added + jnp.exp(numbers + shift), None

        return jax.lax.scan(once, jnp.zeros_like(numbers), jnp.arange(rounds) / 100.0)[0]

    jax.block_until_ready(run(numbers))
    return rounds * numbers.size / seconds(lambda: run(numbers), repeats)[0]


def most_memory() -> int:
    """The most bytes that this process ever held."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(users: int, devices: int, repeats: int) -> dict[str, Any]:
    """One size, in this process."""
    jax.config.update("jax_enable_x64", True)
    assert jax.device_count() == devices
    bandwidth, rate = triad(), exponentials()
    game = make(users)
    price = 1.5
    expected = by_numpy(game, price)
    start = game.post(jnp.full(PRODUCTS, price))
    own = sum(leaf.nbytes for leaf in jax.tree.leaves((game.users, game.mass)))
    if devices > 1:
        game = shard_users(game)
    found: dict[str, Any] = {
        "users": users,
        "devices": devices,
        "game_bytes": own,
        "bandwidth": bandwidth,
        "exponentials": rate,
    }

    def value(game, profile):
        return provider_payoffs(game, RESPONSE, profile, chunk=CHUNK)

    def gradient(game, profile):
        return pseudogradient(game, RESPONSE, profile, chunk=CHUNK).offer

    for name, function in (("value", value), ("gradient", gradient)):
        begin = time.perf_counter()
        compiled = jax.jit(function).lower(game, start).compile()
        found[f"{name}_compile"] = time.perf_counter() - begin
        needed = compiled.memory_analysis()
        assert needed is not None
        found[f"{name}_working_bytes"] = needed.temp_size_in_bytes
        before = most_memory()
        answer = jax.block_until_ready(compiled(game, start))
        wall, processor = seconds(lambda c=compiled: c(game, start), repeats)
        found |= {f"{name}_seconds": wall, f"{name}_processor": processor}
        found[f"{name}_grown_bytes"] = most_memory() - before
        if name == "value":
            error = np.max(np.abs(np.asarray(answer) - expected) / np.abs(expected))
            found["error"] = float(error)
    found["peak_bytes"] = most_memory()
    return found


def in_own_process(users: int, devices: int, repeats: int) -> dict[str, Any]:
    """The same in a fresh process."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "benchmarks.users", "--one"]
    command += [str(users), str(devices), str(repeats)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"XLA_FLAGS": flags.strip()}
    )
    if done.returncode:
        raise SystemExit(f"{users} users on {devices} devices: {done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def roofline(row: dict[str, Any]) -> tuple[float, float]:
    """Nanoseconds per user of one pass at full bandwidth, and at the full rate of exp."""
    bytes_per_user = row["game_bytes"] / row["users"]
    return 1e9 * bytes_per_user / row["bandwidth"], 1e9 * (PRODUCTS + 1) / row["exponentials"]


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    reading, computing = roofline(row)
    cells = [f"{row['users']:>10}{row['devices']:>4}"]
    for name in ("value", "gradient"):
        each = 1e9 * row[f"{name}_seconds"] / row["users"]
        processor = 1e9 * row[f"{name}_processor"] / row["users"]
        cells.append(
            f"{row[f'{name}_compile']:>8.1f}{row[f'{name}_seconds']:>9.4f}{each:>8.1f}"
            f"{processor:>8.1f}{reading / each:>7.0%}{computing / each:>6.0%}"
            f"{row[f'{name}_working_bytes'] / 1e6:>7.1f}{row[f'{name}_grown_bytes'] / 1e6:>7.1f}"
        )
    return "".join(cells) + f"{row['game_bytes'] / 1e6:>8.1f}{row['error']:>9.0e}"


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = _harness.arguments("users", __doc__ or "")
    parser.add_argument("--one", nargs=3, type=int, metavar=("USERS", "DEVICES", "REPEATS"))
    chosen = parser.parse_args(arguments)
    if chosen.one:
        print(json.dumps(measure(*chosen.one)))
        return
    sizes, repeats = (QUICK, 2) if chosen.quick else (SIZES, 5)
    about = _harness.machine(("numpy",))
    print("; ".join(f"{name} {value}" for name, value in about.items()))
    print(f"{FIRMS} firms, {PRODUCTS} products, chunk={CHUNK}, float64; best of {repeats};")
    print("per pass: compile s, run s, ns and processor ns per user, share of triad, share of exp,")
    print("working memory MB (compiler), growth of the process's peak MB; then the game's own MB,")
    print("and the relative error against NumPy\n")
    half = f"{'compile':>8}{'s':>9}{'ns':>8}{'cpu ns':>8}{'triad':>7}{'exp':>6}{'MB':>7}{'+MB':>7}"
    print(f"{'':14}{'value':^60}{'gradient':^60}")
    print(f"{'users':>10}{'dev':>4}{half}{half}{'game':>8}{'error':>9}")
    rows = []
    for devices in (1, 2):
        for users in sizes:
            rows.append(in_own_process(users, devices, repeats))
            print(line(rows[-1]), flush=True)
    reading, computing = roofline(rows[len(sizes) - 1])
    print(f"\none pass at full bandwidth: {reading:.1f} ns per user; exponentials alone: ", end="")
    print(f"{computing:.1f} ns per user; the gradient adds one pullback for each of {FIRMS} firms")
    if chosen.json:
        write(chosen.json, about, rows)
    worst = float(np.max([row["error"] for row in rows]))
    if not worst <= _TOLERANCE:
        raise SystemExit(f"payoffs differ from NumPy's by {worst:.1e}, relatively")


def write(out: Path, about: dict[str, Any], rows: Any) -> None:
    """The file whole or not at all."""
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    beside.write_text(json.dumps({"machine": about, "rows": rows}, indent=2) + "\n")
    beside.replace(out)


if __name__ == "__main__":
    main()
