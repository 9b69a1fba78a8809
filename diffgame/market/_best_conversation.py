"""What a conversation of limited length and vocabulary can be worth to users at best."""

import numpy as np
from jaxtyping import Float

# Pairs of nested sets of types or states that the recursion may visit in one round.
_MOST_WORK = 2 * 10**7


def _best_parts(
    worth: Float[np.ndarray, "sets others"], parts: int
) -> Float[np.ndarray, "sets others"]:
    """For each set (a bit mask): the largest sum over at most `parts` sets that partition it."""
    sets = len(worth)
    elements = sets.bit_length() - 1
    best = worth
    for _ in range(min(parts, elements) - 1):
        finer = best.copy()
        for whole in range(1, sets):
            # The first part has the lowest element: each partition is met once.
            rest = whole & (whole - 1)
            left = np.array(_subsets(rest))
            split = worth[whole ^ left] + best[left]
            finer[whole] = np.maximum(finer[whole], split.max(axis=0))
        best = finer
    return best


def _subsets(whole: int) -> list[int]:
    found, part = [], whole
    while part:
        found.append(part)
        part = (part - 1) & whole
    return [*found, 0]


def best_conversation(
    joint: Float[np.ndarray, "types states"],
    utility: Float[np.ndarray, "types actions states"],
    *,
    rounds: int,
    user_messages: int,
    provider_messages: int,
) -> float:
    """The value of the best policy that a protocol allows, exactly.

    In each of `rounds` rounds the user says one of `user_messages` messages and the provider, who
    knows the state, answers one of `provider_messages`; then she acts. The policy is the best for
    her and she plays optimally. Exact for every number of rounds and messages: some best policy is
    deterministic, so that her message splits the set of types that are still possible and each
    answer splits the set of states; the recursion over both sets tries all splits.

    **Arguments:** `joint` [types, states]: probabilities of her private type and the state (one
    row without private information). Several users who share an anonymous policy: one row per
    pair (user, type), each weighted by what the sum shall weigh her by; the result is that sum.

    **Errors:** ValueError for protocols without rounds or messages, and where types and states are
    too many: 3^states 2^types + 2^states 3^types may not exceed 2e7.

    **Source:** docs/menus.md (best conversations).

    >>> import numpy as np
    >>> from diffgame.market import best_conversation
    >>> matching, thirds = np.eye(3)[None], np.full((1, 3), 1 / 3)
    >>> value = best_conversation(
    ...     thirds, matching, rounds=1, user_messages=1, provider_messages=2
    ... )
    >>> round(value, 6)
    0.666667
    """
    for field, number in {
        "rounds": rounds,
        "user_messages": user_messages,
        "provider_messages": provider_messages,
    }.items():
        if number < 1:
            raise ValueError(f"best_conversation: {field} is {number}; it must be at least 1.")
    types, _, states = utility.shape
    if joint.shape != (types, states):
        raise ValueError(
            f"best_conversation: joint has shape {joint.shape} where utility {utility.shape} asks "
            f"for {(types, states)}."
        )
    work = 3**states * 2**types + 2**states * 3**types
    if work > _MOST_WORK:
        raise ValueError(
            f"best_conversation: {types} types and {states} states make {work:.3g} nested sets "
            f"to compare; the limit is {_MOST_WORK:.0e}. Merge types or states."
        )
    member = (np.arange(2**states)[:, None] >> np.arange(states)) & 1
    expected = np.einsum("xs,xas,cs->xac", joint, utility, member)
    own = (np.arange(2**types)[:, None] >> np.arange(types)) & 1
    # value[g, c]: what the types in g get in all from acting on knowing that the state is in c.
    value = own @ expected.max(axis=1)
    for _ in range(rounds):
        answered = _best_parts(value.T, provider_messages).T
        longer = _best_parts(answered, user_messages)
        if np.array_equal(longer, value):
            break
        value = longer
    return float(value[-1, -1])
