"""What noise costs a user, and how fast what she does can bend: bounds for quantal choice."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Scalar


def wright_omega(exponent: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """W(exp(exponent)), the positive root of `w + log w = exponent`, without overflow.

    Halley's iteration, eight steps, to machine precision.

    **Source:** Corless, Jeffrey (2002), The Wright omega function.
    """
    large = exponent > 2
    safe = jnp.where(large, exponent, 3.0)
    small = jnp.log1p(jnp.exp(jnp.minimum(exponent, 2.0)))
    start = jnp.where(large, safe - jnp.log(safe), small)
    # Below the logarithm of the smallest number the root is as good as that number.
    least = jnp.finfo(start.dtype).tiny
    start = jnp.maximum(start, least)

    def improve(_, w):
        error = w + jnp.log(w) - exponent
        step = error * w / (1 + w + error / (2 * (1 + w)))
        # The iteration stays where the logarithm is defined.
        return jnp.maximum(w - step, jnp.maximum(w / 5, least))

    return jax.lax.fori_loop(0, 8, improve, start)


@jax.custom_jvp
def lambert_w(x: Float[Array, "*n"] | float) -> Float[Array, "*n"]:
    """Lambert's function W: the root w >= 0 of `w exp(w) = x`, elementwise for x >= 0.

    NaN for negative x, which have two roots or none.

    **Source:** Corless, Gonnet, Hare, Jeffrey, Knuth (1996), On the Lambert W function.

    >>> import jax.numpy as jnp
    >>> from diffgame.market import lambert_w
    >>> print(lambert_w(jnp.array([0.0, jnp.e])).round(12))
    [0. 1.]
    """
    x = jnp.asarray(x)
    positive = x > 0
    root = wright_omega(jnp.log(jnp.where(positive, x, 1)))
    return jnp.where(positive, root, jnp.where(x == 0, 0.0, jnp.nan))


@lambert_w.defjvp
def _lambert_w_jvp(primals, tangents):
    (x,), (x_tangent,) = primals, tangents
    w = lambert_w(x)
    return w, x_tangent / (x + jnp.exp(w))


def regret_bound(options: int, temperature: float | Scalar) -> Scalar:
    """The most that one quantal decision among `options` can cost, in units of utility.

    `temperature * W((options - 1) / e)`, attained when all options but the best are worse by
    `temperature * (1 + W)`; below `temperature * log(options)`.

    >>> from diffgame.market import regret_bound
    >>> print(f"{regret_bound(2, 1.0):.6f}")
    0.278465
    """
    if options < 1:
        raise ValueError(f"regret_bound: options is {options}; give at least 1.")
    return temperature * lambert_w(jnp.asarray((options - 1) / math.e))


def market_regret_bound(
    providers: int,
    actions: int,
    temperature: float | Scalar,
    *,
    user_messages: int = 1,
    rounds: int = 1,
) -> Scalar:
    """The most that a quantal user loses, against an exact one who faces the same policies.

    One term per decision in a row: her provider, what she says in each of `rounds` rounds (one of
    `user_messages`; 1 in one-shot markets, which costs nothing), her action.
    """
    if rounds < 0:
        raise ValueError(f"market_regret_bound: rounds is {rounds}; give at least 0.")
    bound = functools.partial(regret_bound, temperature=temperature)
    return bound(providers) + rounds * bound(user_messages) + bound(actions)


@functools.cache
def triangulate(states: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Points [points, states] and cells [cells, corners, states] of a regular triangulation.

    Two or three states; every edge of every cell is 1/`parts` of an edge of the simplex.
    """
    if states == 2:
        share = np.linspace(0, 1, parts + 1)
        points = np.stack([1 - share, share], axis=1)
        return points, np.stack([points[:-1], points[1:]], axis=1)
    if states != 3:
        raise ValueError(f"triangulate: {states} states; brackets are for 2 or 3.")
    inside = [(i, j) for i, j in itertools.product(range(parts + 1), repeat=2) if i + j <= parts]
    points = np.array([(i, j, parts - i - j) for i, j in inside]) / parts
    corners = []
    for i, j in inside:
        if i + j < parts:
            corners.append([(i, j), (i + 1, j), (i, j + 1)])
        if i + j < parts - 1:
            corners.append([(i + 1, j + 1), (i + 1, j), (i, j + 1)])
    pair = np.array(corners)
    third = parts - pair.sum(axis=2, keepdims=True)
    return points, np.concatenate([pair, third], axis=2) / parts


def interpolation_factor(states: int) -> float:
    """The largest error of linear interpolation per unit of second derivative times length².

    On a simplex of `states` vertices, where every edge is at most that long in every seminorm
    that the second derivative is bounded by: 1/8 for an interval, 2/9 for a triangle.
    """
    pairs = (states - 1) / (2 * states)
    return (pairs + math.comb(states, 3) * 3 / states**3) / 2


def _spread(values: Array) -> Array:
    return jnp.max(values, axis=0) - jnp.min(values, axis=0)


def curvature(
    cell: Float[Array, "corners states"],
    utility: Float[Array, "actions states"],
    objective: Float[Array, "actions states"],
    temperature: Scalar,
) -> Scalar:
    """Bound on the second derivative of the indirect payoff on a cell, times length².

    The indirect payoff of a posterior p is `sum_a softmax(E_p u / temperature)_a E_p objective_a`.
    Bounds hold in all directions between two points of the cell at their distance: the smaller
    of one by ranges over actions, `R_d² R_U / (4 t²) + R_d R_D / (2 t)`, and one by how likely
    each action can be anywhere in the cell.
    """
    corners = len(cell)
    first, last = jnp.triu_indices(corners, 1)
    edges = (cell[first] - cell[last]).T
    slope, pay_slope = utility @ edges, objective @ edges
    value, pay = utility @ cell.T, objective @ cell.T
    wide, pay_wide = jnp.max(_spread(slope)), jnp.max(_spread(pay_slope))
    by_range = wide**2 * jnp.max(_spread(pay)) / 4 + temperature * wide * pay_wide / 2
    # What an action can be chosen with: the others' smallest leads, each at its own corner.
    lead = jnp.min(value[None] - value[:, None], axis=2)
    likely = jnp.exp(-jax.nn.logsumexp(lead / temperature, axis=1))
    middle = jax.nn.softmax(jnp.mean(value, axis=1) / temperature)

    def around(table):
        """Distances from the middle's mean, and how far the mean itself can move."""
        away = table - (middle @ table)[None]
        up, down = likely @ jnp.maximum(away, 0), likely @ jnp.maximum(-away, 0)
        return jnp.abs(away), jnp.maximum(up, down)

    away, drift = around(slope)
    move = jnp.max(away + drift[None], axis=1)
    pay_move = jnp.max(around(pay_slope)[0], axis=1)
    pay_away, pay_drift = around(pay)
    stake = jnp.max(pay_away, axis=1) + jnp.max(pay_drift)
    by_cell = likely @ (move**2 * stake) + 2 * temperature * (likely @ (move * pay_move))
    return jnp.minimum(by_range, by_cell) / temperature**2
