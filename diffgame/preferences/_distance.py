"""Sup-norm distance of people's values from the mixes of providers, over the items they rated.

The programs of `diffgame.market` are solved on some of the items and their mixes checked on all:
what is proved on some bounds the distance from below, what is attained on all from above. Items
that the mixes violate most join the next round.
"""

from operator import itemgetter
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64

from ..market import strong_alignment_distances
from ..market._alignment import nearest_mix

KINDS = ("hull_none", "hull_constant", "cone_none", "cone_constant")
# Bounds that differ by less than this share of the largest value count as equal.
_EQUAL = 1e-9
_ROUNDS = 30
# Programs solved together, and how near to its bound an item must be to stay in the next round.
_TOGETHER = 32
_ACTIVE = 1e-6


@eqx.filter_jit
def _weak(
    values: Float[Array, "programs items"],
    tables: Float[Array, "programs providers items"],
    hull: Bool[Array, " programs"],
    constant: Bool[Array, " programs"],
):
    def program(values, tables, hull, constant):
        # The items are the actions of a game with one state: a constant is the only offset.
        kind = jnp.where(constant, 1, 0)
        return nearest_mix(values[:, None], tables[:, :, None], hull, kind)

    return jax.vmap(program)(values, tables, hull, constant)


@eqx.filter_jit
def _strong(
    values: Float[Array, "groups items"],
    tables: Float[Array, "providers groups items"],
    mass: Float[Array, " groups"],
):
    return strong_alignment_distances(values[:, :, None], tables[..., None], mass)["constant"]


def _chosen(observed: np.ndarray, score: np.ndarray, count: int) -> np.ndarray:
    """Indices [rows, count] of the observed items with the highest scores of each row.

    Rows with fewer repeat some: a repeated item is the same constraint twice.
    """
    rows = []
    for seen, scores in zip(observed, score, strict=True):
        indices = np.flatnonzero(seen)
        rows.append(np.resize(indices[np.argsort(-scores[indices], kind="stable")[:count]], count))
    return np.stack(rows)


def _next_score(residual: np.ndarray, chosen: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Scores [rows, items]: what binds in the program solved comes first, then by violation.

    While items that bind stay, every round's bound is at least the last one's.
    """
    size = np.abs(residual)
    binding = np.zeros(size.shape, bool)
    np.put_along_axis(binding, chosen, True, axis=1)
    binding &= size >= (1 - _ACTIVE) * distance[:, None]
    return np.where(binding, size.max() + 1, size)


def _spread(residual: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Middle and half range of the observed residuals of each row."""
    high = np.where(observed, residual, -np.inf).max(axis=-1)
    low = np.where(observed, residual, np.inf).min(axis=-1)
    return (high + low) / 2, (high - low) / 2


def _start(values: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Scores of the first round: how far a value is from the middle of its row."""
    return np.abs(values - _spread(values, observed)[0][:, None])


def working_size(observed: Bool[np.ndarray, "people items"], providers: int, rows: int) -> int:
    """How many items per row a program holds, when `rows` rows share its unknowns."""
    # At a vertex as many items bind as there are unknowns: room for twice a row's share of them.
    unknowns = providers + 2 * rows + 1
    return min(int(observed.sum(axis=1).max()), 2 * unknowns // rows + 32)


def sup_distances(
    values: Float64[np.ndarray, "people items"],
    observed: Bool[np.ndarray, "people items"],
    utilities: Float64[np.ndarray, "providers items"],
) -> dict[str, dict[str, Any]]:
    """Distance of each person's values from the hull and the cone of the providers' utilities.

    The largest |sum_i weights[i] utilities[i] + offset - values| over the items that she rated,
    at the best weights: in the hull they sum to one, in the cone they are nonnegative; the
    offset is none or a constant.

    Args:
        values: of the people; anything finite where not observed.
        observed: which values count, at least one per person.
        utilities: of the providers.

    Returns:
        For each of hull_none, hull_constant, cone_none, cone_constant: bounds `lower` and `upper`
        of the distance [people], `weights` [people, providers] and `offset` [people] that attain
        the upper one, and `certified` [people]: the two agree to 1e-9 of the largest value.

    Example:
        >>> import numpy as np
        >>> found = sup_distances(np.array([[1.0, 2.0, 4.0]]), np.ones((1, 3), bool),
        ...                       np.array([[0.0, 1.0, 3.0], [1.0, 0.0, 0.0]]))
        >>> found["hull_constant"]["upper"].round(6), found["hull_none"]["lower"].round(6)
        (array([0.]), array([1.]))
    """
    people, providers = len(values), len(utilities)
    # One program per kind and person, in this order.
    hull = np.repeat([kind.startswith("hull") for kind in KINDS], people)
    constant = np.repeat([kind.endswith("constant") for kind in KINDS], people)
    values, observed = np.tile(values, (len(KINDS), 1)), np.tile(observed, (len(KINDS), 1))
    programs = len(values)
    count = working_size(observed, providers, 1)
    largest = np.where(observed, np.abs(values), 0).max(axis=1)
    best = {
        "lower": np.zeros(programs),
        "upper": np.full(programs, np.inf),
        "weights": np.zeros((programs, providers)),
        "offset": np.zeros(programs),
        "certified": np.zeros(programs, bool),
    }
    score = _start(values, observed)
    together = min(programs, _TOGETHER)
    for _ in range(_ROUNDS):
        unsettled = np.flatnonzero(~best["certified"])
        for first in range(0, len(unsettled), together):
            part = unsettled[first : first + together]
            # The last part repeats some programs: one shape is compiled.
            padded = np.resize(part, together)
            chosen = _chosen(observed[padded], score[padded], count)
            own = jnp.asarray(np.take_along_axis(values[padded], chosen, axis=1))
            tables = jnp.asarray(utilities.T[chosen].swapaxes(1, 2))
            kinds = jnp.asarray(hull[padded]), jnp.asarray(constant[padded])
            found = jax.device_get(_weak(own, tables, *kinds))
            found = jax.tree.map(itemgetter(slice(len(part))), found)
            rest = values[part] - found.weights @ utilities
            middle, half = _spread(rest, observed[part])
            offset = np.where(constant[part], middle, 0)
            upper = np.where(constant[part], half, np.abs(middle) + half)
            better = upper < best["upper"][part]
            for field, new in (("upper", upper), ("weights", found.weights), ("offset", offset)):
                best[field][part[better]] = new[better]
            lower = np.maximum(best["lower"][part], np.where(found.certified, found.lower, 0))
            best["lower"][part] = np.minimum(lower, best["upper"][part])
            # The offset of the program is that of the items it holds.
            inner = rest - found.offset[:, :1]
            score[part] = _next_score(inner, chosen[: len(part)], found.distance)
        gap = best["upper"] - best["lower"]
        best["certified"] = np.isfinite(gap) & (gap <= _EQUAL * largest)
        if best["certified"].all() or count >= observed.sum(axis=1).max():
            break
    return {
        kind: {field: values[k * people : (k + 1) * people] for field, values in best.items()}
        for k, kind in enumerate(KINDS)
    }


def strong_distance(
    values: Float64[np.ndarray, "groups items"],
    observed: Bool[np.ndarray, "groups items"],
    utilities: Float64[np.ndarray, "providers items"],
    mass: Float64[np.ndarray, " groups"],
) -> dict[str, Any]:
    """Distance of all groups from ONE mix of the providers, groups scaled up freely.

    The largest |sum_i weights[i] mass[j] utilities[i] + offset[j] - scales[j] values[j]| over
    groups j and the items observed of them, at the best weights >= 0, scales >= 1 and offsets:
    `diffgame.market.strong_alignment_distances` with items for actions.

    Returns:
        Bounds `lower` and `upper`; `weights` [providers], `scales` and `offset` [groups] that
        attain the upper one; `certified`: the bounds agree to 1e-9 of the largest value.

    Example:
        >>> import numpy as np
        >>> up, down = np.array([0.0, 1.0, 2.0]), np.array([2.0, 1.0, 0.0])
        >>> found = strong_distance(np.stack([up, down]), np.ones((2, 3), bool), up[None],
        ...                         np.ones(2))
        >>> round(found["upper"], 6), found["certified"]
        (1.0, True)
    """
    groups, providers = len(values), len(utilities)
    count = working_size(observed, providers, groups)
    largest = np.abs(values[observed]).max()
    best: dict[str, Any] = {"lower": 0.0, "upper": np.inf, "certified": False}
    score = _start(values, observed)
    for _ in range(_ROUNDS):
        chosen = _chosen(observed, score, count)
        own = jnp.asarray(np.take_along_axis(values, chosen, axis=1))
        tables = jnp.asarray(utilities[:, chosen])
        found = jax.device_get(_strong(own, tables, jnp.asarray(mass)))
        mix = mass[:, None] * (found.weights @ utilities)[None]
        rest = found.scales[:, None] * values - mix
        offset, half = _spread(rest, observed)
        upper = float(half.max())
        if upper < best["upper"]:
            best |= {"upper": upper, "weights": found.weights, "scales": found.scales}
            best["offset"] = offset
        lower = float(found.lower) if found.certified else 0.0
        best["lower"] = min(max(best["lower"], lower), best["upper"])
        best["certified"] = bool(best["upper"] - best["lower"] <= _EQUAL * largest)
        if best["certified"] or count >= observed.sum(axis=1).max():
            break
        score = _next_score(rest - found.offset[:, :1], chosen, np.full(groups, found.distance))
    return best
