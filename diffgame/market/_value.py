"""What information is worth to one user who acts optimally."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

# Actions whose values differ by less than this share of the user's payoff range tie.
_TIE = 1e-12


def full_information(
    prior: Float[Array, " states"], utility: Float[Array, "actions states"]
) -> Scalar:
    """Her expected utility when she knows the state."""
    return jnp.max(utility, axis=0) @ prior


def uninformed(prior: Float[Array, " states"], utility: Float[Array, "actions states"]) -> Scalar:
    """Her expected utility when she knows the prior only."""
    return jnp.max(utility @ prior)


def user_value(
    prior: Float[Array, " states"],
    utility: Float[Array, "actions states"],
    signal: Float[Array, "states messages"],
) -> Scalar:
    """Her expected utility when she sees a message of `signal` and acts optimally.

    >>> import jax.numpy as jnp
    >>> from diffgame.market import user_value
    >>> print(user_value(jnp.array([0.7, 0.3]), jnp.eye(2), jnp.array([[1.0, 0.0], [0.5, 0.5]])))
    0.85
    """
    return jnp.sum(jnp.max(utility @ (prior[:, None] * signal), axis=0))


def outcome(
    prior: Float[Array, " states"],
    utility: Float[Array, "actions states"],
    signal: Float[Array, "states messages"],
) -> Float[Array, "actions states"]:
    """Joint distribution of her action and the state when she sees a message of `signal`.

    Actions within 1e-12 of the best, as a share of her payoff range, tie; ties go to the lowest
    index.
    """
    joint = prior[:, None] * signal
    value = utility @ joint
    tie = _TIE * (jnp.max(utility) - jnp.min(utility))
    action = jnp.argmax(value >= jnp.max(value, axis=0, keepdims=True) - tie, axis=0)
    chosen = jax.nn.one_hot(action, utility.shape[0], axis=0, dtype=utility.dtype)
    return jnp.einsum("am,sm->as", chosen, joint)
