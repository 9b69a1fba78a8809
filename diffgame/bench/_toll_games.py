"""Tolls and network effects: games by number, stated in NumPy."""

import abc
import itertools
from collections.abc import Collection
from typing import Any

import numpy as np

from ._statement import Statement
from ._suite import Game

FAMILIES = ("parallel", "shortcut", "noisy", "adoption")
_ROADS, _TYPES = 4, 3
_ITERATIONS, _ROUNDING = 100, 1e-15


def draw_tolls(seed: int, game: int) -> Game:
    """The families in turn; numbers uniform on the ranges seen here.

    One unit of travellers at a value of time of 1, so that tolls count in units of time. The last
    road of every network is free of toll.
    """
    rng = np.random.default_rng([seed, game])
    drawn = _draw(FAMILIES[game % len(FAMILIES)], rng)
    return {name: np.asarray(values, float) for name, values in drawn.items()}


def _draw(family: str, rng: np.random.Generator) -> dict[str, Any]:
    if family == "adoption":
        temperature = rng.uniform(0.3, 1.0, ())
        return {
            # Below 4 temperatures there is one crowd at every price.
            "effect": temperature * rng.uniform(0.5, 3.5),
            "values": rng.uniform(0.0, 2.0, _TYPES),
            "mass": rng.dirichlet(np.full(_TYPES, 2.0)),
            "cost": rng.uniform(0.0, 0.5, ()),
            "temperature": temperature,
            "start": np.ones(1),
            "lower": np.zeros(1),
            "upper": np.full(1, 10.0),
        }
    if family == "shortcut":
        # Two ways of two roads, a shortcut from the first road to the fourth, and a bypass.
        paths = np.array(
            [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [1, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 1]]
        )
        free = np.array([0.0, 0.6, 0.6, 0.0, 0.1, 1.2]) * rng.uniform(0.8, 1.2, 6)
        rate = np.array([1.0, 0.2, 0.2, 1.0, 0.2, 0.8]) * rng.uniform(0.8, 1.2, 6)
        tolled = np.eye(6)[[0, 3, 4]]
    else:
        paths, tolled = np.eye(_ROADS), np.eye(_ROADS)[:-1]
        free, rate = rng.uniform(0.0, 0.5, _ROADS), rng.uniform(0.5, 2.0, _ROADS)
        free[-1] += 0.5
    found: dict[str, Any] = {
        "paths": paths.astype(float),
        "free": free,
        "rate": rate,
        "tolled": tolled[:, None],
        "start": np.full((3, 1), 0.2),
        "lower": np.zeros((3, 1)),
        "upper": np.full((3, 1), 10.0),
    }
    if family == "noisy":
        found["power"] = rng.choice([1.0, 2.0, 4.0], _ROADS)
        found["temperature"] = rng.uniform(0.1, 0.5, ())
    return found


def family_of(names: Collection[str]) -> str:
    """Which family a game is of; both of exact travellers have the same arrays: "exact"."""
    if "effect" in names:
        return "adoption"
    return "noisy" if "power" in names else "exact"


def state_tolls(game: Game) -> Statement:
    """The game in NumPy."""
    kinds = {"adoption": Adopters, "noisy": NoisyRoads, "exact": Roads}
    return kinds[family_of(game)](game)


class _Tolls(Statement):
    """Flows on roads, and what tolls bring."""

    def __init__(self, game: Game):
        super().__init__(game)
        # A provider has one toll each; its road is where its row is 1.
        self._road = np.argmax(game["tolled"][:, 0], axis=1)
        self._paths, self._free, self._rate = game["paths"], game["free"], game["rate"]

    def _tolls(self, offers: np.ndarray) -> np.ndarray:
        """Of offers [trials, providers]: tolls [trials, roads]."""
        tolls = np.zeros((len(offers), len(self._free)))
        tolls[:, self._road] = offers
        return tolls

    @abc.abstractmethod
    def _flows(self, tolls: np.ndarray) -> np.ndarray:
        """Of tolls [trials, roads]: flows [trials, roads]."""

    def payoff(self, offers: np.ndarray, provider: int, trials: np.ndarray) -> np.ndarray:
        everyone = np.repeat(offers[:, 0][None], len(trials), axis=0)
        everyone[:, provider] = trials[:, 0]
        return trials[:, 0] * self._flows(self._tolls(everyone))[:, self._road[provider]]


class Roads(_Tolls):
    """Exact travellers on affine roads: on the paths they use nobody can save.

    The paths in use are found by trying all sets of them; flows are affine in tolls on each set.
    """

    def __init__(self, game: Game):
        super().__init__(game)
        count = len(self._paths)
        self._slopes = self._paths @ np.diag(self._rate) @ self._paths.T
        self._used = np.array(list(itertools.product([False, True], repeat=count))[1:])
        # Flows of paths: base - response @ costs of the empty network.
        self._response = np.zeros((len(self._used), count, count))
        self._base = np.zeros((len(self._used), count))
        for response, base, used in zip(self._response, self._base, self._used, strict=True):
            inverse = np.linalg.inv(self._slopes[np.ix_(used, used)])
            share = np.sum(inverse, axis=1) / np.sum(inverse)
            base[used] = share
            response[np.ix_(used, used)] = inverse - np.outer(share, np.sum(inverse, axis=0))

    def _used_paths(self, tolls: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        empty = (tolls + self._free) @ self._paths.T
        flows = self._base[:, None] - np.einsum("sij,tj->sti", self._response, empty)
        costs = empty + flows @ self._slopes
        used = self._used[:, None]
        least = np.min(np.where(used, costs, np.inf), axis=-1, keepdims=True)
        wrong = np.max(np.where(used, -flows, least - costs), axis=-1)
        chosen = np.argmin(wrong, axis=0)
        return np.take_along_axis(flows, chosen[None, :, None], axis=0)[0], chosen

    def _flows(self, tolls: np.ndarray) -> np.ndarray:
        return self._used_paths(tolls)[0] @ self._paths

    def slopes(self, offers: np.ndarray) -> np.ndarray:
        flows, chosen = self._used_paths(self._tolls(offers[:, 0][None]))
        drop = self._paths.T @ self._response[chosen[0]] @ self._paths
        own = np.diagonal(drop)[self._road]
        return ((flows[0] @ self._paths)[self._road] - offers[:, 0] * own)[:, None]


class NoisyRoads(_Tolls):
    """Travellers who take parallel roads with probabilities exp(-cost / temperature)."""

    def __init__(self, game: Game):
        super().__init__(game)
        self._power, self._temperature = game["power"], game["temperature"]

    def _at_level(self, level: np.ndarray, tolls: np.ndarray, logs: np.ndarray) -> np.ndarray:
        """Logs of flows where temperature * log flow + time + toll is the level.

        The left side is convex and increasing in the log, so that Newton's method never fails.
        """
        for _ in range(_ITERATIONS):
            flow = np.exp(logs)
            time = self._rate * flow**self._power
            excess = self._temperature * logs + self._free + time + tolls - level[:, None]
            step = excess / (self._temperature + self._power * time)
            logs = logs - step
            if np.all(np.abs(step) <= _ROUNDING * (1 + np.abs(logs))):
                break
        return logs

    def _flows(self, tolls: np.ndarray) -> np.ndarray:
        # At the lower level no road holds more than its share, at the upper none less.
        share = -np.log(len(self._free))
        even = self._temperature * share + self._free + self._rate * np.exp(share * self._power)
        low, high = np.min(even + tolls, axis=1), np.max(even + tolls, axis=1)
        level, logs = high, np.zeros_like(tolls)
        for _ in range(_ITERATIONS):
            logs = self._at_level(level, tolls, logs)
            flow = np.exp(logs)
            excess = np.sum(flow, axis=1) - 1
            high = np.where(excess >= 0, level, high)
            low = np.where(excess <= 0, level, low)
            step = excess / np.sum(self._gives(flow), axis=1)
            if np.all(np.abs(step) <= _ROUNDING * (1 + np.abs(level))):
                break
            newton = level - step
            inside = (newton > low) & (newton < high)
            level = np.where(inside, newton, (low + high) / 2)
        return np.exp(logs)

    def _gives(self, flow: np.ndarray) -> np.ndarray:
        """How a flow rises with the level."""
        steepness = self._power * self._rate * flow ** (self._power - 1)
        return 1 / (self._temperature / flow + steepness)

    def slopes(self, offers: np.ndarray) -> np.ndarray:
        flow = self._flows(self._tolls(offers[:, 0][None]))[0]
        gives = self._gives(flow)
        own = gives * (gives / np.sum(gives) - 1)
        return (flow[self._road] + offers[:, 0] * own[self._road])[:, None]


class Adopters(Statement):
    """One seller of a good that is worth more, the more have it; noisy buyers, one crowd."""

    def __init__(self, game: Game):
        super().__init__(game)
        self._effect, self._values, self._mass = game["effect"], game["values"], game["mass"]
        self._cost, self._temperature = game["cost"], game["temperature"]

    def _adopt(self, crowd: np.ndarray, price: np.ndarray) -> np.ndarray:
        gain = self._values + (self._effect * crowd - price)[:, None]
        return 1 / (1 + np.exp(-gain / self._temperature))

    def _crowd(self, price: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of prices [trials]: the crowd, and how much a price takes of it."""
        low, high = np.zeros(len(price)), np.full(len(price), np.sum(self._mass))
        for _ in range(_ITERATIONS):
            middle = (low + high) / 2
            more = self._adopt(middle, price) @ self._mass > middle
            low, high = np.where(more, middle, low), np.where(more, high, middle)
        crowd = (low + high) / 2
        adopt = self._adopt(crowd, price)
        spread = (adopt * (1 - adopt)) @ self._mass
        return crowd, spread / (self._temperature - self._effect * spread)

    def payoff(self, offers: np.ndarray, provider: int, trials: np.ndarray) -> np.ndarray:
        return (trials[:, 0] - self._cost) * self._crowd(trials[:, 0])[0]

    def slopes(self, offers: np.ndarray) -> np.ndarray:
        crowd, drop = self._crowd(offers[:, 0])
        return (crowd - (offers[:, 0] - self._cost) * drop)[:, None]
