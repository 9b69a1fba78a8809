"""How likely a policy's answers are, as tables of answers, in a protocol and in a longer one."""

from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from ._tree import Protocol

# One per round: [states, histories that end with her question, messages], rows sum to 1. A longer
# protocol has other numbers of messages, so that they are not bound by name.
Tables: TypeAlias = tuple[Float[np.ndarray, "states _ _"], ...]


def _rows(likely: np.ndarray) -> np.ndarray:
    """Conditional probabilities of the last message; what is never asked has the first answer."""
    total = likely.sum(axis=-1, keepdims=True)
    silence = np.eye(likely.shape[-1])[0] * (total <= 0)
    return likely / np.where(total > 0, total, 1) + silence


def tables_of(protocol: Protocol, answers: Float[np.ndarray, "states leaves"]) -> Tables:
    """The policy under which the answers that lead to each leaf are that likely.

    What rounding errors leave negative, or different between questions, is removed.
    """
    states, asks, hears = len(answers), protocol.user_messages, protocol.provider_messages
    tables, likely = [], np.maximum(answers, 0)
    for _ in range(protocol.rounds):
        likely = likely.reshape(states, -1, asks, hears)
        tables.append(_rows(likely).reshape(states, -1, hears))
        likely = likely.sum(axis=-1).mean(axis=-1)
    return tuple(tables[::-1])


def answers_of(protocol: Protocol, tables: Tables) -> Float[np.ndarray, "states leaves"]:
    """How likely the provider's answers on the way to each leaf are, given what she asks."""
    states, asks = len(tables[0]), protocol.user_messages
    likely = np.ones((states, 1))
    for table in tables:
        answered = table.reshape(states, -1, asks, table.shape[-1])
        likely = (likely[..., None, None] * answered).reshape(states, -1)
    return likely


def babbling_tables(protocol: Protocol, states: int) -> Tables:
    """Always the first message."""
    turns = range(1, protocol.rounds + 1)
    silence = np.eye(protocol.provider_messages)[0]
    return tuple(np.tile(silence, (states, protocol.questions(turn), 1)) for turn in turns)


def spoken(protocol: Protocol, short: Protocol, tables: Tables) -> Tables:
    """Tables of a protocol that say what those of a shorter one say.

    Questions that the shorter one lacks are taken for its first one. If that has one round, its
    message is spelled, first digit first, and no question after the first counts.
    """
    states, asks, hears = len(tables[0]), protocol.user_messages, protocol.provider_messages
    question = np.arange(asks)
    question = np.where(question < short.user_messages, question, 0)
    if short.rounds == protocol.rounds:
        result = []
        for turn, table in enumerate(tables):
            table = table.reshape(
                states,
                *[short.user_messages, short.provider_messages] * turn,
                short.user_messages,
                -1,
            )
            for axis in range(1, table.ndim, 2):
                table = np.take(table, question, axis=axis)
            for axis in range(2, table.ndim - 1, 2):
                # A history with a message that is never sent may go on as any other.
                table = _longer(table, axis, hears, "edge")
            table = _longer(table, table.ndim - 1, hears, "constant")
            result.append(table.reshape(states, -1, hears))
        return tuple(result)
    experiment = tables[0][:, question]
    digits = next(n for n in range(1, protocol.rounds + 1) if hears**n >= experiment.shape[2])
    experiment = _longer(experiment, 2, hears**digits, "constant")
    result = []
    for turn in range(1, protocol.rounds + 1):
        likely = experiment.reshape(states, asks, hears ** min(turn, digits), -1).sum(axis=-1)
        for _ in range(turn - digits):
            likely = likely[..., None] * np.eye(hears)[0]
        rows = _rows(likely.reshape(states, asks, *[hears] * turn))
        # The questions after the first, which do not count.
        rows = rows.reshape(states, asks, *[hears, 1] * (turn - 1), hears)
        shape = states, asks, *[hears, asks] * (turn - 1), hears
        result.append(np.broadcast_to(rows, shape).reshape(states, -1, hears))
    return tuple(result)


def _longer(table: np.ndarray, axis: int, size: int, mode: Literal["edge", "constant"]):
    widths = [(0, 0)] * table.ndim
    widths[axis] = (0, size - table.shape[axis])
    return np.pad(table, widths, mode=mode)
