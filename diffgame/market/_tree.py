"""The protocol of a conversation, and how likely each history of it is."""

import itertools
import math
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

MOST_LEAVES = 4_000_000


class Protocol(eqx.Module):
    """Who may say how much: `rounds` times a message of the user, then one of the provider.

    A history of t rounds is `c_1 m_1 ... c_t m_t`; histories are numbered with the last message
    changing fastest. All three fields are integers of at least 1.

    >>> from diffgame.market import Protocol
    >>> Protocol(rounds=2, user_messages=3, provider_messages=2).histories(2)
    36
    """

    rounds: int = eqx.field(static=True)
    user_messages: int = eqx.field(static=True)
    provider_messages: int = eqx.field(static=True)

    def __check_init__(self):
        for field in ("rounds", "user_messages", "provider_messages"):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    f"Protocol: {field} is {value!r}; give an integer of at least 1 "
                    "(user_messages=1: she only listens)."
                )

    @property
    def moves(self) -> tuple[tuple[str, int], ...]:
        """The levels of a conversation's tree, as in `DecisionTree`."""
        return (("user", self.user_messages), ("nature", self.provider_messages)) * self.rounds

    def histories(self, rounds: int) -> int:
        """How many histories of that many full rounds there are."""
        return (self.user_messages * self.provider_messages) ** rounds

    def questions(self, turn: int) -> int:
        """How many histories the provider may answer in round `turn` (from 1)."""
        return self.histories(turn - 1) * self.user_messages


def count_nodes(moves: Sequence[tuple[str, int]]) -> int:
    """Nodes of a tree with these levels, root and leaves included."""
    return 1 + sum(itertools.accumulate((size for _, size in moves), lambda a, b: a * b))


def check_size(moves: Sequence[tuple[str, int]], users: int, protocol: Protocol) -> None:
    """Raise ValueError if the trees of all users have more than `MOST_LEAVES` leaves."""
    leaves = users * math.prod(size for _, size in moves)
    if leaves > MOST_LEAVES:
        raise ValueError(
            f"Conversation: the trees of {users} users have {leaves} leaves, more than "
            f"{MOST_LEAVES}: {protocol.histories(protocol.rounds)} histories by rounds="
            f"{protocol.rounds}, user_messages={protocol.user_messages}, provider_messages="
            f"{protocol.provider_messages}; shrink rounds first, then the messages, or split the "
            "users into several markets."
        )


def history_probability(
    tables: Sequence[Float[Array, "providers states _ messages"]],
) -> Float[Array, "providers states histories"]:
    """How likely each provider's answers are in each state, given what the user says.

    `tables` holds one array per round: the probability of each message after each history that
    ends with the user's message.
    """
    providers, states, *_ = tables[0].shape
    probability = jnp.ones((providers, states, 1), tables[0].dtype)
    for table in tables:
        before = probability.shape[-1]
        questions = table.shape[2] // before
        answers = table.reshape(providers, states, before, questions, table.shape[-1])
        probability = (probability[..., None, None] * answers).reshape(providers, states, -1)
    return probability
