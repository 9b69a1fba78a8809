"""What can be said about a profile without trusting whoever found it."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree, Scalar

from ._choice_set import AbstractConstrainedSet, AbstractConvexSet
from ._concavity import is_convex_somewhere
from ._constrained_response import optimality_gap
from ._crowd_search import make_offers
from ._deviation import FEASIBLE, GRID, find_deviations
from ._equilibrium import Certificate, Equilibrium, Status
from ._game import AbstractGame
from ._interaction import CrowdStatus, Meeting, choose, meet
from ._joint_response import own_utility
from ._play import Outcome, play, split
from ._policy import AbstractPolicy
from ._response import AbstractResponse, Argmax
from ._stationarity import second_order, stationarity
from ._total import each, total


@eqx.filter_jit
def user_gap(
    game: AbstractGame,
    response: AbstractResponse,
    profile: AbstractPolicy,
    *,
    chunk: int | None = None,
) -> Float[Array, " users"]:
    """How much utility the response leaves on the table, per user, in units of utility.

    On a convex set: the Frank-Wolfe gap `max_z grad u(y) . (z - y)`, an upper bound on the loss if
    utility is concave, and the loss itself if it is linear. On a constrained set: a bound from the
    multipliers, over choices no farther off than 1 + |choice|; inf for a user without a best choice
    (`solve_user_problem` says why) or with one that violates a constraint. On a finite set: the
    exact value of the best decisions, by backward induction, minus the value attained. For `Logit`
    this is the price of quantal choice, part of the model, and not an error.

    **Source:** Jaggi (2013), Revisiting Frank-Wolfe.

    >>> import jax.numpy as jnp
    >>> from diffgame import Constant, Logit, user_gap
    >>> from diffgame.games import LogitBertrand
    >>> game = LogitBertrand(cost=jnp.zeros(2), quality=jnp.zeros(2), users=jnp.ones(1))
    >>> print(user_gap(game, Logit(1.0), Constant(jnp.ones(2))).round(6))
    [0.423883]
    """
    meeting = meet(game, response, profile, chunk=chunk)

    def gap(shared, member):
        (game, response, profile, crowd), (user, _, chosen) = shared, member
        offers = Meeting(crowd).see(make_offers(game, profile, user))
        choice = choose(game, response, offers, user, chosen)
        utility = own_utility(game, response, offers, member)

        if isinstance(game.choice_set, AbstractConstrainedSet):
            return optimality_gap(game, offers, user, choice)
        if isinstance(game.choice_set, AbstractConvexSet):
            gradient = jax.grad(utility)(choice)
            return game.choice_set.support(gradient) - jnp.sum(gradient * choice)
        return utility(Argmax()(game, offers, user)) - utility(choice)

    shared = game, response, profile, meeting.crowd
    members = game.users, game.mass, meeting.choices
    return each(gap, shared, members, chunk=chunk)


class Welfare(eqx.Module):
    """Utilitarian totals: `users`, utilities weighted by mass; `providers`, payoffs added up."""

    users: Scalar
    providers: Scalar


def welfare(outcome: Outcome, mass: Float[Array, " users"]) -> Welfare:
    """The users' mass-weighted total utility and the providers' total payoff.

    >>> import jax.numpy as jnp
    >>> from diffgame import Concave, Constant, play, welfare
    >>> from diffgame.games import Cournot
    >>> game = Cournot(cost=jnp.zeros(2))
    >>> total = welfare(play(game, Concave(), Constant(jnp.full(2, 0.25))), game.mass)
    >>> print(total.users, total.providers)
    0.125 0.25
    """
    users = total(lambda _, utility: utility, None, mass, outcome.utilities)
    return Welfare(users, jnp.sum(outcome.payoffs))


def _all_within(values: PyTree, lowest: Scalar | float, highest: Scalar | float) -> Bool[Array, ""]:
    # Leaf by leaf: users' numbers are many, and may be spread over devices.
    within = [
        jnp.all(jnp.isfinite(leaf) & (lowest <= leaf) & (leaf <= highest))
        for leaf in jax.tree.leaves(values)
    ]
    return jnp.all(jnp.stack(within))


@eqx.filter_jit
def _certify(game, response, profile, multipliers, before, key, tolerance, starts, steps, chunk):
    residual = stationarity(game, response, profile, multipliers, chunk=chunk)
    deviations = find_deviations(
        game, response, profile, key=key, starts=starts, steps=steps, chunk=chunk
    )
    curvature = second_order(game, response, profile, multipliers, chunk=chunk)
    gap = user_gap(game, response, profile, chunk=chunk)
    outcome = play(game, response, profile, chunk=chunk)

    numbers = split(profile)[0], residual, outcome.payoffs, outcome.utilities, gap
    finite = _all_within(numbers, -jnp.inf, jnp.inf)
    # Users without a best choice: whatever else is not finite then follows from them.
    no_best = jnp.any(gap == jnp.inf)
    finite &= ~jnp.any(jnp.isnan(deviations.gains)) & ~jnp.any(jnp.isnan(curvature))
    stationary = _all_within(residual, 0.0, tolerance)
    maximal = _all_within(deviations.gains, 0.0, tolerance) & jnp.all(curvature <= tolerance)
    exact = _all_within(gap, -tolerance, tolerance if response.maximises else jnp.inf)

    failed = (before == Status.max_steps) | (before == Status.diverged)
    failed |= before == Status.nonfinite
    unfinished = Status.where(failed, before, Status.not_stationary)
    status = Status.where(maximal, Status.certified, Status.improvable)
    status = Status.where(stationary, status, unfinished)
    status = Status.where(exact, status, Status.response_inexact)
    convex = is_convex_somewhere(game, response, outcome)
    status = Status.where(convex, Status.not_concave, status)
    if outcome.interaction is not None:
        settled = outcome.interaction.status == CrowdStatus.isolated
        status = Status.where(settled, status, Status.crowd_not_settled)
    status = Status.where(finite, status, Status.nonfinite)
    status = Status.where(no_best, Status.response_inexact, status)
    certificate = residual, deviations.gains, deviations.policies, curvature, gap
    return outcome, status, certificate


def certify(
    game: AbstractGame,
    response: AbstractResponse,
    equilibrium: Equilibrium,
    *,
    key: Key[Array, ""],
    tolerance: float = 1e-6,
    starts: int = 16,
    steps: int = 100,
    chunk: int | None = None,
) -> Equilibrium:
    """Examine an equilibrium's profile anew and return it with a `Certificate` and a status.

    `certified` needs all of: the natural residual of anticipating providers, every provider's gain
    from the best deviation found, its largest own curvature on free directions, and every user's
    gap (not for `Logit`, whose noise is the model) finite and at most `tolerance`, absolutely, in
    units of parameters, payoff, payoff per squared parameter, and utility. Nothing of the solver
    is used. Gains are searched, not bounded: the certificate's `scope` says how.

    Else the status names what failed first: `nonfinite`, `crowd_not_settled`, `not_concave`,
    `response_inexact`, `not_stationary` (or the failure that the solver reported), `improvable`.

    **Errors:** ValueError for settings out of range, and from `Argmax`, which has no derivative.

    >>> import jax, jax.numpy as jnp
    >>> from diffgame import Concave, Constant, Newton, Status, certify, solve
    >>> from diffgame.games import Cournot
    >>> game, start = Cournot(cost=jnp.zeros(2)), Constant(jnp.zeros(2))
    >>> found = solve(game, Concave(), start, Newton())
    >>> found = certify(game, Concave(), found, key=jax.random.key(0))
    >>> print(found.status == Status.certified)
    True
    """
    if not tolerance > 0:
        raise ValueError(f"certify: tolerance is {tolerance}; give a positive number.")
    if starts < 0 or steps < 1:
        raise ValueError(
            f"certify: starts is {starts}, steps is {steps}; give starts >= 0 and steps >= 1."
        )
    # As arrays, so that another tolerance or number of steps does not compile anew.
    limits = jnp.asarray(tolerance), starts, jnp.asarray(steps)
    profile, multipliers = equilibrium.profile, equilibrium.multipliers
    outcome, status, findings = _certify(
        game, response, profile, multipliers, equilibrium.status, key, *limits, chunk
    )
    kept = (
        "" if multipliers is None else f"by augmented Lagrangians, constraints kept to {FEASIBLE}; "
    )
    scope = (
        f"searched: projected ascent of {steps} steps from the profile and {starts} random starts "
        f"per provider (one parameter in a finite interval: also {GRID} equally spaced values); "
        f"{kept}second order: local, on free directions; user gap: exact for linear utility, a "
        "bound for concave utility"
    )
    return Equilibrium(
        profile,
        outcome,
        equilibrium.residual,
        status,
        equilibrium.steps,
        equilibrium.solver,
        Certificate(*findings, tolerance=tolerance, scope=scope),
        multipliers,
    )
