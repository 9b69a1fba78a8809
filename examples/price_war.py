"""A rival enters, and incumbents cut their prices: by how much, and who gains?

    python examples/price_war.py [--entrant-cost 2.0] [--seed 0]

Two incumbents sell one good each to three types of buyers, who differ in how much they mind a high
price. A discounter of lower quality enters. Prices are Nash equilibria of firms that foresee what
buyers do; each is certified: no firm gains by the deviations searched, and profits are locally
concave. Buyers' gains are in units of price per buyer, by the log-sum formula. The last table is
pass-through: by how much each price rises with each firm's cost, the derivative of the whole
equilibrium by one `jax.jacrev` through `solve`.
"""

import argparse
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffgame import Constant, Equilibrium, Logit, Status, certify, solve
from diffgame.games import LogitBertrand

FIRMS = ("North", "South", "Discount")
COST = jnp.array([3.0, 3.0, 2.0])
QUALITY = jnp.array([6.0, 5.5, 4.0])
BUYERS = ("loyal", "average", "thrifty")
SENSITIVITY = jnp.array([0.5, 1.0, 2.0])  # utility per unit of price
SHARE = jnp.array([0.2, 0.5, 0.3])
LOGIT = Logit(1.0)


def make_game(cost: Float[Array, " firms"]) -> LogitBertrand:
    """The market of as many firms as there are costs, in the order of FIRMS."""
    return LogitBertrand(cost, QUALITY[: cost.size], SENSITIVITY, SHARE)


def find_prices(cost: Float[Array, " firms"]) -> Equilibrium:
    """The equilibrium, from prices 1 above cost; no price is above 20."""
    start = Constant(cost + 1, lower=0.0, upper=20.0)
    return solve(make_game(cost), LOGIT, start, tolerance=1e-10)


def posted(found: Equilibrium) -> Float[Array, " firms"]:
    """The prices of an equilibrium."""
    assert isinstance(found.profile, Constant)
    return found.profile.offer


def surplus(prices: Float[Array, " firms"]) -> Float[Array, " buyers"]:
    """What one buyer of each type gains from the market, in units of price."""
    value = QUALITY[None, : prices.size] - SENSITIVITY[:, None] * prices[None]
    return jax.nn.logsumexp(jnp.pad(value, ((0, 0), (0, 1))), axis=1) / SENSITIVITY


def report_market(cost: Float[Array, " firms"], key: jax.Array) -> Float[Array, " firms"]:
    """Solve, certify and print one market; its prices."""
    found = certify(make_game(cost), LOGIT, find_prices(cost), key=key)
    certificate = found.certificate
    assert certificate is not None
    print(
        f"{cost.size} firms, {'certified' if found.status == Status.certified else 'NOT CERTIFIED'}"
    )
    print(
        f"  largest gain from deviating {float(certificate.deviation_gains.max()):.1e}, "
        f"largest curvature {float(certificate.second_order.max()):.3f}"
    )
    prices = posted(found)
    sold = SHARE @ found.outcome.choices
    print("  firm        cost   price    sold  profit")
    for row in zip(FIRMS, cost, prices, sold, found.outcome.payoffs, strict=False):
        print(f"  {row[0]:<9}" + "".join(f"{float(number):8.3f}" for number in row[1:]))
    print(f"  nothing                {float(sold[-1]):8.3f}")
    return prices


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the market before and after entry, who gains, and pass-through."""
    parser = argparse.ArgumentParser(description="A rival enters: prices before and after.")
    parser.add_argument("--entrant-cost", type=float, default=2.0, help="its cost (default 2)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the certificate (default 0)")
    options = parser.parse_args(arguments)
    if not 0 <= options.entrant_cost <= 10:
        parser.error(f"--entrant-cost is {options.entrant_cost}; choose 0 to 10")
    if options.seed < 0:
        parser.error(f"--seed is {options.seed}; choose at least 0")
    jax.config.update("jax_enable_x64", True)
    key = jax.random.key(options.seed)
    cost = COST.astype(float).at[-1].set(options.entrant_cost)
    before = report_market(cost[:-1], key)
    after = report_market(cost, key)
    print("gain of a buyer by the entry, in units of price")
    for name, gain in zip(BUYERS, surplus(after) - surplus(before), strict=True):
        print(f"  {name:<9}{float(gain):8.3f}")
    slopes = jax.jit(jax.jacrev(lambda cost: posted(find_prices(cost))))(cost)
    print("pass-through: rise of the price (rows) per unit of cost (columns)")
    print("  " + " " * 9 + "".join(f"{name:>9}" for name in FIRMS))
    for name, row in zip(FIRMS, slopes, strict=True):
        print(f"  {name:<9}" + "".join(f"{float(slope):9.3f}" for slope in row))


if __name__ == "__main__":
    main()
