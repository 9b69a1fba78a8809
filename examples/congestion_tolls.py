"""Braess's paradox, a toll that repairs it, and two owners who compete in tolls.

    python examples/congestion_tolls.py

Drivers choose paths (Wardrop: nobody can save time); links slow down under load. First, a new road
makes everybody slower, and the toll on it that is best for all is found by climbing the derivative
of total time through the drivers' equilibrium. Then two owners of parallel links post tolls for
profit, and end at the closed form of Acemoglu, Ozdaglar (2007), Competition and efficiency in
congested markets.
"""

from typing import Any

import jax
import jax.numpy as jnp

import diffgame as dg
from diffgame.games import Congestion

NO_TOLL = dg.Constant(jnp.zeros((1, 1)))


def total_time(toll: jax.Array) -> jax.Array:
    """Everybody's time together on the network with the shortcut."""
    game = Congestion.braess()
    found: Any = dg.play(game, dg.Wardrop(), dg.Constant(toll[None, None]))
    return game.total_time(found.interaction.crowd)


def best_toll() -> jax.Array:
    """Descend total time from a small toll until its derivative vanishes."""
    slope = jax.jit(jax.grad(total_time))
    toll = jnp.array(0.1)
    for _ in range(60):
        toll = jnp.maximum(toll - 0.25 * slope(toll), 0)
    return toll


def parallel_links() -> Congestion:
    """Two links of different width, each owned and tolled by somebody; nobody stays at home."""
    return Congestion(
        paths=jnp.eye(2),
        free=jnp.zeros(2),
        rate=jnp.array([1.0, 2.0]),
        power=jnp.ones(2),
        tolled=jnp.eye(2)[:, None, :],
    )


def main(arguments: list[str] | None = None) -> None:
    """Print both stories, each with what was checked."""
    del arguments
    jax.config.update("jax_enable_x64", True)
    for shortcut in (False, True):
        game = Congestion.braess(shortcut=shortcut)
        found: Any = dg.play(game, dg.Wardrop(), NO_TOLL)
        status = dg.CrowdStatus[found.interaction.status].split(",")[0]
        name = "with" if shortcut else "without"
        print(f"{name} the shortcut everybody takes {-found.utilities[0]:.4f} ({status})")
    toll = best_toll()
    print(f"best toll on the shortcut {toll:.4f}: total time {total_time(toll):.4f}")

    game = parallel_links()
    start = dg.Constant(jnp.ones((2, 1)), lower=0.0, upper=10.0)
    solved = dg.solve(game, dg.Wardrop(), start, tolerance=1e-9)
    found = dg.certify(game, dg.Wardrop(), solved, key=jax.random.key(0), starts=2)
    flows = found.outcome.interaction.crowd
    # With times a x and b x, flows f and 1 - f: toll_i = (a + b) flow_i, hence
    # 3 (a + b) f = a + 2 b.
    share = (1 + 2 * 2) / (3 * (1 + 2))
    print("owners' tolls", found.profile.offer[:, 0].round(4), "flows", flows.round(4))
    print(f"closed form: tolls {3 * share:.4f} and {3 * (1 - share):.4f}, flow {share:.4f}")
    print("certified" if found.status == dg.Status.certified else dg.Status[found.status])


if __name__ == "__main__":
    main()
