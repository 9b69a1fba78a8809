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
from ._play import replace, select, split
from ._problem import AbstractProblem, Problem, move


class AbstractSolver(eqx.Module):
    """An algorithm with its hyperparameters; it never owns the problem.

    `solve` owns the loop and the stopping rule. Every step ends at feasible parameters.
    """

    @abc.abstractmethod
    def init(self, problem: AbstractProblem, parameters: PyTree) -> PyTree:
        """The state before the first step: a pytree of arrays."""

    @abc.abstractmethod
    def step(
        self, problem: AbstractProblem, parameters: PyTree, field: PyTree, state: PyTree
    ) -> tuple[PyTree, PyTree]:
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
    >>> found = solve(StackelbergDuopoly(), Concave(), start, GradientPlay(optax.sgd(0.5)))
    >>> print(found.profile.offer.round(4))
    [0.5]
    """

    optim: optax.GradientTransformation

    def init(self, problem: AbstractProblem, parameters: PyTree) -> PyTree:
        del problem
        current: Any = parameters
        return self.optim.init(current)

    def step(
        self, problem: AbstractProblem, parameters: PyTree, field: PyTree, state: PyTree
    ) -> tuple[PyTree, PyTree]:
        # Typed loosely: optax takes any pytree, its annotations only some.
        descent: Any = jax.tree.map(jnp.negative, field)
        current: Any = parameters
        updates, state = self.optim.update(descent, state, current)
        return problem.project(move(parameters, 1.0, updates)), state


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
    >>> found = solve(game, Logit(1.0), Constant(jnp.ones(2)), Extragradient(1.0))
    >>> share = found.outcome.choices[0, :2]
    >>> print((found.profile.offer - 1 / (1 - share)).round(5) + 0.0)
    [0. 0.]
    """

    learning_rate: float | Float[Array, ""]

    def init(self, problem: AbstractProblem, parameters: PyTree) -> PyTree:
        del problem, parameters
        return None

    def step(
        self, problem: AbstractProblem, parameters: PyTree, field: PyTree, state: PyTree
    ) -> tuple[PyTree, PyTree]:
        ahead = problem.project(move(parameters, self.learning_rate, field))
        moved = move(parameters, self.learning_rate, problem.field(ahead))
        return problem.project(moved), state


class BestResponse(AbstractSolver):
    """Providers maximise their own payoff against the others' policies, over and over.

    Each maximisation is a local search from the provider's present policy: at most `inner_steps`
    steps of spectral projected gradient, without a step size to choose. `order` "sequential":
    one provider after another, each against the newest policies (Gauss-Seidel); "simultaneous":
    all against the old ones (Jacobi), which cycles more easily. `damping` in [0, 1) is the weight
    that a provider's old policy keeps. A provider that does not anticipate takes the users'
    responses as fixed while it maximises. Not for games with constraints on providers: TypeError.

    **Source:** Cournot (1838), chapter VII; Fudenberg, Levine (1998), The Theory of Learning in
    Games, 1.2.

    >>> import jax.numpy as jnp
    >>> from diffgame import BestResponse, Concave, Constant, solve
    >>> from diffgame.games import Cournot
    >>> game = Cournot(cost=jnp.zeros(2))
    >>> found = solve(game, Concave(), Constant(jnp.zeros(2)), BestResponse())
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

    def init(self, problem: AbstractProblem, parameters: PyTree) -> PyTree:
        del parameters
        _plain(problem)
        return None

    def step(
        self, problem: AbstractProblem, parameters: PyTree, field: PyTree, state: PyTree
    ) -> tuple[PyTree, PyTree]:
        del field
        plain = _plain(problem)

        def respond(provider, current):
            own = select(current, provider)
            rest = select(plain.rest, provider)
            flat, unravel = flatten_util.ravel_pytree(own)

            def payoff(point):
                trial = replace(current, provider, unravel(point))
                return plain.payoffs(trial, expected=current)[provider]

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


def _plain(problem: AbstractProblem) -> Problem:
    if not isinstance(problem, Problem):
        raise TypeError(
            "BestResponse: the game has constraints on providers, which it cannot keep; use "
            "Automatic, Newton, LevenbergMarquardt or Extragradient."
        )
    return problem
