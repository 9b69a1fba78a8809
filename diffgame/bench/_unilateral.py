"""What one provider could gain alone, searched in NumPy, without any of the solvers compared."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Payoffs [trials] of one provider at trials [trials, own] of its offer, the others staying.
Payoff = Callable[[int, np.ndarray], np.ndarray]

GRID, DRAWS, NEAR, CENTRES, ROUNDS, AROUND = 2001, 2048, 512, 4, 24, 24
# The step of one-sided slopes, relative to the width of the box: their error is of second order.
_STEP = 1e-6
# How far outside its bounds an offer may lie, relative to the width.
OUTSIDE = 1e-9

SCOPE = (
    f"local in the sense of a search: per provider {GRID} equally spaced offers (one number) or "
    f"{DRAWS} random ones, and {NEAR} near the answer, the best {CENTRES} refined; and one-sided "
    "slopes of the payoff at the answer; all from a second statement of the game, in NumPy"
)


class Examined(NamedTuple):
    """The most a provider was found to gain, and the steepest ascent open to one at the answer.

    - `gain`: in units of payoff, at least 0; `slope`: of payoff per unit of offer, at least 0.
    - Both are NaN if a payoff at the answer is, and infinite outside the bounds.
    """

    gain: float
    slope: float


def examine(
    payoff: Payoff, offers: np.ndarray, lower: np.ndarray, upper: np.ndarray, seed: int = 0
) -> Examined:
    """Search every provider's deviations from `offers` [providers, own] within finite bounds."""
    width = upper - lower
    if np.any(offers < lower - OUTSIDE * width) or np.any(offers > upper + OUTSIDE * width):
        return Examined(np.inf, np.inf)
    offers = np.clip(offers, lower, upper)
    rng = np.random.default_rng(seed)
    gains, slopes = [], []
    for provider, here in enumerate(offers):
        low, high = lower[provider], upper[provider]

        def value(trials, provider=provider):
            return payoff(provider, trials)

        present = float(value(here[None])[0])
        gains.append(_best(value, here, low, high, rng) - present)
        slopes.append(_steepest(value, here, low, high))
    worst = np.array([np.max(gains), np.max(slopes)])
    return Examined(*(float(number) for number in worst + 0.0))


def _best(
    value: Callable, here: np.ndarray, low: np.ndarray, high: np.ndarray, rng: np.random.Generator
) -> float:
    """The best payoff found, at least the present one; NaN if that one is not finite."""
    width = high - low
    if here.size == 1:
        far = low + np.linspace(0, 1, GRID)[:, None] * width
    else:
        far = low + rng.random((DRAWS, here.size)) * width
    scales = 10.0 ** rng.uniform(-7, 0, (NEAR, 1))
    near = here + scales * width * rng.uniform(-1, 1, (NEAR, here.size))
    points = np.clip(np.concatenate([here[None], far, near]), low, high)
    values = value(points)
    if not np.isfinite(values[0]):
        return np.nan
    # A payoff of NaN elsewhere is no gain; an infinite one is.
    order = np.argsort(-np.where(np.isnan(values), -np.inf, values))
    centres = points[_apart(points, order, 0.01 * width)]
    best = values[order[0]]
    radius = 0.02
    for _ in range(ROUNDS):
        steps = rng.uniform(-1, 1, (len(centres), AROUND, here.size)) * radius * width
        steps[:, 0] = 0
        trials = np.clip(centres[:, None] + steps, low, high)
        values = value(trials.reshape(-1, here.size)).reshape(trials.shape[:2])
        values = np.where(np.isnan(values), -np.inf, values)
        chosen = np.argmax(values, axis=1)
        centres = trials[np.arange(len(centres)), chosen]
        best = max(best, float(np.max(values)))
        radius *= 0.6
    return float(best)


def _apart(points: np.ndarray, order: np.ndarray, distance: np.ndarray) -> list[int]:
    """The best points that are not near each other."""
    kept: list[int] = []
    for index in order[:512]:
        if all(np.any(np.abs(points[index] - points[other]) > distance) for other in kept):
            kept.append(int(index))
        if len(kept) == CENTRES:
            break
    return kept


def _steepest(value: Callable, here: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """The largest one-sided slope along a coordinate, on the sides that the bounds leave open."""
    width, slopes = high - low, [0.0]
    for coordinate in range(here.size):
        step = _STEP * width[coordinate]
        for way in (step, -step):
            trials = np.repeat(here[None], 3, axis=0)
            trials[:, coordinate] += way * np.arange(3)
            if np.any(trials[2] < low) or np.any(trials[2] > high):
                continue
            first, second, third = value(trials)
            slopes.append((-3 * first + 4 * second - third) / (2 * step))
    return float(np.max(slopes))
