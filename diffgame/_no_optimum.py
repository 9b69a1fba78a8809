"""Evidence that a user has no best choice: no choice at all, or better ones without end."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, Scalar

from ._constrained_search import Scale, scaled_values
from ._constraints import Constraints
from ._game import AbstractGame
from ._kkt import sup_norm, utility
from ._loop import while_lanes

# Of the scaled problem. Evidence reaches as far as `REACH` times one plus the size of the choice.
REACH = 1e6
_FEASIBLE = 1e-9
_RECEDING = 1e-9
_RISE = 1e-3
_MAX_STEPS = 100
_LENGTHS = 1.0, 0.5, 0.1, 0.01, 1e-3
_PROXIMAL = 1e-12


class View(eqx.Module):
    """A user's problem in the coordinates (choice - near) / reach, with a pull towards `near`.

    From far enough away a problem without end shows its ray: seen so, and with a pull of one, it
    has exactly one solution, of size one.
    """

    game: AbstractGame
    near: Float[Array, " n"]
    reach: Scalar
    rate: Scalar
    pull: Scalar

    def user_utility(self, choice, offers, user):
        """Utility per unit of the distance, `rate` times."""
        value = self.game.user_utility(self.near + self.reach * choice, offers, user)
        return value * self.rate / self.reach - self.pull * jnp.sum(choice**2) / 2

    def user_constraints(self, choice, offers, user):
        """Constraints per unit of the distance."""
        found = self.game.user_constraints(self.near + self.reach * choice, offers, user)
        return Constraints(found.inequalities / self.reach, found.equalities / self.reach)


def view_near(game: AbstractGame, choice: Float[Array, " n"]) -> View:
    """The problem as it is."""
    one, zero = jnp.ones((), choice.dtype), jnp.zeros((), choice.dtype)
    return View(game, jnp.zeros_like(choice), one, one, zero)


def view_far(near: Float[Array, " n"], args: PyTree) -> View:
    """The problem as seen from afar."""
    size = sup_norm(jax.grad(utility)(near, args))
    rate = jnp.where(size > 0, 1 / jnp.where(size > 0, size, 1), 1)
    reach = REACH * (1 + jnp.linalg.norm(near))
    return View(args[0], near, reach, rate, jnp.ones_like(reach))


class Violation(eqx.Module):
    """A choice of least violation, and the violations there, scaled: they are multipliers."""

    choice: Float[Array, " n"]
    inequalities: Float[Array, " inequalities"]
    equalities: Float[Array, " equalities"]


def least_violation(
    start: Float[Array, " n"], scale: Scale, args: PyTree, wanted: Bool[Array, ""]
) -> Violation:
    """Minimise the sum of squared violations, by Newton's method; at `start` unless `wanted`."""
    arrays, static = eqx.partition(args, eqx.is_array)

    def violations(choice, shared):
        scale, arrays = shared
        inequalities, equalities = scaled_values(choice, scale, eqx.combine(arrays, static))
        return jnp.maximum(inequalities, 0), equalities

    def total(choice, shared):
        above, apart = violations(choice, shared)
        return (jnp.sum(above**2) + jnp.sum(apart**2)) / 2

    def step(shared, carry):
        choice, _, count = carry
        value, slope = jax.value_and_grad(total)(choice, shared)
        matrix = jax.hessian(total)(choice, shared)
        matrix = matrix + _PROXIMAL * jnp.eye(choice.size, dtype=choice.dtype)
        move = jnp.linalg.solve(matrix, slope)
        trials = choice[None] - jnp.outer(jnp.asarray(_LENGTHS, choice.dtype), move)
        values = jax.vmap(lambda trial: total(trial, shared))(trials)
        best = jnp.argmin(jnp.where(jnp.isfinite(values), values, jnp.inf))
        falls = values[best] < value
        return jnp.where(falls, trials[best], choice), falls, count + 1

    def goes_on(carry):
        return carry[1] & (carry[2] < _MAX_STEPS)

    shared = scale, arrays
    choice, *_ = while_lanes(goes_on, step, shared, (start, wanted, jnp.zeros((), jnp.int32)))
    return Violation(choice, *violations(choice, shared))


def proves_infeasible(violation: Violation, scale: Scale, args: PyTree) -> Bool[Array, ""]:
    """Whether no choice within reach satisfies all constraints, if they are convex and affine.

    The violations v at a point y serve as multipliers. L(x) = v . constraints(x) is convex, so
    L(x) >= |v|^2 + L'(y) (x - y), while L(x) <= 0 for every feasible x. Hence no x is feasible
    closer to y than |v|^2 / |L'(y)|. For a polytope, v is Farkas' vector.
    """

    def priced(choice):
        inequalities, equalities = scaled_values(choice, scale, args)
        both = violation.inequalities * inequalities, violation.equalities * equalities
        return jnp.sum(both[0]) + jnp.sum(both[1])

    value, slope = jax.value_and_grad(priced)(violation.choice)
    amount = jnp.sqrt(jnp.sum(violation.inequalities**2) + jnp.sum(violation.equalities**2))
    reach = REACH * (1 + jnp.linalg.norm(violation.choice))
    signs = jnp.all(violation.inequalities >= 0)
    return (
        signs
        & jnp.isfinite(value)
        & (amount > _FEASIBLE)
        & (jnp.linalg.norm(slope) * reach < value)
    )


def proves_unbounded(
    near: Float[Array, " n"], ray: Float[Array, " n"], scale: Scale, args: PyTree
) -> Bool[Array, ""]:
    """Whether utility still rises along `ray` as far as evidence reaches, all choices feasible.

    Constraints at `near` and at the far end hold, up to a billionth of the distance: by convexity
    so they do between. Utility is concave, so its slope at the far end bounds the rise from below.
    """

    def along(length):
        return scale.utility * utility(near + length * ray, args)

    def worst(choice):
        inequalities, equalities = scaled_values(choice, scale, args)
        zero = jnp.zeros((), choice.dtype)
        return jnp.max(inequalities, initial=zero) + jnp.max(jnp.abs(equalities), initial=zero)

    reach = REACH * (1 + jnp.linalg.norm(near))
    rise = reach * jax.grad(along)(reach)
    feasible = (worst(near) <= _FEASIBLE) & (worst(near + reach * ray) <= _RECEDING * reach)
    return feasible & jnp.isfinite(rise) & (rise >= _RISE * (1 + jnp.abs(along(0.0))))
