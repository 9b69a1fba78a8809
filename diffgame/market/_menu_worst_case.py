"""What users can lose, at most, in any equilibrium of conversations."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ._menu_outcomes import best_outcomes, list_pairs
from ._menu_starts import grouped
from ._segment import EQUAL
from ._typed_tables import TypedTables

# Beyond these, pairs of different users are not asked whether they envy each other's branches.
_MOST_PAIRS = 8


class MenuWorstCase(NamedTuple):
    """Bounds on losses against full information, in units of utility.

    - `total`: the sum over users. `per_user` [users]: each user's own.
    """

    total: float
    per_user: Float[np.ndarray, " users"]


def temptations(values: tuple[int, ...], most: int, timing: str) -> tuple[tuple[bool, ...], ...]:
    """Which pairs (rows) of a group cannot prefer which branches (columns) in an equilibrium.

    Branches of the same user's other types; of other users, if the pair itself picks its provider:
    a user who picks before she learns her type looks at the sum over her types alone.
    """
    user = np.repeat(np.arange(len(values)), most)
    kind = np.tile(np.arange(most), len(values))
    known = np.array(values)[user]
    real = kind < known
    own = user[:, None] == user[None]
    alone = (known == 1) | (timing == "after")
    others = alone[:, None] & (real.sum() <= _MOST_PAIRS)
    table = (own | others) & real[:, None] & real[None] & ~np.eye(len(user), dtype=bool)
    return tuple(tuple(row) for row in table.tolist())


def menu_worst_case(tables: TypedTables, *, personalized: bool, timing: str) -> MenuWorstCase:
    """Bound the users' losses over ALL equilibria, whatever was found, by linear programming.

    Maximises losses over menu outcomes that no provider leaves for full revelation, to each user
    (`personalized`) or to all at once. Valid where providers are able to reveal the state. A loss
    of 0 proves that every equilibrium gives full information; a positive one proves no bad one.

    **Source:** docs/menus.md (Theorem 10).
    """
    users, values, actions, states = tables.utility.shape
    groups = users if personalized else 1
    joint, utility, objective, mass = (np.asarray(part) for part in grouped(tables, groups))
    providers, members = len(objective), users // groups
    weight = joint[:, :, :, None]
    loss = weight * (utility.max(axis=3, keepdims=True) - utility)
    at_best = np.take_along_axis(objective, utility.argmax(axis=3)[None, :, :, :, None], axis=4)
    gain = objective - at_best
    spread = np.abs(objective).max(axis=(1, 2, 3, 4, 5), keepdims=True)
    gain = np.where(np.abs(gain) > EQUAL * spread, gain, 0)
    gain = gain * weight[None] * mass[None, :, :, None, None, None]
    # In units of one: what all losses and each provider's gains share.
    unit = loss.max() if loss.max() > 0 else 1.0
    reach = np.abs(gain).max(axis=(1, 2, 3, 4, 5), keepdims=True)
    gain = np.swapaxes(gain / np.where(reach > 0, reach, 1), 0, 1)
    wanted = np.eye(members)
    if members > 1:
        wanted = np.concatenate([np.ones((1, members)), wanted])
    shape = groups * len(wanted), members * values, actions, states
    aim = np.einsum("wn,gnxay->gwnxay", wanted, loss / unit).reshape(shape)
    rows = gain.reshape(groups, providers, *shape[1:])
    group = np.repeat(np.arange(groups), len(wanted))
    # Two more rows that ask nothing: then a user's program is one of `menu_values`, compiled once.
    rows = np.pad(rows, ((0, 0), (0, 2), (0, 0), (0, 0), (0, 0)))
    known = (values,) if personalized else tables.values
    floors = np.zeros((len(group), providers + 2))
    floors[:, -2:] = -1
    found = best_outcomes(
        list_pairs(tables, groups),
        temptations(known, values, timing),
        group,
        aim,
        rows[group],
        floors,
        np.zeros(floors.shape),
    )
    # She never does worse than by what she knows herself.
    most = np.maximum(tables.full_information() - tables.uninformed(), 0)
    bound = np.maximum(found.bound, 0) * unit
    per_user = np.minimum(bound[-users:], most)
    total = per_user.sum() if members == 1 else min(bound[0], per_user.sum())
    return MenuWorstCase(float(total), per_user)
