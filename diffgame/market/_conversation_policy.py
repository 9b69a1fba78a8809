"""What providers commit to in a conversation: tables of answers, or networks that make them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from .._policy import AbstractPolicy
from ._conversation import Conversation
from ._tree import Protocol

Answers = tuple[Float[Array, "states _ messages"], ...]


class ConversationTable(AbstractPolicy):
    """One table of answers per round: `tables[t][observation, state, history, :]`, rows sum to 1.

    The table of round t (from 1) has `(C M)^(t-1) C` histories `c_1 m_1 ... c_t`, the last
    message changing fastest. A profile has one more axis in front. Projection is row by row onto
    the simplex.

    >>> import jax.numpy as jnp
    >>> from diffgame.market import ConversationTable
    >>> print(ConversationTable((jnp.array([[[[2.0, 1.0]]]]),)).project()(0)[0])
    [[[1. 0.]]]
    """

    tables: tuple[Float[Array, "*providers observations states _ messages"], ...]

    def __call__(self, observation: Int[Array, ""] | int) -> Answers:
        return tuple(table[observation] for table in self.tables)

    def project(self) -> "ConversationTable":
        def rows(table):
            flat = table.reshape(-1, table.shape[-1])
            return jax.vmap(optax.projections.projection_simplex)(flat).reshape(table.shape)

        return ConversationTable(tuple(rows(table) for table in self.tables))

    def sample(self, key: Key[Array, ""]) -> "ConversationTable":
        """Every row uniform on the simplex."""
        keys = jax.random.split(key, len(self.tables))
        weights = [
            jax.random.exponential(key, table.shape, table.dtype)
            for key, table in zip(keys, self.tables, strict=True)
        ]
        return ConversationTable(
            tuple(weight / jnp.sum(weight, axis=-1, keepdims=True) for weight in weights)
        )

    def parameters(self) -> PyTree[bool]:
        return jax.tree.map(lambda leaf: True, self)


class ConversationNetwork(AbstractPolicy):
    """An Equinox module that answers: softmax of its logits [messages] after any history.

    Its input is a vector: the state, then her and the provider's message round by round (zeros
    where nothing was said yet), then the observation, each one-hot; `inputs` is its length. Every
    floating array of the module is a parameter. Memory grows with states, histories and width.

    >>> import equinox as eqx, jax
    >>> from diffgame.market import ConversationNetwork, Protocol
    >>> protocol = Protocol(rounds=2, user_messages=2, provider_messages=3)
    >>> size = ConversationNetwork.inputs(protocol, states=4, observations=1)
    >>> module = eqx.nn.MLP(size, 3, 8, 1, key=jax.random.key(0))
    >>> [table.shape for table in ConversationNetwork(module, protocol, 4, 1)(0)]
    [(4, 2, 3), (4, 12, 3)]
    """

    module: eqx.Module
    protocol: Protocol
    states: int = eqx.field(static=True)
    observations: int = eqx.field(static=True)

    @staticmethod
    def inputs(protocol: Protocol, states: int, observations: int) -> int:
        """Length of the vector that the module gets."""
        said = protocol.user_messages + protocol.provider_messages
        return states + protocol.rounds * said + observations

    def __call__(self, observation: Int[Array, ""] | int) -> Answers:
        dtype = jnp.result_type(*jax.tree.leaves(eqx.filter(self.module, eqx.is_inexact_array)))
        seen = jax.nn.one_hot(observation, self.observations, dtype=dtype)

        def answer(state, history):
            logits = self.module(  # pyright: ignore[reportCallIssue]
                jnp.concatenate([state, history, seen])
            )
            return jax.nn.softmax(logits)

        answers = jax.vmap(jax.vmap(answer, in_axes=(None, 0)), in_axes=(0, None))
        states = jnp.eye(self.states, dtype=dtype)
        turns = range(1, self.protocol.rounds + 1)
        return tuple(
            answers(states, encode_histories(self.protocol, turn).astype(dtype)) for turn in turns
        )

    def project(self) -> "ConversationNetwork":
        return self

    def parameters(self) -> PyTree[bool]:
        return jax.tree.map(eqx.is_inexact_array, self)


def encode_histories(protocol: Protocol, turn: int) -> Float[Array, "histories said"]:
    """One row per history that the provider answers in round `turn`: messages one-hot, in order."""
    said = [("user", protocol.user_messages), ("provider", protocol.provider_messages)]
    sizes = [size for _, size in said * protocol.rounds]
    heard = 2 * turn - 1
    count = protocol.questions(turn)
    spoken = jnp.unravel_index(jnp.arange(count), sizes[:heard])
    columns = [
        jax.nn.one_hot(message, size) for message, size in zip(spoken, sizes[:heard], strict=True)
    ]
    return jnp.concatenate([*columns, jnp.zeros((count, sum(sizes[heard:])))], axis=1)


def _tables(game: Conversation, make) -> ConversationTable:
    """A profile from `make(turn, shape)`, shape [providers, observations, states, histories, M]."""
    protocol = game.protocol
    providers, *_, states = game.objective.shape
    return ConversationTable(
        tuple(
            make(
                turn,
                (
                    providers,
                    game.observations,
                    states,
                    protocol.questions(turn),
                    protocol.provider_messages,
                ),
            )
            for turn in range(1, protocol.rounds + 1)
        )
    )


def babbling_conversation(game: Conversation) -> ConversationTable:
    """Every provider always answers with the first message: nobody learns anything."""
    return _tables(game, lambda turn, shape: jnp.zeros(shape, game.joint.dtype).at[..., 0].set(1))


def revealing_conversation(game: Conversation) -> ConversationTable:
    """Every provider spells the state's number, first digit first, whatever it is asked.

    Errors: ValueError if the provider's messages over all rounds cannot tell the states apart.
    """
    states, protocol = game.joint.shape[-1], game.protocol
    messages = protocol.provider_messages
    if messages**protocol.rounds < states:
        raise ValueError(
            f"revealing_conversation: {protocol.rounds} rounds of {messages} messages spell at "
            f"most {messages**protocol.rounds} numbers, but there are {states} states; raise "
            "rounds or provider_messages."
        )

    def spell(turn, shape):
        digit = jnp.arange(states) // messages ** (protocol.rounds - turn) % messages
        row = jax.nn.one_hot(digit, messages, dtype=game.joint.dtype)
        return jnp.broadcast_to(row[None, None, :, None, :], shape)

    return _tables(game, spell)


def random_conversation(game: Conversation, key: Key[Array, ""]) -> ConversationTable:
    """Every row uniform on the simplex, each provider and observation by itself."""
    return babbling_conversation(game).sample(key)


def network_conversation(
    game: Conversation, key: Key[Array, ""], *, width: int = 16, depth: int = 1
) -> ConversationNetwork:
    """A profile of multilayer perceptrons with random weights, one per provider.

    `depth` hidden layers of `width` units each.
    """
    providers, *_, states = game.objective.shape
    protocol = game.protocol
    size = ConversationNetwork.inputs(protocol, states, game.observations)

    def make(key):
        module = eqx.nn.MLP(
            size, protocol.provider_messages, width, depth, dtype=game.joint.dtype, key=key
        )
        return ConversationNetwork(module, protocol, states, game.observations)

    return eqx.filter_vmap(make)(jax.random.split(key, providers))
