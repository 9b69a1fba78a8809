"""General Motors takes over Chrysler: new prices of all cars of a year, and which buyers lose.

    pip install 'diffgame[data]'
    python examples/cars_merger.py [--year 1990]

Cars, prices and sales are MEASURED (the automobile data of Berry, Levinsohn, Pakes, read from the
package `pyblp`; prices in 1983 $1,000). Demand is PUBLISHED, not estimated here: 200 types of
households with the random coefficients of Berry, Levinsohn, Pakes (1995), table IV; a household of
income y minds a price as 43.501 / y. Mean qualities are such that shares at observed prices are the
observed ones, and costs such that observed prices satisfy every firm's first-order conditions.
The merger is IMAGINED: same cars, same costs, one owner. Firms by number: 16 Chrysler, 18 Ford,
19 General Motors. Consumer surplus is the log-sum, in 1983 dollars per household and year.
"""

import argparse
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pyblp

from diffgame import Constant, Equilibrium, Logit, Status, certify, solve
from diffgame.games import MarkupIteration, MultiProductBertrand

LOGIT = Logit(1.0)
TASTES = {"one": 3.612, "hpwt": 4.628, "air": 1.818, "mpd": 1.050, "space": 2.056}  # sigma
PRICE = 43.501
MERGER = (19, 16)
HOUSEHOLDS = 1e6  # profits are per million households


def load(year: int) -> tuple[pd.DataFrame, MultiProductBertrand]:
    """The cars of a year, and the game in which their prices are an equilibrium."""
    cars = pd.read_csv(pyblp.data.BLP_PRODUCTS_LOCATION).query("market_ids == @year")
    people = pd.read_csv(pyblp.data.BLP_AGENTS_LOCATION).query("market_ids == @year")
    nodes = people[[f"nodes{k}" for k in range(5)]].to_numpy()
    characteristics = cars.assign(one=1.0)[list(TASTES)].to_numpy()
    taste = nodes * np.array(list(TASTES.values())) @ characteristics.T
    sensitivity = PRICE / people["income"].to_numpy()
    weight, prices = people["weights"].to_numpy(), cars["prices"].to_numpy()
    mean, change = np.zeros(len(cars)), np.inf
    while np.max(np.abs(change)) > 1e-13:  # the contraction of Berry, Levinsohn, Pakes
        value = np.exp(mean + taste - sensitivity[:, None] * prices)
        change = np.log(cars["shares"] / (weight @ (value / (1 + value.sum(1, keepdims=True)))))
        mean = mean + change.to_numpy()

    owner = np.searchsorted(np.unique(cars["firm_ids"]), cars["firm_ids"])
    numbers = owner, mean + taste, sensitivity, HOUSEHOLDS * weight
    free = MultiProductBertrand(jnp.zeros(len(cars)), *map(jnp.asarray, numbers))
    cost = free.implied_cost(LOGIT, free.arrange(jnp.asarray(prices)))
    return cars, eqx.tree_at(lambda game: game.cost, free, cost)


def find(game: MultiProductBertrand, prices: jax.Array) -> Equilibrium:
    """The equilibrium that the markup iteration reaches from given prices."""
    start = game.post(prices, lower=0.0, upper=5 * jnp.max(prices))
    return solve(game, LOGIT, start, MarkupIteration(), tolerance=1e-9)


def report(
    game: MultiProductBertrand, found: Equilibrium, firms: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Certify and print what is known; prices [cars], surplus in dollars [households]."""
    found = certify(game, LOGIT, found, key=jax.random.key(0), starts=1, steps=20)
    certificate = found.certificate
    assert certificate is not None
    assert isinstance(found.profile, Constant)
    status = "certified" if found.status == Status.certified else "NOT CERTIFIED"
    print(f"  {status}; residual {certificate.residual:.0e}")
    gains = np.asarray(certificate.deviation_gains)
    for firm in np.flatnonzero(gains > certificate.tolerance):
        share = gains[firm] / found.outcome.payoffs[firm]
        print(f"  firm {firms[firm]} would gain {share:.1%} of its profit by other prices")
    offer = found.profile.offer
    return np.asarray(game.prices(offer)), 1000 * np.asarray(game.consumer_surplus(LOGIT, offer))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print prices by firm, before and after, and who loses."""
    parser = argparse.ArgumentParser(description="A merger of car makers, on real data.")
    years = range(1971, 1991)
    parser.add_argument("--year", type=int, default=1990, choices=years, metavar="1971-1990")
    options = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", True)
    cars, game = load(options.year)
    firms, observed = np.unique(cars["firm_ids"]), jnp.asarray(cars["prices"])
    print(f"{options.year}: {len(cars)} cars, {len(firms)} firms, 200 types of households")
    before, surplus = report(game, find(game, observed), firms)
    print("firm 19 takes over firm 16")
    merged = game.merge(*np.searchsorted(firms, MERGER).tolist())
    after, new_surplus = report(merged, find(merged, observed), firms)

    print("mean price in 1983 $, of those who merge and of the largest others")
    ids, shares = cars["firm_ids"].to_numpy(), cars["shares"].to_numpy()
    others = sorted(set(firms) - set(MERGER), key=lambda firm: -shares[ids == firm].sum())
    for firm in [*MERGER, *others[:3]]:
        own = ids == firm
        old, new = 1000 * before[own].mean(), 1000 * after[own].mean()
        print(f"  firm {firm:2d}{own.sum():4d} cars{old:8.0f} ->{new:7.0f} ({new / old - 1:+.1%})")

    print("who loses: households by income, in quarters; consumer surplus in 1983 $ a year")
    sensitivity, weight = np.asarray(game.users.sensitivity), np.asarray(game.mass)
    order = np.argsort(-sensitivity)
    quarter = np.floor(4 * (np.cumsum(weight[order]) - weight[order] / 2) / weight.sum())
    for number, name in enumerate(("poorest", "second", "third", "richest")):
        own = order[quarter == number]
        income, old, new = (
            np.average(column[own], weights=weight[own])
            for column in (PRICE / sensitivity, surplus, new_surplus)
        )
        change = f"{new - old:+8.2f} ({new / old - 1:+.1%})"
        print(f"  {name:<8} mean income ${1000 * income:8.0f}: {old:8.2f}, {change}")


if __name__ == "__main__":
    main()
