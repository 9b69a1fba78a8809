"""What providers know of users: partitions into segments, noisy labels, and its size in bits."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ._market import Market

# Partitions of this many users are listed; one more and there are 678,570.
LISTED_USERS = 10
_SUM_TOLERANCE = 1e-9


def likelihood_of(information: Any, users: int) -> Float[np.ndarray, "users labels"]:
    """P(label | user) of segment labels [users], or of such a table, checked.

    Labels that nobody gets are left out; the others keep their order.
    """
    given = np.asarray(information)
    if given.ndim == 2:
        likelihood = _checked_likelihood(given, users)
    else:
        labels = _checked_labels(given, users)
        likelihood = (labels[:, None] == np.unique(labels)[None]) * 1.0
    return likelihood[:, likelihood.sum(axis=0) > 0]


def _checked_labels(labels: np.ndarray, users: int) -> np.ndarray:
    if labels.shape != (users,):
        raise ValueError(
            f"labels has shape {labels.shape}, but there are {users} users: give one integer per "
            "user, or a table of P(label | user) [users, labels]."
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are of type {labels.dtype}: give integers from 0.")
    if users and labels.min() < 0:
        raise ValueError(f"labels has {labels.min()}: give integers from 0.")
    return labels


def _checked_likelihood(likelihood: np.ndarray, users: int) -> np.ndarray:
    if len(likelihood) != users:
        raise ValueError(
            f"likelihood has shape {likelihood.shape}, but there are {users} users: give one row "
            "P(label | user) per user."
        )
    if likelihood.dtype.kind not in "fiu" or not np.all(np.isfinite(likelihood)):
        raise ValueError("likelihood has entries that are no finite numbers: give probabilities.")
    if likelihood.size and likelihood.min() < 0:
        raise ValueError(f"likelihood has {likelihood.min()}: give probabilities from 0 to 1.")
    off = np.abs(likelihood.sum(axis=1) - 1)
    if not np.all(off <= _SUM_TOLERANCE):
        row = int(np.argmax(off))
        raise ValueError(
            f"likelihood[{row}] sums to {likelihood[row].sum()}: rescale it to sum to 1."
        )
    return likelihood * 1.0


def _first_seen(labels: np.ndarray) -> Int[np.ndarray, " users"]:
    """The same partition with labels in the order in which they first appear."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse.ravel()]


def all_partitions(users: int) -> Int[np.ndarray, "partitions users"]:
    """Labels of all partitions of up to 10 users: 1, 2, 5, 15, 52, 203, ... (Bell numbers).

    From one segment to all apart, labels in the order in which they first appear.

    >>> from diffgame.market import all_partitions
    >>> all_partitions(3).tolist()
    [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [0, 1, 2]]
    """
    if not 1 <= users <= LISTED_USERS:
        raise ValueError(
            f"all_partitions: users is {users}; give 1 to {LISTED_USERS}, or merge users with "
            "merge_by_distance or merge_by_certificate."
        )
    rows = [(0,)]
    for _ in range(users - 1):
        rows = [(*row, label) for row in rows for label in range(max(row) + 2)]
    return np.array(rows)


def merge_chain(
    users: int,
    costs: Callable[[list[tuple[tuple[int, ...], tuple[int, ...]]]], list[float]],
) -> Int[np.ndarray, "users users"]:
    """Nested partitions: row s has s + 1 segments, from everybody together to all apart.

    From all apart, the two segments that cost least are merged, ties to the first pair. `costs` is
    asked for each pair of segments once, for many at a time.
    """
    segments = [(user,) for user in range(users)]
    known: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = {}
    chain = [np.arange(users)]
    while len(segments) > 1:
        pairs = list(itertools.combinations(segments, 2))
        new = [pair for pair in pairs if pair not in known]
        known.update(zip(new, costs(new), strict=True))
        left, right = min(pairs, key=known.__getitem__)
        merged = tuple(sorted(left + right))
        segments = sorted([merged, *(s for s in segments if s not in (left, right))])
        labels = np.zeros(users, int)
        for label, segment in enumerate(segments):
            labels[list(segment)] = label
        chain.append(labels)
    return np.stack(chain[::-1])


def _features(features: Any) -> Float[np.ndarray, "users features"]:
    table = np.asarray(features, float)
    if table.ndim < 2 or len(table) == 0:
        raise ValueError(f"features has shape {table.shape}: give a row of numbers per user.")
    if not np.all(np.isfinite(table)):
        raise ValueError("features has entries that are not finite: give finite numbers.")
    return table.reshape(len(table), -1)


def merge_by_distance(features: Any) -> Int[np.ndarray, "users users"]:
    """Nested partitions of users by their features [users, ...], or by their utilities.

    Row s has s + 1 segments: labels for `Market.observing`. Complete linkage: the two segments
    whose union has the smallest diameter are merged, where a diameter is the largest difference of
    two users in any feature. Units matter: scale the features first.

    >>> import numpy as np
    >>> from diffgame.market import merge_by_distance
    >>> merge_by_distance(np.array([[0.0], [5.0], [0.1], [5.3]])).tolist()
    [[0, 0, 0, 0], [0, 1, 0, 1], [0, 1, 0, 2], [0, 1, 2, 3]]
    """
    table = _features(features)
    distance = np.stack([np.max(np.abs(table - row[None]), axis=1) for row in table])

    def costs(pairs):
        # Segments are merged in the order of their diameters, so a union's is between its parts.
        return [float(distance[np.ix_(left, right)].max()) for left, right in pairs]

    return merge_chain(len(table), costs)


def threshold_labels(features: Any, cutoffs: Any) -> Int[np.ndarray, " users"]:
    """Labels of users by features [users, features] cut at `cutoffs` [features].

    Users share a label if every feature of theirs is on the same side of its cutoff (at or above
    it, or below); to cut a feature twice, give its column twice.

    >>> import numpy as np
    >>> from diffgame.market import threshold_labels
    >>> ages = np.array([[17.0], [40.0], [35.0], [12.0]])
    >>> threshold_labels(ages, [18.0]).tolist()
    [0, 1, 1, 0]
    """
    table, cuts = _features(features), np.asarray(cutoffs, float)
    if cuts.shape != table.shape[1:]:
        raise ValueError(
            f"cutoffs has shape {cuts.shape}, but there are {table.shape[1]} features: give one "
            "number per feature."
        )
    if not np.all(np.isfinite(cuts)):
        raise ValueError("cutoffs has entries that are not finite: give finite numbers.")
    _, inverse = np.unique(table >= cuts[None], axis=0, return_inverse=True)
    return _first_seen(inverse)


def noisy_labels(labels: Any, accuracy: float) -> Float[np.ndarray, "users labels"]:
    """P(label | user) when providers see a user's label with probability `accuracy` only.

    Otherwise they see one of the other labels, each as likely. With T labels, 1 is the partition
    itself and 1 / T says nothing at all.

    >>> from diffgame.market import noisy_labels
    >>> noisy_labels([0, 1, 1], 0.75).tolist()
    [[0.75, 0.25], [0.25, 0.75], [0.25, 0.75]]
    """
    if not 0 <= accuracy <= 1:
        raise ValueError(f"accuracy is {accuracy}; give a probability from 0 to 1.")
    true = likelihood_of(labels, len(labels))
    count = true.shape[1]
    wrong = (1 - accuracy) / max(count - 1, 1)
    return np.where(true == 1, accuracy if count > 1 else 1.0, wrong)


def information_bits(mass: Any, information: Any) -> float:
    """Bits that a label tells providers about who the user is (mutual information).

    **Arguments:** `mass` [users], taken as probabilities after division by its sum; `information`:
    labels [users], or P(label | user) [users, labels]. Anonymous is 0; personalized is the entropy
    of the masses; a partition is the entropy of the masses of its segments.

    >>> import numpy as np
    >>> from diffgame.market import information_bits
    >>> [information_bits(np.ones(4), labels) for labels in ([0] * 4, [0, 0, 1, 1], [0, 1, 2, 3])]
    [0.0, 1.0, 2.0]
    """
    weight = np.asarray(mass, float)
    if weight.ndim != 1 or not np.all(np.isfinite(weight) & (weight > 0)):
        raise ValueError(f"mass is {weight.tolist()}: give one positive number per user.")
    likelihood = likelihood_of(information, len(weight))
    share = weight / weight.sum()
    label = share @ likelihood
    ratio = likelihood / label[None]
    bits = np.einsum("j,jl,jl->", share, likelihood, np.log2(np.where(ratio > 0, ratio, 1)))
    return max(float(bits), 0.0)


def noisy_market(market: Market, likelihood: Any) -> Market:
    """The market whose providers see a random label of each user, drawn anew for each of her mass.

    User j with mass m becomes one user (j, label) of mass m P(label | j) per label that she may
    get, in the order of `numpy.argwhere(likelihood > 0)`; providers see the label. All functions of
    markets apply, but each of the new users counts for one in sums that are not weighted by mass:
    `information_certificates` and `personalization_curve` weigh them by P(label | j).

    >>> import jax.numpy as jnp
    >>> from diffgame.market import Market, noisy_labels, noisy_market
    >>> market = Market(jnp.ones(1), jnp.ones((2, 1, 1)), jnp.ones((1, 2, 1, 1)), jnp.ones(2))
    >>> print(noisy_market(market, noisy_labels([0, 1], 0.75)).mass)
    [0.75 0.25 0.25 0.75]
    """
    table = likelihood_of(likelihood, len(market.mass))
    user, label = np.nonzero(table)
    return Market(
        market.prior,
        market.utility[user],
        market.objective[:, user],
        market.mass[user] * table[user, label],
        label,
        observations=table.shape[1],
        messages=market.messages,
    )
