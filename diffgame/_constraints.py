"""Constraints as numbers: what every constrained set, of users or of providers, evaluates to."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float


def _none() -> Float[Array, " 0"]:
    return jnp.zeros(0)


class Constraints(eqx.Module):
    """The values of constraints at one point; a set is convex if these functions are.

    - `inequalities`: satisfied where at most 0; each a convex function of the point.
    - `equalities`: satisfied where 0; each an affine function of the point.

    Both are empty by default. Residuals count in the units of these numbers, so rows of about the
    same scale serve best.

    >>> import jax.numpy as jnp
    >>> from diffgame import Constraints
    >>> y = jnp.array([0.25, 0.75])
    >>> print(Constraints(inequalities=-y, equalities=jnp.sum(y)[None] - 1))
    Constraints(inequalities=f64[2], equalities=f64[1])
    """

    inequalities: Float[Array, "*providers inequalities"] = eqx.field(default_factory=_none)
    equalities: Float[Array, "*providers equalities"] = eqx.field(default_factory=_none)
