"""A game of offers in a box stated a second time, in NumPy: for its check and for SciPy."""

import abc

import numpy as np

from ._suite import Answer, Game, Verdict
from ._unilateral import examine

# Of gains, in units of payoff, and of slopes, in payoff per unit of offer.
TOLERANCE = 1e-6


class Statement(abc.ABC):
    """Who plays for what: offers [providers, own], each within finite bounds.

    - `start`, `lower`, `upper` [providers, own].
    """

    def __init__(self, game: Game):
        self.start = rows(game["start"])
        self.lower = rows(game["lower"])
        self.upper = rows(game["upper"])

    @abc.abstractmethod
    def payoff(self, offers: np.ndarray, provider: int, trials: np.ndarray) -> np.ndarray:
        """What `provider` earns [trials] with each of `trials` [trials, own].

        The others stay at `offers`.
        """

    @abc.abstractmethod
    def slopes(self, offers: np.ndarray) -> np.ndarray:
        """Derivative of each provider's payoff in its own offer [providers, own]."""

    def residual(self, offers: np.ndarray) -> np.ndarray:
        """The natural residual x - clip(x + slopes): zero where nobody gains by a small move."""
        return offers - np.clip(offers + self.slopes(offers), self.lower, self.upper)


def rows(offers: np.ndarray) -> np.ndarray:
    """Offers with an axis for each provider's own numbers."""
    offers = np.asarray(offers, float)
    return offers.reshape(offers.shape[0], -1)


def offer_shape(game: Game) -> dict[str, tuple[int, ...]]:
    """An answer is one offer per provider, of the shape of the start."""
    return {"offer": game["start"].shape}


def judge(statement: Statement, answer: Answer) -> Verdict:
    """Certified if no provider was found to gain more than TOLERANCE, nor to have a slope of it.

    The gap is the larger of both; infinite outside the bounds.
    """
    offers = rows(answer["offer"])
    if offers.shape != statement.start.shape or not np.all(np.isfinite(offers)):
        return Verdict(False, np.inf, "not one finite number for every offer")
    gain, slope = examine(
        lambda provider, trials: statement.payoff(offers, provider, trials),
        offers,
        statement.lower,
        statement.upper,
    )
    gap = gain if gain >= slope or np.isnan(gain) else slope
    if not np.isfinite(gap):
        return Verdict(False, np.inf, "outside the bounds, or a payoff is not finite")
    if 0 <= gap <= TOLERANCE:
        return Verdict(True, gap, "certified")
    if gain > TOLERANCE:
        return Verdict(False, gap, "a provider gains alone")
    return Verdict(False, gap, "not stationary")
