"""Nash equilibria as limits of the logit path: rationality grows until the support shows."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._lanes import advance_lanes, lanes_first, lanes_last, over_lanes
from ._check import check_nash
from ._elimination import solve_pivoted
from ._logit import scaled
from ._logit_path import Walk, advance, begin, probabilities, split
from ._nash import NashEquilibrium, NashStatus, judged
from ._normal_form import NormalForm, Profile, action_payoffs

# Rationalities, per largest payoff, at which the support is read off.
_STAGES = 30.0, 100.0, 300.0, 1e3, 1e4, 1e5
# Logits this far behind the best, or falling behind in proportion to rationality, leave the
# support; those this close stay in it.
_FAR, _NEAR = 60.0, 1e-3
# Newton steps on the support: the equations are linear for two players.
_POLISHES = 4


class _Limit(eqx.Module):
    """The walk of each game, its best guess at the limit, and what has been decided about it."""

    walk: Walk
    guess: Float[Array, "logits lanes"]
    found: Bool[Array, " lanes"]
    tried: Bool[Array, " lanes"]


def _payoff_jacobian(game: NormalForm, stacked: Array) -> Array:
    actions = game.actions

    def payoffs(stacked):
        return jnp.concatenate(action_payoffs(game, tuple(split(stacked, actions))))

    return jax.jacfwd(payoffs)(stacked)


def _support(logits, rate, rationality, actions):
    """Who plays what in the limit: gaps between logits that grow with rationality never close."""
    parts = []
    for own, slope in zip(split(logits, actions), split(rate, actions), strict=True):
        best = jnp.argmax(own)
        gap, widening = own[best] - own, slope[best] - slope
        lasting = (rationality * widening < 0.5 * gap) | (gap < _NEAR)
        parts.append(lasting & (gap < _FAR))
    return jnp.concatenate(parts)


def _polish(game: NormalForm, walk: Walk) -> Array:
    """The profile with equal payoffs on the support: Newton's method from the path's point."""
    actions, players = game.actions, len(game.actions)
    support = _support(walk.logits, walk.direction / walk.pace, walk.rationality, actions)
    owner = jnp.repeat(jnp.arange(players), jnp.array(actions), total_repeat_length=len(support))
    sums = jax.nn.one_hot(owner, players, dtype=walk.logits.dtype)
    start = jnp.where(support, jnp.concatenate(probabilities(walk.logits, actions)), 0)

    def newton(_, stacked):
        payoffs = jnp.concatenate(action_payoffs(game, tuple(split(stacked, actions))))
        jacobian = _payoff_jacobian(game, stacked)
        indifferent = jnp.concatenate([jacobian, -sums], axis=1)
        absent = jnp.eye(*indifferent.shape, dtype=stacked.dtype)
        matrix = jnp.concatenate(
            [
                jnp.where(support[:, None], indifferent, absent),
                jnp.concatenate([sums.T, jnp.zeros((players, players), stacked.dtype)], axis=1),
            ]
        )
        right = jnp.concatenate([jnp.where(support, -payoffs, -stacked), 1 - stacked @ sums])
        return stacked + solve_pivoted(matrix, right)[: len(stacked)]

    count = 1 if players == 2 else _POLISHES
    stacked = jnp.maximum(jax.lax.fori_loop(0, count, newton, start), 0)
    return stacked / (sums @ (stacked @ sums))


def _parts(stacked: Array, actions: tuple[int, ...]) -> Profile:
    return tuple(split(stacked, actions))


def _approach(tolerance: float, max_steps: int):
    def walks_on(limit):
        walk = limit.walk
        return ~limit.found & ~walk.arrived & ~walk.lost & (walk.steps < max_steps)

    def walk_on(shared, limit):
        walk = advance(shared[0], shared[1], limit.walk, land=False)
        return eqx.tree_at(lambda state: state.walk, limit, walk)

    def polish_one(table, walk):
        game = NormalForm(table)
        guess = _polish(game, walk)
        return guess, check_nash(game, _parts(guess, game.actions), tolerance).certified

    def polish(shared, limit):
        tables, _ = shared
        guess, found = jax.vmap(polish_one)(*lanes_first((tables, limit.walk)))
        guess = jnp.moveaxis(guess, 0, -1)
        guess = jnp.where(found[None], guess, limit.guess)
        return _Limit(limit.walk, guess, found, jnp.ones_like(found))

    @functools.partial(over_lanes, axis=0)
    def approach(tables):
        start = begin(lanes_last(tables))
        sound = jnp.all(jnp.isfinite(tables), axis=tuple(range(1, tables.ndim)))
        start = eqx.tree_at(lambda walk: walk.lost, start, ~sound)
        no = jnp.zeros_like(sound)
        first = lanes_first(_Limit(start, jnp.zeros_like(start.logits), no, no))

        def stage(k, limit):
            target = jnp.full(len(tables), 1.0, tables.dtype) * jnp.array(_STAGES)[k]
            shared = tables, target
            limit = eqx.tree_at(lambda s: (s.walk.arrived, s.tried), limit, (no, no))
            limit = advance_lanes(walks_on, walk_on, shared, limit)
            # A walk that ended nowhere is polished once: its support may show all the same.
            hopeless = ~limit.walk.arrived & (k > 0)
            limit = eqx.tree_at(lambda state: state.tried, limit, limit.found | hopeless)
            return advance_lanes(lambda state: ~state.tried, polish, shared, limit)

        limit = jax.lax.fori_loop(0, len(_STAGES), stage, first)
        return limit.walk, limit.guess, limit.found

    return approach


def nash_limit(
    game: NormalForm, *, tolerance: float = 1e-9, max_steps: int = 1000
) -> NashEquilibrium:
    """The Nash equilibrium that the principal branch of logit equilibria leads to.

    Any number of players; batch with `jax.vmap`. Rationality grows in stages; at each the support
    is read off the tangent of the branch, the equilibrium on it computed by Newton's method and
    checked. The limit selects one equilibrium of almost every game; degenerate games may end
    without one.

    **Arguments:** `tolerance`: of the check, on regret relative to the range of payoffs.
    `max_steps`: along the branch.

    **Returns:** a `NashEquilibrium`; where none was found, the profile is the branch's last point.

    **Source:** McKelvey, Palfrey (1995), theorem 2; Turocy (2005).

    >>> import jax.numpy as jnp
    >>> rows = jnp.array([[2.0, 0.0], [0.0, 1.0]])
    >>> found = nash_limit(NormalForm([rows, rows]))
    >>> print(found.profile[0], found.check.certified)
    [1. 0.] True
    """
    tables, _ = scaled(game.payoffs)
    walk, guess, found = _approach(tolerance, max_steps)(tables)
    last = probabilities(walk.logits, game.actions)
    profile = tuple(
        jnp.where(found, mixed, other)
        for mixed, other in zip(_parts(guess, game.actions), last, strict=True)
    )
    check = check_nash(game, profile, tolerance)
    finite = jnp.all(jnp.isfinite(game.payoffs))
    otherwise = NashStatus.where(walk.lost, NashStatus.lost, NashStatus.max_steps)
    ended = found | (walk.rationality >= _STAGES[-1])
    status = judged(check, ended, otherwise, finite)
    return NashEquilibrium(profile, check, status, walk.steps)
