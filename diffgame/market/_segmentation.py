"""Segmentations that keep users safe: greedy merging, and the coarsest within a stated loss."""

import dataclasses
import enum
import itertools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from ._degree import all_partitions, information_bits, merge_chain
from ._market import Market
from ._segment_bounds import certify_segments, information_certificates

# Up to this many users the coarsest segmentation is found among all.
EXACT_USERS = 8
# A bound may exceed a stated loss by this share of the summed ranges of utilities.
_WITHIN = 1e-8


def _rows(segments: Sequence[Sequence[int]], users: int) -> Float[np.ndarray, "segments users"]:
    share = np.zeros((len(segments), users))
    for row, segment in zip(share, segments, strict=True):
        row[list(segment)] = 1
    return share


def _range_sum(market: Market) -> float:
    utility = np.asarray(market.utility)
    return float(np.sum(utility.max(axis=(1, 2)) - utility.min(axis=(1, 2))))


def merge_by_certificate(market: Market) -> Int[np.ndarray, "users users"]:
    """Nested partitions by greedy merging: always the two segments whose union costs least.

    Row s has s + 1 segments: labels for `Market.observing`. The cost is the rise of the worst-case
    certificate of the sum of all losses; rises within 1e-8 of the summed ranges of utilities are
    equal, and the first pair is taken. At most users^2 segments are solved.

    >>> import jax.numpy as jnp
    >>> from diffgame.market import Market, merge_by_certificate
    >>> u = jnp.stack([jnp.eye(2), 1 - jnp.eye(2)])
    >>> market = Market(jnp.array([0.5, 0.5]), u, jnp.stack([u, u]), jnp.ones(2))
    >>> merge_by_certificate(market).tolist()
    [[0, 0], [0, 1]]
    """
    users, unit = len(market.mass), _WITHIN * max(_range_sum(market), np.finfo(float).tiny)
    alone = certify_segments(market, np.eye(users)).total
    bound = {(user,): float(alone[user]) for user in range(users)}

    def costs(pairs):
        unions = [tuple(sorted(left + right)) for left, right in pairs]
        bound.update(zip(unions, certify_segments(market, _rows(unions, users)).total, strict=True))
        rises = [
            bound[union] - bound[left] - bound[right]
            for union, (left, right) in zip(unions, pairs, strict=True)
        ]
        return [float(np.round(rise / unit)) for rise in rises]

    return merge_chain(users, costs)


class SegmentationStatus(enum.StrEnum):
    """What is known about a segmentation that was asked to stay within a loss."""

    coarsest = "coarsest"
    """Within the loss; proved over all partitions that none within it has fewer segments, or as
    many and fewer bits."""
    unproved = "unproved"
    """Within the loss; coarser ones are left out by bounds that are not certified optima."""
    greedy = "greedy"
    """Within the loss, found by greedy merging: coarser ones may be within it too."""
    impossible = "impossible"
    """Not even the personalized bound, which is the lowest, is within the loss."""


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """A segmentation: `labels` [users] for `Market.observing`, its size, and its certificate.

    - `loss`: no equilibrium under it loses users more in sum, in units of utility.
    - `bits`: what providers learn of who a user is. `status`: see `SegmentationStatus`; if
        impossible, the labels are those of all users apart.
    """

    labels: Int[np.ndarray, " users"]
    status: SegmentationStatus
    segments: int
    bits: float
    loss: float


def _segmentation(market: Market, labels: np.ndarray, status, loss: float) -> Segmentation:
    bits = information_bits(np.asarray(market.mass), labels)
    return Segmentation(labels, status, len(np.unique(labels)), bits, float(loss))


def coarsest_segmentation(market: Market, loss: float) -> Segmentation:
    """The segmentation that tells providers least with the worst-case certificate within `loss`.

    Least: fewest segments, then fewest bits, then the first in the order of `all_partitions`.
    Exact over all partitions up to 8 users; beyond, the coarsest in the chain of
    `merge_by_certificate`, with status greedy. A bound counts as within the loss up to 1e-8 of the
    summed ranges of utilities.

    **Arguments:** `loss`: of the sum of all users against full information, in units of utility,
    not weighted by mass. ValueError unless it is finite and at least 0.

    **Source:** docs/personalization.md.

    >>> import jax.numpy as jnp
    >>> from diffgame.market import Market, coarsest_segmentation
    >>> u = jnp.stack([jnp.eye(2), 1 - jnp.eye(2)])  # users who want opposite actions
    >>> U = jnp.stack([jnp.stack([u[0]] * 2), jnp.stack([u[1]] * 2)])  # a provider for each
    >>> market = Market(jnp.array([0.5, 0.5]), u, U, jnp.ones(2))
    >>> [coarsest_segmentation(market, loss).labels.tolist() for loss in (1.0, 0.9)]
    [[0, 0], [0, 1]]
    """
    if not (math.isfinite(loss) and loss >= 0):
        raise ValueError(f"loss is {loss}; give a finite number of at least 0.")
    users = len(market.mass)
    allowed = loss + _WITHIN * _range_sum(market)
    if users > EXACT_USERS:
        chain = merge_by_certificate(market)
        bounds = information_certificates(market, list(chain)).total
        within = np.flatnonzero(bounds <= allowed)
        at = int(within[0]) if len(within) else users - 1
        status = SegmentationStatus.greedy if len(within) else SegmentationStatus.impossible
        return _segmentation(market, chain[at], status, bounds[at])
    bound, floor = _bound_segments(market, allowed)
    partitions = all_partitions(users)
    blocks = [(partitions == label) @ (1 << np.arange(users)) for label in range(users)]
    bounds, floors = (sets[np.stack(blocks, axis=1)].sum(axis=1) for sets in (bound, floor))
    mass = np.asarray(market.mass)
    if not np.any(bounds <= allowed):
        return _segmentation(market, partitions[-1], SegmentationStatus.impossible, bounds[-1])
    within = _least(partitions[bounds <= allowed], mass)
    # Equal, unless some partition is left out by a bound that is not the optimum of its program.
    proved = np.array_equal(within, _least(partitions[floors <= allowed], mass))
    status = SegmentationStatus.coarsest if proved else SegmentationStatus.unproved
    at = int(np.flatnonzero(np.all(partitions == within[None], axis=1))[0])
    return _segmentation(market, within, status, bounds[at])


def _least(
    partitions: Int[np.ndarray, "partitions users"], mass: Float[np.ndarray, " users"]
) -> Int[np.ndarray, " users"]:
    """Of some partitions the one with fewest segments, then fewest bits, then the first."""
    count = partitions.max(axis=1)
    fewest = partitions[count == count.min()]
    return min(fewest, key=lambda labels: round(information_bits(mass, labels), 12))


def _bound_segments(
    market: Market, allowed: float
) -> tuple[Float[np.ndarray, " sets"], Float[np.ndarray, " sets"]]:
    """Bounds of all sets of users, and what the optima of their programs are at least.

    The index of a set has its users' bits; infinite where a set cannot matter. Adding users to a
    segment raises its optimum by no less than theirs alone: a set that exceeds what is `allowed`
    when everybody else is apart needs no superset to be solved.
    """
    users = len(market.mass)
    found = certify_segments(market, np.eye(users))
    alone = np.where(found.certified, found.total, 0)
    bound, floor = np.full(2**users, np.inf), np.full(2**users, np.inf)
    bound[0] = floor[0] = 0
    bound[1 << np.arange(users)], floor[1 << np.arange(users)] = found.total, alone
    kept = {(user,) for user in range(users)} if alone.sum() <= allowed else set()
    for size in range(2, users + 1):
        sets = [
            members
            for members in itertools.combinations(range(users), size)
            if all(smaller in kept for smaller in itertools.combinations(members, size - 1))
        ]
        if not sets:
            break
        found = certify_segments(market, _rows(sets, users))
        kept = set()
        for members, total, certified in zip(sets, found.total, found.certified, strict=True):
            least = total if certified else alone[list(members)].sum()
            index = sum(1 << user for user in members)
            bound[index], floor[index] = total, least
            if least + np.delete(alone, members).sum() <= allowed:
                kept.add(members)
    return bound, floor
