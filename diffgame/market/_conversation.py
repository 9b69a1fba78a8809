"""The market as a conversation: private information, rounds of messages, then an action."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Scalar

from .._choice_set import DecisionTree
from .._game import AbstractGame
from ._checks import PRIOR_TOLERANCE
from ._market import Market
from ._tree import Protocol, check_size, count_nodes, history_probability


class ConversationUser(NamedTuple):
    """One user: what she knows and wants, what her action is worth, what providers see of her."""

    joint: Float[Array, "types states"]
    utility: Float[Array, "types actions states"]
    objective: Float[Array, "providers types actions states"]
    observation: Int[Array, ""]


class Conversation(AbstractGame):
    """A market of k providers and n users who know something and talk before they act.

    Each provider knows the state and commits to one table of answers per round and observation.
    A user sees all tables and picks a provider. In each round she says one of |C| messages, which
    may depend on all that she knows, and the provider answers one of |M|; then she acts. Every
    provider counts EVERY user's action, whichever provider she listens to.

    **Arguments:**

    - `joint` [users, types, states]: her joint prior of her private value and the state, sum 1.
        All users have the same marginal over states. A user with fewer types has rows of zeros.
    - `utility` [users, types, actions, states]; `objective` [providers, users, types, actions,
        states].
    - `mass` [users]: positive weights.
    - `protocol`: rounds and numbers of messages.
    - `observation` [users], `observations`: as in `Market`; default: the user herself.
    - `timing`: "before" or "after": when she picks her provider, relative to learning her private
        value.

    Errors: ValueError that names the field, for shapes and probabilities that do not fit, and for
    trees of more than 4,000,000 leaves.

    **Source:** Collina, Goel, Roth, Ryu, Shi, Emergent Alignment via Competition
    (arXiv 2509.15090).

    >>> import jax.numpy as jnp
    >>> from diffgame import Argmax, play
    >>> from diffgame.market import Conversation, Protocol, revealing_conversation
    >>> # She knows the bit a, the provider the bit b, and she must name the exclusive or of both.
    >>> joint = jnp.full((1, 2, 2), 0.25)
    >>> utility = jnp.stack([jnp.eye(2), 1 - jnp.eye(2)])[None]
    >>> objective = jnp.zeros((1, 1, 2, 2, 2))
    >>> game = Conversation(joint, utility, objective, jnp.ones(1), Protocol(1, 1, 2))
    >>> print(game.uninformed(), play(game, Argmax(), revealing_conversation(game)).utilities)
    [0.5] [1.]
    """

    joint: Float[Array, "users types states"]
    utility: Float[Array, "users types actions states"]
    objective: Float[Array, "providers users types actions states"]
    mass: Float[Array, " users"]
    observation: Int[Array, " users"]
    protocol: Protocol
    observations: int = eqx.field(static=True)
    timing: str = eqx.field(static=True)

    def __init__(
        self,
        joint: Any,
        utility: Any,
        objective: Any,
        mass: Any,
        protocol: Protocol,
        observation: Any = None,
        *,
        observations: int | None = None,
        timing: str = "before",
    ):
        self.joint, self.utility = jnp.asarray(joint), jnp.asarray(utility)
        self.objective, self.mass = jnp.asarray(objective), jnp.asarray(mass)
        self.protocol, self.timing = protocol, timing
        if self.utility.ndim != 4 or self.objective.ndim != 5:
            raise ValueError(
                f"Conversation: utility has shape {self.utility.shape}, objective "
                f"{self.objective.shape}; give [users, types, actions, states] and [providers, "
                "users, types, actions, states]."
            )
        users, types, _, states = self.utility.shape
        if observation is None:
            observation, observations = jnp.arange(users), users
        self.observation = jnp.asarray(observation)
        self.observations = users if observations is None else observations
        expected = {
            "joint": (self.joint.shape, (users, types, states)),
            "objective": (self.objective.shape[1:], self.utility.shape),
            "mass": (self.mass.shape, (users,)),
            "observation": (self.observation.shape, (users,)),
        }
        for field, (shape, wanted) in expected.items():
            if shape != wanted:
                raise ValueError(
                    f"Conversation: {field} has shape {shape} where utility {self.utility.shape} "
                    f"asks for {wanted}."
                )
        if timing not in ("before", "after"):
            raise ValueError(
                f"Conversation: timing is {timing!r}; give 'before' or 'after' (she picks her "
                "provider before or after she learns her private value)."
            )
        check_size(self._moves, users, protocol)
        if not isinstance(self.joint, jax.core.Tracer):
            _check_joint(np.asarray(self.joint))

    @classmethod
    def from_market(
        cls, market: Market, protocol: Protocol, *, timing: str = "before"
    ) -> "Conversation":
        """The same market, without private information, where users talk by `protocol`."""
        users = len(market.mass)
        return cls(
            jnp.broadcast_to(market.prior, (users, 1, len(market.prior))),
            market.utility[:, None],
            market.objective[:, :, None],
            market.mass,
            protocol,
            market.observation,
            observations=market.observations,
            timing=timing,
        )

    @property
    def _moves(self) -> tuple[tuple[str, int], ...]:
        providers, _, types, actions, _ = self.objective.shape
        first = ("user", providers), ("nature", types)
        first = first if self.timing == "before" else first[::-1]
        return (*first, *self.protocol.moves, ("user", actions))

    @property
    def nodes(self) -> int:
        """Number of nodes of one user's tree."""
        return count_nodes(self._moves)

    @property
    def choice_set(self) -> DecisionTree:
        """Provider and private value in the order of `timing`, rounds of messages, an action."""
        return DecisionTree(self._moves)

    @property
    def users(self) -> ConversationUser:
        """The users, leaves with a leading axis."""
        objective = jnp.moveaxis(self.objective, 1, 0)
        return ConversationUser(self.joint, self.utility, objective, self.observation)

    def observe(self, user: ConversationUser) -> Int[Array, ""]:
        """The number that providers see of the user."""
        return user.observation

    def _timed(self, tree: Float[Array, "..."]) -> Float[Array, "..."]:
        """Swap the first two axes if nature moves first; its own inverse."""
        return tree if self.timing == "before" else jnp.swapaxes(tree, 0, 1)

    def chance(
        self,
        offers: tuple[Float[Array, "providers states _ messages"], ...],
        user: ConversationUser,
    ) -> Float[Array, "..."]:
        """How likely her private value and each provider's answers are, given what she says."""
        likely = jnp.einsum("xy,pyh->pxh", user.joint, history_probability(offers))
        history = tuple(size for _, size in self.protocol.moves)
        return self._timed(likely.reshape(*likely.shape[:2], *history, 1))

    def _outcome(self, choice, offers, user) -> Float[Array, "types actions states"]:
        """Joint distribution of her private value, her action and the state."""
        probability = history_probability(offers)
        providers, _, histories = probability.shape
        types, actions, _ = user.utility.shape
        choice = self._timed(choice).reshape(providers, types, histories, actions)
        return jnp.einsum("pxha,pyh->xay", choice, probability) * user.joint[:, None, :]

    def user_utility(
        self,
        choice: Float[Array, "..."],
        offers: tuple[Float[Array, "providers states _ messages"], ...],
        user: ConversationUser,
    ) -> Scalar:
        """Her expected utility."""
        return jnp.sum(self._outcome(choice, offers, user) * user.utility)

    def provider_payoffs(
        self,
        choice: Float[Array, "..."],
        offers: tuple[Float[Array, "providers states _ messages"], ...],
        user: ConversationUser,
    ) -> Float[Array, " providers"]:
        """What her action is worth to each provider, whoever informed her."""
        return jnp.einsum("xay,pxay->p", self._outcome(choice, offers, user), user.objective)

    def full_information(self) -> Float[Array, " users"]:
        """Each user's expected utility when she knows the state besides her private value."""
        return jnp.einsum("jxy,jxy->j", self.joint, jnp.max(self.utility, axis=2))

    def uninformed(self) -> Float[Array, " users"]:
        """Each user's expected utility when she knows her private value only."""
        return jnp.sum(jnp.max(jnp.einsum("jxy,jxay->jxa", self.joint, self.utility), 2), 1)

    def observing(self, labels: Any) -> "Conversation":
        """The same game where providers see only `labels` [users] (integers from 0)."""
        labels = jnp.asarray(labels)
        return Conversation(
            self.joint,
            self.utility,
            self.objective,
            self.mass,
            self.protocol,
            labels,
            observations=int(jnp.max(labels)) + 1,
            timing=self.timing,
        )


def _check_joint(joint: np.ndarray) -> None:
    if not (np.all(np.isfinite(joint)) and np.all(joint >= 0)):
        raise ValueError(
            "Conversation: joint has an entry that is negative or not finite; give probabilities."
        )
    # Single precision cannot sum to one any better.
    tolerance = max(PRIOR_TOLERANCE, 10 * float(np.finfo(joint.dtype).eps))
    totals = joint.sum(axis=(1, 2))
    for user, total in enumerate(totals):
        if not abs(total - 1) <= tolerance:
            raise ValueError(
                f"Conversation: joint[{user}] sums to {total}, not 1 within {tolerance:.0e}; "
                "rescale it."
            )
    marginal = joint.sum(axis=1)
    for user, own in enumerate(marginal):
        if not np.max(np.abs(own - marginal[0])) <= tolerance:
            raise ValueError(
                f"Conversation: joint[{user}] gives the states probabilities {own.tolist()}, "
                f"joint[0] {marginal[0].tolist()}; all users share one prior over states."
            )
