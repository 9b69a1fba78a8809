"""What exact users may do in a conversation of few messages: joint plans, each kind once.

A joint plan says what each of some pairs (user, type) asks after each history that it can meet, and
what it does at the end. Messages have no meaning of their own, so a plan counts up to their names,
and plans that another one serves as well are left out (docs/protocols.md, Proposition 2).

Plans are tables `[pairs, leaves]` over the leaves c_1 m_1 ... c_R m_R of the tree, the last message
changing fastest: the action of the pair there, or `OFF` where its plan does not lead.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int

from ._tree import Protocol

OFF = -1
# Actions of one pair, as indices; one entry per pair.
Actions = Sequence[Sequence[int]]


def _power(base: int, exponent: int, most: int) -> int:
    """`base ** exponent`, or `most` if that is less."""
    return min(base ** min(exponent, most.bit_length()), most)


def one_experiment(protocol: Protocol, actions: Actions) -> Protocol:
    """A protocol of one round: she picks a branch first, and all answers together are one message.

    No more branches than pairs, no more messages than their actions tell apart.
    """
    pairs = len(actions)
    branches = min(protocol.user_messages, pairs)
    alone = max(len(own) for own in actions)
    kinds = alone if branches == pairs else math.prod(len(own) for own in actions)
    return Protocol(1, branches, _power(protocol.provider_messages, protocol.rounds, kinds))


def shortened(protocol: Protocol, actions: Actions) -> Protocol:
    """A protocol worth as much to everybody, with no message or round too many.

    Where each pair may have a branch of its own, or all share one, that is `one_experiment`.

    >>> shortened(Protocol(3, 5, 2), [(0, 1, 2), (0, 1, 2)])
    Protocol(rounds=1, user_messages=2, provider_messages=3)
    """
    branches = min(protocol.user_messages, len(actions))
    if branches in (1, len(actions)):
        return one_experiment(protocol, actions)
    profiles = math.prod(len(own) for own in actions)
    return Protocol(protocol.rounds, branches, min(protocol.provider_messages, profiles))


def _partitions(items: tuple[int, ...], parts: int) -> Iterator[list[tuple[int, ...]]]:
    """All ways to split `items` into `parts` nonempty sets, in no order."""
    if parts == 0 or len(items) < parts:
        if not items and not parts:
            yield []
        return
    first, rest = items[0], items[1:]
    for split in _partitions(rest, parts - 1):
        yield [(first,), *split]
    for split in _partitions(rest, parts):
        for k in range(parts):
            yield [*split[:k], (first, *split[k]), *split[k + 1 :]]


def _flat(protocol: Protocol, pairs: tuple[int, ...]) -> bool:
    """Whether what follows a question of these pairs is a single experiment."""
    return len(pairs) == 1 or protocol.user_messages == 1


def _kinds(protocol: Protocol, actions: Actions, pairs: tuple[int, ...], rounds: int) -> int:
    """How many joint plans `pairs` have with that many rounds to go."""
    if rounds == 0:
        return math.prod(len(actions[t]) for t in pairs)
    parts = min(protocol.user_messages, len(pairs))
    return sum(
        math.prod(_answered(protocol, actions, part, rounds) for part in split)
        for split in _partitions(pairs, parts)
    )


def _answered(protocol: Protocol, actions: Actions, pairs: tuple[int, ...], rounds: int) -> int:
    """The same once they have asked, all the same question."""
    messages = protocol.provider_messages
    if _flat(protocol, pairs):
        kinds = math.prod(len(actions[t]) for t in pairs)
        return math.comb(kinds, _power(messages, rounds, kinds))
    kinds = _kinds(protocol, actions, pairs, rounds - 1)
    return math.comb(kinds, min(messages, kinds))


def count_plans(protocol: Protocol, actions: Actions) -> int:
    """How many tables `joint_plans` yields for all the pairs.

    >>> count_plans(Protocol(2, 2, 2), [(0, 1, 2)] * 3)
    108
    """
    return _kinds(protocol, actions, tuple(range(len(actions))), protocol.rounds)


def _shown(options: Sequence[np.ndarray], sequences: int) -> np.ndarray:
    """One option after each of that many answers, the last one repeated: [answers, pairs, ...]."""
    return np.stack([options[min(n, len(options) - 1)] for n in range(sequences)])


def _profiles(actions: Actions, pairs: tuple[int, ...]) -> list[np.ndarray]:
    return [np.array(profile) for profile in itertools.product(*(actions[t] for t in pairs))]


def _experiment(protocol: Protocol, options: Sequence[np.ndarray], rounds: int) -> np.ndarray:
    """Profiles of actions after the sequences of answers; after the first question all ask 0."""
    asks, answers = protocol.user_messages, protocol.provider_messages
    shown = _shown(options, answers**rounds).T.reshape(-1, answers, *(1, answers) * (rounds - 1))
    table = np.full((len(shown), answers, *(asks, answers) * (rounds - 1)), OFF)
    table[(slice(None), slice(None), *(slice(1), slice(None)) * (rounds - 1))] = shown
    return table.reshape(len(shown), -1)


def _joined(
    protocol: Protocol,
    pairs: tuple[int, ...],
    split: Sequence[tuple[int, ...]],
    branches: Sequence[np.ndarray],
) -> np.ndarray:
    """The table of `pairs`, where part k of the split asks k."""
    table = np.full((len(pairs), protocol.user_messages, branches[0].shape[1]), OFF)
    for k, (part, branch) in enumerate(zip(split, branches, strict=True)):
        table[[pairs.index(t) for t in part], k] = branch
    return table.reshape(len(pairs), -1)


def _asking(
    protocol: Protocol, actions: Actions, pairs: tuple[int, ...], rounds: int
) -> Iterator[np.ndarray]:
    if rounds == 0:
        yield from (profile[:, None] for profile in _profiles(actions, pairs))
        return
    for split in _partitions(pairs, min(protocol.user_messages, len(pairs))):
        options = (list(_answering(protocol, actions, part, rounds)) for part in split)
        for branches in itertools.product(*options):
            yield _joined(protocol, pairs, split, branches)


def _answering(
    protocol: Protocol, actions: Actions, pairs: tuple[int, ...], rounds: int
) -> Iterator[np.ndarray]:
    messages = protocol.provider_messages
    if _flat(protocol, pairs):
        profiles = _profiles(actions, pairs)
        for used in itertools.combinations(profiles, _power(messages, rounds, len(profiles))):
            yield _experiment(protocol, used, rounds)
        return
    options = list(_asking(protocol, actions, pairs, rounds - 1))
    for used in itertools.combinations(options, min(messages, len(options))):
        yield _shown(used, messages).swapaxes(0, 1).reshape(len(pairs), -1)


def joint_plans(protocol: Protocol, actions: Actions) -> Iterator[Int[np.ndarray, "pairs leaves"]]:
    """Every joint plan that a best response may need, up to the names of messages.

    **Arguments:** `actions`: per pair, the actions to consider.

    >>> for plan in joint_plans(Protocol(1, 1, 2), [(0, 1, 2)]):
    ...     print(plan)
    [[0 1]]
    [[0 2]]
    [[1 2]]
    """
    return _asking(protocol, actions, tuple(range(len(actions))), protocol.rounds)


def draw_plan(
    protocol: Protocol, actions: Actions, generator: np.random.Generator
) -> Int[np.ndarray, "pairs leaves"]:
    """A random joint plan, for where there are too many to try all."""

    def ask(pairs: tuple[int, ...], rounds: int) -> np.ndarray:
        if rounds == 0:
            return np.array([[generator.choice(actions[t])] for t in pairs])
        parts = min(protocol.user_messages, len(pairs))
        # Every part once, so that none is empty, and any part for the others.
        others = generator.integers(parts, size=len(pairs) - parts)
        place = generator.permutation([*range(parts), *others])
        split = [
            tuple(t for t, k in zip(pairs, place, strict=True) if k == p) for p in range(parts)
        ]
        return _joined(protocol, pairs, split, [answer(part, rounds) for part in split])

    def answer(pairs: tuple[int, ...], rounds: int) -> np.ndarray:
        messages = protocol.provider_messages
        if _flat(protocol, pairs):
            kinds = math.prod(len(actions[t]) for t in pairs)
            shown = [
                np.array([generator.choice(actions[t]) for t in pairs])
                for _ in range(_power(messages, rounds, kinds))
            ]
            return _experiment(protocol, shown, rounds)
        shown = [ask(pairs, rounds - 1) for _ in range(messages)]
        return np.stack(shown, axis=1).reshape(len(pairs), -1)

    return ask(tuple(range(len(actions))), protocol.rounds)
