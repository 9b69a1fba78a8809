"""Fixed points of a map of few dimensions, and what happens to disturbances near them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Scalar

Map = Callable[[Float[Array, " n"]], Float[Array, " n"]]

# The linear model must predict the next velocity up to this part of the present one.
_TRUST = 0.25
_DOUBLINGS = 60


def size(vector: Float[Array, " n"]) -> Scalar:
    """Sup norm; NaN if anything is not finite, whatever a reduction makes of NaN."""
    return jnp.where(jnp.all(jnp.isfinite(vector)), jnp.max(jnp.abs(vector)), jnp.nan)


def small(residual: Float[Array, " n"], scale: Scalar) -> Bool[Array, ""]:
    """Whether a residual is zero up to rounding in numbers of the size of `scale`."""
    precision = max(1e-11, 64 * float(jnp.finfo(residual.dtype).eps))
    error = size(residual)
    return jnp.isfinite(error) & (error <= precision * (1 + scale))


def _value_and_slope(function: Map, point: Float[Array, " n"]):
    def twice(point):
        value = function(point)
        return value, value

    slope, value = jax.jacfwd(twice, has_aux=True)(point)
    return value, slope


def _advance(
    slope: Float[Array, "n n"], velocity: Float[Array, " n"], length: Scalar
) -> Float[Array, " n"]:
    """How far the linear flow dx/dt = velocity + slope x gets from 0 in a time `length`.

    By 2^k implicit Euler steps that are too short to cross an unstable direction, added up by k
    doublings. For a stable slope and a long time it tends to the Newton step.
    """
    rate = jnp.max(jnp.sum(jnp.abs(slope), axis=1))
    doublings = jnp.ceil(jnp.log2(jnp.maximum(2 * length * rate, 1)))
    doublings = jnp.where(jnp.isfinite(doublings), jnp.minimum(doublings, _DOUBLINGS), 0)
    step = length / 2**doublings
    identity = jnp.eye(slope.shape[0], dtype=slope.dtype)
    once = jnp.linalg.inv(identity - step * slope)

    def double(_, carry):
        power, added = carry
        return power @ power, added + power @ added

    _, added = jax.lax.fori_loop(0, doublings.astype(int), double, (once, step * once))
    return added @ velocity


def follow(function: Map, start: Float[Array, " n"], max_steps: int = 500) -> Float[Array, " n"]:
    """The limit of dx/dt = function(x) - x from `start`: a stable fixed point, as a rule.

    Exponential Euler steps: the flow of the linearization is followed exactly enough, for as long
    a time as the linear model predicts the velocity. Near a stable fixed point that time grows
    and the steps become Newton's, however close to a fold it is. Not differentiable; the result
    need not be a fixed point if `max_steps` is reached.

    **Source:** Hochbruck, Ostermann (2010), Exponential integrators, 2.1; Kelley, Keyes (1998),
    Convergence analysis of pseudo-transient continuation.

    >>> import jax.numpy as jnp
    >>> print(follow(jnp.cos, jnp.zeros(1)).round(6))
    [0.739085]
    """

    def velocity(point):
        return function(point) - point

    def goes_on(carry):
        point, (speed, _), _, step = carry
        moving = jnp.isfinite(size(speed)) & ~small(speed, size(point))
        return moving & (step < max_steps)

    def improve(carry):
        point, (speed, slope), length, step = carry
        move = _advance(slope, speed, length)
        tried = point + move
        there = _value_and_slope(velocity, tried)
        defect = size(there[0] - speed - slope @ move)
        good = defect <= _TRUST * size(speed)
        point, here = jax.tree.map(
            lambda new, old: jnp.where(good, new, old), (tried, there), (point, (speed, slope))
        )
        return point, here, jnp.where(good, 4 * length, length / 4), step + 1

    length = jnp.ones((), start.dtype)
    carry = start, _value_and_slope(velocity, start), length, jnp.array(0)
    return jax.lax.while_loop(goes_on, improve, carry)[0]


def spectral_radius(matrix: Float[Array, "n n"]) -> Scalar:
    """Largest modulus of an eigenvalue, by 40 squarings; NaN if anything is not finite.

    >>> import jax.numpy as jnp
    >>> print(spectral_radius(jnp.array([[0.0, 4.0], [-1.0, 0.0]])).round(9))
    2.0
    """

    def square(number, carry):
        power, logarithm = carry
        norm = jnp.linalg.norm(power)
        norm = jnp.where(norm == 0, 1, norm)
        power = power / norm
        return power @ power, logarithm + jnp.log(norm) / 2.0**number

    start = matrix, jnp.zeros((), matrix.dtype)
    power, logarithm = jax.lax.fori_loop(0, 40, square, start)
    radius = jnp.where(jnp.any(power != 0), jnp.exp(logarithm), 0)
    return jnp.where(jnp.all(jnp.isfinite(matrix)), radius, jnp.nan)


def is_stable(slope: Float[Array, "n n"]) -> Bool[Array, ""]:
    """Whether no disturbance of dx/dt = slope x grows: no eigenvalue has a positive real part.

    >>> import jax.numpy as jnp
    >>> print(is_stable(jnp.array([[-1.0, 9.0], [0.0, -2.0]])), is_stable(jnp.eye(2)))
    True False
    """
    rate = jnp.max(jnp.sum(jnp.abs(slope), axis=1))
    part = slope / (8 * jnp.maximum(rate, jnp.finfo(slope.dtype).tiny))
    identity = jnp.eye(slope.shape[0], dtype=slope.dtype)
    # The exponential up to fourth order, whose modulus is right to 1e-7 at these lengths.
    power = identity
    for order in (4, 3, 2, 1):
        power = identity + part @ power / order
    # Neutral directions count as stable, up to rounding.
    return spectral_radius(power) <= 1 + 64 * float(jnp.finfo(slope.dtype).eps) ** 0.75
