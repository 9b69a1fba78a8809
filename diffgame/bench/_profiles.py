"""Performance profiles (Dolan, Moré 2002): shares of games solved within a factor of the best."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ._rows import Row


def performance_ratios(
    costs: Float[np.ndarray, "games solvers"],
) -> Float[np.ndarray, "games solvers"]:
    """Each solver's cost of a game over the least cost of any; inf where it is not solved.

    **Arguments:** `costs`: positive; inf where the solver did not solve the game. A game that
    nobody solved has inf throughout.

    **Source:** Dolan, Moré (2002), Benchmarking optimization software with performance profiles,
    section 2.

    >>> print(performance_ratios(np.array([[1.0, 2.0], [np.inf, 3.0], [np.inf, np.inf]])))
    [[ 1.  2.]
     [inf  1.]
     [inf inf]]
    """
    best = np.min(costs, axis=1, keepdims=True)
    solved = np.isfinite(costs)
    return np.where(solved, costs / np.where(np.isfinite(best), best, 1.0), np.inf)


def profile_curve(
    ratios: Float[np.ndarray, " games"],
) -> tuple[Float[np.ndarray, " jumps"], Float[np.ndarray, " jumps"]]:
    """The profile of one solver as a step function: where it jumps, and its value from there on.

    rho(tau) is the share of all games with a ratio of at most tau. The first jump is at 1.

    >>> taus, shares = profile_curve(np.array([1.0, 4.0, np.inf, 1.0]))
    >>> print(taus, shares)
    [1. 4.] [0.5  0.75]
    """
    finite = ratios[np.isfinite(ratios)]
    taus = np.unique(np.append(finite, 1.0))
    return taus, np.sum(finite[None, :] <= taus[:, None], axis=1) / len(ratios)


@dataclass(frozen=True)
class Profile:
    """The curves of some solvers for one measure, by solver; `measure` is the axis' words."""

    measure: str
    curves: dict[str, tuple[np.ndarray, np.ndarray]]

    def share_at(self, solver: str, tau: float) -> float:
        """rho(tau) of a solver."""
        taus, shares = self.curves[solver]
        return float(shares[np.searchsorted(taus, tau, side="right") - 1])


def profile_of(rows: Sequence[Row], solvers: Sequence[str], measure: str, what: str) -> Profile:
    """Profiles over all games in the rows. `measure`: the column, "seconds" or "steps".

    A game counts as solved only if its answer is certified. A cost of 0 steps counts as 1.
    """
    games = {place: n for n, place in enumerate(sorted({(row.seed, row.game) for row in rows}))}
    places = {solver: n for n, solver in enumerate(solvers)}
    costs = np.full((len(games), len(solvers)), np.inf)
    for row in rows:
        value = getattr(row, measure)
        if row.solver in places and row.certified and value is not None:
            cost = max(value, 1.0) if measure == "steps" else value
            costs[games[row.seed, row.game], places[row.solver]] = cost
    ratios = performance_ratios(costs)
    return Profile(what, {name: profile_curve(ratios[:, n]) for name, n in places.items()})
