"""What users get, found and bounded, against what providers know of them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ._degree import information_bits, likelihood_of
from ._market import Market
from ._search import MarketEquilibrium, MarketStatus, SearchResult, find_equilibria
from ._segment_bounds import InformationCertificates, information_certificates


@dataclasses.dataclass(frozen=True)
class PersonalizationCurve:
    """Users' utility against the information that providers have, one point per entry.

    - `likelihoods` [points][users, labels]: P(label | user) at each point.
    - `bits` [points]: mutual information between the user and her label.
    - `full_information` [users]; `worst`, `best` [points, users]: expected utility in the worst and
        the best equilibrium FOUND for the sum of users, each user counted once.
    - `worst_status`, `best_status` [points]: what is known about these equilibria.
    - `certificates`: bounds on the loss in any equilibrium, a point each.
    """

    likelihoods: tuple[Float[np.ndarray, "users _"], ...]
    bits: Float[np.ndarray, " points"]
    full_information: Float[np.ndarray, " users"]
    worst: Float[np.ndarray, "points users"]
    best: Float[np.ndarray, "points users"]
    worst_status: tuple[MarketStatus, ...]
    best_status: tuple[MarketStatus, ...]
    certificates: InformationCertificates

    def rows(self) -> list[dict[str, Any]]:
        """A table, one row per point in the order given: plain numbers and texts.

        `labels`: the partition, or how many noisy labels there are. Losses are against full
        information, summed over users; `certificate` bounds them.
        """
        full = float(self.full_information.sum())
        return [
            {
                "labels": _text(likelihood),
                "segments": likelihood.shape[1],
                "bits": float(self.bits[at]),
                "worst_utility": float(self.worst[at].sum()),
                "worst_loss": full - float(self.worst[at].sum()),
                "worst_status": self.worst_status[at].value,
                "best_utility": float(self.best[at].sum()),
                "best_loss": full - float(self.best[at].sum()),
                "best_status": self.best_status[at].value,
                "certificate": float(self.certificates.total[at]),
                "certificate_per_user": self.certificates.per_user[at].tolist(),
                "certificate_is_optimal": bool(self.certificates.certified[at]),
            }
            for at, likelihood in enumerate(self.likelihoods)
        ]


def _text(likelihood: Float[np.ndarray, "users labels"]) -> str:
    if np.all((likelihood == 0) | (likelihood == 1)):
        return " ".join(str(label) for label in np.argmax(likelihood, axis=1))
    return f"{likelihood.shape[1]} noisy labels"


@dataclasses.dataclass(frozen=True)
class _Ends:
    """Of one segment: the worst and the best equilibrium, values times share [users]."""

    worst: Float[np.ndarray, " users"]
    best: Float[np.ndarray, " users"]
    worst_status: MarketStatus
    best_status: MarketStatus


def _find_ends(market: Market, share: Float[np.ndarray, " users"], search: Callable) -> _Ends:
    members = np.flatnonzero(share)
    part = Market(
        market.prior,
        market.utility[members],
        market.objective[:, members],
        market.mass[members] * share[members],
    )
    found: SearchResult = search(part.anonymous())
    # Ranked as the certificate counts: by how often the user is in this segment, not by mass.
    found = dataclasses.replace(found, mass=share[members])

    def values(end: MarketEquilibrium) -> np.ndarray:
        result = np.zeros(len(share))
        result[members] = share[members] * end.user_values
        return result

    worst, best = found.worst(), found.best()
    return _Ends(values(worst), values(best), worst.status, best.status)


def _together(statuses: Sequence[MarketStatus]) -> MarketStatus:
    """Gains in separate segments add up: a profile is what its weakest part is."""
    order = (MarketStatus.exploitable, MarketStatus.local, MarketStatus.certified)
    return min(statuses, key=order.index)


def personalization_curve(
    market: Market,
    information: Sequence[Any],
    *,
    starts: int = 64,
    seed: int = 0,
    tolerance: float = 1e-6,
    search: Callable[..., SearchResult] = find_equilibria,
    progress: Callable[[str], None] = lambda text: None,
) -> PersonalizationCurve:
    """Worst and best equilibrium found, and the certificate, for each degree of personalization.

    A market is the sum of its segments, so each distinct segment is searched once, by itself, and
    the worst (best) of a partition is that of its segments together.

    **Arguments:** `information`: what providers know, each entry labels [users] or P(label | user)
    [users, labels], for instance `all_partitions(users)`, or a chain of `merge_by_distance`; the
    market's own observation does not matter. `starts`, `seed`, `tolerance`: of `find_equilibria`.
    `search`: another search for the equilibria of a segment, called as `find_equilibria` is.
    `progress`: called with a line of text before each segment and each stage.

    **Source:** docs/personalization.md. Needs float64.

    >>> import jax.numpy as jnp
    >>> from diffgame.market import Market, personalization_curve
    >>> u = jnp.stack([jnp.eye(2)] * 2)
    >>> market = Market(jnp.array([0.5, 0.5]), u, jnp.stack([u, -u]), jnp.ones(2))
    >>> (row,) = personalization_curve(market, [[0, 1]], starts=2).rows()
    >>> row["bits"], row["worst_status"], round(row["worst_utility"], 6)
    (1.0, 'certified', 2.0)
    """
    users = len(market.mass)
    tables = tuple(likelihood_of(entry, users) for entry in information)
    progress("worst-case certificates")
    certificates = information_certificates(market, tables)
    segments = list(dict.fromkeys(tuple(row) for table in tables for row in table.T))
    found = {}
    for number, segment in enumerate(segments, 1):
        title = f"segment {number} of {len(segments)}"
        progress(title)

        def search_part(part: Market, title: str = title) -> SearchResult:
            return search(
                part,
                starts=starts,
                seed=seed,
                tolerance=tolerance,
                progress=lambda text: progress(f"{title}: {text}"),
            )

        found[segment] = _find_ends(market, np.array(segment), search_part)
    ends = [[found[tuple(row)] for row in table.T] for table in tables]
    mass, utility = np.asarray(market.mass), np.asarray(market.utility)
    return PersonalizationCurve(
        tables,
        np.array([information_bits(mass, table) for table in tables]),
        utility.max(axis=1) @ np.asarray(market.prior),
        np.stack([np.sum([end.worst for end in point], axis=0) for point in ends]),
        np.stack([np.sum([end.best for end in point], axis=0) for point in ends]),
        tuple(_together([end.worst_status for end in point]) for point in ends),
        tuple(_together([end.best_status for end in point]) for point in ends),
        certificates,
    )
