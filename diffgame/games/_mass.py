"""How much users count where nothing is said about it."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def equal_mass(users: Float[Array, "users ..."]) -> Float[Array, " users"]:
    """The same mass for everybody, 1 in total."""
    return jnp.full(users.shape[0], 1 / users.shape[0], users.dtype)
