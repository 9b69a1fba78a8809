"""Competition in prices and quantities: games by number, stated in NumPy."""

import itertools
from collections.abc import Collection
from typing import Any

import numpy as np

from ._statement import Statement, rows
from ._suite import Game

FAMILIES = ("logit", "products", "linear", "cournot")
_FIRMS, _SLOTS, _TYPES, _DRAWS, _SELLERS = 4, 2, 3, 30, 5


def draw_prices(seed: int, game: int) -> Game:
    """The families in turn; numbers uniform on the ranges seen here, in units of price."""
    rng = np.random.default_rng([seed, game])
    drawn = _draw(FAMILIES[game % len(FAMILIES)], rng)
    return {name: np.asarray(values, float) for name, values in drawn.items()}


def _draw(family: str, rng: np.random.Generator) -> dict[str, Any]:
    if family == "logit":
        cost, quality = rng.uniform(0.5, 1.5, _FIRMS), rng.uniform(0.0, 3.0, _FIRMS)
        return {
            "cost": cost,
            "quality": quality,
            "sensitivity": rng.uniform(0.7, 1.5, _TYPES),
            "mass": rng.dirichlet(np.full(_TYPES, 2.0)),
            **_box(cost + 1, 0.0, 15.0),
        }
    if family == "products":
        firms = _FIRMS - 1
        cost = rng.uniform(0.5, 1.5, (firms, _SLOTS))
        mean = rng.uniform(0.0, 3.0, (firms, _SLOTS))
        character = rng.normal(size=(firms, _SLOTS))
        taste = rng.normal(size=_DRAWS)
        return {
            "cost": cost,
            "tastes": mean + 0.7 * taste[:, None, None] * character,
            "sensitivity": np.exp(0.3 * rng.normal(size=_DRAWS)),
            "mass": np.full(_DRAWS, 1 / _DRAWS),
            **_box(cost + 1, 0.0, 15.0),
        }
    if family == "linear":
        cross = np.triu(rng.uniform(0.2, 0.5, (_FIRMS, _FIRMS)), 1)
        cost = rng.uniform(0.0, 0.4, _FIRMS)
        return {
            "cost": cost,
            "substitution": cross + cross.T + np.diag(rng.uniform(0.8, 1.2, _FIRMS)),
            "wants": rng.uniform(1.6, 2.4, (_TYPES, _FIRMS)),
            "mass": rng.dirichlet(np.full(_TYPES, 2.0)),
            **_box(cost + 0.2, 0.0, 4.0),
        }
    return {
        "cost": rng.uniform(0.0, 0.6, _SELLERS),
        "willingness": rng.uniform(0.7, 1.3, _TYPES),
        "mass": rng.dirichlet(np.full(_TYPES, 2.0)),
        "slope": rng.uniform(0.5, 2.0, ()),
        # Some sellers are too dear to sell: their bound of 0 binds.
        **_box(np.full(_SELLERS, 0.1), 0.0, 3.0),
    }


def _box(start: np.ndarray, lower: float, upper: float) -> Game:
    return {
        "start": start,
        "lower": np.full(start.shape, lower),
        "upper": np.full(start.shape, upper),
    }


def family_of(names: Collection[str]) -> str:
    """Which family a game is of, by the names of its arrays."""
    for name, family in (("quality", "logit"), ("tastes", "products"), ("wants", "linear")):
        if name in names:
            return family
    return "cournot"


def state_prices(game: Game) -> Statement:
    """The game in NumPy."""
    family = family_of(game)
    if family == "linear":
        return LinearDemand(game)
    return Quantities(game) if family == "cournot" else LogitDemand(game)


class LogitDemand(Statement):
    """Buyers of type u take product j with probability proportional to exp(quality - s_u p_j)."""

    def __init__(self, game: Game):
        super().__init__(game)
        self._cost = rows(game["cost"])
        self._sensitivity, self._mass = game["sensitivity"], game["mass"]
        quality = game["tastes"] if "tastes" in game else game["quality"]
        quality = np.asarray(quality).reshape(-1, *self._cost.shape)
        self._quality = np.broadcast_to(quality, (len(self._mass), *self._cost.shape))

    def _shares(self, prices: np.ndarray) -> np.ndarray:
        """Of prices [trials, providers, own]: [trials, users, providers, own]."""
        value = self._quality - self._sensitivity[:, None, None] * prices[:, None]
        top = np.maximum(np.max(value, axis=(2, 3), keepdims=True), 0)
        weight = np.exp(value - top)
        return weight / (np.exp(-top) + np.sum(weight, axis=(2, 3), keepdims=True))

    def payoff(self, offers: np.ndarray, provider: int, trials: np.ndarray) -> np.ndarray:
        prices = np.repeat(offers[None], len(trials), axis=0)
        prices[:, provider] = trials
        sales = np.einsum("u,tuj->tj", self._mass, self._shares(prices)[:, :, provider])
        return np.sum((trials - self._cost[provider]) * sales, axis=1)

    def slopes(self, offers: np.ndarray) -> np.ndarray:
        shares, markup = self._shares(offers[None])[0], offers - self._cost
        earned = np.sum(markup * shares, axis=2, keepdims=True)
        own = shares - self._sensitivity[:, None, None] * shares * (markup - earned)
        return np.einsum("u,upj->pj", self._mass, own)


class LinearDemand(Statement):
    """Buyers of type u take q >= 0 that maximises a_u q - q B q / 2 - p q."""

    def __init__(self, game: Game):
        super().__init__(game)
        self._cost, self._mass = game["cost"], game["mass"]
        self._wants, self._matrix = game["wants"], game["substitution"]
        count = len(self._cost)
        self._bought = np.array(list(itertools.product([False, True], repeat=count)))
        self._inverses = np.zeros((len(self._bought), count, count))
        for inverse, bought in zip(self._inverses, self._bought, strict=True):
            inverse[np.ix_(bought, bought)] = np.linalg.inv(self._matrix[np.ix_(bought, bought)])

    def _demand(self, prices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of prices [trials, n]: quantities [trials, users, n], and which set is bought."""
        net = self._wants - prices[:, None]
        quantities = np.einsum("sij,tuj->stui", self._inverses, net)
        left = net - quantities @ self._matrix
        bought = self._bought[:, None, None]
        wrong = np.max(np.where(bought, -quantities, left), axis=-1)
        chosen = np.argmin(wrong, axis=0)
        picked = np.take_along_axis(quantities, chosen[None, ..., None], axis=0)[0]
        return picked, chosen

    def payoff(self, offers: np.ndarray, provider: int, trials: np.ndarray) -> np.ndarray:
        prices = np.repeat(offers[:, 0][None], len(trials), axis=0)
        prices[:, provider] = trials[:, 0]
        quantities, _ = self._demand(prices)
        return (trials[:, 0] - self._cost[provider]) * (quantities[:, :, provider] @ self._mass)

    def slopes(self, offers: np.ndarray) -> np.ndarray:
        quantities, chosen = self._demand(offers[:, 0][None])
        own = np.diagonal(self._inverses[chosen[0]], axis1=1, axis2=2)
        return (self._mass @ (quantities[0] - (offers[:, 0] - self._cost) * own))[:, None]


class Quantities(Statement):
    """Sellers of one good bring quantities to market, which clears at one price."""

    def __init__(self, game: Game):
        super().__init__(game)
        self._buyers = np.sum(game["mass"])
        self._margin = game["mass"] @ game["willingness"] / self._buyers - game["cost"]
        self._slope = game["slope"]

    def payoff(self, offers: np.ndarray, provider: int, trials: np.ndarray) -> np.ndarray:
        others = np.sum(offers) - offers[provider, 0]
        margin = self._margin[provider] - self._slope * (others + trials[:, 0])
        return self._buyers * margin * trials[:, 0]

    def slopes(self, offers: np.ndarray) -> np.ndarray:
        margin = self._margin - self._slope * (np.sum(offers) + offers[:, 0])
        return self._buyers * margin[:, None]
