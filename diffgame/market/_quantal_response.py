"""The best response of a provider to one quantal user who also listens to others.

She comes with probability P(V) = 1 / (1 + exp((barrier - V) / temperature)), V her value of the
deviator's signal, and is worth `elsewhere` where she goes else. Of a signal only V and what it
pays, D, matter, and the pairs (V, D) form a convex set. Each of its supporting lines is a
persuasion problem without competition; along a line the payoff `elsewhere + P(V) (D - elsewhere)`
has a maximum in closed form.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from ._quantal_bound import wright_omega
from ._quantal_persuasion import indirect_payoff, persuade_quantal

# Slopes of the first lines, as shares of twice the steepest that an optimum can have.
_SHARES = (-1.0, -0.03, 0.0, 0.03, 0.15, 1.0)
_ROUNDS = 7


class Rivals(eqx.Module):
    """What a deviator is up against: the other providers, as one quantal user sees them.

    - `barrier`: `temperature * log sum exp(value / temperature)` of the others.
    - `payoff`: what she is worth to the deviator when she listens to one of them.
    """

    barrier: Scalar
    payoff: Scalar


class QuantalResponse(eqx.Module):
    """The most that a provider gets from one quantal user, between `lower` and `upper`.

    `lower` is attained by `posteriors`, each with probability `weights`: worth `value` to her.
    """

    lower: Scalar
    upper: Scalar
    value: Scalar
    posteriors: Float[Array, "messages states"]
    weights: Float[Array, " messages"]


class _Line(eqx.Module):
    """D + slope * V <= ceiling for every signal, and a signal (V, D) that nearly attains it."""

    slope: Float[Array, "*lines"]
    ceiling: Float[Array, "*lines"]
    value: Float[Array, "*lines"]
    payoff: Float[Array, "*lines"]
    posteriors: Float[Array, "*lines messages states"]
    weights: Float[Array, "*lines messages"]


def _take(lines: _Line, where) -> _Line:
    return jax.tree.map(lambda leaf: leaf[where], lines)


def most_on_line(
    at: Float[Array, "*n"],
    height: Float[Array, "*n"],
    slope: Float[Array, "*n"],
    low: Float[Array, "*n"],
    high: Float[Array, "*n"],
    barrier: Scalar,
    temperature: Scalar,
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """The maximum of `P(V) (height - slope (V - at))` over low <= V <= high, and where it is.

    Where a falling line is positive the product is log-concave, with the stationary point of a
    logit monopolist: markup `temperature * (1 + W)`. Elsewhere the maximum is at an end.
    """
    falls = slope > 0
    safe = jnp.where(falls, slope, 1)
    zero = at + height / safe
    # The difference of the line's zero and the markup is barrier + temperature * log W; where a
    # line hardly falls, its zero is too far to be a number.
    exponent = jnp.clip((zero - barrier) / temperature - 1, -1e9, 1e9)
    root = wright_omega(exponent)
    log_root = jnp.where(exponent > 1, jnp.log(root), exponent - root)
    inside = jnp.where(falls, jnp.clip(barrier + temperature * log_root, low, high), high)
    where = jnp.stack([low, high, inside])
    comes = jax.nn.sigmoid((where - barrier) / temperature)
    value = comes * (height[None] - slope[None] * (where - at[None]))
    best = jnp.argmax(value, axis=0)[None]
    value, where = (jnp.take_along_axis(array, best, axis=0)[0] for array in (value, where))
    return value, where


def respond_quantal(
    prior: Float[Array, " states"],
    utility: Float[Array, "actions states"],
    objective: Float[Array, "actions states"],
    temperature: Scalar | float,
    rivals: Rivals | None = None,
) -> QuantalResponse:
    """The best signal of one provider to one quantal user, bracketed.

    **Arguments:** `prior` [states]: two or three states, all of positive probability; `utility`
    and `objective` as in `Market`; `temperature` in units of utility; `rivals`: None without other
    providers. Needs float64; jit it.

    **Source:** docs/quantal.md.

    >>> import jax, jax.numpy as jnp
    >>> from diffgame.market import respond_quantal
    >>> conviction = jnp.array([[0.0, 0.0], [1.0, 1.0]])
    >>> found = jax.jit(respond_quantal)(jnp.array([0.7, 0.3]), jnp.eye(2), conviction, 0.1)
    >>> print(f"{found.lower:.6f} {found.upper:.6f}")
    0.443670 0.443670
    """
    temperature = jnp.asarray(temperature)
    if rivals is None:
        # So far below anything that exp(-1000) of her goes elsewhere: nothing, in numbers.
        nobody = jnp.min(utility, axis=0) @ prior - 1000 * temperature
        rivals = Rivals(nobody, jnp.min(objective))
    barrier, elsewhere = rivals.barrier, rivals.payoff
    least = jnp.min(objective)
    size = jnp.maximum(jnp.max(objective), elsewhere) - jnp.minimum(least, elsewhere)
    size = jnp.where(size > 0, size, 1)
    steepest = 2 * size / temperature
    first = jnp.array(_SHARES) * steepest
    count = len(first)

    def support(slope) -> _Line:
        found = persuade_quantal(prior, utility, objective + slope * utility, temperature)

        def worth(table):
            each = jax.vmap(lambda p: indirect_payoff(p, utility, table, temperature))
            return found.weights @ each(found.posteriors)

        value, payoff = worth(utility), worth(objective)
        return _Line(slope, found.upper, value, payoff, found.posteriors, found.weights)

    def most(line: _Line, low, high):
        height = line.ceiling - line.slope * line.value - elsewhere
        return most_on_line(line.value, height, line.slope, low, high, barrier, temperature)[0]

    def compare(lines: _Line, known):
        """Between neighbours: what lines allow and what mixtures reach; `lines` by slope."""
        left, right = _take(lines, slice(None, -1)), _take(lines, slice(1, None))
        gap = known[1:]
        low, high = left.value, jnp.maximum(right.value, left.value)
        bend = right.slope - left.slope
        cross = (right.ceiling - left.ceiling) / jnp.where(bend > 0, bend, 1)
        cross = jnp.where(bend > 0, jnp.clip(cross, low, high), low)
        upper = jnp.maximum(most(left, low, cross), most(right, cross, high))
        rise = right.value - left.value
        chord = (left.payoff - right.payoff) / jnp.where(rise > 0, rise, 1)
        chord = jnp.where(rise > 0, chord, 0)
        reached, where = most_on_line(
            left.value, left.payoff - elsewhere, chord, low, high, barrier, temperature
        )
        share = jnp.clip((where - low) / jnp.where(rise > 0, rise, 1), 0, 1)
        # Values out of order have no mixture between them, only the left point.
        here = jax.nn.sigmoid((low - barrier) / temperature) * (left.payoff - elsewhere)
        reached, share = jnp.where(rise > 0, reached, here), jnp.where(rise > 0, share, 0)
        nothing = -jnp.inf
        return (
            jnp.where(gap, upper, nothing),
            jnp.where(gap, reached, nothing),
            share,
            jnp.where(rise > 0, chord, (left.slope + right.slope) / 2),
        )

    def next_slopes(lines: _Line, upper, chord):
        """Chords of the gaps that promise most, and where the best one's optimum should be."""
        _, gaps = jax.lax.top_k(upper, count - 1)
        comes = jax.nn.sigmoid((lines.value - barrier) / temperature)
        wanted = (1 - comes) * (lines.payoff - elsewhere) / temperature - lines.slope
        at = gaps[0]
        fall = wanted[at] - wanted[at + 1]
        share = jnp.clip(wanted[at] / jnp.where(fall != 0, fall, 1), 0.01, 0.99)
        secant = lines.slope[at] + share * (lines.slope[at + 1] - lines.slope[at])
        middle = jnp.clip(chord[gaps], lines.slope[gaps], lines.slope[gaps + 1])
        return jnp.concatenate([middle, secant[None]])

    def ordered(lines: _Line, known):
        order = jnp.argsort(jnp.where(known, lines.slope, jnp.inf))
        return _take(lines, order), known[order]

    def explore(carry, number):
        lines, slopes = carry
        new = jax.vmap(support)(slopes)
        lines = jax.tree.map(
            lambda all_, some: jax.lax.dynamic_update_slice_in_dim(
                all_, some, number * count, axis=0
            ),
            lines,
            new,
        )
        sorted_, known = ordered(lines, jnp.arange(count * _ROUNDS) < (number + 1) * count)
        upper, _, _, chord = compare(sorted_, known)
        return (lines, next_slopes(sorted_, upper, chord)), None

    shapes = jax.eval_shape(jax.vmap(support), first)
    blank = jax.tree.map(
        lambda leaf: jnp.zeros((count * _ROUNDS, *leaf.shape[1:]), leaf.dtype), shapes
    )
    (lines, _), _ = jax.lax.scan(explore, (blank, first), jnp.arange(_ROUNDS))
    lines, known = ordered(lines, jnp.ones(count * _ROUNDS, bool))
    upper, reached, share, _ = compare(lines, known)
    # Beyond the outermost lines, as far as they leave room above the least payoff.
    start, end = _take(lines, 0), _take(lines, -1)
    before = most(start, jnp.minimum((least - start.ceiling) / steepest, start.value), start.value)
    after = most(end, end.value, jnp.maximum((end.ceiling - least) / steepest, end.value))
    best = jnp.argmax(reached)
    mix = jnp.stack([1 - share[best], share[best]])
    pair = jnp.stack([best, best + 1])
    lower = reached[best]
    upper = jnp.maximum(jnp.maximum(jnp.max(upper), jnp.maximum(before, after)), lower)
    return QuantalResponse(
        elsewhere + lower,
        elsewhere + upper,
        mix @ lines.value[pair],
        lines.posteriors[pair].reshape(-1, len(prior)),
        (mix[:, None] * lines.weights[pair]).ravel(),
    )
