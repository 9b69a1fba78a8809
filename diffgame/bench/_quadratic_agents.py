"""Generalized Nash games by number, stated in NumPy: concave quadratic payoffs, linear limits."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._bounds import Bound, curved, gain_bound
from ._suite import Answer, Game, Verdict

FAMILIES = ("three", "suppliers", "pull", "quadratic", "river", "common", "rationed")
# Which name of an array belongs to which family.
_MARKS = {
    "capacity": "three",
    "fall": "suppliers",
    "target": "pull",
    "total": "quadratic",
    "limit": "river",
    "common": "common",
    "served": "rationed",
}
# Asked for one common price per shared constraint; the others for prices of everybody's own.
COMMON_PRICES = ("quadratic", "river")
_AGENTS, _OWN, _FIRMS = 3, 2, 4

# Of what an agent can gain, in payoff, and of relative slopes; of constraints, in their units.
TOLERANCE, FEASIBLE = 1e-6, 1e-8
SCOPE = (
    "for concave payoffs and linear constraints a bound, not a search: by multipliers found by "
    "non-negative least squares from a second statement of the game, in NumPy; common prices: one "
    "set of multipliers for all agents"
)


def draw_agents(seed: int, game: int) -> Game:
    """The families in turn; published games with their number drawn, and two random ones."""
    rng = np.random.default_rng([seed, game])
    drawn = _draw(FAMILIES[game % len(FAMILIES)], rng)
    return {name: np.asarray(values, float) for name, values in drawn.items()}


def _draw(family: str, rng: np.random.Generator) -> dict[str, Any]:
    if family == "three":
        upper = np.array([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
        box = {"start": np.zeros((3, 2)), "lower": np.zeros((3, 2)), "upper": upper}
        return {"capacity": rng.uniform(0.5, 2.5, ()), **box}
    if family == "suppliers":
        return {"fall": rng.uniform(0.8, 1.5, ()), **_box(np.full(10, 53.5), 7.0, 100.0)}
    if family == "pull":
        return {"target": rng.uniform(5.0, 15.0, ()), **_box(np.zeros((2, 10)), -3.0, 3.0)}
    if family == "quadratic":
        n = _AGENTS * _OWN
        root = rng.normal(size=(_AGENTS, n, n))
        within = rng.uniform(-0.5, 0.5, n)
        rows = rng.normal(size=(3, n)) / 2
        rows = np.concatenate([rows, -rows])
        return {
            "curvature": root @ np.swapaxes(root, 1, 2) + 1e-3 * np.eye(n),
            "slope": 10 * rng.normal(size=(_AGENTS, n)),
            "rows": rows,
            # There is a point within all limits.
            "limits": rows @ within + rng.uniform(0.0, 1.0, len(rows)),
            "total": np.sum(within),
            **_box(np.zeros((_AGENTS, _OWN)), -1.0, 1.0),
        }
    if family == "river":
        return {"limit": rng.uniform(60.0, 140.0, 2), **_box(np.ones(3), 0.0, 200.0)}
    if family == "common":
        return {"common": rng.uniform(12.0, 18.0, ()), **_box(np.zeros(2), 0.0, 10.0)}
    reaction = np.diag(rng.uniform(1.0, 2.0, _FIRMS))
    reaction -= rng.uniform(0.0, 0.25, (_FIRMS, _FIRMS)) * (1 - np.eye(_FIRMS))
    base, cost = rng.uniform(1.0, 3.0, _FIRMS), rng.uniform(0.0, 0.5, _FIRMS)
    # What firms would sell without a limit, and a share of it that binds more often than not.
    own = np.diag(np.diagonal(reaction))
    prices = np.linalg.solve(reaction + own, base + own @ cost)
    return {
        "base": base,
        "reaction": reaction,
        "cost": cost,
        "served": rng.uniform(0.5, 1.1) * np.sum(base - reaction @ prices),
        **_box(np.full(_FIRMS, 3.0), 0.0, 10.0),
    }


def _box(start: np.ndarray, lower: float, upper: float) -> Game:
    return {
        "start": start,
        "lower": np.full(start.shape, lower),
        "upper": np.full(start.shape, upper),
    }


def family_of(names: Collection[str]) -> str:
    """Which family a game is of, by the names of its arrays."""
    return next(family for mark, family in _MARKS.items() if mark in names)


@dataclass(frozen=True)
class Agents:
    """Payoffs -x'Q_i x / 2 - c_i'x up to a constant, of the plain vector x of all decisions.

    - `curvature` [agents, n, n], symmetric; `slope` [agents, n].
    - Shared: rows @ x <= limits and equality_rows @ x = equality_limits. Bounds [n].
    - `owner` [n]: whose decision each is. `place` [n]: where it stands among the flat offers.
    """

    curvature: np.ndarray
    slope: np.ndarray
    rows: np.ndarray
    limits: np.ndarray
    equality_rows: np.ndarray
    equality_limits: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    owner: np.ndarray
    place: np.ndarray
    start: np.ndarray
    common_prices: bool

    @property
    def sizes(self) -> list[int]:
        """How many decisions each agent has."""
        return np.bincount(self.owner).tolist()

    def payoff_slopes(self, x: np.ndarray) -> np.ndarray:
        """Slope of everybody's payoff in its own decisions [n]."""
        all_slopes = -np.einsum("aij,j->ai", self.curvature, x) - self.slope
        return all_slopes[self.owner, np.arange(x.size)]

    def own_curvature(self) -> np.ndarray:
        """Minus everybody's second derivatives in its own decisions [n, n], 0 between agents."""
        same = self.owner[:, None] == self.owner
        return np.where(same, self.curvature[self.owner, np.arange(self.owner.size)], 0)

    def slope_scale(self, x: np.ndarray) -> float:
        """1 + the largest of the two parts that make up everybody's slopes."""
        n = np.arange(x.size)
        parts = np.einsum("aij,j->ai", self.curvature, x), self.slope
        return 1 + float(max(np.max(np.abs(part[self.owner, n])) for part in parts))

    def payoff(self, agent: int, x: np.ndarray) -> float:
        """One agent's payoff, up to its constant."""
        return float(-x @ self.curvature[agent] @ x / 2 - self.slope[agent] @ x)


def state_agents(game: Game) -> Agents:
    """The game in NumPy."""
    family = family_of(game)
    shape = game["start"].shape
    owner = np.repeat(np.arange(shape[0]), int(np.prod(shape[1:])))
    place = np.flatnonzero(game["upper"].ravel() > game["lower"].ravel())
    owner, n = owner[place], len(place)
    curvature, slope = np.zeros((shape[0], n, n)), np.zeros((shape[0], n))
    rows, limits = np.zeros((0, n)), np.zeros(0)
    equality_rows, equality_limits = np.zeros((0, n)), np.zeros(0)
    if family == "three":
        curvature[0, [0, 1], [0, 1]], slope[0, :2] = 2, [-2, 1]
        curvature[1, 2, 2], slope[1, 2] = 2, 0.6
        difference = np.array([-0.5, 0, -0.5, 1])
        curvature[2] = 2 * np.outer(difference, difference)
        rows, limits = np.array([[1.0, 0, 1, 1]]), game["capacity"][None]
    elif family == "suppliers":
        cost = n * (1 + np.arange(n) / 2)
        for agent in range(n):
            curvature[agent, agent] = curvature[agent, :, agent] = game["fall"]
            curvature[agent, agent, agent] = 2 * game["fall"]
            slope[agent, agent] = cost[agent] - 60 * n
    elif family == "pull":
        half = n // 2
        both = np.tile(np.eye(half), 2)
        curvature[:] = 2 * both.T @ both + 2 * np.eye(n)
        slope[1] = -2 * game["target"]
        rows, limits = np.stack([np.ones(n), -np.ones(n)]), np.full(2, 15.0)
    elif family == "quadratic":
        curvature, slope = game["curvature"], game["slope"]
        rows, limits = game["rows"], game["limits"]
        equality_rows, equality_limits = np.ones((1, n)), game["total"][None]
    elif family == "river":
        for agent, (cost, rise) in enumerate(((0.1, 0.01), (0.12, 0.05), (0.15, 0.01))):
            curvature[agent, agent] = curvature[agent, :, agent] = 0.01
            curvature[agent, agent, agent] = 2 * (0.01 + rise)
            slope[agent, agent] = cost - 3
        rows = np.array([[3.25, 1.25, 4.125], [2.2915, 1.5625, 2.8125]])
        limits = game["limit"]
    elif family == "common":
        curvature[0], slope[0, 0] = [[2, 8 / 3], [8 / 3, 0]], -34
        curvature[1], slope[1, 1] = [[0, 5 / 4], [5 / 4, 2]], -24.25
        rows, limits = np.ones((1, 2)), game["common"][None]
    else:
        reaction, cost, base = game["reaction"], game["cost"], game["base"]
        for agent in range(n):
            curvature[agent, agent] += reaction[agent]
            curvature[agent, :, agent] += reaction[agent]
            slope[agent] = -cost[agent] * reaction[agent]
            slope[agent, agent] -= base[agent]
        rows = -np.sum(reaction, axis=0)[None]
        limits = (game["served"] - np.sum(base))[None]
    lower, upper, start = (game[name].ravel()[place] for name in ("lower", "upper", "start"))
    return Agents(
        curvature,
        slope,
        rows,
        limits,
        equality_rows,
        equality_limits,
        lower,
        upper,
        owner,
        place,
        start,
        common_prices=family in COMMON_PRICES,
    )


def examine_agents(agents: Agents, x: np.ndarray) -> list[Bound]:
    """What each agent can gain alone at most; with common prices, all of them together.

    Together: the sum of everybody's gains from own deviations that are jointly feasible; with one
    set of multipliers it is zero exactly at equilibria with common prices.
    """
    n, slopes = len(x), agents.payoff_slopes(x)
    rows = np.concatenate([agents.rows, np.eye(n), -np.eye(n)])
    values = np.concatenate([agents.rows @ x - agents.limits, x - agents.upper, agents.lower - x])
    apart = agents.equality_rows @ x - agents.equality_limits
    groups = [agents.owner == agent for agent in range(agents.owner[-1] + 1)]
    if agents.common_prices:
        groups = [np.ones(n, bool)]
    return [
        gain_bound(
            slopes[own],
            rows[:, own],
            values,
            agents.equality_rows[:, own],
            apart,
            curved(agents.own_curvature()[np.ix_(own, own)]),
        )
        for own in groups
    ]


def judge_agents(game: Game, answer: Answer) -> Verdict:
    """Certified if nobody can gain more than TOLERANCE, no slope is left, constraints hold.

    Slopes of the Lagrangians count relative to the parts that they are made of.
    """
    offers = np.asarray(answer["offer"], float)
    if offers.shape != game["start"].shape or not np.all(np.isfinite(offers)):
        return Verdict(False, np.inf, "not one finite number for every decision")
    agents = state_agents(game)
    padding = np.delete(offers.ravel() - game["lower"].ravel(), agents.place)
    found = examine_agents(agents, offers.ravel()[agents.place])
    # NumPy's maximum is NaN if anything is; Python's may pass it over.
    violations = [np.max(np.abs(padding), initial=0.0), *(bound.violation for bound in found)]
    violation = float(np.max(violations))
    gain = float(np.max([bound.gain for bound in found]))
    slope = float(np.max([bound.residual for bound in found]))
    slope /= agents.slope_scale(offers.ravel()[agents.place])
    if not 0 <= violation <= FEASIBLE:
        return Verdict(False, max(gain, violation), "violates a constraint")
    gap = max(gain, slope)
    if not 0 <= gain <= TOLERANCE:
        return Verdict(False, gap, "an agent may gain")
    if not 0 <= slope <= TOLERANCE:
        return Verdict(False, gap, "not stationary")
    return Verdict(True, gap, "certified")
