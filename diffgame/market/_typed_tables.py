"""A market file with private information as arrays, and as the game that it describes."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from ._best_conversation import best_conversation
from ._conversation import Conversation
from ._market_file import MarketFile
from ._tree import Protocol


class TypedTables(NamedTuple):
    """Arrays of a market whose users may know something.

    - `joint` [users, values, states]: probabilities of private value and state, sum 1 for each
        user; zeros where a user has fewer values than another.
    - `utility` [users, values, actions, states], `objective` [providers, users, values, actions,
        states]: tables that a user does not have repeat her first one.
    - `mass` [users]. `values` [users]: how many private values each user has.
    """

    joint: Float64[np.ndarray, "users values states"]
    utility: Float64[np.ndarray, "users values actions states"]
    objective: Float64[np.ndarray, "providers users values actions states"]
    mass: Float64[np.ndarray, " users"]
    values: tuple[int, ...]

    def full_information(self) -> Float64[np.ndarray, " users"]:
        """Each user's expected utility when she knows the state and her private value."""
        return np.einsum("jxy,jxy->j", self.joint, self.utility.max(axis=2))

    def uninformed(self) -> Float64[np.ndarray, " users"]:
        """Each user's expected utility when she knows her private value only."""
        return np.einsum("jxy,jxay->jxa", self.joint, self.utility).max(axis=2).sum(axis=1)


def typed_tables(file: MarketFile) -> TypedTables:
    """The arrays of a market file; a user without private information has one private value.

    >>> from diffgame.market import MarketFile
    >>> judge = MarketFile(
    ...     name="court", states=("innocent", "guilty"), actions=("acquit", "convict"),
    ...     users=("judge",), providers=("prosecutor",), segments=(None,), prior=[0.7, 0.3],
    ...     utility=[np.eye(2)], objective=[[[[0, 0], [1, 1]]]], mass=[1],
    ... )
    >>> typed_tables(judge).utility.shape
    (1, 1, 2, 2)
    """
    values = tuple(1 if own is None else len(own.values) for own in file.private)
    most = max(values)
    shape = len(file.actions), len(file.states)
    prior = file.prior / file.prior.sum()
    joint = np.zeros((len(file.users), most, len(file.states)))
    for j, own in enumerate(file.private):
        likelihood = np.ones((1, len(file.states))) if own is None else own.likelihood
        joint[j, : values[j]] = prior * (likelihood / likelihood.sum(axis=0))

    def padded(table: np.ndarray) -> np.ndarray:
        own = table.reshape(-1, *shape)
        return np.concatenate([own, np.repeat(own[:1], most - len(own), axis=0)])

    return TypedTables(
        joint,
        np.stack([padded(table) for table in file.utility]),
        np.stack([np.stack([padded(table) for table in own]) for own in file.objective]),
        file.mass,
        values,
    )


def can_reveal(protocol: Protocol, states: int) -> bool:
    """Whether the provider's messages over all rounds can name the state."""
    return protocol.provider_messages ** min(protocol.rounds, states) >= states


def best_values(tables: TypedTables, protocol: Protocol) -> list[float | None]:
    """Each user's value under the best policy that the protocol allows; None: too large to say."""
    if can_reveal(protocol, tables.joint.shape[2]):
        return tables.full_information().tolist()
    result: list[float | None] = []
    for j, count in enumerate(tables.values):
        try:
            value = best_conversation(
                tables.joint[j, :count],
                tables.utility[j, :count],
                rounds=protocol.rounds,
                user_messages=protocol.user_messages,
                provider_messages=protocol.provider_messages,
            )
        except ValueError:
            # Arrays and protocol are valid: there are too many types and states.
            value = None
        result.append(value)
    return result


def conversation_of(file: MarketFile, *, timing: str = "before") -> Conversation:
    """The personalized game of a file that has a `conversation`, in float64.

    **Arguments:** `timing`: when she picks her provider, as in `Conversation`.

    **Errors:** ValueError for a file without `conversation`.

    >>> from diffgame.market import MarketFile, Protocol
    >>> coin = MarketFile(
    ...     name="coin", states=("heads", "tails"), actions=("heads", "tails"), users=("Ann",),
    ...     providers=("oracle",), segments=(None,), prior=[0.5, 0.5], utility=[np.eye(2)],
    ...     objective=[[np.eye(2)]], mass=[1], conversation=Protocol(1, 1, 2),
    ... )
    >>> print(conversation_of(coin).full_information())
    [1.]
    """
    if file.conversation is None:
        raise ValueError(
            "conversation_of: the file has no conversation; give it rounds, user_messages and "
            "provider_messages."
        )
    tables = typed_tables(file)
    return Conversation(
        tables.joint,
        tables.utility,
        tables.objective,
        tables.mass,
        file.conversation,
        timing=timing,
    )
