"""One step along the principal branch of logit equilibria, for many games at once.

The branch is the set of (z, t) with F(z, t) = z - t u(softmax z) = 0 that starts at (0, 0): z are
the logits of all players one after another, t the rationality, u the payoffs of actions. It
is followed by arc length, so that it may turn back in t. One elimination per step serves the
correction of the point and the next tangent. The batch axis comes last everywhere.

**Source:** Turocy (2005), A dynamic homotopy interpretation of the logistic quantal response
equilibrium correspondence; Allgower, Georg (1990), Numerical Continuation Methods, chapters 2-6.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._cholesky import products
from ._elimination import eliminate, weighted_sum

_FIRST_STEP = 0.5
_LARGEST_CORRECTION = 0.25
_WANTED_CORRECTION = 0.06
_LARGEST_GROWTH = 3.0
_SMALLEST_STEP = 1e-8
# Cosine between successive tangents; below it the step may have left the branch.
_ALIGNED = 0.5
# A tangent that reverses although the step is this short marks a bifurcation, not a sharp turn.
_CROSSING_STEP = 1e-5
_REVERSED = -0.98
_ON_BRANCH = 1e-11


class Walk(eqx.Module):
    """Where each game stands on its branch.

    - `logits`, `rationality`: the point; `direction`, `pace`: the unit tangent there, of z and t.
    - `last_direction`, `last_pace`, `last_length`: the tangent and the length of the step before.
    - `length`: of the next step. `side`: -1 after an odd number of bifurcations, else 1.
    - `repairing`: the last step was rejected; the next one corrects in place.
    - `arrived`, `lost`: it ended, at the target or nowhere. `steps`, `bifurcations`: counts.
    """

    logits: Float[Array, "logits lanes"]
    rationality: Float[Array, " lanes"]
    direction: Float[Array, "logits lanes"]
    pace: Float[Array, " lanes"]
    last_direction: Float[Array, "logits lanes"]
    last_pace: Float[Array, " lanes"]
    last_length: Float[Array, " lanes"]
    length: Float[Array, " lanes"]
    side: Float[Array, " lanes"]
    repairing: Bool[Array, " lanes"]
    arrived: Bool[Array, " lanes"]
    lost: Bool[Array, " lanes"]
    steps: Int[Array, " lanes"]
    bifurcations: Int[Array, " lanes"]


def split(stacked: Array, actions: tuple[int, ...]) -> list[Array]:
    """The players' parts of the first axis."""
    parts, begin = [], 0
    for count in actions:
        parts.append(stacked[begin : begin + count])
        begin += count
    return parts


def _derivatives(tables, mixed):
    """Per ordered pair of players the payoffs of the first's actions by the second's [n, m]."""
    pairs = {}
    for player, table in enumerate(tables):
        for other in range(len(mixed)):
            if other == player:
                continue
            pair = table
            for third in reversed(range(len(mixed))):
                if third not in (player, other):
                    pair = weighted_sum(pair, third, mixed[third])
            pairs[player, other] = pair if player < other else jnp.swapaxes(pair, 0, 1)
    return pairs


def _softmax(logits):
    weights = jnp.exp(logits - jnp.max(logits, axis=0, keepdims=True))
    return weights / jnp.sum(weights, axis=0, keepdims=True)


def _linearise(tables, logits, rationality):
    """F, J^-1 F, J^-1 dF/dt and the sign of det J, where J = dF/dz."""
    players = len(tables)
    actions = tables.shape[1:-1]
    mixed = [_softmax(own) for own in split(logits, actions)]
    if players == 1:
        payoffs = tables[0]
        residual = logits - rationality[None] * payoffs
        return residual, residual, -payoffs, jnp.ones_like(rationality)
    pairs = _derivatives(tables, mixed)
    values = [weighted_sum(pairs[i, (i + 1) % players], 1, mixed[(i + 1) % players])
              for i in range(players)]  # fmt: skip
    payoffs = jnp.concatenate(values)
    residual = logits - rationality[None] * payoffs
    # J = 1 - G, with blocks G_ij = t (du_i/dp_j - u_i 1') diag(p_j), none on the diagonal.
    blocks = {
        (i, j): (pair - values[i][:, None]) * (rationality[None] * mixed[j])[None]
        for (i, j), pair in pairs.items()
    }
    right = jnp.stack([residual, -payoffs], axis=1)
    # The first player's identity block is eliminated by hand.
    own, rest = right[: actions[0]], right[actions[0] :]
    across = jnp.concatenate([blocks[0, j] for j in range(1, players)], axis=1)
    down = jnp.concatenate([blocks[i, 0] for i in range(1, players)], axis=0)
    through = products(down, jnp.swapaxes(jnp.concatenate([across, own], axis=1), 0, 1))
    others = len(rest)
    identity = jnp.broadcast_to(
        jnp.eye(others, dtype=logits.dtype)[..., None], (others, others, logits.shape[-1])
    )
    matrix = identity - through[:, :others]
    if players > 2:
        matrix = matrix - jnp.concatenate(
            [
                jnp.concatenate(
                    [
                        jnp.zeros((actions[i], actions[i], logits.shape[-1]), logits.dtype)
                        if i == j
                        else blocks[i, j]
                        for j in range(1, players)
                    ],
                    axis=1,
                )
                for i in range(1, players)
            ]
        )
    found, sign = eliminate(jnp.concatenate([matrix, rest + through[:, others:]], axis=1))
    first = own + products(across, jnp.swapaxes(found, 0, 1))
    solved = jnp.concatenate([first, found])
    return residual, solved[:, 0], solved[:, 1], sign


def begin(tables: Float[Array, "players *actions lanes"]) -> Walk:
    """The start of the branch: everybody mixes uniformly, at rationality 0."""
    lanes = tables.shape[-1]
    values = []
    for player, table in enumerate(tables):
        others = tuple(axis for axis in range(table.ndim - 1) if axis != player)
        values.append(jnp.mean(table, axis=others))
    payoffs = jnp.concatenate(values)
    pace = 1 / jnp.sqrt(1 + jnp.sum(payoffs**2, axis=0))
    direction = payoffs * pace[None]
    zero, no = jnp.zeros(lanes, tables.dtype), jnp.zeros(lanes, bool)
    none = jnp.zeros(lanes, int)
    return Walk(
        jnp.zeros_like(payoffs), zero, direction, pace, direction, pace, zero,
        zero + _FIRST_STEP, zero + 1, no, no, no, none, none,
    )  # fmt: skip


def advance(
    tables: Float[Array, "players *actions lanes"],
    target: Float[Array, " lanes"],
    walk: Walk,
    land: bool,
) -> Walk:
    """One step of every lane towards its target: exactly onto it, or just past it.

    A step predicts with the tangent and its change, then makes one minimum-norm Newton correction;
    it is accepted if that was short and the tangent did not turn much. The tangent's sense is that
    of the sign of det J: following the previous tangent would run back at sharp turns.
    """
    there = (walk.rationality == target) & ~walk.repairing if land else jnp.zeros_like(walk.lost)
    remaining = jnp.where(
        walk.pace > 0, (target - walk.rationality) / jnp.where(walk.pace > 0, walk.pace, 1), jnp.inf
    )
    length = jnp.minimum(walk.length, remaining) if land else walk.length
    length = jnp.where(walk.repairing | there, 0, length)
    bend = jnp.where(
        walk.last_length > 0,
        0.5 * length**2 / jnp.where(walk.last_length > 0, walk.last_length, 1),
        0,
    )
    logits = (
        walk.logits
        + length[None] * walk.direction
        + bend[None] * (walk.direction - walk.last_direction)
    )
    rationality = walk.rationality + length * walk.pace + bend * (walk.pace - walk.last_pace)
    landing = there
    if land:
        reaches = ~walk.repairing & ((length >= remaining) | (rationality >= target))
        landing = there | reaches
        rationality = jnp.where(landing, target, rationality)
    residual, newton, change, sign = _linearise(tables, logits, rationality)
    norm = 1 / (1 + jnp.sum(change**2, axis=0))
    shift = jnp.where(landing, 0, -jnp.sum(change * newton, axis=0) * norm)
    move = -newton - change * shift[None]
    correction = jnp.maximum(jnp.max(jnp.abs(move), axis=0), jnp.abs(shift))
    pace = jnp.sqrt(norm) * sign * walk.side
    direction = -change * pace[None]
    turn = jnp.sum(direction * walk.direction, axis=0) + pace * walk.pace
    staying = walk.repairing | there
    crossing = ~staying & (turn < _REVERSED) & (length <= _CROSSING_STEP)
    pace = jnp.where(crossing, -pace, pace)
    direction = jnp.where(crossing[None], -direction, direction)
    limit = jnp.where(walk.repairing, 1.0, _LARGEST_CORRECTION)
    good = jnp.isfinite(correction) & (correction < limit)
    good = good & (staying | crossing | (turn > _ALIGNED))
    # Where the branch already runs back, the target was passed beyond a turning point.
    good = good & ~(landing & ~there & (pace <= 0))
    size = jnp.max(jnp.abs(residual), axis=0)
    on_branch = size <= _ON_BRANCH * jnp.maximum(1, rationality)
    settled = there & on_branch
    accepted = good & ~settled
    rejected = ~good & ~settled
    moved = accepted & ~staying

    def choose(mask, new, old):
        return jnp.where(mask[None] if new.ndim > 1 else mask, new, old)

    new_logits = choose(accepted, logits + move, walk.logits)
    new_rationality = choose(accepted, rationality + shift, walk.rationality)
    factor = (_WANTED_CORRECTION / jnp.maximum(correction, 1e-12)) ** (1 / 3)
    factor = jnp.where(jnp.isfinite(factor), jnp.clip(factor, 0.2, _LARGEST_GROWTH), 0.2)
    shorter = jnp.where(there, 0.25 * walk.length, length * jnp.minimum(factor, 0.5))
    shorter = jnp.where(walk.repairing, walk.length, shorter)
    new_length = jnp.where(moved, length * factor, jnp.where(rejected, shorter, walk.length))
    arrived = settled if land else accepted & (new_rationality >= target)
    lost = rejected & (walk.repairing | (new_length < _SMALLEST_STEP))
    lost = lost | (new_rationality < -1e-3)
    return Walk(
        new_logits,
        new_rationality,
        choose(accepted, direction, walk.direction),
        choose(accepted, pace, walk.pace),
        choose(moved, walk.direction, walk.last_direction),
        choose(moved, walk.pace, walk.last_pace),
        jnp.where(moved, length, jnp.where(accepted & walk.repairing, 0, walk.last_length)),
        new_length,
        jnp.where(accepted & crossing, -walk.side, walk.side),
        rejected,
        arrived,
        lost,
        walk.steps + 1,
        walk.bifurcations + (accepted & crossing),
    )


def probabilities(logits: Array, actions: tuple[int, ...]) -> tuple[Array, ...]:
    """The mixed actions of one game's logits."""
    return tuple(jax.nn.softmax(own) for own in split(logits, actions))
