"""Extreme rays of the cones that the rows of small blocks cut out of the nonnegative numbers."""

import functools
import itertools
import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ._lanes import in_parts, over_lanes, take
from ._ties import infinitesimals

# Where rows and rays are of size one, a row that a ray meets by less than this is met exactly.
_TIE = 1e-12
_EQUAL = 1e-15
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
        rest = [row[:j] + row[j + 1 :] for row in rows[:i] + rows[i + 1 :]]
        return sum(a * b for a, b in zip(rest[0], _cofactors(rest)[0], strict=True))

    return [[minor(i, j) * (-1) ** (i + j) for j in range(n)] for i in range(n)]


class _Candidates(eqx.Module):
    """What each set of rows would determine; lists are by state, `prices` by row of the set first.

    `flat`: the rows of the set determine nothing.
    """

    ray: list[Float[Array, "candidates blocks *lanes"]]
    prices: list[list[Float[Array, "candidates blocks *lanes"]]]
    flat: Bool[Array, "candidates blocks *lanes"]


def _list_candidates(
    rows: Float[Array, "rows states blocks *lanes"], chosen: Int[np.ndarray, "tight candidates"]
) -> _Candidates:
    """The inverse of each set of rows with a row of ones below: its last column is the ray."""
    picked = [[rows[own, s] for s in range(rows.shape[1])] for own in chosen]
    ones = jnp.ones((chosen.shape[1], *rows.shape[2:]))
    cofactors = _cofactors([*picked, [ones] * rows.shape[1]])
    volume = sum(cofactors[-1][1:], cofactors[-1][0])
    largest = functools.reduce(jnp.maximum, map(jnp.abs, cofactors[-1]))
    flat = jnp.abs(volume) <= _FLAT + _TIE * largest
    scale = 1 / jnp.where(flat, 1, volume)
    *prices, ray = [[entry * scale for entry in column] for column in cofactors]
    return _Candidates(ray, prices, flat)


def _sift(rows, chosen, candidates: _Candidates):
    """Which candidates meet all rows, and how one more row refutes the block with those chosen.

    By how much its candidate misses that row, and which row it is; 0 where none does.
    """
    count, states, *batch = rows.shape
    relaxed = infinitesimals(count)
    inside = ~candidates.flat
    missed, joined = jnp.zeros(inside.shape), jnp.zeros(inside.shape, int)
    for at in range(count):
        unit = at - (count - states)
        if unit >= 0:
            parts, left = [own[unit] for own in candidates.prices], candidates.ray[unit]
        else:
            row = [rows[None, at, s] for s in range(states)]
            *parts, left = (
                sum(a * b for a, b in zip(row, column, strict=True))
                for column in (*candidates.prices, candidates.ray)
            )
        # What the row is of the chosen ones, all of them relaxed.
        room = relaxed[at] - sum(
            (
                part * relaxed[own].reshape(-1, *[1] * len(batch))
                for own, part in zip(chosen, parts, strict=True)
            ),
            0 * left,
        )
        other = np.all(chosen != at, axis=0).reshape(-1, *[1] * len(batch))
        met = (left > _TIE) | ((left >= -_TIE) & (room > 0))
        inside = inside & (met | ~other)
        opposed = functools.reduce(jnp.maximum, parts, jnp.full_like(left, -jnp.inf)) <= _TIE
        joins = other & ~candidates.flat & opposed & (left < missed)
        missed = jnp.where(joins, left, missed)
        joined = jnp.where(joins, at, joined)
    return inside, missed, joined


def rays_of_lanes(within: Float[Array, "inequalities states blocks *lanes"]) -> Rays:
    """The extreme rays of many programs at once.

    Every set of states - 1 rows that are met exactly is tried.

    Degenerate cones, where more rows meet in a ray, are treated as if each row were relaxed by an
    infinitesimal of its own. Then every ray has one set of rows, their number is bounded, and for
    every cost some ray has multipliers that prove it optimal.
    """
    inequalities, states, *batch = within.shape
    size = jnp.max(jnp.abs(within), axis=1)
    size = jnp.where(size > 0, size, 1)
    units = jnp.eye(states).reshape(states, states, *[1] * len(batch))
    units = jnp.broadcast_to(units, (states, states, *batch))
    rows = jnp.concatenate([within / size[:, None], units])
    chosen = np.array(list(itertools.combinations(range(len(rows)), states - 1)), int)
    chosen = chosen.reshape(count_candidates(inequalities, states), states - 1).T
    candidates = _list_candidates(rows, chosen)
    inside, missed, joined = _sift(rows, chosen, candidates)

    tight = chosen.reshape(*chosen.shape, *[1] * len(batch))
    tight = jnp.broadcast_to(tight, (*chosen.shape, *batch))
    prices = jnp.zeros((0, states, chosen.shape[1], *batch))
    if candidates.prices:
        prices = jnp.stack([jnp.stack(own) for own in candidates.prices])
    found = Rays(jnp.stack(candidates.ray), inside, tight, prices, 0 * size, size)
    refutation = _refute(found, rows, missed, joined)
    most = count_rays(inequalities, states)
    if chosen.shape[1] > _SPARE * most:
        found = _gather(found, most)
    ray = jnp.where(found.exists[None], jnp.maximum(found.ray, 0), 0)
    return eqx.tree_at(lambda found: (found.ray, found.refutation), found, (ray, refutation))


def _refute(
    candidates: Rays,
    rows: Float[Array, "rows states blocks *lanes"],
    missed: Float[Array, "candidates blocks *lanes"],
    joined: Int[Array, "candidates blocks *lanes"],
) -> Float[Array, "inequalities blocks *lanes"]:
    """The row that joined, less what the chosen ones are of it, leaves less than nothing."""
    least = jnp.min(missed, axis=0)
    numbers = jnp.arange(len(missed)).reshape(-1, *[1] * least.ndim)
    # Computed again, they may differ by a rounding error.
    which = jnp.min(jnp.where(missed <= least[None] + _EQUAL, numbers, len(missed) - 1), axis=0)
    last = take(joined, which)
    row = take(rows.swapaxes(0, 1), last)
    weights = [
        jnp.maximum(0, -sum(price * entry for price, entry in zip(own, row, strict=True)))
        for own in take(candidates.prices, which)
    ]
    tight = take(candidates.tight, which)
    proved = (least < -_TIE) & ~jnp.any(candidates.exists, axis=0)
    scale = jnp.where(proved, -1 / jnp.where(proved, least, -1), 0)
    found = []
    for at in range(len(candidates.size)):
        weight = jnp.where(last == at, 1.0, 0.0)
        for own, other in zip(tight, weights, strict=True):
            weight = weight + jnp.where(own == at, other, 0)
        found.append(scale * weight)
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
        index = which.reshape(*[1] * lead, *which.shape)
        return jnp.take_along_axis(array, index, axis=lead, mode="promise_in_bounds")

    return Rays(
        keep(rays.ray), exists, keep(rays.tight), keep(rays.prices), rays.refutation, rays.size
    )


_find = over_lanes(in_parts(rays_of_lanes, _WIDTH), axis=-1)


def find_rays(within: Float[Array, "blocks inequalities states"]) -> Rays:
    """All extreme rays of the blocks of one program; batch it with `jax.vmap`."""
    return _find(within.transpose(1, 2, 0))
