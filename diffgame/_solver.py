"""Algorithms that look for a stationary profile: each says how to begin and how to step."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util as flatten_util
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ._ascent import ascend
from ._game import AbstractGame
from ._play import project, provider_payoffs, pseudogradient, replace, select, split
from ._policy import AbstractPolicy
from ._response import AbstractResponse


class Problem(eqx.Module):
    """What a solver may ask of a game. Parameters are a profile with None where nothing varies.

    - `rest`: the other half of the profile, as `split` gives it.
    - `anticipate`: whether providers see how users react. `chunk`: users streamed at a time.
    """

    game: AbstractGame
    response: AbstractResponse
    rest: AbstractPolicy
    anticipate: bool = eqx.field(static=True)
    chunk: int | None = eqx.field(static=True)

    def profile(self, parameters: AbstractPolicy) -> AbstractPolicy:
        """The whole profile."""
        return eqx.combine(parameters, self.rest)

    def payoffs(
        self, parameters: AbstractPolicy, expected: AbstractPolicy | None = None
    ) -> Float[Array, " providers"]:
        """Every provider's payoff; naive providers think that users respond to `expected`."""
        held = None if self.anticipate or expected is None else self.profile(expected)
        profile = self.profile(parameters)
        return provider_payoffs(self.game, self.response, profile, expected=held, chunk=self.chunk)

    def field(self, parameters: AbstractPolicy) -> AbstractPolicy:
        """Each provider's gradient of its own payoff in its own parameters."""
        profile = self.profile(parameters)
        return pseudogradient(
            self.game, self.response, profile, anticipate=self.anticipate, chunk=self.chunk
        )

    def project(self, parameters: AbstractPolicy) -> AbstractPolicy:
        """The nearest feasible parameters."""
        return split(project(self.profile(parameters)))[0]

    def residual(self, parameters: AbstractPolicy, field: AbstractPolicy) -> AbstractPolicy:
        """The natural residual `x - P(x + F(x))`: zero exactly at stationary parameters.

        **Source:** Facchinei, Pang (2003), Finite-Dimensional Variational Inequalities, 1.5.
        """
        return _subtract(parameters, self.project(_move(parameters, 1.0, field)))


def _move(parameters: PyTree, length: Any, direction: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf, change: leaf + length * change, parameters, direction)


def _subtract(first: PyTree, second: PyTree) -> PyTree:
    return jax.tree.map(jnp.subtract, first, second)


class AbstractSolver(eqx.Module):
    """An algorithm with its hyperparameters; it never owns the problem.

    `solve` owns the loop and the stopping rule. Every step ends at feasible parameters.
    """

    @abc.abstractmethod
    def init(self, problem: Problem, parameters: AbstractPolicy) -> PyTree:
        """The state before the first step: a pytree of arrays."""

    @abc.abstractmethod
    def step(
        self, problem: Problem, parameters: AbstractPolicy, field: AbstractPolicy, state: PyTree
    ) -> tuple[AbstractPolicy, PyTree]:
        """The next feasible parameters and state, given `field = problem.field(parameters)`."""


class GradientPlay(AbstractSolver):
    """Every provider climbs its own gradient at once, by any optax optimiser, then is projected.

    It converges where the field is strongly monotone (`-F`) and the learning rate small, and
    rotates away from equilibria of zero-sum kind: use `Extragradient` there.

    **Source:** Rosen (1965), Existence and uniqueness of equilibrium points for concave N-person
    games, section 4.

    >>> import jax.numpy as jnp, optax
    >>> from diffgame import Concave, Constant, GradientPlay, solve
    >>> from diffgame.games import StackelbergDuopoly
    >>> start = Constant(jnp.array([0.1]))
    >>> found = solve(StackelbergDuopoly(), Concave(), GradientPlay(optax.sgd(0.5)), start)
    >>> print(found.profile.offer.round(4))
    [0.5]
    """

    optim: optax.GradientTransformation

    def init(self, problem: Problem, parameters: AbstractPolicy) -> PyTree:
        del problem
        current: Any = parameters
        return self.optim.init(current)

    def step(
        self, problem: Problem, parameters: AbstractPolicy, field: AbstractPolicy, state: PyTree
    ) -> tuple[AbstractPolicy, PyTree]:
        # Typed loosely: optax takes any pytree, its annotations only some.
        descent: Any = jax.tree.map(jnp.negative, field)
        current: Any = parameters
        updates, state = self.optim.update(descent, state, current)
        return problem.project(_move(parameters, 1.0, updates)), state


class Extragradient(AbstractSolver):
    """Look ahead along the field, then step along the field found there.

    It converges for monotone fields (zero-sum games included) if `learning_rate` is below the
    inverse of the field's Lipschitz constant. Two fields per step.

    **Source:** Korpelevich (1976), The extragradient method for finding saddle points and other
    problems.

    >>> import jax.numpy as jnp
    >>> from diffgame import Constant, Extragradient, Logit, solve
    >>> from diffgame.games import LogitBertrand
    >>> game = LogitBertrand(cost=jnp.zeros(2), quality=jnp.ones(2), users=jnp.ones(1))
    >>> found = solve(game, Logit(1.0), Extragradient(1.0), Constant(jnp.ones(2)))
    >>> share = found.outcome.choices[0, :2]
    >>> print((found.profile.offer - 1 / (1 - share)).round(5) + 0.0)
    [0. 0.]
    """

    learning_rate: float | Float[Array, ""]

    def init(self, problem: Problem, parameters: AbstractPolicy) -> PyTree:
        del problem, parameters
        return None

    def step(
        self, problem: Problem, parameters: AbstractPolicy, field: AbstractPolicy, state: PyTree
    ) -> tuple[AbstractPolicy, PyTree]:
        ahead = problem.project(_move(parameters, self.learning_rate, field))
        moved = _move(parameters, self.learning_rate, problem.field(ahead))
        return problem.project(moved), state


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
    >>> found = solve(Cournot(cost=jnp.zeros(2)), Concave(), Newton(), Constant(jnp.zeros(2)))
    >>> print(found.profile.offer.round(4), found.steps)
    [0.3333 0.3333] 1
    """

    learning_rate: float | Float[Array, ""] = 0.1
    halvings: int = 20

    def init(self, problem: Problem, parameters: AbstractPolicy) -> PyTree:
        del problem, parameters
        return None

    def step(
        self, problem: Problem, parameters: AbstractPolicy, field: AbstractPolicy, state: PyTree
    ) -> tuple[AbstractPolicy, PyTree]:
        flat, unravel = flatten_util.ravel_pytree(parameters)

        def residual(point):
            parameters = unravel(point)
            difference = problem.residual(parameters, problem.field(parameters))
            return flatten_util.ravel_pytree(difference)[0]

        def project_flat(point):
            return flatten_util.ravel_pytree(problem.project(unravel(point)))[0]

        here = flatten_util.ravel_pytree(problem.residual(parameters, field))[0]
        cutoff = float(jnp.finfo(flat.dtype).eps) ** 0.5
        direction = -jnp.linalg.pinv(jax.jacfwd(residual)(flat), rtol=cutoff) @ here
        size = jnp.linalg.norm(here)

        def measure(length):
            point = project_flat(flat + length * direction)
            error = jnp.linalg.norm(residual(point))
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
        ascent = project_flat(flat + self.learning_rate * gradient)
        return unravel(jnp.where(works, newton, ascent)), state


class BestResponse(AbstractSolver):
    """Providers maximise their own payoff against the others' policies, over and over.

    Each maximisation is a local search from the provider's present policy: at most `inner_steps`
    steps of spectral projected gradient, without a step size to choose. `order` "sequential":
    one provider after another, each against the newest policies (Gauss-Seidel); "simultaneous":
    all against the old ones (Jacobi), which cycles more easily. `damping` in [0, 1) is the weight
    that a provider's old policy keeps. A provider that does not anticipate takes the users'
    responses as fixed while it maximises.

    **Source:** Cournot (1838), chapter VII; Fudenberg, Levine (1998), The Theory of Learning in
    Games, 1.2.

    >>> import jax.numpy as jnp
    >>> from diffgame import BestResponse, Concave, Constant, solve
    >>> from diffgame.games import Cournot
    >>> game = Cournot(cost=jnp.zeros(2))
    >>> found = solve(game, Concave(), BestResponse(), Constant(jnp.zeros(2)))
    >>> print(found.outcome.payoffs.round(4))
    [0.1111 0.1111]
    """

    inner_steps: int = 50
    damping: float | Float[Array, ""] = 0.0
    order: str = eqx.field(static=True, default="sequential")

    def __check_init__(self):
        if self.order not in ("sequential", "simultaneous"):
            raise ValueError(
                f"BestResponse: order is {self.order!r}; give 'sequential' or 'simultaneous'."
            )
        if self.inner_steps < 1:
            raise ValueError(
                f"BestResponse: inner_steps is {self.inner_steps}; it must be at least 1."
            )
        if isinstance(self.damping, float | int) and not 0 <= self.damping < 1:
            raise ValueError(f"BestResponse: damping is {self.damping}; give a number in [0, 1).")

    def init(self, problem: Problem, parameters: AbstractPolicy) -> PyTree:
        del problem, parameters
        return None

    def step(
        self, problem: Problem, parameters: AbstractPolicy, field: AbstractPolicy, state: PyTree
    ) -> tuple[AbstractPolicy, PyTree]:
        del field

        def respond(provider, current):
            own = select(current, provider)
            rest = select(problem.rest, provider)
            flat, unravel = flatten_util.ravel_pytree(own)

            def payoff(point):
                trial = replace(current, provider, unravel(point))
                return problem.payoffs(trial, expected=current)[provider]

            def project_flat(point):
                policy = eqx.combine(unravel(point), rest).project()
                return flatten_util.ravel_pytree(split(policy)[0])[0]

            best, _ = ascend(payoff, project_flat, flat, self.inner_steps)
            return unravel(project_flat(best + self.damping * (flat - best)))

        count = jax.tree.leaves(parameters)[0].shape[0]
        if self.order == "simultaneous":
            moved = jax.vmap(respond, in_axes=(0, None))(jnp.arange(count), parameters)
        else:
            moved = jax.lax.fori_loop(
                0,
                count,
                lambda provider, current: replace(current, provider, respond(provider, current)),
                parameters,
            )
        return moved, state
