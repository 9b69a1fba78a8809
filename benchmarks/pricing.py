"""Price equilibria of all markets of pyblp's car and cereal data, against pyblp itself.

Demand is fixed, not estimated: plain logit, and random coefficients at published estimates. Mean
utilities fit the observed shares (by Berry's contraction), costs the observed prices (by
first-order conditions); then prices are solved for from scratch, and after a merger.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffgame import Equilibrium, Status, certify, solve
from diffgame.games import MarkupIteration, MultiProductBertrand

from ._harness import Row, arguments, machine, median_seconds, report, require
from ._pricing_data import DEMANDS, LOGIT, Demand, Markets, load, make_games

TOLERANCE = 1e-11
# Numbers that a batch works on at once, to stay in the processor's cache.
NUMBERS = 100_000


def find(
    games: Sequence[MultiProductBertrand],
    prices: Sequence[Float[Array, "markets products"]],
    tops: Sequence[Float[Array, " markets"]],
) -> list[Equilibrium]:
    """Equilibria of all markets of all data sets, from the prices given, in one call."""

    def one(job):
        game, prices, top = job
        start = game.post(prices, lower=-top, upper=top)
        return solve(game, LOGIT, start, MarkupIteration(), tolerance=TOLERANCE, throw=False)

    def each(game, *job):
        numbers = game.providers * game.mass.shape[1] * game.cost.shape[1]
        return jax.lax.map(one, (game, *job), batch_size=max(1, NUMBERS // numbers))

    return [each(*job) for job in zip(games, prices, tops, strict=True)]


@eqx.filter_jit
def examine(
    games: MultiProductBertrand, found: Equilibrium, starts: int, steps: int
) -> Equilibrium:
    """The same equilibria with their certificates, market by market."""

    def one(job):
        game, equilibrium = job
        key = jax.random.key(0)
        return certify(game, LOGIT, equilibrium, key=key, starts=starts, steps=steps)

    return jax.lax.map(one, (games, found))


class Peer:
    """The same markets in pyblp: its simulation, which iterates on markups market by market."""

    def __init__(self, demand: Demand, products: Any, agents: Any, mean: np.ndarray):
        self._pyblp = require("pyblp")
        self._pyblp.options.verbose = False
        self._demand, self._products, self._agents, self._mean = demand, products, agents, mean

    def _simulation(self, products: Any) -> Any:
        pyblp, demand = self._pyblp, self._demand
        formulations = [pyblp.Formulation("0 + prices")]
        settings = {}
        if demand.tastes:
            formulations.append(pyblp.Formulation(" + ".join(demand.tastes)))
            people = " + ".join(f"I({name})" for name in demand.demographics)
            settings = {
                "agent_formulation": pyblp.Formulation(f"0 + {people}"),
                "agent_data": self._agents,
                "sigma": np.diag(demand.sigma),
                "pi": np.array(demand.pi),
            }
        return pyblp.Simulation(
            tuple(formulations), products, beta=[demand.price], xi=self._mean, **settings
        )

    def solve(
        self, costs: np.ndarray, prices: np.ndarray, merger: tuple[int, int] | None
    ) -> tuple[np.ndarray, float, bool]:
        """Prices [products], the seconds they took, and whether all markets converged."""
        products = self._products
        if merger is not None:
            ids = products["firm_ids"].replace(merger[1], merger[0])
            products = products.assign(firm_ids=ids)
        simulation = self._simulation(products)
        atol = TOLERANCE / self._demand.buyers
        begin = time.perf_counter()
        results = simulation.replace_endogenous(
            costs,
            prices,
            self._pyblp.Iteration("simple", {"atol": atol}),
            compute_gradients=False,
            compute_hessians=False,
        )
        seconds = time.perf_counter() - begin
        found = results.product_data["prices"].ravel()
        return found, seconds, bool(np.all(results.fp_converged))


class Case(NamedTuple):
    """One equilibrium per market, found twice. Seconds are for the whole data set.

    - `difference`: largest difference of a price from pyblp's. `surplus`: consumer surplus
        [markets, users] per buyer, in units of price.
    """

    label: str
    found: Equilibrium
    prices: np.ndarray
    surplus: np.ndarray
    difference: float
    peer_seconds: float
    peer_converged: bool

    @property
    def solved(self) -> int:
        """How many markets ended with the status that `solve` promises."""
        return int(jnp.sum(self.found.status == Status.stationary_only))


class Comparison(NamedTuple):
    """A data set before and after a merger.

    - `observed` [markets]: how far from observed prices the first ended.
    - `names` [markets], `firms` [providers]: what the data call them.
    """

    demand: Demand
    markets: Markets
    games: tuple[MultiProductBertrand, MultiProductBertrand]
    cases: tuple[Case, Case]
    observed: np.ndarray
    names: np.ndarray
    firms: np.ndarray


class Timing(NamedTuple):
    """Seconds of one call for all data sets."""

    label: str
    compilation: float
    seconds: float


def _case(label: str, demand: Demand, markets: Markets, games: Any, found: Any, peer: Any, begin):
    here = np.asarray(markets.owner >= 0)
    prices = np.asarray(
        jax.vmap(lambda game, offer: game.prices(offer))(games, found.profile.offer)
    )
    surplus = jax.vmap(lambda game, offer: game.consumer_surplus(LOGIT, offer))
    merger = demand.merger if label == "merger" else None
    theirs, seconds, converged = peer.solve(np.asarray(games.cost)[here], begin[here], merger)
    return Case(
        label,
        found,
        prices,
        np.asarray(surplus(games, found.profile.offer)),
        float(np.max(np.abs(prices[here] - theirs))),
        seconds,
        converged,
    )


@eqx.filter_jit
def _merge(games: MultiProductBertrand, survivor: int, absorbed: int) -> MultiProductBertrand:
    return eqx.filter_vmap(lambda game: game.merge(survivor, absorbed, slots=game.slots))(games)


def compare(
    demands: Sequence[Demand], count: int | None = None
) -> tuple[list[Comparison], list[Timing]]:
    """Solve all markets of all data sets at once, from scratch and merged, and compare."""
    loaded = [load(demand, count) for demand in demands]
    before = [make_games(markets) for _, _, markets in loaded]
    after = []
    for demand, (products, _, _), games in zip(demands, loaded, before, strict=True):
        firms = np.unique(products["firm_ids"])
        survivor, absorbed = np.searchsorted(firms, demand.merger).tolist()
        after.append(_merge(games, survivor, absorbed))
    tops = [5 * jnp.max(markets.prices, axis=1) for _, _, markets in loaded]
    costs = [games.cost for games in before]
    observed = [
        jnp.where(markets.owner >= 0, markets.prices, games.cost)
        for games, (_, _, markets) in zip(before, loaded, strict=True)
    ]
    begin = time.perf_counter()
    run = jax.jit(find).lower(before, costs, tops).compile()
    compilation = time.perf_counter() - begin
    timings, answers = [], []
    for label, games, prices in (("scratch", before, costs), ("merger", after, observed)):
        begin = time.perf_counter()
        answers.append(jax.block_until_ready(run(games, prices, tops)))
        seconds = time.perf_counter() - begin
        if seconds < 5:
            seconds = median_seconds(
                lambda job=(games, prices, tops): jax.block_until_ready(run(*job))
            )
        timings.append(Timing(label, compilation, seconds))
    results = []
    for k, (demand, (products, agents, markets)) in enumerate(zip(demands, loaded, strict=True)):
        here = np.asarray(markets.owner >= 0)
        mean = np.asarray(before[k].users.quality - markets.taste)[:, 0][here]
        peer = Peer(demand, products, agents, mean)
        cases = (
            _case("scratch", demand, markets, before[k], answers[0][k], peer, np.asarray(costs[k])),
            _case(
                "merger", demand, markets, after[k], answers[1][k], peer, np.asarray(observed[k])
            ),
        )
        distance = np.max(np.abs(cases[0].prices - np.asarray(observed[k])), axis=1)
        both = before[k], after[k]
        names = [np.unique(products[column]) for column in ("market_ids", "firm_ids")]
        results.append(Comparison(demand, markets, both, cases, distance, *names))
    return results, timings


def losses(comparison: Comparison, groups: int) -> list[str]:
    """Who loses by the merger: buyers in groups of equal size, the most price-sensitive first."""
    sensitivity = np.asarray(comparison.markets.sensitivity).ravel()
    mass = np.asarray(comparison.markets.mass).ravel()
    before, after = (case.surplus.ravel() for case in comparison.cases)
    order = np.argsort(-sensitivity, kind="stable")
    rank = np.empty(len(order))
    rank[order] = np.cumsum(mass[order]) - mass[order] / 2
    group = np.minimum((groups * rank / np.sum(mass)).astype(int), groups - 1)
    lines = ["  group  sensitivity    surplus     change   change"]
    for number in range(groups):
        own = group == number
        if own.any():
            mean = [np.average(x[own], weights=mass[own]) for x in (sensitivity, before, after)]
            change = mean[2] - mean[1]
            lines.append(
                f"  {number + 1:5d}{mean[0]:13.4f}{mean[1]:11.5f}{change:11.6f}"
                f"{100 * change / mean[1]:8.2f}%"
            )
    return lines


def _describe(result: Comparison, case: Case, checked: Equilibrium) -> list[str]:
    certificate = checked.certificate
    assert certificate is not None
    steps, markets = case.found.steps, len(case.prices)
    gains = certificate.deviation_gains
    share = np.asarray(gains / checked.outcome.payoffs)
    better = [
        f"  {result.names[t]}: firm {result.firms[i]} would gain {share[t, i]:.1%} of its profit"
        for t, i in zip(*np.nonzero(np.asarray(gains) > certificate.tolerance), strict=True)
    ]
    summary = (
        f"{result.demand.name}, {case.label}: {case.solved} of {markets} stationary, "
        f"{int(jnp.sum(checked.status == Status.certified))} certified; steps {int(steps.min())} "
        f"to {int(steps.max())}; prices differ from pyblp's by at most {case.difference:.1e}; "
        f"largest gain found {float(certificate.deviation_gains.max()):.1e}, largest curvature "
        f"{float(certificate.second_order.max()):.1e}"
    )
    return [summary, *better]


def _compare_kind(kind: str, demands: Sequence[Demand], options: Any) -> list[Row]:
    rows = []
    results, timings = compare(demands, 2 if options.quick else None)
    for result in results:
        far = int(np.sum(result.observed > result.demand.tolerance))
        print(
            f"{result.demand.name}: from scratch, {far} of {len(result.observed)} markets end "
            f"elsewhere than at the observed prices, by up to {result.observed.max():.2g}"
        )
        print(f"{result.demand.name}: who loses by the merger of firms {result.demand.merger}")
        print("\n".join(losses(result, 4 if result.demand.tastes else 1)), flush=True)
    for k, timing in enumerate(timings):
        cases = [result.cases[k] for result in results]
        begin = time.perf_counter()
        checked = [
            jax.block_until_ready(
                examine(result.games[k], case.found, options.starts, options.steps)
            )
            for result, case in zip(results, cases, strict=True)
        ]
        seconds = time.perf_counter() - begin
        for result, case, one in zip(results, cases, checked, strict=True):
            print("\n".join(_describe(result, case, one)), flush=True)
        count = sum(len(case.prices) for case in cases)
        certified = sum(int(jnp.sum(one.status == Status.certified)) for one in checked)
        rows.append(
            Row(
                f"{kind}, {timing.label}",
                count,
                timing.seconds,
                "pyblp, replace_endogenous, market by market",
                sum(case.peer_seconds for case in cases),
                certified / count,
                float(all(case.peer_converged for case in cases)),
                timing.compilation,
                count,
                f"certificates: {seconds:.1f} s with compilation; the peer's column: converged",
            )
        )
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    options = arguments("pricing", "Price equilibria of pyblp's data, against pyblp.")
    options.add_argument("--starts", type=int, default=2, help="random starts of the certificate")
    options.add_argument("--steps", type=int, default=50, help="steps from each of them")
    options = options.parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    kinds = (("plain logit", DEMANDS[:2]), ("random coefficients", DEMANDS[2:]))
    rows = []
    for kind, demands in kinds:
        rows += _compare_kind(kind, demands[1:] if options.quick else demands, options)
    print()
    report(rows, machine(["pyblp"]), options.json)


if __name__ == "__main__":
    main()
