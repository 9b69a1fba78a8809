"""What a provider commits to: a function from what it observes of a user to an offer."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree


class AbstractPolicy(eqx.Module):
    """The policy is its parameters. A profile is one policy with a leading "providers" axis."""

    @abc.abstractmethod
    def __call__(self, observation: Any) -> PyTree:
        """The offer to a user of whom `observation` is seen."""

    @abc.abstractmethod
    def project(self) -> "AbstractPolicy":
        """The nearest feasible policy, in the Euclidean norm of the parameters."""

    @abc.abstractmethod
    def parameters(self) -> PyTree[bool]:
        """Which leaves the provider controls: a pytree of booleans of the policy's structure."""

    def sample(self, key: Key[Array, ""]) -> "AbstractPolicy":
        """A random feasible policy, for searches with many starts.

        Default: this one plus normal noise of relative size 1e-2 to 1e1 (log-uniform), projected.
        """
        size_key, noise_key = jax.random.split(key)
        size = 10 ** jax.random.uniform(size_key, minval=-2.0, maxval=1.0)
        varied, fixed = eqx.partition(self, self.parameters())
        leaves, structure = jax.tree.flatten(varied)
        noisy = [
            leaf + size * (1 + jnp.abs(leaf)) * jax.random.normal(key, leaf.shape, leaf.dtype)
            for leaf, key in zip(leaves, jax.random.split(noise_key, len(leaves)), strict=True)
        ]
        return eqx.combine(jax.tree.unflatten(structure, noisy), fixed).project()


class Constant(AbstractPolicy):
    """The same offer to everybody, in the box between `lower` and `upper` (default: unbounded).

    Bounds are broadcast to the shape of the offer.

    >>> import jax.numpy as jnp
    >>> from diffgame import Constant
    >>> print(Constant(jnp.array(3.0), lower=0.0, upper=2.0).project()(None))
    2.0
    """

    offer: Float[Array, "..."]
    lower: Float[Array, "..."]
    upper: Float[Array, "..."]

    def __init__(
        self,
        offer: Float[Array, "..."],
        lower: Float[Array, "..."] | float = -float("inf"),
        upper: Float[Array, "..."] | float = float("inf"),
    ):
        self.offer = offer
        # Arrays with the offer's axes, so that a profile has a "providers" axis on every leaf.
        self.lower = jnp.broadcast_to(jnp.asarray(lower, offer.dtype), offer.shape)
        self.upper = jnp.broadcast_to(jnp.asarray(upper, offer.dtype), offer.shape)

    def __call__(self, observation: Any) -> Float[Array, "..."]:
        del observation
        return self.offer

    def project(self) -> "Constant":
        return Constant(jnp.clip(self.offer, self.lower, self.upper), self.lower, self.upper)

    def sample(self, key: Key[Array, ""]) -> "Constant":
        """Uniform in the box; where a bound is not finite, normal noise around the offer."""
        size_key, key = jax.random.split(key)
        shape, dtype = self.offer.shape, self.offer.dtype
        bounded = jnp.isfinite(self.lower) & jnp.isfinite(self.upper)
        low, high = jnp.where(bounded, self.lower, 0), jnp.where(bounded, self.upper, 0)
        uniform = low + (high - low) * jax.random.uniform(key, shape, dtype)
        size = 10 ** jax.random.uniform(size_key, minval=-2.0, maxval=1.0, dtype=dtype)
        noise = size * (1 + jnp.abs(self.offer)) * jax.random.normal(key, shape, dtype)
        offer = jnp.where(bounded, uniform, self.offer + noise)
        return Constant(offer, self.lower, self.upper).project()

    def parameters(self) -> PyTree[bool]:
        nothing = jax.tree.map(lambda leaf: False, self)
        return eqx.tree_at(lambda policy: policy.offer, nothing, True)


class ProbabilityTable(AbstractPolicy):
    """One row of probabilities per observation and state: `probability[observation, state, :]`.

    A profile has one more axis in front. The observation is an integer; the offer is the table
    [states, messages] for it. Projection is row by row onto the simplex. Unlike a softmax, a row
    at a vertex is not stationary unless the provider wants to stay there.

    >>> import jax.numpy as jnp
    >>> from diffgame import ProbabilityTable
    >>> print(ProbabilityTable(jnp.array([[[2.0, 1.0]]])).project()(0))
    [[1. 0.]]
    """

    probability: Float[Array, "*providers observations states messages"]

    def __call__(self, observation: Int[Array, ""] | int) -> Float[Array, "states messages"]:
        return self.probability[observation]

    def project(self) -> "ProbabilityTable":
        rows = jax.vmap(jax.vmap(optax.projections.projection_simplex))
        return ProbabilityTable(rows(self.probability))

    def sample(self, key: Key[Array, ""]) -> "ProbabilityTable":
        """Every row uniform on the simplex."""
        weights = jax.random.exponential(key, self.probability.shape, self.probability.dtype)
        return ProbabilityTable(weights / jnp.sum(weights, axis=-1, keepdims=True))

    def parameters(self) -> PyTree[bool]:
        return jax.tree.map(lambda leaf: True, self)


class Network(AbstractPolicy):
    """Any Equinox module from observations to offers; every floating array is a parameter.

    >>> import equinox as eqx, jax, jax.numpy as jnp
    >>> from diffgame import Network
    >>> policy = Network(eqx.nn.MLP(2, 1, 8, 1, key=jax.random.key(0)))
    >>> print(policy(jnp.ones(2)).shape)
    (1,)
    """

    module: eqx.Module

    def __call__(self, observation: Any) -> PyTree:
        return self.module(observation)  # pyright: ignore[reportCallIssue]

    def project(self) -> "Network":
        return self

    def parameters(self) -> PyTree[bool]:
        return jax.tree.map(eqx.is_inexact_array, self)
