"""The optimal split of a prior between two states against one quantal user, differentiable."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Scalar

from .._implicit import implicit_root
from ._quantal_persuasion import indirect_payoff

_GRID = 256
_ZOOMS = 24
_NEWTON = 4
# A split that gains less than this share of the payoff's range is none.
_GAIN = 1e-12


class Split(eqx.Module):
    """The best signal about the second of two states.

    - `posteriors`: probabilities of the second state after either message, the smaller first; both
        are the prior if nothing should be said (`splits` False).
    - `weights`: probabilities of the messages. `value`: what the provider gets.
    """

    posteriors: Float[Array, " two"]
    weights: Float[Array, " two"]
    value: Scalar
    splits: Bool[Array, ""]


def _payoff(share, utility, objective, temperature):
    posterior = jnp.stack([1 - share, share])
    return indirect_payoff(posterior, utility, objective, temperature)


def _chord(ends, prior, args):
    """Value at the prior of mixing the two posteriors, and the weight of the second."""
    low, high = ends[0], ends[1]
    width = jnp.where(high > low, high - low, 1)
    weight = jnp.where(high > low, (prior - low) / width, 0)
    values = _payoff(low, *args), _payoff(high, *args)
    return (1 - weight) * values[0] + weight * values[1], weight


def _tangency(ends, everything):
    """Zero where the chord touches: slopes agree, or an end is at 0 or 1 and wants to go on."""
    prior, splits, args = everything
    low, high = ends[0], ends[1]
    width = jnp.where(high > low, high - low, 1)
    slope = (_payoff(high, *args) - _payoff(low, *args)) / width
    low_slope, high_slope = (jax.grad(_payoff)(end, *args) for end in (low, high))
    # In units in which a step is as long as the slopes' difference is large.
    touching = jnp.stack(
        [
            low - jnp.clip(low + (low_slope - slope), 0, 1),
            high - jnp.clip(high + (high_slope - slope), 0, 1),
        ]
    )
    return jnp.where(splits, touching, ends - prior[None])


def optimal_split(
    prior: Scalar | float,
    utility: Float[Array, "actions 2"],
    objective: Float[Array, "actions 2"],
    temperature: Scalar | float,
) -> Split:
    """The best signal of one provider to a quantal user when there are two states.

    The concave closure of the indirect payoff at the prior is a chord that is tangent at both its
    ends, except where an end is certainty. A grid finds the chord, zooming narrows its ends down,
    and Newton's method, kept only where it brings the slopes closer, solves the tangent condition.
    Derivatives of any order in all arguments come from that condition by the implicit function
    theorem. `persuade_quantal` proves the value.

    **Arguments:** `prior`: probability of the second state, between 0 and 1 exclusively;
    `temperature` in units of utility. Needs float64; jit it.

    **Source:** Kamenica, Gentzkow (2011), Bayesian Persuasion, on concave closures.

    >>> import jax, jax.numpy as jnp
    >>> from diffgame.market import optimal_split
    >>> conviction = jnp.array([[0.0, 0.0], [1.0, 1.0]])
    >>> split = jax.jit(optimal_split)(0.3, jnp.eye(2), conviction, 0.1)
    >>> print(split.posteriors.round(6), f"{split.value:.6f}")
    [0.       0.621845] 0.443670
    """
    prior = jnp.asarray(prior)
    args = utility, objective, jnp.asarray(temperature)
    point, fixed = jax.lax.stop_gradient((prior, args))
    ends, splits = _find(point, fixed)
    ends = implicit_root(_tangency, ends, (prior, splits, args))
    value, weight = _chord(ends, prior, args)
    value = jnp.where(splits, value, _payoff(prior, *args))
    return Split(ends, jnp.stack([1 - weight, weight]), value, splits)


def _find(prior, args):
    share = jnp.linspace(0, 1, _GRID + 1)

    def best(low, high):
        """The best pair of two lists of posteriors around the prior."""
        pairs = jnp.stack(jnp.meshgrid(low, high, indexing="ij"), axis=-1).reshape(-1, 2)
        values = jax.vmap(lambda pair: _chord(pair, prior, args)[0])(pairs)
        return pairs[jnp.argmax(values)]

    def zoom(ends, length):
        around = jnp.linspace(-length, length, 9)
        low = jnp.clip(ends[0] + around, 0, prior)
        return best(low, jnp.clip(ends[1] + around, prior, 1)), None

    # The whole grid at once, each half pulled to the prior.
    start = best(jnp.minimum(share, prior), jnp.maximum(share, prior))
    lengths = 0.5 ** jnp.arange(_ZOOMS) / _GRID
    ends, _ = jax.lax.scan(zoom, start, lengths)
    range_ = jnp.max(args[1]) - jnp.min(args[1])
    gain = _chord(ends, prior, args)[0] - _payoff(prior, *args)
    splits = gain > _GAIN * range_
    everything = prior, splits, args

    def newton(ends, _):
        residual = _tangency(ends, everything)
        matrix = jax.jacfwd(_tangency)(ends, everything)
        determinant = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
        inverse = jnp.array([[1, -1], [-1, 1]]) * matrix[::-1, ::-1].T
        step = inverse @ residual / jnp.where(determinant != 0, determinant, 1)
        new = jnp.clip(ends - step, jnp.stack([0.0, prior]), jnp.stack([prior, 1.0]))
        size = jnp.max(jnp.abs(_tangency(new, everything)))
        return jnp.where(size < jnp.max(jnp.abs(residual)), new, ends), None

    ends, _ = jax.lax.scan(newton, ends, length=_NEWTON)
    return jnp.where(splits, ends, prior), splits
