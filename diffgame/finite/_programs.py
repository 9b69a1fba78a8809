"""Equilibria that are linear programs: zero-sum games, correlated equilibria, commitment."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Scalar

from .._linear_program import LinearProgram, check_optimum
from .._program_solver import solve_linear_program
from ._check import NashCheck, check_nash
from ._normal_form import NormalForm, Profile


class ZeroSumEquilibrium(eqx.Module):
    """Maximin play of both: `value` is what the row player gets, `check` the certificate."""

    profile: Profile
    value: Scalar
    check: NashCheck


class CorrelatedEquilibrium(eqx.Module):
    """Advice that nobody gains by ignoring, of the largest total payoff.

    - `distribution` [*actions]: the probability of each combination of advice.
    - `payoffs` [players], `welfare`: expected payoffs and their sum. `bound`: no correlated
        equilibrium has more welfare, by weak duality.
    - `gain`: the most that a player gains by ignoring a piece of advice, times its probability.
    - `certified`: probabilities are proper, `gain` and `bound - welfare` relative to the range of
        payoffs at most the tolerance.
    """

    distribution: Float[Array, "*actions"]
    payoffs: Float[Array, " players"]
    welfare: Scalar
    bound: Scalar
    gain: Scalar
    certified: Bool[Array, ""]


class Commitment(eqx.Module):
    """What the first player commits to, and how the second replies (ties in the first's favour).

    - `leader` [rows]: the mixed action committed to. `reply`: the second player's action.
    - `value`, `follower_value`: expected payoffs. `bound`: no commitment is worth more.
    - `follower_gain`: what the follower would gain by another action.
    - `certified`: probabilities are proper, `follower_gain` and `bound - value` relative to the
        ranges of payoffs at most the tolerance.
    """

    leader: Float[Array, " rows"]
    reply: Array
    value: Scalar
    follower_value: Scalar
    bound: Scalar
    follower_gain: Scalar
    certified: Bool[Array, ""]


def _normalised(table):
    """The table moved and scaled to [0, 1], its lowest entry, and its range (1 where constant)."""
    low = jnp.min(table)
    span = jnp.max(table) - low
    span = jnp.where(span > 0, span, 1)
    return (table - low) / span, low, span


def _clean(mixed):
    mixed = jnp.maximum(mixed, 0)
    return mixed / jnp.sum(mixed)


def _passes(*errors, tolerance):
    errors = jnp.stack(errors)
    return jnp.all(jnp.isfinite(errors) & (errors <= tolerance))


def _two_players(game: NormalForm, name: str) -> None:
    if len(game.actions) != 2:
        raise ValueError(f"{name}: the game has {len(game.actions)} players; give one of two")


def zero_sum_equilibrium(
    payoffs: Float[Array, "rows columns"], *, tolerance: float = 1e-9
) -> ZeroSumEquilibrium:
    """Optimal play of a matrix game, whose rows maximise `payoffs` and columns minimise them.

    One linear program; batch with `jax.vmap`. The certificate is that of a Nash equilibrium.

    **Source:** von Neumann (1928); Dantzig (1951), A proof of the equivalence of the programming
    problem and the game problem.

    >>> import jax.numpy as jnp
    >>> found = zero_sum_equilibrium(jnp.array([[3.0, -1.0], [-2.0, 1.0]]))
    >>> print(found.profile[0].round(6), f"{found.value:.6f}", found.check.certified)
    [0.428571 0.571429] 0.142857 True
    """
    table, low, span = _normalised(payoffs)
    # Payoffs from 1 to 2 make the value positive: columns / value solve max 1'y, table y <= 1.
    table = table + 1
    rows, columns = table.shape
    program = LinearProgram(
        jnp.zeros((0, 1), table.dtype),
        jnp.concatenate([-jnp.ones(columns, table.dtype), jnp.zeros(rows, table.dtype)]),
        jnp.zeros((0, 0, 1), table.dtype),
        jnp.zeros((rows, 0, 1), table.dtype),
        jnp.concatenate([table, jnp.eye(rows, dtype=table.dtype)], axis=1),
        jnp.ones(rows, table.dtype),
    )
    primal, dual, _ = solve_linear_program(program)
    profile = _clean(-dual.rows), _clean(primal.z[:columns])
    game = jax.vmap(lambda sign: sign * payoffs)(jnp.array([1, -1], payoffs.dtype))
    check = check_nash(NormalForm(game), profile, tolerance)
    value = low + span * (profile[0] @ (table - 1) @ profile[1])
    return ZeroSumEquilibrium(profile, value, check)


def _advice_gains(table, player, distribution):
    """What following costs, per piece of advice and alternative: nonnegative when obeyed."""
    own = jnp.moveaxis(table, player, 0).reshape(table.shape[player], -1)
    weights = jnp.moveaxis(distribution, player, 0).reshape(own.shape)
    return jnp.einsum("as,bs->ab", weights, own) - jnp.einsum("as,as->a", weights, own)[:, None]


def correlated_equilibrium(game: NormalForm, *, tolerance: float = 1e-9) -> CorrelatedEquilibrium:
    """A correlated equilibrium of the largest total payoff; batch with `jax.vmap`.

    **Source:** Aumann (1974), Subjectivity and correlation in randomized strategies.

    >>> import jax.numpy as jnp
    >>> rows = jnp.array([[0.0, 7.0], [2.0, 6.0]])  # chicken: dare or yield
    >>> found = correlated_equilibrium(NormalForm([rows, rows.T]))
    >>> print(f"{found.welfare:.6f}", found.certified)
    10.500000 True
    """
    counts = game.actions
    tables, low, span = jax.vmap(_normalised)(game.payoffs)
    cells = tables[0].size
    within = []
    for player, count in enumerate(counts):
        place = jax.nn.one_hot(jnp.indices(counts)[player].ravel(), count, dtype=tables.dtype)
        own = tables[player]
        for other in range(count):
            instead = jnp.broadcast_to(
                jnp.take(own, jnp.array([other]), axis=player), own.shape
            ).ravel()
            rows = place.T * (own.ravel() - instead)[None]
            within.append(jnp.delete(rows, other, axis=0, assume_unique_indices=True))
    # A program in payoffs of one unit: welfare is a sum of payoffs as they are.
    largest = jnp.max(span)
    welfare = jnp.einsum("i,i...->...", span / largest, tables)
    program = LinearProgram(
        -welfare.reshape(1, cells),
        jnp.zeros(0, tables.dtype),
        jnp.concatenate(within)[None],
        jnp.ones((1, 1, cells), tables.dtype),
        jnp.zeros((1, 0), tables.dtype),
        jnp.ones(1, tables.dtype),
    )
    primal, dual, _ = solve_linear_program(program)
    optimality = check_optimum(program, primal, dual, tolerance)
    distribution = _clean(primal.x[0]).reshape(counts)
    gains = [
        jnp.max(_advice_gains(table, player, distribution), initial=0.0)
        for player, table in enumerate(tables)
    ]
    payoffs = low + span * jnp.einsum("i...,...->i", tables, distribution)
    total = jnp.sum(payoffs)
    # The multipliers' own violation, times a total probability of 1, still loosens their bound.
    bound = jnp.sum(low) + largest * (optimality.dual_violation - optimality.bound)
    gap = (bound - total) / largest
    gain = jnp.max(jnp.stack(gains))
    certified = optimality.certified & _passes(jnp.abs(gap), gain, tolerance=tolerance)
    certified = certified & (optimality.primal_violation >= 0)
    worst = jnp.max(jnp.stack(gains) * span)
    return CorrelatedEquilibrium(distribution, payoffs, total, bound, worst, certified)


def stackelberg_commitment(game: NormalForm, *, tolerance: float = 1e-9) -> Commitment:
    """The best mixed action for the first player to commit to before the second one replies.

    One program for all replies: the leader correlates its action with advice to the follower,
    which is worth no more than its best piece of advice alone. Batch with `jax.vmap`.

    **Errors:** `ValueError` for other than two players.

    **Source:** Conitzer, Sandholm (2006), Computing the optimal strategy to commit to; Conitzer,
    Korzhyk (2011), Commitment to correlated strategies.

    >>> import jax.numpy as jnp
    >>> leader = jnp.array([[2.0, 4.0], [1.0, 3.0]])
    >>> found = stackelberg_commitment(NormalForm([leader, jnp.eye(2)]))
    >>> print(found.leader.round(6), f"{found.value:.6f}", found.certified)
    [0.5 0.5] 3.500000 True
    """
    _two_players(game, "stackelberg_commitment")
    (leader, low, span), (follower, _, follower_span) = map(_normalised, game.payoffs)
    rows, columns = game.actions
    program = LinearProgram(
        -leader.T,
        jnp.zeros(0, leader.dtype),
        follower.T[:, None] - follower.T[None, :],
        jnp.ones((1, columns, rows), leader.dtype),
        jnp.zeros((1, 0), leader.dtype),
        jnp.ones(1, leader.dtype),
    )
    primal, dual, _ = solve_linear_program(program)
    optimality = check_optimum(program, primal, dual, tolerance)
    advice = jnp.maximum(primal.x, 0)
    mass = jnp.sum(advice, axis=1)
    mixed = advice / jnp.where(mass > 0, mass, 1)[:, None]
    worth = jnp.einsum("ca,ac->c", mixed, leader)
    gains = jnp.max(mixed @ follower, axis=1) - jnp.einsum("ca,ac->c", mixed, follower)
    # Advice of no weight is only what rounding left; what remains is judged by its own numbers.
    usable = (mass > 1e-6) & (gains <= tolerance)
    reply = jnp.argmax(jnp.where(usable, worth, -jnp.inf))
    own, value, gain = mixed[reply], worth[reply], gains[reply]
    bound = optimality.dual_violation - optimality.bound
    proper = jnp.all(jnp.isfinite(own)) & (jnp.abs(jnp.sum(own) - 1) <= tolerance)
    certified = proper & _passes(jnp.abs(bound - value), gain, tolerance=tolerance)
    return Commitment(
        own,
        reply,
        low + span * value,
        own @ game.payoffs[1][:, reply],
        low + span * bound,
        follower_span * gain,
        certified,
    )
