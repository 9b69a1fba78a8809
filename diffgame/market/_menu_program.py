"""Users with private types, and the linear program of a menu that tells them apart.

A direct menu has one branch per pair (user, type): an experiment whose messages recommend actions
to that pair. It is truthful if every pair wants its own branch and follows it.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Scalar

from .._linear_program import LinearProgram
from ._best_response import SHORTFALL_PRICE
from ._segment import EQUAL, playable_profiles, unit_utility


class TypedUsers(eqx.Module):
    """All pairs (user, type), the types of one user in a row, utilities from 0 to 1 user by user.

    A unit is what picks a provider as one: a user who does not know her type yet (timing
    "before"), or a pair (timing "after").

    - `belief` [pairs, states]: of the state given her type; zeros for a type that never occurs.
    - `share` [units, pairs]: weight of a pair's value in the value of its unit, and `part`:
        whether it belongs there. `low`, `size` [units]: the units' scale of utility.
    - `playable` [pairs, actions]: whether some belief makes the action her choice, ties to the
        lowest index.
    """

    belief: Float[Array, "pairs states"]
    utility: Float[Array, "pairs actions states"]
    share: Float[Array, "units pairs"]
    part: Bool[Array, "units pairs"]
    playable: Bool[Array, "pairs actions"]
    low: Float[Array, " units"]
    size: Float[Array, " units"]

    @property
    def occurs(self) -> Bool[Array, " pairs"]:
        """Whether the pair's type has positive probability."""
        return jnp.any(self.belief > 0, axis=1)

    def values(self) -> Float[Array, "pairs actions states"]:
        """What a recommendation is worth to each pair, per conditional probability of it."""
        return self.belief[:, None] * self.utility

    def scale(self, value: Float[Array, " units"]) -> Float[Array, " units"]:
        """Values from 0 to 1; -1 below all offers, 0 for a type that never occurs."""
        unit = jnp.maximum((value - self.low) / self.size, -1)
        return jnp.where(jnp.any(self.part & self.occurs[None], axis=1), unit, 0)


def unit_pairs(
    joint: Float[Array, "users types states"], utility: Float[Array, "users types actions states"]
):
    """Beliefs and utilities of all pairs, and the scale of each user's utility."""
    users, types, actions, states = utility.shape
    flat = utility.reshape(users, types * actions, states)
    unit, size = unit_utility(flat)
    chance = jnp.sum(joint, axis=2)
    belief = joint / jnp.where(chance > 0, chance, 1)[..., None]
    return (
        belief.reshape(users * types, states),
        unit.reshape(users * types, actions, states),
        jnp.min(flat, axis=(1, 2)),
        size,
    )


def typed_users(
    joint: Float[Array, "users types states"],
    utility: Float[Array, "users types actions states"],
    timing: str,
) -> TypedUsers:
    """The pairs of some users; a user's types share one scale of utility."""
    users, types, actions, _ = utility.shape
    pairs = users * types
    belief, unit, low, size = unit_pairs(joint, utility)
    chance = jnp.sum(joint, axis=2).reshape(pairs)
    own = np.repeat(np.arange(users), types)
    if timing == "before":
        part = own[None] == np.arange(users)[:, None]
        share = part * chance[None]
    elif timing == "after":
        part = np.eye(pairs, dtype=bool)
        share, low, size = jnp.eye(pairs), low[own], size[own]
    else:
        raise ValueError(
            f"timing: {timing!r} is unknown; users pick a provider 'before' they learn their "
            "type, or 'after'."
        )
    single = jnp.arange(actions)[:, None]
    playable = jax.vmap(lambda seen, own: playable_profiles(seen, own[None], single))(belief, unit)
    return TypedUsers(belief, unit, share, jnp.asarray(part), playable, low, size)


def _gains_from_disobeying(typed: TypedUsers):
    """What pair t loses by doing b when a is recommended: [pairs, actions, other b, states]."""
    actions = typed.utility.shape[1]
    lead = typed.utility[:, :, None] - typed.utility[:, None]
    # Equal payoffs may differ by a rounding error once compiled.
    lead = jnp.where(jnp.abs(lead) > EQUAL, lead, 0) * typed.belief[:, None, None]
    others = np.array([[b for b in range(actions) if b != a] for a in range(actions)], int)
    others = others.reshape(actions, actions - 1)
    return lead[:, np.arange(actions)[:, None], others]


def menu_program(
    typed: TypedUsers,
    payoff: Float[Array, "pairs actions states"],
    level: Float[Array, " units"],
    captured: Bool[Array, " units"],
    fresh: Bool[Array, " units"],
    slackest: Bool[Array, ""],
) -> LinearProgram:
    """The menu worth most to its provider that holds exactly the units `captured`.

    They get at least `level`, the others at most. With `slackest`: the menu that gives the units
    `fresh` most beyond it instead. A block is a recommendation (branch, action). Its coordinates
    are the conditional probabilities in each state and, for each pair from another branch, what
    that pair gains there by disobeying: at least 0 and at least the gain of each other action, so
    that obedience and temptation are rows within the block. Slack columns: surplus and shortfall
    (at a price) of each temptation, of each unit's value, and the margin of the fresh units.
    """
    pairs, actions, states = typed.utility.shape
    units = len(captured)
    playable = typed.playable * 1.0
    # tempted[s, t, k]: coordinate k of branch s belongs to pair t.
    others = np.array([[t for t in range(pairs) if t != s] for s in range(pairs)], int)
    tempted = jnp.asarray(others.reshape(pairs, 1, pairs - 1) == np.arange(pairs)[:, None]) * 1.0
    lead = jnp.swapaxes(_gains_from_disobeying(typed), 0, 1)
    shape = (pairs, actions, pairs, actions - 1)
    within = jnp.concatenate(
        [
            jnp.broadcast_to(lead[None], (*shape, states)),
            jnp.broadcast_to(tempted[:, None, :, None], (*shape, pairs - 1)),
        ],
        axis=-1,
    )
    within = within * playable[:, :, None, None, None]

    own = jnp.eye(pairs)
    sums = jnp.einsum("sr,yz,ra->syraz", own, jnp.eye(states), playable)
    # Row (t, s): her value in her own branch t less what branch s is worth to her.
    values = typed.values()
    apart = own[:, None] - own[None]
    truth = jnp.einsum("tsr,tay,ra->tsray", apart, values, playable)
    disobeyed = -jnp.einsum("sr,rtk,t,ra->tsrak", own, tempted, typed.occurs * 1.0, playable)
    truth = jnp.concatenate([truth, disobeyed], axis=-1)
    rows = np.repeat(np.arange(pairs), pairs - 1), others.ravel()
    truth = truth[rows]
    sign = jnp.where(captured, 1.0, -1.0)
    value = jnp.einsum("u,ur,ray,ra->uray", sign, typed.share, values, playable)

    def pad(table):
        return jnp.concatenate([table, jnp.zeros((*table.shape[:-1], pairs - 1))], axis=-1)

    sums, value = pad(sums.reshape(pairs * states, pairs, actions, states)), pad(value)
    temptations = pairs * (pairs - 1)
    counts = temptations, temptations, units, units, 1
    eye, unit_eye = jnp.eye(temptations), jnp.eye(units)
    rise = jnp.where(slackest & fresh, -1.0, 0.0)[:, None]
    slack = [
        jnp.zeros((pairs * states, sum(counts))),
        jnp.concatenate([-eye, eye, jnp.zeros((temptations, 2 * units + 1))], axis=1),
        jnp.concatenate(
            [jnp.zeros((units, 2 * temptations)), -unit_eye, unit_eye, rise],
            axis=1,
        ),
    ]
    aim = jnp.where(slackest & jnp.any(fresh), -1.0, 1.0)
    free = [jnp.zeros(counts[0]), jnp.full(counts[1], SHORTFALL_PRICE)]
    priced = [jnp.zeros(units), jnp.full(units, SHORTFALL_PRICE), aim[None]]
    gain = jnp.where(slackest, 0.0, captured @ typed.part.astype(payoff.dtype))
    # What no constraint speaks of gets a cost, so that the program bounds it.
    counted = jnp.broadcast_to(
        jnp.einsum("rtk,t->rk", tempted, typed.occurs * 1.0)[:, None] > 0,
        (pairs, actions, pairs - 1),
    )
    cost = jnp.concatenate([-payoff * gain[:, None, None], jnp.where(counted, 0.0, 1.0)], axis=-1)
    cost = jnp.where(typed.playable[..., None], cost, 1.0)
    blocks, width = pairs * actions, states + pairs - 1
    return LinearProgram(
        cost.reshape(blocks, width),
        jnp.concatenate([*free, *priced]),
        within.reshape(blocks, pairs * (actions - 1), width),
        jnp.concatenate(
            [
                table.reshape(-1, blocks, width)
                for table in (sums, truth.reshape(temptations, pairs, actions, width), value)
            ]
        ),
        jnp.concatenate(slack),
        jnp.concatenate(
            [
                jnp.ones(pairs * states),
                # A type that never occurs has no row: keep it away from its bound.
                jnp.where(typed.occurs[rows[0]], 0.0, -1.0),
                sign * level,
            ]
        ),
    )


def direct_menu(
    typed: TypedUsers, x: Float[Array, "blocks width"]
) -> Float[Array, "pairs actions states"]:
    """The branches at a program's point: rounding errors removed, columns that sum to 1."""
    pairs, actions, states = typed.utility.shape
    x = x.reshape(pairs, actions, -1)[..., :states]
    x = jnp.where(typed.playable[..., None], jnp.maximum(x, 0), 0)
    total = jnp.sum(x, axis=1, keepdims=True)
    return x / jnp.where(total > 0, total, 1)


def shortfalls(typed: TypedUsers, z: Float[Array, " slacks"]) -> Scalar:
    """By how much a point misses its temptation and value rows, in all."""
    pairs, units = len(typed.utility), len(typed.size)
    temptations = pairs * (pairs - 1)
    missed = z[temptations : 2 * temptations], z[2 * temptations + units : -1]
    return jnp.sum(missed[0]) + jnp.sum(missed[1])
