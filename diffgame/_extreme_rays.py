"""Extreme rays of the cones that the rows of small blocks cut out of the nonnegative numbers."""

import functools
import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ._lanes import over_last

# Where rows and rays are of size one, a row that a ray meets by less than this is met exactly.
_TIE = 1e-12
# Rows that span a volume smaller than this do not determine a ray.
_FLAT = 1e-13
# Candidates are sifted when there are more than this many per ray that can exist.
_SPARE = 2
_WIDTH = 64


class Rays(eqx.Module):
    """All extreme rays of {x >= 0, within @ x >= 0}, block by block; each sums to one.

    - `ray`: zeros where there is none. `exists`: whether there is one.
    - `tight`: the rows that determine it, counted through `within` and then x >= 0; the products of
        `prices` and a cost are the multipliers of these rows that make the ray optimal for that
        cost, if any do.
    - `refutation`: of a block without rays, nonnegative multipliers of its rows (of size one) whose
        sum is at most -1 in every state; else zeros.
    - `size`: the largest coefficient of each row `within`.

    Everything that programs are batched by comes last.
    """

    ray: Float[Array, "states rays blocks *lanes"]
    exists: Bool[Array, "rays blocks *lanes"]
    tight: Int[Array, "tight rays blocks *lanes"]
    prices: Float[Array, "tight states rays blocks *lanes"]
    refutation: Float[Array, "inequalities blocks *lanes"]
    size: Float[Array, "inequalities blocks *lanes"]

    def only(self, blocks: Bool[Array, " blocks"]) -> "Rays":
        """The same where the other blocks have no rows and nothing counts in them."""
        exists = self.exists & blocks[None]
        return Rays(
            jnp.where(exists[None], self.ray, 0),
            exists,
            self.tight,
            self.prices,
            jnp.where(blocks[None], self.refutation, 0),
            self.size,
        )


def count_candidates(inequalities: int, states: int) -> int:
    """How many sets of rows could determine a ray."""
    return math.comb(inequalities + states, states - 1)


def count_rays(inequalities: int, states: int) -> int:
    """The most extreme rays that a block can have (upper bound theorem, McMullen 1970)."""
    facets, dimension = inequalities + states, states - 1
    half, rest = dimension // 2, dimension - dimension // 2
    most = math.comb(facets - rest, half)
    return most + (math.comb(facets - half - 1, rest - 1) if rest else 0)


def _cofactors(rows: list[list[Array]]) -> list[list[Array]]:
    """Of a square matrix, written out."""
    n = len(rows)
    if n == 1:
        return [[jnp.ones_like(rows[0][0])]]

    def minor(i, j):
        left = [
            [entry for b, entry in enumerate(row) if b != j] for row in rows[:i] + rows[i + 1 :]
        ]
        if n == 2:
            return left[0][0]
        first = _cofactor_row(left)
        return (
            sum(a * b for a, b in zip(left[0][1:], first[1:], strict=True)) + left[0][0] * first[0]
        )

    return [[minor(i, j) * (-1) ** (i + j) for j in range(n)] for i in range(n)]


def _cofactor_row(rows):
    return _cofactors(rows)[0]


# XLA computes what several results need again for each of them, unless it is told not to.
_once = jax.lax.optimization_barrier


def rays_of_lanes(within: Float[Array, "inequalities states blocks *lanes"]) -> Rays:
    """The extreme rays of many programs at once.

    Every set of states - 1 rows that are met exactly is tried.

    Degenerate cones, where more rows meet in a ray, are treated as if each row were relaxed by an
    infinitesimal of its own. Then every ray has one set of rows, their number is bounded, and for
    every cost some ray has multipliers that prove it optimal.

    **Source:** Charnes (1952), Optimality and degeneracy in linear programming.
    """
    inequalities, states, *batch = within.shape
    size = jnp.max(jnp.abs(within), axis=1)
    size = jnp.where(size > 0, size, 1)
    units = jnp.eye(states).reshape(states, states, *[1] * len(batch))
    units = jnp.broadcast_to(units, (states, states, *batch))
    rows = _once(jnp.concatenate([within / size[:, None], units]))
    count = inequalities + states
    chosen = np.array(list(itertools.combinations(range(count), states - 1)), int)
    chosen = chosen.reshape(count_candidates(inequalities, states), states - 1).T
    relaxed = 0.5 + np.modf(np.arange(1, count + 1) * np.sqrt(np.arange(2, count + 2)))[0]

    def along(array):
        """Of one number per candidate."""
        return array.reshape(-1, *[1] * len(batch))

    candidates = chosen.shape[1]
    picked = _once([[rows[own, s] for s in range(states)] for own in chosen])
    one = jnp.ones((candidates, *batch))
    cofactors = _once(_cofactors([*picked, [one] * states]))
    volume = sum(cofactors[-1][1:], cofactors[-1][0])
    largest = functools.reduce(jnp.maximum, map(jnp.abs, cofactors[-1]))
    flat = jnp.abs(volume) <= _FLAT + _TIE * largest
    scale = _once(1 / jnp.where(flat, 1, volume))
    *prices, ray = _once([[c * scale for c in column] for column in cofactors])
    inside = ~flat
    # How much the block is missed by where one more row joins those chosen in proving it empty.
    missed, joined = 0 * one, jnp.zeros(one.shape, int)
    for at in range(count):
        if at < inequalities:
            parts = [sum(rows[None, at, s] * p[s] for s in range(states)) for p in prices]
            left = sum(rows[None, at, s] * ray[s] for s in range(states))
        else:
            parts, left = [p[at - inequalities] for p in prices], ray[at - inequalities]
        room = sum((-c * along(relaxed[own]) for own, c in zip(chosen, parts, strict=True)), 0)
        met = (left > _TIE) | ((left >= -_TIE) & (room + relaxed[at] > 0))
        other = along(~np.any(chosen == at, axis=0))
        inside = inside & (met | ~other)
        opposed = functools.reduce(jnp.maximum, parts, -one) <= _TIE
        joins = other & ~flat & opposed & (left < missed)
        missed = jnp.where(joins, left, missed)
        joined = jnp.where(joins, at, joined)
    inside, missed, joined = _once((inside, missed, joined))

    tight = jnp.broadcast_to(
        chosen.reshape(*chosen.shape, *[1] * len(batch)), (*chosen.shape, *batch)
    )
    empty = jnp.zeros((0, states, candidates, *batch))
    stacked = jnp.stack([jnp.stack(price) for price in prices]) if prices else empty
    found = Rays(jnp.stack(ray), inside, tight, stacked, 0 * size, size)
    refutation = _refute(found, rows, missed, joined)
    most = count_rays(inequalities, states)
    if candidates > _SPARE * most:
        found = _gather(found, most)
    positive = jnp.where(found.exists[None], jnp.maximum(found.ray, 0), 0)
    return eqx.tree_at(lambda found: (found.ray, found.refutation), found, (positive, refutation))


def _refute(candidates: Rays, rows, missed, joined) -> Float[Array, "inequalities blocks *lanes"]:
    """The row that joined, less what the chosen ones are of it, leaves less than nothing."""
    inequalities = len(candidates.size)
    least = jnp.min(missed, axis=0)
    which = jnp.min(
        jnp.where(
            missed <= least[None],
            jnp.arange(len(missed)).reshape(-1, *[1] * least.ndim),
            len(missed),
        ),
        axis=0,
    )

    def take(array, which):
        lead = array.ndim - which.ndim
        index = which.reshape(*[1] * lead, *which.shape)
        return jnp.take_along_axis(array, index, axis=lead - 1).squeeze(lead - 1)

    last = take(joined, which)
    row = take(rows.swapaxes(0, 1), last)
    weights = [
        jnp.maximum(0, -sum(price * entry for price, entry in zip(own, row, strict=True)))
        for own in take(candidates.prices, which)
    ]
    tight = take(candidates.tight, which)
    proved = (least < -_TIE) & ~jnp.any(candidates.exists, axis=0)
    scale = jnp.where(proved, -1 / jnp.where(proved, least, -1), 0)
    found = [
        scale
        * sum(
            (jnp.where(own == at, w, 0) for own, w in zip(tight, weights, strict=True)),
            (last == at) * 1.0,
        )
        for at in range(inequalities)
    ]
    return jnp.stack(found) if found else candidates.size


def _gather(rays: Rays, most: int) -> Rays:
    """The rays that exist, of no more candidates than can."""
    candidates, *batch = rays.exists.shape
    place = jnp.where(rays.exists, jnp.cumsum(rays.exists, axis=0) - 1, most)
    everywhere = jnp.meshgrid(*map(jnp.arange, batch), indexing="ij")
    numbers = jnp.broadcast_to(
        jnp.arange(candidates).reshape(-1, *[1] * len(batch)), rays.exists.shape
    )
    which = jnp.full((most, *batch), candidates)
    which = which.at[place, *(own[None] for own in everywhere)].set(numbers, mode="drop")
    exists = which < candidates
    which = jnp.where(exists, which, 0)

    def keep(array):
        lead = array.ndim - which.ndim
        return jnp.take_along_axis(array, which.reshape(*[1] * lead, *which.shape), axis=lead)

    return Rays(
        keep(rays.ray), exists, keep(rays.tight), keep(rays.prices), rays.refutation, rays.size
    )


_find = over_last(rays_of_lanes, _WIDTH)


def find_rays(within: Float[Array, "blocks inequalities states"]) -> Rays:
    """All extreme rays of the blocks of one program; batch it with `jax.vmap`."""
    return _find(within.transpose(1, 2, 0))
