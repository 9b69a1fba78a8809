"""The linear program of a conversation whose users follow given plans."""

import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._linear_program import LinearProgram
from ._best_response import SHORTFALL_PRICE
from ._menu_program import TypedUsers
from ._segment import EQUAL
from ._tree import Protocol

# Groups of slack columns, in order.
_COLUMNS = "stages", "surplus", "missed", "disobeyed", "ample", "short", "margin"


class Tree(NamedTuple):
    """Where the histories of a protocol lie in one another, as 0 or 1.

    Stages are the histories of fewer than R full rounds, in which she may ask; leaves those of R.

    - `below` [stages, leaves]: whether the leaf continues the stage; `after` [stages, asks,
        leaves]: and that question. `answers`: and all its later questions are the first one; these
        leaves add up to how likely the stage is.
    - `next_leaf` [stages, asks, leaves], `next_stage` [stages, asks, stages]: what one round leads
        to.
    """

    below: Float[np.ndarray, "stages leaves"]
    after: Float[np.ndarray, "stages asks leaves"]
    answers: Float[np.ndarray, "stages asks leaves"]
    next_leaf: Float[np.ndarray, "stages asks leaves"]
    next_stage: Float[np.ndarray, "stages asks stages"]


def tree_of(protocol: Protocol) -> Tree:
    """The histories of a protocol, by round, the last message changing fastest."""
    rounds, asks, hears = protocol.rounds, protocol.user_messages, protocol.provider_messages
    steps = list(itertools.product(range(asks), range(hears)))
    stages = [past for turn in range(rounds) for past in itertools.product(steps, repeat=turn)]
    leaves = list(itertools.product(steps, repeat=rounds))

    def one(rows, columns, holds):
        found = [[holds(row, column) for column in columns] for row in rows]
        return np.array(found, float).reshape(len(rows), len(columns))

    asked = [(past, c) for past in stages for c in range(asks)]

    def follows(row, later):
        past, c = row
        return later[: len(past)] == past and later[len(past)][0] == c

    def likely(row, leaf):
        return follows(row, leaf) and all(c == 0 for c, _ in leaf[len(row[0]) + 1 :])

    def next_(row, later):
        return len(later) == len(row[0]) + 1 and follows(row, later)

    shape = len(stages), asks
    return Tree(
        one(stages, leaves, lambda past, leaf: leaf[: len(past)] == past),
        one(asked, leaves, follows).reshape(*shape, -1),
        one(asked, leaves, likely).reshape(*shape, -1),
        one(asked, leaves, next_).reshape(*shape, -1),
        one(asked, stages, next_).reshape(*shape, -1),
    )


def program_work(protocol: Protocol, pairs: int, states: int) -> int:
    """What a step of the solver costs in time and memory: rows squared, times leaves."""
    stages = sum(protocol.histories(turn) for turn in range(protocol.rounds))
    rows = stages * protocol.user_messages * (pairs + states)
    return rows**2 * protocol.histories(protocol.rounds)


def protocol_program(
    typed: TypedUsers,
    payoff: Float[Array, "pairs actions states"],
    tree: Tree,
    plan: Int[Array, "pairs leaves"],
    level: Float[Array, " units"],
    captured: Bool[Array, " units"],
    fresh: Bool[Array, " units"],
    slackest: Bool[Array, ""],
) -> LinearProgram:
    """The policy worth most to its provider under which the units `captured` follow `plan`.

    They get at least `level`, the others at most. With `slackest`: the policy that gives the units
    `fresh` most beyond it instead. A block is a leaf. Its coordinates are how likely the
    provider's answers are in each state and, for each pair, what it gains at most by another
    action than the one planned (or the first, where its plan does not lead). Slack columns: what
    each stage that a pair does not plan for is worth to it, surplus of every question, shortfall
    (at a price) of each pair's questions and of obedience, surplus and shortfall of each unit's
    value, and the margin of the fresh units.
    """
    pairs, actions, states = typed.utility.shape
    units, (stages, asks, leaves) = len(captured), tree.answers.shape
    questions = pairs * stages * asks
    every, own = np.arange(pairs)[:, None], jnp.eye(pairs)
    action, follows = jnp.maximum(plan, 0), jnp.where(plan >= 0, 1.0, 0.0)
    worth = typed.belief[:, None] * typed.utility[every, action]
    # What disobeying gains, within each leaf.
    others = np.array([[b for b in range(actions) if b != a] for a in range(actions)], int)
    others = jnp.asarray(others.reshape(actions, actions - 1))[action]
    lead = typed.utility[every, action][:, :, None] - typed.utility[every[..., None], others]
    # Equal payoffs may differ by a rounding error once compiled.
    lead = jnp.where(jnp.abs(lead) > EQUAL, lead, 0) * typed.belief[:, None, None]
    gains = jnp.broadcast_to(own[:, None, None], (pairs, leaves, actions - 1, pairs))
    within = jnp.moveaxis(jnp.concatenate([lead, gains], axis=-1), 1, 0)

    def answers(table):
        """Coefficients of the answers alone: [..., leaves, states]."""
        return jnp.concatenate([table, jnp.zeros((*table.shape[:-1], pairs))], axis=-1)

    # In each state the answers to a question add up to the same, whatever it is: first, to 1.
    differ = tree.answers[1:, 1:] - tree.answers[1:, :1]
    sums = np.concatenate([tree.answers[0], differ.reshape(-1, leaves)])
    sums = np.einsum("rl,yz->rylz", sums, np.eye(states)).reshape(-1, leaves, states)

    # A stage is worth what the plan makes of it, where it leads there, or else a column of its
    # own: at least what each question is worth that the plan does not ask there.
    planned = jnp.where(jnp.einsum("sl,tl->ts", tree.below, follows) > 0, 1.0, 0.0)
    asked = jnp.einsum("scl,tl->tsc", tree.after, follows) > 0
    open_ = jnp.where(asked, 0.0, 1.0)
    by_plan = jnp.einsum("sl,tl,tly->tsly", tree.below, follows, worth)[:, :, None]
    by_answer = jnp.einsum("scl,tly->tscly", tree.next_leaf, worth)
    by_gain = jnp.broadcast_to(
        -jnp.einsum("scl,tr->tsclr", tree.next_leaf, own), (*by_answer.shape[:-1], pairs)
    )
    truth = open_[..., None, None] * jnp.concatenate([by_plan - by_answer, by_gain], axis=-1)
    alone = jnp.einsum("ts,sn->tsn", 1 - planned, np.eye(stages))[:, :, None]
    later = jnp.einsum("tsc,tscn,tr->tscrn", open_, alone - tree.next_stage[None], own)
    missed = jnp.einsum("tsc,ts,tr->tscr", open_, planned, own)

    obeyed = jnp.einsum("tl,tr->lr", follows, own)
    obeyed = jnp.concatenate([jnp.zeros((leaves, states)), obeyed], axis=-1)[None]
    sign = jnp.where(captured, 1.0, -1.0)
    value = jnp.einsum("u,ut,tl,tly->uly", sign, typed.share, follows, worth)
    first = np.eye(stages)[0]
    value_later = jnp.einsum("u,ut,t,n->utn", sign, typed.share, 1 - planned[:, 0], first)

    columns = pairs * stages, questions, pairs, 1, units, units, 1
    ends = np.cumsum(columns)

    def slack(rows: int, **parts):
        """Rows of the slack columns, group by group."""
        table = jnp.zeros((rows, ends[-1]))
        for group, part in parts.items():
            place = _COLUMNS.index(group)
            wide = part.reshape(rows, columns[place])
            table = table.at[:, ends[place] - columns[place] : ends[place]].set(wide)
        return table

    unit_eye = jnp.eye(units)
    bought = jnp.einsum("tl,tly->ly", follows, payoff[every, action])
    return LinearProgram(
        answers(jnp.where(slackest, 0.0, -bought)),
        jnp.concatenate(
            [
                # What no row speaks of gets a cost, so that the program bounds it.
                planned.reshape(-1),
                jnp.zeros(questions),
                jnp.where(planned[:, 0] > 0, SHORTFALL_PRICE, 1.0),
                jnp.full(1, SHORTFALL_PRICE),
                jnp.zeros(units),
                jnp.full(units, SHORTFALL_PRICE),
                jnp.where(slackest & jnp.any(fresh), -1.0, 1.0)[None],
            ]
        ),
        within.reshape(leaves, pairs * (actions - 1), states + pairs),
        jnp.concatenate(
            [
                answers(jnp.asarray(sums)),
                truth.reshape(questions, leaves, states + pairs),
                obeyed,
                answers(value),
            ]
        ),
        jnp.concatenate(
            [
                slack(len(sums)),
                slack(questions, stages=later, surplus=-jnp.eye(questions), missed=missed),
                slack(1, disobeyed=-jnp.ones(1)),
                slack(
                    units,
                    stages=value_later,
                    ample=-unit_eye,
                    short=unit_eye,
                    margin=jnp.where(slackest & fresh, -1.0, 0.0),
                ),
            ]
        ),
        jnp.concatenate(
            [
                jnp.where(jnp.arange(len(sums)) < asks * states, 1.0, 0.0),
                # The question that the plan asks has no row: keep it away from its bound.
                jnp.where(asked.reshape(-1), -1.0, 0.0),
                jnp.zeros(1),
                sign * level,
            ]
        ),
    )


class Slacks(NamedTuple):
    """What the slack columns of a point say.

    - `missed`: by how much plans and values are missed in all. `margin`: of the fresh units.
    - `ample` [units]: what each unit gets beyond its level, or short of it off the set.
    """

    missed: Float[Array, ""]
    ample: Float[Array, " units"]
    margin: Float[Array, ""]


def read_slacks(z: Float[Array, " slacks"], pairs: int, units: int) -> Slacks:
    """The slack columns by name."""
    columns = [pairs + 1, units, units, 1]
    _, missed, ample, short, margin = jnp.split(
        z, np.cumsum([len(z) - sum(columns), *columns[:-1]])
    )
    return Slacks(jnp.sum(missed) + jnp.sum(short), ample, margin[0])
