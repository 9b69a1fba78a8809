"""Persuading one quantal user: the concave closure of the indirect payoff, between two bounds.

A message leads to a posterior, and the user's response depends on nothing else, so a signal is a
distribution of posteriors with the prior as its mean. On finitely many posteriors the best one is
a linear program; its multipliers are a plane above the indirect payoff, and how far the payoff can
stick out of that plane between them is bounded by its second derivative.
"""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Scalar

from .._linear_program import LinearProgram
from .._program_solver import solve_linear_program
from ._quantal_bound import curvature, interpolation_factor, triangulate

# Posteriors per edge of the simplex at the start, and cells that are kept at once, by states.
PARTS = {2: 64, 3: 14}
_CAPACITY = {2: 128, 3: 2048}
# Branch and bound splits so many cells in a step, the most promising first, in so many steps.
_WIDTH = 32
_STEPS = 200
_ROUNDS = 6
_HALVINGS = 18
_REACHES = 10.0 ** -np.arange(2, 6)
# Above this share of the payoff's range a cell is looked at closer.
_TARGET = 1e-11


class QuantalPersuasion(eqx.Module):
    """The most that a signal to one quantal user is worth, between `lower` and `upper`.

    `lower` is attained by `posteriors`, each with probability `weights` (their mean is the prior
    up to rounding); `plane` [states] lies nowhere more than `upper - plane @ prior` below the
    indirect payoff.
    """

    lower: Scalar
    upper: Scalar
    plane: Float[Array, " states"]
    posteriors: Float[Array, "messages states"]
    weights: Float[Array, " messages"]


def indirect_payoff(
    posterior: Float[Array, " states"],
    utility: Float[Array, "actions states"],
    objective: Float[Array, "actions states"],
    temperature: Scalar | float,
) -> Scalar:
    """What the action of a quantal user with this posterior is worth.

    With `objective = utility` it is her own expected utility.
    """
    choice = jax.nn.softmax(utility @ posterior / temperature)
    return choice @ (objective @ posterior)


def _best_mixture(prior, points, payoffs):
    """The best weights of posteriors whose mean is the prior, and the plane that proves it."""
    program = LinearProgram(
        jnp.zeros((0, 1)),
        -payoffs,
        jnp.zeros((0, 0, 1)),
        jnp.zeros((len(prior), 0, 1)),
        points.T,
        prior,
    )
    primal, dual, _ = solve_linear_program(program)
    return jnp.maximum(primal.z, 0), -dual.rows


def _attain(prior, points, weights, payoff):
    """A signal near `weights`, whose posteriors average to the prior whatever rounding did."""
    joint = weights[:, None] * points
    total = jnp.sum(joint, axis=0, keepdims=True)
    # A weight of less than 1e-12 is an interior point method's way of writing 0.
    joint = jnp.where(weights[:, None] > 1e-12, joint / total, 0)
    joint = joint / jnp.sum(joint, axis=0, keepdims=True) * prior[None]
    weights = jnp.sum(joint, axis=1)
    posteriors = jnp.where(weights[:, None] > 0, joint, points)
    posteriors = posteriors / jnp.sum(posteriors, axis=1, keepdims=True)
    return posteriors, weights, weights @ jax.vmap(payoff)(posteriors)


def _in_units(objective, utility, temperature):
    """The indirect payoff with the objective from 0 to 1; the base and the size of that unit."""
    base = jnp.min(objective)
    size = jnp.max(objective) - base
    size = jnp.where(size > 0, size, 1)
    unit = (objective - base) / size
    return unit, base, size, lambda p: indirect_payoff(p, utility, unit, temperature)


@eqx.filter_jit
def grid_bracket(
    prior: Float[Array, " states"],
    utility: Float[Array, "actions states"],
    objective: Float[Array, "actions states"],
    temperature: Scalar | float,
    parts: int,
) -> QuantalPersuasion:
    """The concave closure from a regular grid of posteriors, 1/`parts` apart, and its error bound.

    Two or three states of positive probability, float64. With two states the error is at most
    `M / (8 parts²)`, with three `2 M / (9 parts²)`, M a bound on the second derivative.
    """
    temperature = jnp.asarray(temperature)
    points = jnp.asarray(triangulate(len(prior), parts)[0])
    unit, base, size, payoff = _in_units(objective, utility, temperature)
    payoffs = jax.vmap(payoff)(points)
    weights, plane = _best_mixture(prior, points, payoffs)
    above = jnp.max(payoffs - points @ plane)
    whole = curvature(jnp.eye(len(prior)), utility, unit, temperature) / parts**2
    error = interpolation_factor(len(prior)) * whole
    posteriors, weights, lower = _attain(prior, points, weights, payoff)
    upper = plane @ prior + above + error
    return QuantalPersuasion(
        base + size * lower, base + size * upper, base + size * plane, posteriors, weights
    )


def _halve(cell: Float[Array, "corners states"]) -> Float[Array, "children corners states"]:
    """An interval in two, a triangle in four of half the size."""
    if len(cell) == 2:
        middle = jnp.mean(cell, axis=0)
        return jnp.stack([jnp.stack([cell[0], middle]), jnp.stack([middle, cell[1]])])
    middles = (cell + jnp.roll(cell, -1, axis=0)) / 2
    tips = [jnp.stack([cell[k], middles[k], middles[k - 1]]) for k in range(3)]
    return jnp.stack([*tips, middles])


def _excess(prior, utility, unit, temperature, payoff, plane, cells):
    """How far the indirect payoff sticks out of a plane at most: branch and bound over cells."""
    states = len(prior)
    capacity = _CAPACITY[states]
    factor = interpolation_factor(states)

    def bound(cell):
        corners = jax.vmap(payoff)(cell) - cell @ plane
        at_most = jnp.max(corners) + factor * curvature(cell, utility, unit, temperature)
        return at_most, jnp.max(corners)

    def goes_on(carry):
        _, bounds, reached, settled, step = carry
        return (jnp.max(bounds) > jnp.maximum(reached + _TARGET, settled)) & (step < _STEPS)

    def closer(carry):
        cells, bounds, reached, settled, step = carry
        order = jnp.argsort(-bounds)
        cells, bounds = cells[order], bounds[order]
        smaller = jax.vmap(_halve)(cells[:_WIDTH]).reshape(-1, states, states)
        new, corners = jax.vmap(bound)(smaller)
        # What does not fit any more is left, and counts with its bound.
        kept = slice(_WIDTH, capacity + _WIDTH - len(new))
        settled = jnp.maximum(settled, jnp.max(bounds[kept.stop :]))
        cells = jnp.concatenate([smaller, cells[kept]])
        bounds = jnp.concatenate([new, bounds[kept]])
        return cells, bounds, jnp.maximum(reached, jnp.max(corners)), settled, step + 1

    index = jnp.arange(capacity)
    padded = jnp.asarray(cells)[jnp.minimum(index, len(cells) - 1)]
    bounds, corners = jax.vmap(bound)(padded)
    bounds = jnp.where(index < len(cells), bounds, -jnp.inf)
    start = padded, bounds, jnp.max(corners), jnp.full((), -jnp.inf), jnp.array(0)
    _, bounds, _, settled, _ = jax.lax.while_loop(goes_on, closer, start)
    return jnp.maximum(settled, jnp.max(bounds))


def persuade_quantal(
    prior: Float[Array, " states"],
    utility: Float[Array, "actions states"],
    objective: Float[Array, "actions states"],
    temperature: Scalar | float,
) -> QuantalPersuasion:
    """The best signal of a provider without competitors to one quantal user, bracketed.

    **Arguments:** `prior` [states]: two or three states, all of positive probability; `utility`
    and `objective` as in `Market`; `temperature` in units of utility. Needs float64; jit it.

    **Returns:** bounds usually within 1e-8 of the objective's range of each other. They come from
    linear programs over posteriors that move to where the payoff sticks out of the last plane, and
    a branch and bound over cells of the simplex for what sticks out of the final one.

    **Errors:** ValueError for another number of states.

    **Source:** Kamenica, Gentzkow (2011), Bayesian Persuasion; docs/quantal.md.

    >>> import jax, jax.numpy as jnp
    >>> from diffgame.market import persuade_quantal
    >>> conviction = jnp.array([[0.0, 0.0], [1.0, 1.0]])
    >>> found = jax.jit(persuade_quantal)(jnp.array([0.7, 0.3]), jnp.eye(2), conviction, 0.1)
    >>> print(f"{found.lower:.6f} {found.upper:.6f}")
    0.443670 0.443670
    """
    states = len(prior)
    if states not in PARTS:
        raise ValueError(
            f"persuade_quantal: {states} states; brackets are for 2 or 3 states of positive "
            "probability. Search deviations instead."
        )
    temperature = jnp.asarray(temperature)
    points, cells = triangulate(states, PARTS[states])
    points = jnp.asarray(points)
    unit, base, size, payoff = _in_units(objective, utility, temperature)
    eye = jnp.eye(states)
    moves = jnp.stack([eye[i] - eye[j] for i, j in itertools.permutations(range(states), 2)])
    moves = jnp.concatenate([jnp.zeros((1, states)), moves])

    def climb(start, plane):
        """Pattern search for a posterior near `start` that sticks out of the plane."""

        def step(point, length):
            tried = jnp.maximum(point[None] + length * moves, 0)
            tried = tried / jnp.sum(tried, axis=1, keepdims=True)
            return tried[jnp.argmax(jax.vmap(payoff)(tried) - tried @ plane)], None

        return jax.lax.scan(step, start, lengths)[0]

    lengths = 0.5 ** jnp.arange(1, _HALVINGS + 1) / PARTS[states]
    lengths = jnp.repeat(lengths, states - 1)

    def surround(centres):
        """Points close to where the plane should touch, so that it has to be tangent there."""
        near = (centres[:, None, None] + _REACHES[None, :, None, None] * moves[None, None]).reshape(
            -1, states
        )
        near = jnp.maximum(near, 0)
        return near / jnp.sum(near, axis=1, keepdims=True)

    def improve(carry, _):
        moved, touched = carry
        everything = jnp.concatenate([points, moved, surround(touched), surround(prior[None])])
        payoffs = jax.vmap(payoff)(everything)
        weights, plane = _best_mixture(prior, everything, payoffs)
        closer = jax.vmap(lambda start: climb(start, plane))(points)
        heaviest = everything[jax.lax.top_k(weights, len(touched))[1]]
        return (closer, heaviest), (everything, weights, plane)

    start = points, points[: 4 * states]
    _, found = jax.lax.scan(improve, start, length=_ROUNDS)
    everything, weights, plane = jax.tree.map(lambda leaf: leaf[-1], found)
    posteriors, weights, lower = _attain(prior, everything, weights, payoff)
    above = _excess(prior, utility, unit, temperature, payoff, plane, cells)
    upper = jnp.maximum(plane @ prior + above, lower)
    return QuantalPersuasion(
        base + size * lower, base + size * upper, base + size * plane, posteriors, weights
    )
