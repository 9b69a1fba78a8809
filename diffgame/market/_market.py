"""The market for advice: providers commit to signals, users choose a provider and act."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Scalar

from .._choice_set import DecisionTree
from .._game import AbstractGame
from .._policy import ProbabilityTable


class MarketUser(NamedTuple):
    """One user: her utility, what her action is worth to providers, what they see of her."""

    utility: Float[Array, "actions states"]
    objective: Float[Array, "providers actions states"]
    observation: Int[Array, ""]


class Market(AbstractGame):
    """A market of k providers and n users over finitely many states and actions.

    Each provider knows the state and commits to one signal, a table [states, messages], per
    observation. A user sees all signals, picks the provider whose signal is worth most to her,
    sees its message and acts. Every provider counts EVERY user's action: payoff
    `sum_j mass_j E objective[i, j, action_j, state]`, whichever provider she listens to.

    **Arguments:**

    - `prior` [states]: probabilities, sum 1.
    - `utility` [users, actions, states]; `objective` [providers, users, actions, states].
    - `mass` [users]: positive weights.
    - `observation` [users]: what providers see of each user, integers from 0 to
        `observations - 1`. Default: the user herself (personalized). The same number for all is
        anonymous, a segment's number in between.
    - `messages`: size of a signal; default the number of actions, enough for one user.

    **Source:** Collina, Goel, Roth, Shi, Personalization Aids Pluralistic Alignment Under
    Competition (arXiv 2602.13451).

    >>> import jax.numpy as jnp
    >>> from diffgame import Argmax, play
    >>> from diffgame.market import Market, full_revelation
    >>> coin = jnp.array([0.5, 0.5])
    >>> market = Market(coin, jnp.eye(2)[None], jnp.zeros((1, 1, 2, 2)), jnp.ones(1))
    >>> print(play(market, Argmax(), full_revelation(market)).utilities)
    [1.]
    """

    prior: Float[Array, " states"]
    utility: Float[Array, "users actions states"]
    objective: Float[Array, "providers users actions states"]
    mass: Float[Array, " users"]
    observation: Int[Array, " users"]
    observations: int = eqx.field(static=True)
    messages: int = eqx.field(static=True)

    def __init__(
        self,
        prior: Any,
        utility: Any,
        objective: Any,
        mass: Any,
        observation: Any = None,
        *,
        observations: int | None = None,
        messages: int | None = None,
    ):
        self.prior = jnp.asarray(prior)
        self.utility = jnp.asarray(utility)
        self.objective = jnp.asarray(objective)
        self.mass = jnp.asarray(mass)
        if self.utility.ndim != 3 or self.objective.ndim != 4:
            raise ValueError(
                f"Market: utility has shape {self.utility.shape}, objective "
                f"{self.objective.shape}; give [users, actions, states] and [providers, users, "
                "actions, states]."
            )
        users, actions, states = self.utility.shape
        expected = {
            "prior": (self.prior.shape, (states,)),
            "objective": (self.objective.shape[1:], (users, actions, states)),
            "mass": (self.mass.shape, (users,)),
        }
        for field, (shape, wanted) in expected.items():
            if shape != wanted:
                raise ValueError(
                    f"Market: {field} has shape {shape} where utility {self.utility.shape} "
                    f"asks for {wanted}."
                )
        if observation is None:
            observation, observations = jnp.arange(users), users
        self.observation = jnp.asarray(observation)
        self.observations = users if observations is None else observations
        self.messages = actions if messages is None else messages

    @property
    def choice_set(self) -> DecisionTree:
        """She picks a provider, nature a message, she an action."""
        providers, _, actions, _ = self.objective.shape
        return DecisionTree((("user", providers), ("nature", self.messages), ("user", actions)))

    @property
    def users(self) -> MarketUser:
        """The users, leaves with a leading axis."""
        return MarketUser(self.utility, jnp.moveaxis(self.objective, 1, 0), self.observation)

    def observe(self, user: MarketUser) -> Int[Array, ""]:
        """The number that providers see of the user."""
        return user.observation

    def chance(
        self, offers: Float[Array, "providers states messages"], user: MarketUser
    ) -> Float[Array, "providers messages 1"]:
        """How likely each provider is to send each message."""
        del user
        return jnp.einsum("s,psm->pm", self.prior, offers)[..., None]

    def _joint(self, choice, offers):
        """Joint distribution of her action and the state, by provider."""
        return jnp.einsum("pma,psm,s->pas", choice, offers, self.prior)

    def user_utility(
        self,
        choice: Float[Array, "providers messages actions"],
        offers: Float[Array, "providers states messages"],
        user: MarketUser,
    ) -> Scalar:
        """Her expected utility."""
        return jnp.sum(self._joint(choice, offers) * user.utility[None])

    def provider_payoffs(
        self,
        choice: Float[Array, "providers messages actions"],
        offers: Float[Array, "providers states messages"],
        user: MarketUser,
    ) -> Float[Array, " providers"]:
        """What her action is worth to each provider, whoever informed her."""
        outcome = jnp.sum(self._joint(choice, offers), axis=0)
        return jnp.einsum("as,pas->p", outcome, user.objective)

    def observing(self, labels: Any) -> "Market":
        """The same market where providers see only `labels` [users] (integers from 0)."""
        labels = jnp.asarray(labels)
        count = int(jnp.max(labels)) + 1
        return Market(
            self.prior,
            self.utility,
            self.objective,
            self.mass,
            labels,
            observations=count,
            messages=self.messages,
        )

    def anonymous(self) -> "Market":
        """The same market where providers see nothing."""
        return self.observing(jnp.zeros(self.mass.shape, int))

    def personalized(self) -> "Market":
        """The same market where providers see who the user is."""
        return self.observing(jnp.arange(len(self.mass)))

    def with_messages(self, messages: int) -> "Market":
        """The same market with signals of `messages` messages."""
        return Market(
            self.prior,
            self.utility,
            self.objective,
            self.mass,
            self.observation,
            observations=self.observations,
            messages=messages,
        )


def _profile(market: Market, signal: Float[Array, "states messages"]) -> ProbabilityTable:
    providers = market.objective.shape[0]
    shape = (providers, market.observations, *signal.shape)
    return ProbabilityTable(jnp.broadcast_to(signal, shape))


def babbling(market: Market) -> ProbabilityTable:
    """Every provider always sends the first message: nobody learns anything."""
    states = len(market.prior)
    signal = jnp.zeros((states, market.messages), market.prior.dtype)
    return _profile(market, signal.at[:, 0].set(1))


def full_revelation(market: Market) -> ProbabilityTable:
    """Every provider names the state, which needs as many messages as states."""
    states = len(market.prior)
    if market.messages < states:
        raise ValueError(
            f"full_revelation: {market.messages} messages cannot name {states} states; use "
            f"market.with_messages({states})."
        )
    return _profile(market, jnp.eye(states, market.messages, dtype=market.prior.dtype))


def random_profile(market: Market, key: Array) -> ProbabilityTable:
    """Rows drawn uniformly from the simplex, each provider and observation by itself."""
    shape = (market.objective.shape[0], market.observations, len(market.prior))
    return ProbabilityTable(
        jax.random.dirichlet(key, jnp.ones(market.messages, market.prior.dtype), shape)
    )
