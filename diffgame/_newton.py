"""Solvers of second order: they read the derivative of the natural residual."""

import equinox as eqx
import jax
import jax.flatten_util as flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, Scalar

from ._problem import AbstractProblem, move
from ._solver import AbstractSolver


class _Flat:
    """A problem in one vector."""

    def __init__(self, problem: AbstractProblem, parameters: PyTree):
        self.point, self.unravel = flatten_util.ravel_pytree(parameters)
        self._problem = problem

    def field(self, point: Float[Array, " n"]) -> Float[Array, " n"]:
        return flatten_util.ravel_pytree(self._problem.field(self.unravel(point)))[0]

    def project(self, point: Float[Array, " n"]) -> Float[Array, " n"]:
        return flatten_util.ravel_pytree(self._problem.project(self.unravel(point)))[0]

    def residual(self, point: Float[Array, " n"]) -> Float[Array, " n"]:
        return point - self.project(point + self.field(point))

    def lengths(self, length: Scalar) -> Float[Array, " n"]:
        """How far each part moves along the field when policies move by `length`."""
        nothing = self.unravel(jnp.zeros_like(self.point))
        ones = self.unravel(jnp.ones_like(self.point))
        return flatten_util.ravel_pytree(self._problem.ahead(nothing, ones, length))[0]


class Newton(AbstractSolver):
    """Semismooth Newton on the natural residual, globalised by step halving.

    The linear system is solved in the minimum norm (singular values below the square root of the
    machine precision count as zero), so manifolds of equilibria are fine. A step is halved, at
    most `halvings` times, until the norm of the residual falls; if it never does, the step is one
    of projected gradient play with `learning_rate` instead. One derivative of the field per
    parameter and step: for few parameters.

    It is drawn to any stationary point, maxima of own payoffs or not: certify the answer.

    **Source:** Facchinei, Pang (2003), Finite-Dimensional Variational Inequalities, chapter 8; Qi,
    Sun (1993), A nonsmooth version of Newton's method.

    >>> import jax.numpy as jnp
    >>> from diffgame import Concave, Constant, Newton, solve
    >>> from diffgame.games import Cournot
    >>> found = solve(Cournot(cost=jnp.zeros(2)), Concave(), Constant(jnp.zeros(2)), Newton())
    >>> print(found.profile.offer.round(4), found.steps)
    [0.3333 0.3333] 1
    """

    learning_rate: float | Float[Array, ""] = 0.1
    halvings: int = 20

    def init(self, problem: AbstractProblem, parameters: PyTree) -> PyTree:
        del problem, parameters
        return None

    def step(
        self, problem: AbstractProblem, parameters: PyTree, field: PyTree, state: PyTree
    ) -> tuple[PyTree, PyTree]:
        system = _Flat(problem, parameters)
        flat = system.point
        here = flatten_util.ravel_pytree(problem.residual(parameters, field))[0]
        cutoff = float(jnp.finfo(flat.dtype).eps) ** 0.5
        direction = -jnp.linalg.pinv(jax.jacfwd(system.residual)(flat), rtol=cutoff) @ here
        size = jnp.linalg.norm(here)

        def measure(length):
            point = system.project(flat + length * direction)
            error = jnp.linalg.norm(system.residual(point))
            return point, jnp.isfinite(error) & (error <= (1 - 1e-4 * length) * size)

        def rejected(trial):
            _, (_, works), tried = trial
            return ~works & (tried <= self.halvings)

        def halve(trial):
            length, _, tried = trial
            return length / 2, measure(length / 2), tried + 1

        # Twice the step, so that the first halving tries the whole one.
        untried = 2 * jnp.ones((), flat.dtype), (flat, jnp.array(False)), jnp.array(0)
        _, (newton, works), _ = jax.lax.while_loop(rejected, halve, untried)
        gradient = flatten_util.ravel_pytree(field)[0]
        ascent = system.project(flat + self.learning_rate * gradient)
        return system.unravel(jnp.where(works, newton, ascent)), state


_TRIALS = 24
_FIRST_DAMPING = 1e-3
# After a failure: other lengths make other residuals, with the same zeros and other traps.
_SHORTER, _LENGTHS = 0.3, 4


class _Trust(eqx.Module):
    """The damping, and the length of the residual `x - P(x + length F(x))`; 0 if not yet known."""

    damping: Scalar
    length: Scalar


def _first_trust(parameters: PyTree) -> _Trust:
    flat, _ = flatten_util.ravel_pytree(parameters)
    return _Trust(jnp.full((), _FIRST_DAMPING, flat.dtype), jnp.zeros((), flat.dtype))


def _natural_length(system: _Flat, slopes: Float[Array, "n n"]) -> Scalar:
    """The inverse of a bound on the field's slope, so that length times field counts in units."""
    policies = 1 - system.lengths(jnp.zeros((), slopes.dtype))
    size = jnp.abs(slopes) * policies[:, None] * policies[None, :]
    bound = jnp.sqrt(jnp.max(jnp.sum(size, axis=0)) * jnp.max(jnp.sum(size, axis=1)))
    return jnp.where(bound > 0, 1 / jnp.where(bound > 0, bound, 1), 1)


def _damped_step(
    system: _Flat, field: Float[Array, " n"], trust: _Trust
) -> tuple[Float[Array, " n"], Bool[Array, ""], _Trust]:
    """A Levenberg-Marquardt step: the point, whether the residual fell enough, what is next."""
    flat = system.point
    slopes = jax.jacfwd(system.field)(flat)
    length = jnp.where(trust.length > 0, trust.length, _natural_length(system, slopes))
    lengths = system.lengths(length)

    def residual(point, field):
        return point - system.project(point + lengths * field)

    tangent = jax.jacfwd(system.project)(flat + lengths * field)
    identity = jnp.eye(flat.size, dtype=flat.dtype)
    matrix = identity - tangent @ (identity + lengths[:, None] * slopes)
    here = residual(flat, field)
    size = jnp.linalg.norm(here)
    # One decomposition serves all dampings, and without damping it gives the least norm.
    left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
    image, scale = left.T @ here, jnp.max(values)
    floor = jnp.finfo(flat.dtype).eps * scale**2

    def measure(damping):
        filtered = values / (values**2 + damping * scale**2 + floor)
        point = system.project(flat - right.T @ (filtered * image))
        error = jnp.linalg.norm(residual(point, system.field(point)))
        return point, jnp.isfinite(error) & (error <= (1 - 1e-4) * size)

    def rejected(trial):
        _, (_, works), tried = trial
        return ~works & (tried < _TRIALS)

    def stiffen(trial):
        damping, _, tried = trial
        damping = jnp.maximum(4 * damping, 1e-16)
        return damping, measure(damping), tried + 1

    # A quarter, so that the first trial has the damping itself.
    untried = trust.damping / 4, (flat, jnp.array(False)), jnp.array(0)
    damping, (point, works), tried = jax.lax.while_loop(rejected, stiffen, untried)
    relaxed = jnp.where(tried <= 1, damping / 16, damping / 2)
    known = jnp.where(jnp.isfinite(length), length, 0)
    fine, poor = _Trust(relaxed, known), _Trust(jnp.full_like(damping, 1e-3), _SHORTER * known)
    return point, works, jax.tree.map(lambda a, b: jnp.where(works, a, b), fine, poor)


class LevenbergMarquardt(AbstractSolver):
    """Damped least squares on the natural residual: a trust region around every Newton step.

    The damping falls where steps succeed, so that the last steps are Newton's, in the minimum
    norm; manifolds of equilibria are fine. Where no damping reduces the residual the step is one
    of projected gradient play with `learning_rate`. One derivative of the field and one singular
    value decomposition per step: for up to a few hundred parameters, prices of constraints
    included.

    **Source:** Levenberg (1944); Marquardt (1963); Yamashita, Fukushima (2001), On the rate of
    convergence of the Levenberg-Marquardt method.

    >>> import jax.numpy as jnp
    >>> from diffgame import Concave, Constant, LevenbergMarquardt, solve
    >>> from diffgame.games import Cournot
    >>> start = Constant(jnp.zeros(2))
    >>> found = solve(Cournot(cost=jnp.zeros(2)), Concave(), start, LevenbergMarquardt())
    >>> print(found.profile.offer.round(4))
    [0.3333 0.3333]
    """

    learning_rate: float | Float[Array, ""] = 0.1

    def init(self, problem: AbstractProblem, parameters: PyTree) -> PyTree:
        del problem
        return _first_trust(parameters)

    def step(
        self, problem: AbstractProblem, parameters: PyTree, field: PyTree, state: PyTree
    ) -> tuple[PyTree, PyTree]:
        system = _Flat(problem, parameters)
        gradient = flatten_util.ravel_pytree(field)[0]
        point, works, trust = _damped_step(system, gradient, state)
        ascent = system.project(system.point + self.learning_rate * gradient)
        return system.unravel(jnp.where(works, point, ascent)), trust


class _Progress(eqx.Module):
    """Where `Automatic` stands: steps still to walk, how many to walk next, failures so far."""

    trust: _Trust
    length: Scalar
    wait: Scalar
    patience: Scalar
    failures: Scalar


class Automatic(AbstractSolver):
    """What `solve` uses if no solver is named: second order where it works, safe steps where not.

    Levenberg-Marquardt steps while they reduce the natural residual, at one of four lengths of the
    field. When all are trapped, a run of extragradient steps that choose their own length (twice
    as long a run every time) carries the point elsewhere: these converge by themselves for
    monotone fields. With more than
    `most_parameters` parameters, prices included, only extragradient steps are made. For other
    fields nothing is promised, and the status says what came out.

    **Source:** Khobotov (1987), Modification of the extra-gradient method for solving variational
    inequalities; for the rest see `LevenbergMarquardt`.

    >>> import jax.numpy as jnp
    >>> from diffgame import Concave, Constant, solve
    >>> from diffgame.games import Cournot
    >>> print(solve(Cournot(cost=jnp.zeros(2)), Concave(), Constant(jnp.zeros(2))).steps)
    2
    """

    most_parameters: int = eqx.field(static=True, default=300)

    def init(self, problem: AbstractProblem, parameters: PyTree) -> PyTree:
        del problem
        trust = _first_trust(parameters)
        one = jnp.ones_like(trust.length)
        return _Progress(trust, one, 0 * one, 8 * one, 0 * one)

    def step(
        self, problem: AbstractProblem, parameters: PyTree, field: PyTree, state: PyTree
    ) -> tuple[PyTree, PyTree]:
        system = _Flat(problem, parameters)

        def walk(state):
            point, length = _extragradient(problem, parameters, field, state.length)
            flat = flatten_util.ravel_pytree(point)[0]
            waited = jnp.maximum(state.wait - 1, 0)
            return flat, _Progress(state.trust, length, waited, state.patience, state.failures)

        def leap(state):
            gradient = flatten_util.ravel_pytree(field)[0]
            point, works, trust = _damped_step(system, gradient, state.trust)
            fallen, after = walk(state)
            # Other lengths first; when all of them are trapped, walk away and begin anew.
            failures = state.failures + 1
            trapped = failures % _LENGTHS == 0
            fresh = _Trust(trust.damping, jnp.where(trapped, 0, trust.length))
            wait = jnp.where(trapped, state.patience, 0)
            patience = jnp.where(trapped, 2 * state.patience, state.patience)
            stuck = _Progress(fresh, after.length, wait, patience, failures)
            moving = _Progress(trust, state.length, state.wait, state.patience, state.failures)
            chosen = jax.tree.map(lambda a, b: jnp.where(works, a, b), moving, stuck)
            return jnp.where(works, point, fallen), chosen

        if system.point.size > self.most_parameters:
            flat, state = walk(state)
        else:
            flat, state = jax.lax.cond(state.wait > 0, walk, leap, state)
        return system.unravel(flat), state


def _extragradient(
    problem: AbstractProblem, parameters: PyTree, field: PyTree, length: Scalar
) -> tuple[PyTree, Scalar]:
    """One extragradient step of a length at which the field changes little; and the next length."""

    def distance(first, second):
        change = jax.tree.map(jnp.subtract, first, second)
        return jnp.linalg.norm(flatten_util.ravel_pytree(change)[0])

    def look(length):
        ahead = problem.project(move(parameters, length, field))
        there = problem.field(ahead)
        small = length * distance(there, field) <= 0.9 * distance(ahead, parameters)
        return there, small

    def too_long(trial):
        _, (_, small), tried = trial
        return ~small & (tried < 40)

    def shorten(trial):
        length, _, tried = trial
        return length / 2, look(length / 2), tried + 1

    untried = 2 * length, (field, jnp.array(False)), jnp.array(0)
    length, (there, _), tried = jax.lax.while_loop(too_long, shorten, untried)
    longer = jnp.where(tried <= 1, 2 * length, length)
    return problem.project(move(parameters, length, there)), longer
