"""One leader, users under constraints: the best offer, kinks of the response included."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Scalar

from ._augmented import violation
from ._bilevel_search import (
    Activity,
    Solution,
    Units,
    Unknowns,
    activity,
    climb,
    conditions,
    leader_values,
    make_units,
    polish,
    with_offer,
)
from ._choice_set import AbstractConstrainedSet
from ._constrained_response import UserOptimum, UserStatus, optimality_gap, solve_user_problem
from ._crowd_search import make_offers
from ._game import AbstractGame
from ._implicit import implicit_root
from ._policy import AbstractPolicy, Constant

# Searches are repeated from the best offer found; each is followed by polls near it.
_ROUNDS, _POLLS = 2, 8
_CUTOFF = 1e-10


class BilevelStatus(eqx.Enumeration):
    """What is known about a leader's offer; the text of each member says what to do next."""

    best_found = (
        "Feasible and stationary to the tolerance, given which constraints bind, at exact "
        "responses, and nothing better was found from any start nor near the best: knowledge of "
        "this search, no proof that no other offer is better. More starts search more."
    )
    not_stationary = (
        "Feasible at exact responses and the best found, but the optimality system of the leader's "
        "problem holds to no more than `residual` there: raise `max_steps` or `starts`, rescale "
        "the game's numbers, or smooth what is degenerate (utility without curvature)."
    )
    response_inexact = (
        "A user's best choice is not known to the tolerance at this offer: `solve_user_problem` "
        "says why. Utility must be concave and bounded under her constraints."
    )
    infeasible = (
        "No offer was found whose exact responses meet the leader's constraints; this is the one "
        "of least violation. Relax these constraints or raise `starts`."
    )
    nonfinite = (
        "The leader's payoff or a constraint is not finite: check the game's numbers at the "
        "starting offer, and bound the offers."
    )


class BilevelOptimum(eqx.Module):
    """The best offer of one leader that was found, and what was checked about it.

    - `profile`: the leader's policy. `choices` [users, coordinates]: the exact responses to it.
    - `payoff`: the leader's, at these choices.
    - `user_gap` [users]: bound on the utility that each user leaves on the table.
    - `violation`: of the leader's constraints at these choices, 0 if all hold.
    - `residual`: of the optimality system of the leader's problem, in scaled units, given
        what binds; inf where the offer was found by evaluating offers only.
    - `starts`: how many offers the search began from. `found`: from how many of them the first
        search came within the tolerance of its best payoff, feasibly.
    - `status`: a `BilevelStatus`; print `BilevelStatus[status]` for the text.
    """

    profile: Constant
    choices: Float[Array, "users coordinates"]
    payoff: Scalar
    user_gap: Float[Array, " users"]
    violation: Scalar
    residual: Scalar
    starts: int = eqx.field(static=True)
    found: Int[Array, ""]
    status: BilevelStatus


class _Judged(eqx.Module):
    offer: Float[Array, "*starts n"]
    choices: Float[Array, "*starts users coordinates"]
    feasible: Bool[Array, "*starts"]
    payoff: Float[Array, "*starts"]
    violation: Float[Array, "*starts"]


def _respond(game: AbstractGame, profile: Constant) -> UserOptimum:
    def one(user):
        return solve_user_problem(game, make_offers(game, profile, user), user)

    return jax.vmap(one)(game.users)


def _judge(game, profile, offer, allowed):
    """At exact responses: whether an offer is feasible, its payoff if so, and its violation."""
    profile = with_offer(profile, offer)
    best = _respond(game, profile)
    payoff, limits = leader_values(game, profile, best.choice)
    known = (best.status == UserStatus.optimal) | (best.status == UserStatus.weakly_active)
    apart = violation(limits)
    fine = jnp.all(known) & (apart <= allowed) & jnp.isfinite(payoff)
    broken = jnp.where(jnp.all(known) & jnp.isfinite(apart), apart, jnp.inf)
    return _Judged(
        offer,
        best.choice,
        fine,
        jnp.where(fine, payoff, -jnp.inf),
        broken,
    )


def _best_of(judged: "_Judged") -> Int[Array, ""]:
    """Feasible offers by payoff; without one, the least violation."""
    by_payoff, by_violation = jnp.argmax(judged.payoff), jnp.argmin(judged.violation)
    return jnp.where(jnp.any(judged.feasible), by_payoff, by_violation)


def _begin(game, profile, offer) -> Unknowns:
    """The users' exact responses to an offer, in the units of the search."""
    best = _respond(game, with_offer(profile, offer))
    finite = jnp.all(jnp.isfinite(best.choice), axis=1, keepdims=True)
    centre = jnp.broadcast_to(game.choice_set.centre(), best.choice.shape)
    choices = jnp.where(finite, best.choice, centre)

    def slack(user, choice):
        offers = make_offers(game, with_offer(profile, offer), user)
        return jnp.maximum(0, -game.user_constraints(choice, offers, user).inequalities)

    slacks = jax.vmap(slack)(game.users, choices)
    return Unknowns(offer, choices, best.inequality_duals, slacks, best.equality_duals)


def _scale(point: Unknowns, units: Units) -> Unknowns:
    def bounded(duals):
        return jnp.where(jnp.isfinite(duals), jnp.clip(duals, -10, 10), 0)

    duals = point.inequality_duals * units.inequalities / units.utility[:, None]
    return Unknowns(
        point.offer,
        point.choices,
        bounded(duals),
        point.slacks / units.inequalities,
        bounded(point.equality_duals / units.utility[:, None]),
    )


class _Best(eqx.Module):
    """The best offer so far, and the solution that it is, if it is the end of a search."""

    judged: _Judged
    found: Int[Array, ""]
    searched: Bool[Array, ""]
    solution: Solution
    active: Activity
    units: Units


@eqx.filter_jit
def _search(game, profile, key, max_steps, tolerance, starts) -> _Best:
    lower, upper = profile.lower.ravel(), profile.upper.ravel()

    def draw(number):
        return profile.sample(jax.random.fold_in(key, number)).offer.ravel()

    drawn = jax.vmap(draw)(jnp.arange(1, starts))
    first = jnp.concatenate([profile.project().offer.reshape(1, -1), drawn])

    def near(best, number):
        def one(key):
            noise_key, size_key = jax.random.split(key)
            size = 10 ** -jax.random.uniform(size_key, (), best.dtype, 0, 8)
            noise = (
                size * (1 + jnp.abs(best)) * jax.random.normal(noise_key, best.shape, best.dtype)
            )
            return jnp.clip(best + noise, lower, upper)

        return jax.vmap(one)(jax.random.split(jax.random.fold_in(key, starts + number), starts))

    def search(offer):
        start = _begin(game, profile, offer)
        units = make_units(game, profile, start.offer, start.choices)
        data = game, profile, units
        solution = climb(_scale(start, units), data, max_steps)
        active = activity(solution, data)
        return polish(solution, (data, active)), active, units

    def search_and_poll(number, best):
        again = near(best.judged.offer, number).at[0].set(best.judged.offer)
        ends = jax.vmap(search)(jnp.where(number == 0, first, again))

        def poll(step, best):
            # First the ends of the searches, then offers ever nearer to the best so far.
            ending, begun = step == 0, (number > 0) | (step > 0)
            polled = near(best.judged.offer, _ROUNDS + number * _POLLS + step)
            tried = jnp.where(ending, ends[0].point.offer, polled)
            # The tolerance is no budget for the leader to spend.
            allowed = jnp.clip(best.judged.violation, 1e-3 * tolerance, tolerance)
            allowed = jnp.where(ending, tolerance, allowed)
            judged = jax.vmap(lambda offer: _judge(game, profile, offer, allowed))(tried)
            index = _best_of(judged)
            new = jax.tree.map(lambda leaf: leaf[index], judged)
            margin = tolerance * (1 + jnp.abs(new.payoff))
            # The end of a search is preferred to an offer as good that is none.
            gain = jnp.where(ending & ~best.searched, -margin, margin)
            nearer = new.feasible | (new.violation < best.judged.violation)
            gains = new.feasible & (new.payoff - best.judged.payoff > gain)
            better = ~begun | jnp.where(best.judged.feasible, gains, nearer)
            close = judged.feasible & (judged.payoff >= new.payoff - margin)
            end = jax.tree.map(lambda leaf: leaf[index], ends)
            found = jnp.where(begun, best.found, jnp.sum(close))
            tried = _Best(new, found, ending, *end)
            best = eqx.tree_at(lambda it: it.found, best, found)
            return jax.tree.map(lambda a, b: jnp.where(better, a, b), tried, best)

        return jax.lax.fori_loop(0, _POLLS + 1, poll, best)

    def shapes():
        judged = _judge(game, profile, first[0], tolerance)
        return _Best(judged, jnp.array(0), jnp.array(False), *search(first[0]))

    # What begins the loop is never looked at; it must have a shape.
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(shapes))
    return jax.lax.fori_loop(0, _ROUNDS, search_and_poll, blank)


@eqx.filter_jit
def _solve(game, profile, key, max_steps, tolerance, starts):
    varied, fixed = eqx.partition((game, profile), eqx.is_inexact_array)
    frozen = eqx.combine(jax.lax.stop_gradient(varied), fixed)
    search = _search(frozen[0], frozen[1], key, max_steps, tolerance, starts)
    best, solution, active, units = search.judged, search.solution, search.active, search.units
    system = conditions(solution, ((*frozen, units), active))
    leaves = [jnp.max(jnp.abs(leaf), initial=0) for leaf in jax.tree.leaves(system)]
    # Constraints of the leader that bind must cost something.
    leaves.append(jnp.max(-solution.limit_prices, initial=0))
    residual = jnp.where(search.searched, jnp.max(jnp.stack(leaves)), jnp.inf)

    there = with_offer(frozen[1], best.offer)

    def gap(user, choice):
        return optimality_gap(frozen[0], make_offers(frozen[0], there, user), user, choice)

    # Rounding may leave it below zero.
    gaps = jnp.maximum(jax.vmap(gap)(frozen[0].users, best.choices), 0)

    def rows(solution, args):
        data, active, regular = args
        system = conditions(solution, (data, active))
        # An offer without an optimality system has no derivative.
        return jax.tree.map(lambda leaf: jnp.where(regular, 1, jnp.nan) * leaf, system)

    regular = search.searched & (residual <= tolerance)
    data = game, profile, units
    moving = implicit_root(rows, solution, (data, active, regular), cutoff=_CUTOFF).point

    def attach(value, moving):
        return value + (moving - jax.lax.stop_gradient(moving))

    profile = with_offer(profile, attach(best.offer, moving.offer))
    choices = attach(best.choices, moving.choices)
    payoff, limits = leader_values(game, profile, choices)
    apart = violation(limits)

    numbers = jnp.concatenate([payoff[None], apart[None], best.offer])
    status = BilevelStatus.where(
        residual <= tolerance, BilevelStatus.best_found, BilevelStatus.not_stationary
    )
    status = BilevelStatus.where(apart <= tolerance, status, BilevelStatus.infeasible)
    inexact = ~jnp.all((gaps >= 0) & (gaps <= tolerance))
    status = BilevelStatus.where(inexact, BilevelStatus.response_inexact, status)
    finite = jnp.all(jnp.isfinite(numbers))
    status = BilevelStatus.where(finite, status, BilevelStatus.nonfinite)
    return BilevelOptimum(
        profile, choices, payoff, gaps, apart, residual, starts, search.found, status
    )


def solve_bilevel(
    game: AbstractGame,
    profile: AbstractPolicy,
    *,
    key: Key[Array, ""],
    starts: int = 16,
    tolerance: float = 1e-6,
    max_steps: int = 500,
    throw: bool = True,
) -> BilevelOptimum:
    """The best offer of one leader to users who choose under constraints.

    The users' optimality systems take the place of their choices, with complementarity relaxed and
    driven to zero, so that kinks of the response, where a constraint of a user starts or ceases to
    bind, are ordinary points of the search; there, gradients through the response lead nowhere.
    The ends of all searches, and 8 times as many random offers far from and near to the best, are
    then compared at the users' exact responses, which `solve_user_problem` finds anew; and all this
    is done once more from the best of them.

    **Arguments:**

    - `game`: with an `AbstractConstrainedSet`, concave utilities with one best choice each, and
        one provider; its `provider_constraints` may depend on choices through the totals.
    - `profile`: where the first search begins, `Constant(offer)` with offer [1, ...]. The other
        `starts - 1` begin in its box, at random where bounds are finite, else around the offer.
    - `tolerance`: for violations, user gaps, the scaled residual, and relative to 1 + |payoff| for
        what counts as better.
    - `max_steps`: Newton steps per start. `throw`: raise unless feasible at exact responses.

    **Returns:** a `BilevelOptimum`. With status `best_found`, payoff, offer and choices are
    differentiable in the game and the bounds while the same constraints bind, by the implicit
    function theorem; at a kink along it, in the minimum norm where degenerate. Else derivatives
    are NaN.

    **Errors:** TypeError for other policies or choice sets; ValueError for several leaders;
    `eqx.EquinoxRuntimeError` with the status's text, if `throw`.

    **Source:** Scholtes (2001), Convergence properties of a regularization scheme for mathematical
    programs with complementarity constraints; Dempe (2002), Foundations of Bilevel Programming.

    >>> import jax, jax.numpy as jnp
    >>> from diffgame import AbstractGame, Constant, Constrained, Constraints
    >>> from diffgame import solve_bilevel
    >>> class Kink(AbstractGame):  # she would like 2, and may take no more than is offered
    ...     users = mass = jnp.ones(1)
    ...     choice_set = Constrained(1)
    ...     def user_utility(self, choice, offers, user):
    ...         return -jnp.sum((choice - 2) ** 2)
    ...     def user_constraints(self, choice, offers, user):
    ...         return Constraints(jnp.append(choice - offers, -choice))
    ...     def provider_payoffs(self, choice, offers, user):
    ...         return 3 * choice - offers
    >>> best = solve_bilevel(Kink(), Constant(jnp.zeros(1), 0.0, 5.0), key=jax.random.key(0))
    >>> print(best.profile.offer.round(6), best.choices.round(6), best.payoff.round(6))
    [2.] [[2.]] 4.0
    """
    if not isinstance(profile, Constant):
        raise TypeError(
            f"solve_bilevel: the policy is {type(profile).__name__}; give Constant(offer)."
        )
    if profile.offer.ndim == 0 or profile.offer.shape[0] != 1:
        raise ValueError(
            f"solve_bilevel: the offer has shape {profile.offer.shape}; give one leader, [1, ...], "
            "or use `solve` and `certify` for several."
        )
    if not isinstance(game.choice_set, AbstractConstrainedSet):
        raise TypeError(
            f"solve_bilevel: the choice set is {type(game.choice_set).__name__}; use Polytope or "
            "Constrained."
        )
    if starts < 1:
        raise ValueError(f"solve_bilevel: starts is {starts}; it must be at least 1.")
    if not tolerance > 0:
        raise ValueError(f"solve_bilevel: tolerance is {tolerance}; give a positive number.")
    limits = jnp.asarray(max_steps), jnp.asarray(tolerance)
    found = _solve(game, profile, key, *limits, starts)
    if throw:
        fine = found.status == BilevelStatus.best_found
        fine |= found.status == BilevelStatus.not_stationary
        found = found.status.error_if(found, ~fine)
    return found
