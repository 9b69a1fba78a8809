"""Menus of experiments for users with private types: the exact best response of a provider.

A provider that knows the state posts several experiments and lets users pick. With exact users a
conversation of any length is such a menu (docs/menus.md).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Scalar

from .._linear_program import check_optimum
from .._program_solver import solve_linear_program
from ._best_response import Outside, capture_sets
from ._menu_program import TypedUsers, direct_menu, menu_program, shortfalls, typed_users
from ._segment import MARGIN

# Captured sets double with every unit: beyond these, one would wait for hours.
_MOST_UNITS = {"before": 4, "after": 6}


class MenuResponse(eqx.Module):
    """The most a provider can get by posting a menu, between `lower` and `upper`.

    - `lower` is reached by `branches` [pairs, actions, states] up to the capture margin, with ties
        in the provider's favour: users follow the branch and the action meant for them if they
        lose nothing by it. Branches are conditional probabilities, columns sum to 1; pairs are
        ordered by user, then type.
    - `upper` is proved by the dual programs: infinite if the one of a set that cannot be ruled out
        is not certified.
    - `captured` [units]: the users (timing "before") or pairs ("after") that it then holds.
    """

    lower: Scalar
    upper: Scalar
    branches: Float[Array, "pairs actions states"]
    captured: Bool[Array, " units"]


class Stakes(eqx.Module):
    """What recommendations are worth to the deviator: `base` + `size` * `unit`, pair by pair."""

    base: Float[Array, " pairs"]
    unit: Float[Array, "pairs actions states"]
    size: Scalar


def stakes_of(joint, objective, mass) -> Stakes:
    users, types, actions, states = objective.shape
    low = jnp.min(objective, axis=(1, 2, 3))
    size = jnp.max((jnp.max(objective, axis=(1, 2, 3)) - low) * mass)
    size = jnp.where(size > 0, size, 1)
    weight = joint * mass[:, None, None]
    unit = (objective - low[:, None, None, None]) * weight[:, :, None] / size
    base = jnp.sum(weight, axis=2) * low[:, None]
    return Stakes(base.reshape(-1), unit.reshape(users * types, actions, states), size)


def respond(
    typed: TypedUsers,
    stakes: Stakes,
    outside: Outside,
    sets: Bool[Array, "sets units"],
    margin: float,
) -> MenuResponse:
    """The best response in units of one, one program per set of units to hold."""
    units = sets.shape[1]
    occurs = jnp.any(typed.part & typed.occurs[None], axis=1)
    held = outside.held | ~occurs
    most_for_each = jnp.max(typed.values(), axis=1)
    room = jnp.maximum(typed.share @ jnp.sum(most_for_each, axis=1) - outside.value, 0)
    margins = jnp.minimum(margin, room / 2)

    def solve(captured, slackest):
        fresh = captured & ~held
        level = outside.value + jnp.where(fresh & ~slackest, margins, 0)
        program = menu_program(typed, stakes.unit, level, captured, fresh, slackest)
        primal, dual, _ = solve_linear_program(program)
        optimum = check_optimum(program, primal, dual, 1e-8)
        return direct_menu(typed, primal.x), shortfalls(typed, primal.z), primal.z[-1], optimum

    settled = ~sets | held[None]
    count = len(sets)
    if units > 1 and margin == 0:
        # The largest margin of each set decides whether it counts; asked in the same call.
        asked = jax.vmap(solve)(jnp.concatenate([sets, sets]), jnp.arange(2 * count) < count)
        (_, missed, spare, most), (branches, short, _, optimum) = (
            jax.tree.map(lambda leaf, part=part: leaf[part], asked)
            for part in (slice(None, count), slice(count, None))
        )
        safe = jnp.all(settled, axis=1)
        possible = safe | (spare > MARGIN)
        # Only a certified program rules a set out; its bound is minus the margin, or a price.
        ruled_out = ~safe & most.certified & (most.bound >= -MARGIN)
        short = jnp.maximum(missed, short)
    else:
        # One unit: everything up to full information can be given to it.
        branches, short, _, optimum = jax.vmap(solve)(sets, jnp.zeros(count, bool))
        possible = jnp.all(settled | (room > MARGIN)[None], axis=1)
        ruled_out = ~possible
    possible = possible & (short <= MARGIN)
    rest = jnp.sum(jnp.where(sets, 0, outside.payoff[None]), axis=1)
    holds = sets @ typed.part.astype(stakes.base.dtype)
    base = rest + holds @ stakes.base
    reached = base + stakes.size * jnp.einsum("cp,pas,cpas->c", holds, stakes.unit, branches)
    proved = jnp.where(optimum.certified, base - stakes.size * optimum.bound, jnp.inf)
    # Holding nobody: open to a provider with competitors, who may post a worthless menu.
    nobody = jnp.where(outside.exists, jnp.sum(outside.payoff), -jnp.inf)
    reached = jnp.concatenate([nobody[None], jnp.where(possible, reached, -jnp.inf)])
    proved = jnp.concatenate([nobody[None], jnp.where(ruled_out, -jnp.inf, proved)])
    best = jnp.argmax(reached)
    return MenuResponse(
        reached[best],
        jnp.max(proved),
        jnp.concatenate([branches[:1], branches])[best],
        jnp.concatenate([jnp.zeros((1, units), bool), sets])[best],
    )


def capture_sets_of(function: str, typed: TypedUsers, timing: str) -> Bool[Array, "sets units"]:
    units, most = len(typed.size), _MOST_UNITS[timing]
    if units > most:
        what, other = ("users", "users") if timing == "before" else ("(user, type) pairs", "pairs")
        raise ValueError(
            f"{function}: {units} {what} make {2**units - 1} sets to hold, one linear program "
            f"each; the limit with timing '{timing}' is {most} {other}. Use smaller segments or "
            "fewer types."
        )
    return jnp.asarray(capture_sets(units))


@eqx.filter_jit
def menu_best_response(
    joint: Float[Array, "users types states"],
    utility: Float[Array, "users types actions states"],
    objective: Float[Array, "users types actions states"],
    mass: Float[Array, " users"],
    outside: Outside,
    *,
    timing: str = "before",
    margin: float = 0.0,
) -> MenuResponse:
    """The exact best response of one provider that posts a menu to users with private types.

    One linear program per set of units to hold, polynomial in the number of pairs (user, type):
    each pair has a branch of its own, whose messages recommend actions; following it must be worth
    at least as much as picking another pair's branch and acting optimally on what that says.

    **Arguments:**

    - `joint` [users, types, states]: probabilities of type and state, sum 1 for each user.
    - `utility` of the users, `objective` of the deviating provider.
    - `outside`: per unit, that is per user with timing "before" (she picks her provider before
        she learns her type) and per pair, ordered by user and then type, with timing "after": her
        best value elsewhere (in units of utility, given her type with timing "after"; `-inf`
        without another provider), what her action is then worth to the deviator (mass and
        probability of the type included), and whether the deviator holds her.
    - `margin`: what newly held units must get beyond outside, as a share of their range of
        utility, or half of what full information could add, if less; 0 for the supremum.

    A set counts if it can be held strictly (margin above 1e-9 of each unit's range, except for
    units that the provider already holds); the others stay with their outside option at a tie.

    **Errors:** ValueError for more than 4 users ("before") or 6 pairs ("after").

    **Source:** docs/menus.md; type reporting after Castiglioni, Marchesi, Gatti, Bayesian
    Persuasion Meets Mechanism Design (arXiv 2202.00605).

    >>> import jax.numpy as jnp
    >>> from diffgame.market import Outside, menu_best_response
    >>> judge, conviction = jnp.eye(2)[None, None], jnp.array([[[[0.0, 0.0], [1.0, 1.0]]]])
    >>> silence = Outside(jnp.array([0.7]), jnp.zeros(1), jnp.array([False]), jnp.array(True))
    >>> joint = jnp.array([[[0.7, 0.3]]])
    >>> found = menu_best_response(joint, judge, conviction, jnp.ones(1), silence)
    >>> print(found.lower.round(6), found.upper.round(6))
    0.6 0.6
    """
    typed = typed_users(joint, utility, timing)
    sets = capture_sets_of("menu_best_response", typed, timing)
    if outside.value.shape != typed.size.shape:
        raise ValueError(
            f"menu_best_response: outside has {len(outside.value)} values where timing "
            f"'{timing}' asks for {len(typed.size)}, one per "
            f"{'user' if timing == 'before' else 'pair (user, type)'}."
        )
    outside = eqx.tree_at(lambda out: out.value, outside, typed.scale(outside.value))
    return respond(typed, stakes_of(joint, objective, mass), outside, sets, margin)
