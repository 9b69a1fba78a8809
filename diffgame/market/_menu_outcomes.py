"""What users can be led to by menus, under floors: linear programs with bounds that always hold.

An outcome is a direct menu: a branch for each pair (user, type), whose messages recommend actions.
The programs have the rows of `_menu_program.menu_program`, but choose who may be tempted by what,
and ask for any linear aim above any linear floors.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Scalar

from .._linear_program import Dual, LinearProgram
from .._program_solver import solve_linear_program
from ._best_response import SHORTFALL_PRICE
from ._menu_program import TypedUsers, direct_menu, typed_users
from ._segment import Segment, action_profiles
from ._typed_tables import TypedTables

# The lead may be negative; payoffs range over one unit, so that this keeps it off its bound.
_SHIFT = 2.0
# Numbers in the coupling rows of a batch, and questions in it, at most.
_BATCH_SIZE, _MOST_LANES = 2**22, 16


class Asked(eqx.Module):
    """One question about the outcomes of some users.

    - `typed`: the pairs; what picks a provider as one does not matter here.
    - `aim`: what to maximise, per conditional probability of a recommendation.
    - `rows`, `floors`: what must reach which floors.
    - `leads` [rows]: 1 for rows that must exceed their floors by the lead, which is then maximised
        beside the aim; all 0: there is none.
    """

    typed: TypedUsers
    aim: Float[Array, "pairs actions states"]
    rows: Float[Array, "rows pairs actions states"]
    floors: Float[Array, " rows"]
    leads: Float[Array, " rows"]


class BestOutcome(eqx.Module):
    """The best outcome found, and what multipliers prove.

    - `menu`: columns sum to 1. `disobeyed`: by how much some pair prefers another action in it, or
        a branch that must not tempt the pair. Whether rows reach their floors, ask the menu.
    - `bound`: aim plus lead of no outcome is larger, whatever the solver did.
    """

    menu: Float[Array, "pairs actions states"]
    disobeyed: Scalar
    bound: Scalar


class BestOutcomes(NamedTuple):
    """A `BestOutcome` of each of many questions, as NumPy arrays."""

    menu: Float[np.ndarray, "questions pairs actions states"]
    disobeyed: Float[np.ndarray, " questions"]
    bound: Float[np.ndarray, " questions"]


class _Temptations(NamedTuple):
    """Static indices: pair `who[n]` is not to prefer branch `branch[n]`, coordinate `place[n]`.

    `tempter` [branches, places]: the pairs tempted by a branch; filled up where not `real`.
    """

    who: np.ndarray
    branch: np.ndarray
    place: np.ndarray
    tempter: np.ndarray
    real: np.ndarray


def _list_temptations(tempted: tuple[tuple[bool, ...], ...]) -> _Temptations:
    table = np.array(tempted)
    branch, who = np.nonzero(table.T)
    place = (np.cumsum(table.T, axis=1) - 1)[branch, who]
    width = int(table.sum(axis=0).max())
    tempter = np.zeros((len(table), width), int)
    real = np.zeros((len(table), width), bool)
    tempter[branch, place], real[branch, place] = who, True
    return _Temptations(who, branch, place, tempter, real)


def _gains_from_following(typed: TypedUsers) -> Float[Array, "pairs actions others states"]:
    """What each pair loses by any other action when one is recommended, whatever it plays."""
    actions = typed.utility.shape[1]
    profiles = jnp.asarray(action_profiles(1, actions))
    every = jnp.ones(actions, bool)

    def pair(belief, own):
        nobody = jnp.zeros((0, 1, *own.shape))
        return Segment(belief, own[None], nobody, jnp.ones(1), profiles, every).obedience()

    return jax.vmap(pair)(typed.belief, typed.utility)


def _program(asked: Asked, tempted: _Temptations) -> LinearProgram:
    """The question as a program whose blocks are recommendations (branch, action).

    Slacks: surplus and shortfall (at a price) of each temptation and of each floor, and the lead.
    """
    typed, rows = asked.typed, asked.rows
    pairs, actions, states = typed.utility.shape
    count, extra, floors = len(tempted.who), tempted.tempter.shape[1], len(asked.floors)
    playable = typed.playable * 1.0
    counted = jnp.asarray(tempted.real) & typed.occurs[tempted.tempter]
    obey = _gains_from_following(typed)
    listen = jnp.swapaxes(obey[tempted.tempter], 1, 2) * counted[:, None, :, None, None]
    own = jnp.eye(extra)[None] * counted[..., None]
    own = jnp.broadcast_to(
        own[:, None, :, None], (pairs, actions, extra, actions - 1, extra)
    ).reshape(pairs, actions, extra * (actions - 1), extra)
    within = jnp.concatenate(
        [
            jnp.pad(obey, ((0, 0), (0, 0), (0, 0), (0, extra))),
            jnp.concatenate([listen.reshape(*own.shape[:3], states), own], axis=-1),
        ],
        axis=2,
    )
    within = within * playable[..., None, None]
    each = jnp.eye(pairs)
    sums = jnp.einsum("sr,yz,ra->syraz", each, jnp.eye(states), playable)
    values = typed.values()[tempted.who]
    apart = each[tempted.who] - each[tempted.branch]
    truth = jnp.einsum("nr,nay,ra->nray", apart, values, playable)
    place = jnp.eye(extra)[tempted.place] * typed.occurs[tempted.who][:, None]
    disobeyed = -jnp.einsum("nr,nk,ra->nrak", each[tempted.branch], place, playable)

    def wide(table):
        return jnp.pad(table, ((0, 0),) * (table.ndim - 1) + ((0, extra),))

    masked = rows * playable[None, :, :, None]
    coupling = [
        wide(sums.reshape(pairs * states, pairs, actions, states)),
        jnp.concatenate([truth, disobeyed], axis=-1),
        wide(masked),
    ]
    both = jnp.concatenate([-jnp.eye(count + floors), jnp.eye(count + floors)], axis=1)
    lead = jnp.concatenate([jnp.zeros(count), -asked.leads])[:, None]
    slack = jnp.concatenate([both, lead], axis=1)
    # What no constraint speaks of gets a cost, so that the program bounds it.
    idle = jnp.broadcast_to(jnp.where(counted, 0.0, 1.0)[:, None], (pairs, actions, extra))
    cost = jnp.concatenate([-asked.aim, idle], axis=-1)
    leading = jnp.max(asked.leads)
    return LinearProgram(
        jnp.where(typed.playable[..., None], cost, 1.0).reshape(pairs * actions, -1),
        jnp.concatenate(
            [
                jnp.zeros(count + floors),
                jnp.full(count + floors, SHORTFALL_PRICE),
                jnp.where(leading > 0, -1.0, 1.0)[None],
            ]
        ),
        within.reshape(pairs * actions, -1, states + extra),
        jnp.concatenate([part.reshape(-1, pairs * actions, states + extra) for part in coupling]),
        jnp.concatenate([jnp.zeros((pairs * states, slack.shape[1])), slack]),
        jnp.concatenate(
            [
                jnp.ones(pairs * states),
                # A type that never occurs has no row: keep it away from its bound.
                jnp.where(typed.occurs[tempted.who], 0.0, -1.0),
                asked.floors - _SHIFT * asked.leads,
            ]
        ),
    )


def _feasible(asked: Asked, tempted: _Temptations, program: LinearProgram, dual: Dual) -> Dual:
    """Feasible multipliers near `dual`: clipped, and the best ones of the states' rows."""
    typed = asked.typed
    pairs, actions, states = typed.utility.shape
    count, extra = len(tempted.who), tempted.tempter.shape[1]
    within, rows = (jnp.where(jnp.isfinite(y), y, 0) for y in (dual.within, dual.rows))
    within = jnp.maximum(within, 0).reshape(pairs, actions, 1 + extra, actions - 1)
    first = pairs * states
    prices = jnp.clip(rows[first:], 0, SHORTFALL_PRICE)
    truth = prices[:count] * typed.occurs[tempted.who]
    floors = prices[count:]
    # Raising the lead must not pay: the prices of the rows that lead sum to one.
    leading = jnp.max(asked.leads)
    total = jnp.sum(floors * asked.leads)
    share = asked.leads / jnp.maximum(jnp.sum(asked.leads), 1)
    scaled = jnp.where(total > 0, floors / jnp.where(total > 0, total, 1), share)
    floors = jnp.where((leading > 0) & (asked.leads > 0), scaled, floors)
    # What a pair gains by disobeying costs at least what it relaxes.
    cap = jnp.zeros((pairs, extra)).at[tempted.branch, tempted.place].set(truth)
    used = jnp.sum(within[:, :, 1:], axis=-1)
    keep = jnp.minimum(1, cap[:, None] / jnp.where(used > 0, used, 1))
    within = within.at[:, :, 1:].multiply(keep[..., None]).reshape(pairs * actions, -1)
    reduced = (
        program.cost
        - jnp.einsum("bis,bi->bs", program.within, within)
        - jnp.einsum("rbs,r->bs", program.coupling[first:], jnp.concatenate([truth, floors]))
    ).reshape(pairs, actions, -1)[..., :states]
    reduced = jnp.where(typed.playable[..., None], reduced, jnp.inf)
    return Dual(within, jnp.concatenate([jnp.min(reduced, axis=1).ravel(), truth, floors]))


def best_outcome(asked: Asked, tempted: tuple[tuple[bool, ...], ...]) -> BestOutcome:
    """The outcome of largest aim above the floors; batch it with `jax.vmap`.

    **Arguments:** `tempted`: whether pair t (row) must not prefer the branch of s (column), by
    which a diagonal of False is meant. Static.
    """
    temptations = _list_temptations(tempted)
    program = _program(asked, temptations)
    primal, dual, _ = solve_linear_program(program)
    dual = _feasible(asked, temptations, program, dual)
    menu = direct_menu(asked.typed, primal.x)
    shift = jnp.where(jnp.max(asked.leads) > 0, _SHIFT, 0)
    return BestOutcome(
        menu,
        _disobeyed(asked.typed, tempted, menu),
        -jnp.sum(program.target * dual.rows) - shift,
    )


def _disobeyed(typed: TypedUsers, tempted: tuple[tuple[bool, ...], ...], menu) -> Scalar:
    """What pairs gain by other actions or branches, from the menu alone; infinite if not finite."""
    values = typed.values()
    follow = jnp.einsum("pas,pas->p", values, menu)
    told = jnp.einsum("tbs,ras->trab", values, menu)
    found = jnp.sum(jnp.max(told, axis=-1), axis=-1)
    within_reach = jnp.asarray(np.array(tempted) | np.eye(len(tempted), dtype=bool))
    more = jnp.max(jnp.where(within_reach, found - follow[:, None], 0))
    return jnp.where(jnp.isfinite(more), jnp.maximum(more, 0), jnp.inf)


@eqx.filter_jit
def _type_users(joint, utility) -> TypedUsers:
    def one(joint, utility):
        return typed_users(joint[None], utility[None], "after")

    return jax.vmap(one)(joint, utility)


class Pairs(NamedTuple):
    """What `TypedUsers` says of pairs, for groups of them, which lead."""

    belief: Float[Array, "groups pairs states"]
    utility: Float[Array, "groups pairs actions states"]
    playable: Bool[Array, "groups pairs actions"]


def list_pairs(tables: TypedTables, groups: int) -> Pairs:
    """All pairs (user, type) of some groups of as many users."""
    typed = _type_users(tables.joint, tables.utility)
    parts = typed.belief, typed.utility, typed.playable
    return Pairs(*(leaf.reshape(groups, -1, *leaf.shape[2:]) for leaf in parts))


@eqx.filter_jit
def _answers(pairs: Pairs, questions, tempted) -> BestOutcome:
    each = jnp.eye(len(tempted))
    rest = jnp.zeros(len(tempted)), jnp.ones(len(tempted))

    def one(group, *question):
        belief, utility, playable = (leaf[group] for leaf in pairs)
        typed = TypedUsers(belief, utility, each, each > 0, playable, *rest)
        return best_outcome(Asked(typed, *question), tempted)

    return jax.vmap(one)(*questions)


def best_outcomes(
    pairs: Pairs,
    tempted: tuple[tuple[bool, ...], ...],
    group: Int[np.ndarray, " questions"],
    aim: Float[np.ndarray, "questions pairs actions states"],
    rows: Float[np.ndarray, "questions rows pairs actions states"],
    floors: Float[np.ndarray, "questions rows"],
    leads: Float[np.ndarray, "questions rows"],
) -> BestOutcomes:
    """`best_outcome` of many questions about groups of `pairs`; NumPy arrays.

    Asked in batches of one size, so that it is compiled once, however many there are.
    """
    blocks, states = aim.shape[1] * aim.shape[2], aim.shape[3]
    width = states + len(tempted) - 1
    each = blocks * width * (len(tempted) * width + rows.shape[1])
    lanes = min(max(_BATCH_SIZE // each, 1), _MOST_LANES)
    found = []
    for first in range(0, len(group), lanes):
        # The last batch is filled up with copies of its first question.
        place = np.arange(first, first + lanes)
        place = np.where(place < len(group), place, first)
        picked = tuple(array[place] for array in (group, aim, rows, floors, leads))
        answers = _answers(pairs, picked, tempted)
        kept = min(lanes, len(group) - first)
        found.append([np.asarray(leaf)[:kept] for leaf in jax.tree.leaves(answers)])
    return BestOutcomes(*(np.concatenate(leaves) for leaves in zip(*found, strict=True)))
