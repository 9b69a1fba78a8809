"""How nearly providers' objectives, mixed, agree with what users want."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Scalar

from .._linear_program import Dual, LinearProgram, Primal, check_optimum
from .._program_solver import solve_linear_program

OFFSETS = ("none", "constant", "state")
# Of the check of an optimum, in units where the user's payoffs range over about one unit.
_TOLERANCE = 1e-9


class Alignment(eqx.Module):
    """Distance of one user's utility from the nearest mix of the providers' objectives.

    - `distance`: largest |sum_i weights[i] objective[i] + offset - utility| over actions and
        states, evaluated at the weights and the offset given here, in units of her utility.
    - `lower`: no weights and offset come nearer than this, by the multipliers.
    - `certified`: whether the two agree, and the multipliers are feasible, to 1e-9 of the largest
        payoff (hers, in the cone).
    """

    distance: Scalar
    lower: Scalar
    weights: Float[Array, " providers"]
    offset: Float[Array, " states"]
    certified: Bool[Array, ""]


class StrongAlignment(eqx.Module):
    """Distance of all users' utilities from ONE mix of the objectives, users scaled up freely.

    - `distance`: largest |sum_i weights[i] mass[j] objective[i, j] + offset[j] - scales[j]
        utility[j]| over users, actions and states; at least one scale is 1.
    - `lower`, `certified`: as in `Alignment`.
    """

    distance: Scalar
    lower: Scalar
    weights: Float[Array, " providers"]
    scales: Float[Array, " users"]
    offset: Float[Array, "users states"]
    certified: Bool[Array, ""]


def _offset_rows(kind: Int[Array, ""], states: int) -> Float[Array, "states states"]:
    """Row k: which states the k-th offset moves. One shape for all kinds; rows of zeros rest."""
    constant = jnp.zeros((states, states)).at[0].set(1)
    return jnp.stack([jnp.zeros((states, states)), constant, jnp.eye(states)])[kind]


def _best_offset(residual: Float[Array, "*users actions states"], kind: Int[Array, ""]):
    """The offset that leaves the smallest residual, per state [*users, states]."""
    high, low = jnp.max(residual, axis=-2), jnp.min(residual, axis=-2)
    by_state = (high + low) / 2
    everywhere = (jnp.max(high, axis=-1) + jnp.min(low, axis=-1))[..., None] / 2
    everywhere = jnp.broadcast_to(everywhere, by_state.shape)
    return jnp.stack([jnp.zeros_like(by_state), everywhere, by_state])[kind]


def _size(values: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    top = jnp.max(jnp.abs(values), axis=-1)
    return jnp.where(top > 0, top, 1)


def _centre(table: Float[Array, "*batch actions states"], enabled: Bool[Array, ""] | bool):
    """A table moved to be symmetric around 0: what an offset can absorb costs no digits."""
    middle = (jnp.max(table, (-2, -1), keepdims=True) + jnp.min(table, (-2, -1), keepdims=True)) / 2
    return table - jnp.where(enabled, middle, 0)


def _program(
    mixed: Float[Array, "unknowns cells"],
    target: Float[Array, " cells"],
    bound: Float[Array, "unknowns bounds"],
    limit: Float[Array, " bounds"],
) -> LinearProgram:
    """The program whose multipliers are the unknowns y of the nearest mix, and the distance.

        minimise eps  over y, eps  subject to  |y @ mixed - target| <= eps,  y @ bound <= limit

    is the dual of a program in standard form with a column per inequality and a row per unknown:
    few rows, so every step factors a small matrix.
    """
    unknowns = len(mixed)
    reach = -jnp.ones((1, mixed.shape[1]))
    rows = jnp.concatenate(
        [
            jnp.concatenate([mixed, -mixed, bound], axis=1),
            jnp.concatenate([reach, reach, jnp.zeros((1, len(limit)))], axis=1),
        ]
    )
    return LinearProgram(
        jnp.zeros((0, 1)),
        jnp.concatenate([target, -target, limit]),
        jnp.zeros((0, 0, 1)),
        jnp.zeros((unknowns + 1, 0, 1)),
        rows,
        jnp.concatenate([jnp.zeros(unknowns), -jnp.ones(1)]),
    )


def _prove(program: LinearProgram, primal: Primal, unknowns: Array, distance: Scalar):
    """The lower bound that the program's point proves, and whether it meets the distance."""
    point = Primal(primal.x, jnp.maximum(primal.z, 0))
    rows = jnp.concatenate([unknowns, distance[None]])
    optimum = check_optimum(program, point, Dual(jnp.zeros((0, 0)), rows), _TOLERANCE)
    return jnp.clip(-optimum.value, 0, distance), optimum.certified


def nearest_mix(
    utility: Float[Array, "actions states"],
    objective: Float[Array, "providers actions states"],
    hull: Bool[Array, ""],
    kind: Int[Array, ""],
) -> Alignment:
    """One of the six distances: weights of the hull or the cone, `kind` counting in `OFFSETS`."""
    providers, _, states = objective.shape
    utility_, objective_ = _centre(utility, kind > 0), _centre(objective, kind > 0)
    user_size = _size(utility_.ravel())
    sizes = _size(objective_.reshape(providers, -1))
    # Weights that sum to one need one unit for all.
    common = _size(jnp.concatenate([utility_.ravel(), objective_.ravel()]))
    user_size = jnp.where(hull, common, user_size)
    sizes = jnp.where(hull, common, sizes)
    wanted = utility_ / user_size
    tables = objective_ / sizes[:, None, None]
    # In the hull the first weight is one less the others: it has no unknown, only its bound.
    base = jnp.where(hull, tables[0], 0)
    others = (jnp.arange(providers) > 0) | ~hull
    tables = jnp.where(others[:, None, None], tables - base[None], 0)
    offsets = jnp.repeat(_offset_rows(kind, states)[:, None], utility.shape[0], axis=1)
    mixed = jnp.concatenate([tables, offsets]).reshape(providers + states, -1)
    first = jnp.where(hull, others * 1.0, -jnp.eye(providers)[0])
    bound = jnp.concatenate([first[:, None], -jnp.eye(providers)[:, 1:]], axis=1)
    bound = jnp.concatenate([bound, jnp.zeros((states, providers))])
    limit = jnp.where(hull, 1.0, 0.0) * jnp.eye(providers)[0]
    program = _program(mixed, (wanted - base).ravel(), bound, limit)
    primal, dual, _ = solve_linear_program(program)

    share = jnp.maximum(dual.rows[:providers], 0)
    # An objective that offsets absorb helps nobody; any weight would cost digits.
    share = jnp.where(hull | jnp.any(objective_ != 0, axis=(1, 2)), share, 0)
    share = jnp.where(hull, share.at[0].set(jnp.maximum(1 - jnp.sum(share[1:]), 0)), share)
    share = jnp.where(hull, share / jnp.sum(jnp.where(hull, share, 1)), share)
    weights = share * user_size / sizes
    residual = utility - jnp.einsum("p,pas->as", weights, objective)
    offset = _best_offset(residual, kind)
    distance = jnp.max(jnp.abs(residual - offset[None]))

    # The same weights and offset in the units and the order of the program.
    unknowns = jnp.where(others, share, 0)
    rest = wanted - base - jnp.einsum("p,pas->as", unknowns, tables)
    moved = _best_offset(rest, kind)
    moved = jnp.where(kind == 1, moved * (jnp.arange(states) == 0), moved)
    unknowns = jnp.concatenate([unknowns, moved])
    lower, certified = _prove(program, primal, unknowns, distance / user_size)
    lower = jnp.minimum(lower * user_size, distance)
    return Alignment(distance, lower, weights, offset, certified)


def alignment_distances(
    utility: Float[Array, "actions states"],
    objective: Float[Array, "providers actions states"],
) -> dict[str, Alignment]:
    """Six distances of one user from the providers, in the sup norm over actions and states.

    Keys `hull_none` ... `cone_state`: weights in the hull sum to one, in the cone they are any
    nonnegative numbers; the offset is none, one constant, or one constant per state (harmless,
    because the distribution of the state is given). Batch with `jax.vmap` over users.

    **Source:** Collina, Goel, Roth, Ryu, Shi, Emergent Alignment via Competition
    (arXiv 2509.15090), Definition 1 (hull, constant offset).

    >>> import jax, jax.numpy as jnp
    >>> from diffgame.market import alignment_distances
    >>> utility = jnp.eye(2)
    >>> found = jax.jit(alignment_distances)(utility, jnp.stack([2 * utility, 1 - utility]))
    >>> print(found["hull_constant"].distance.round(6), found["cone_none"].distance.round(6))
    0.0 0.0
    """
    hulls = jnp.arange(2) == 0
    kinds = jnp.arange(len(OFFSETS))
    by_kind = jax.vmap(nearest_mix, in_axes=(None, None, None, 0))
    found = jax.vmap(by_kind, in_axes=(None, None, 0, None))(utility, objective, hulls, kinds)
    return {
        f"{shape}_{offset}": jax.tree.map(lambda leaf, at=(i, k): leaf[at], found)
        for i, shape in enumerate(("hull", "cone"))
        for k, offset in enumerate(OFFSETS)
    }


def _strong_alignment(utility, objective, mass, kind) -> StrongAlignment:
    users, actions, states = utility.shape
    providers = objective.shape[0]
    objective = objective * mass[None, :, None, None]
    utility_, objective_ = _centre(utility, True), _centre(objective, True)
    user_sizes = _size(utility_.reshape(users, -1))
    size = jnp.max(user_sizes)
    sizes = _size(objective_.reshape(providers, -1))
    # Unknowns: weights, how far each scale exceeds one, offsets; each with entries of size one.
    tables = (objective_ / sizes[:, None, None, None]).reshape(providers, -1)
    own = jnp.einsum("uj,jas->ujas", jnp.eye(users), utility_ / user_sizes[:, None, None])
    moves, everyone = _offset_rows(kind, states), jnp.ones(actions)
    offsets = jnp.einsum("uj,os,a->uojas", jnp.eye(users), moves, everyone)
    mixed = jnp.concatenate([tables, -own.reshape(users, -1), offsets.reshape(users * states, -1)])
    positive = providers + users
    bound = jnp.concatenate([-jnp.eye(positive), jnp.zeros((users * states, positive))])
    wanted = utility_ / size
    program = _program(mixed, wanted.ravel(), bound, jnp.zeros(positive))
    primal, dual, _ = solve_linear_program(program)

    share = jnp.maximum(dual.rows[:providers], 0)
    share = jnp.where(jnp.any(objective_ != 0, axis=(1, 2, 3)), share, 0)
    excess = jnp.maximum(dual.rows[providers:positive], 0)
    # A solution with all scales above one only becomes better when it is scaled down.
    scales = 1 + excess * size / user_sizes
    least = jnp.min(scales)
    share, scales = share / least, jnp.maximum(scales / least, 1)
    excess = (scales - 1) * user_sizes / size
    weights = share * size / sizes
    residual = scales[:, None, None] * utility - jnp.einsum("p,pjas->jas", weights, objective)
    offset = _best_offset(residual, kind)
    distance = jnp.max(jnp.abs(residual - offset[:, None]))

    unknowns = jnp.concatenate([share, excess])
    rest = wanted.ravel() - unknowns @ mixed[:positive]
    moved = _best_offset(rest.reshape(utility.shape), kind)
    moved = jnp.where(kind == 1, moved * (jnp.arange(states) == 0)[None], moved)
    unknowns = jnp.concatenate([unknowns, moved.ravel()])
    lower, certified = _prove(program, primal, unknowns, distance / size)
    return StrongAlignment(distance, lower * size, weights, scales, offset, certified)


def strong_alignment_distances(
    utility: Float[Array, "users actions states"],
    objective: Float[Array, "providers users actions states"],
    mass: Float[Array, " users"],
) -> dict[str, StrongAlignment]:
    """Distance of all users from one common mix of the providers, arrays as in `Market`.

    Keys `constant` (an offset per user) and `state` (an offset per user and state). If it is 0,
    even anonymous equilibria give every user full information; a distance eps bounds
    `sum_j scales[j] (full information - value)` by 2 users eps.

    >>> import jax, jax.numpy as jnp
    >>> from diffgame.market import strong_alignment_distances
    >>> u = jnp.eye(2)
    >>> objective = jnp.stack([jnp.stack([u, -0.5 * u]), jnp.stack([-0.5 * u, u])])
    >>> distances = jax.jit(strong_alignment_distances)
    >>> found = distances(jnp.stack([u, u]), objective, jnp.ones(2))["state"]
    >>> print(found.distance.round(6), found.weights.round(6), found.scales.round(6))
    0.0 [2. 2.] [1. 1.]
    """
    kinds = jnp.arange(1, len(OFFSETS))
    found = jax.vmap(_strong_alignment, in_axes=(None, None, None, 0))(
        utility, objective, mass, kinds
    )
    return {
        offset: jax.tree.map(lambda leaf, at=k: leaf[at], found)
        for k, offset in enumerate(OFFSETS[1:])
    }
