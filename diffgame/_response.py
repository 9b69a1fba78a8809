"""How a user chooses: exactly, with noise, or on a convex set."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ._choice_set import AbstractConstrainedSet, AbstractConvexSet, AbstractFiniteSet
from ._constrained_response import solve_user_problem
from ._game import AbstractGame
from ._implicit import implicit_root


class AbstractResponse(eqx.Module):
    """A rule that turns offers into one user's choice.

    `maximises` says whether the rule claims to maximise utility: then what it leaves on the table
    is an error of the computation, else (quantal choice) it is the model.
    """

    maximises: ClassVar[bool] = True

    @abc.abstractmethod
    def __call__(self, game: AbstractGame, offers: PyTree, user: PyTree) -> Any:
        """The choice of one user who faces `offers` (leaves with a "providers" axis)."""


def _finite(response: AbstractResponse, game: AbstractGame) -> AbstractFiniteSet:
    if not isinstance(game.choice_set, AbstractFiniteSet):
        raise TypeError(
            f"{type(response).__name__}: the choice set is {type(game.choice_set).__name__}; "
            "use Simplex or DecisionTree, or the response Concave for convex sets."
        )
    return game.choice_set


def _decide(choose, game: AbstractGame, choices: AbstractFiniteSet, offers, user):
    """Backward induction, one array operation per level, so linear in the number of leaves.

    `choose` turns the posterior expected values of a node's moves (last axis) into probabilities.
    """

    def utility(choice):
        return game.user_utility(choice, offers, user)

    # Utility is linear in the leaf probabilities: its gradient is each leaf's utility times the
    # probability that nature leads there.
    value = jax.grad(utility)(choices.centre())
    reach = jnp.broadcast_to(game.chance(offers, user), choices.shape).astype(value.dtype)
    plans = []
    for user_moves in reversed(choices.decides):
        if user_moves:
            # A node that nature never leads to has no posterior; there all moves count the same.
            reached = reach > 0
            expected = jnp.where(reached, value / jnp.where(reached, reach, 1), 0)
            probability = choose(expected)
            plans.append(probability)
            value = jnp.sum(probability * value, axis=-1)
            # Nature reaches all moves of one node equally often.
            reach = reach[..., 0]
        else:
            plans.append(None)
            value, reach = jnp.sum(value, axis=-1), jnp.sum(reach, axis=-1)
    leaves = jnp.ones((), value.dtype)
    for size, probability in zip(choices.shape, reversed(plans), strict=True):
        leaves = jnp.broadcast_to(jnp.expand_dims(leaves, -1), (*leaves.shape, size))
        leaves = leaves if probability is None else leaves * probability
    return leaves


@eqx.filter_custom_jvp
def _one_hot_argmax(values):
    return jax.nn.one_hot(jnp.argmax(values, axis=-1), values.shape[-1], dtype=values.dtype)


@_one_hot_argmax.def_jvp
def _one_hot_argmax_jvp(primals, tangents):
    raise ValueError(
        "Argmax: an exact choice has derivative zero almost everywhere and none at ties; "
        "differentiate through Logit(temperature) instead."
    )


class Argmax(AbstractResponse):
    """The exact best choice, by backward induction; ties go to the lowest index.

    Differentiating it raises ValueError: use `Logit`.
    """

    def __call__(self, game: AbstractGame, offers: PyTree, user: PyTree) -> Float[Array, "..."]:
        return _decide(_one_hot_argmax, game, _finite(self, game), offers, user)


@jax.custom_jvp
def _softmax(values: Float[Array, "..."]) -> Float[Array, "..."]:
    weights = jnp.exp(values - jnp.max(values, axis=-1, keepdims=True))
    # One division instead of one per option; and the compiler rewrites a division by a sum like
    # this in some programs only, so that users on one device would round unlike those on several.
    return weights * (1 / jnp.sum(weights, axis=-1, keepdims=True))


@_softmax.defjvp
def _softmax_jvp(primals, tangents):
    (values,), (moved,) = primals, tangents
    # The rule calls itself, so that it is differentiable in turn.
    share = _softmax(values)
    return share, share * (moved - jnp.sum(share * moved, axis=-1, keepdims=True))


class Logit(AbstractResponse):
    """Quantal choice: probabilities proportional to exp(value / temperature) at each decision.

    Values are posterior expected utilities given the user's own quantal continuation (the agent
    form). `temperature` is positive and in units of utility.

    **Source:** McKelvey, Palfrey (1998), Quantal response equilibria for extensive form games.
    """

    maximises: ClassVar[bool] = False

    temperature: float | Float[Array, ""]

    def __check_init__(self):
        if isinstance(self.temperature, float | int) and not self.temperature > 0:
            raise ValueError(
                f"Logit: temperature is {self.temperature}; give a positive number, or use Argmax "
                "for the limit 0."
            )

    def __call__(self, game: AbstractGame, offers: PyTree, user: PyTree) -> Float[Array, "..."]:
        def choose(values):
            return _softmax(values / self.temperature)

        return _decide(choose, game, _finite(self, game), offers, user)


def _utility(choice, args):
    game, offers, user = args
    return game.user_utility(choice, offers, user)


def natural_residual(choice: Float[Array, "..."], args: PyTree) -> Float[Array, "..."]:
    """Zero exactly at a maximiser of a concave utility on a convex set; args: game, offers, user.

    **Source:** Facchinei, Pang (2003), Finite-Dimensional Variational Inequalities, 1.5.
    """
    game, _, _ = args
    return choice - game.choice_set.project(choice + jax.grad(_utility)(choice, args))


class Concave(AbstractResponse):
    """The maximiser of a strongly concave utility on a convex set.

    On an `AbstractConstrainedSet` (`Polytope`, `Constrained`): the choice of `solve_user_problem`,
    which also has the multipliers and a status. `tolerance` plays no role there: that search goes
    on until rounding stops it. A user without a best choice gets one that is not, with derivatives
    of NaN; `certify` then says `response_inexact`.

    On a set with a projection (`Box`, `Simplex`): semismooth Newton on the natural residual, with a
    projected gradient step under Armijo's rule wherever Newton does not reduce the residual. It
    ends when the residual is at most `tolerance * (1 + |choice| + |gradient|)` in the sup norm
    (`tolerance` no less than 4 times the machine precision), or after `max_steps`; `user_gap`
    bounds what is left. Derivatives come from the residual by the implicit function theorem.

    **Source:** Facchinei, Pang (2003), chapters 8 and 10.
    """

    tolerance: float = 1e-12
    max_steps: int = 200

    def __call__(self, game: AbstractGame, offers: PyTree, user: PyTree) -> Float[Array, "..."]:
        if isinstance(game.choice_set, AbstractConstrainedSet):
            return solve_user_problem(game, offers, user, max_steps=self.max_steps).choice
        if not isinstance(game.choice_set, AbstractConvexSet):
            raise TypeError(
                f"Concave: the choice set is {type(game.choice_set).__name__}; use Box or Simplex, "
                "Polytope or Constrained, or the responses Argmax and Logit for finite choices."
            )
        args = game, offers, user
        varied, fixed = eqx.partition(args, eqx.is_inexact_array)
        frozen = eqx.combine(jax.lax.stop_gradient(varied), fixed)
        choice = _maximise(frozen, self.tolerance, self.max_steps)
        return implicit_root(natural_residual, choice, args)


# Jitted so that the many plays within one program share one trace of the search.
@eqx.filter_jit
def _maximise(args: PyTree, tolerance: float, max_steps: int) -> Float[Array, "..."]:
    game, _, _ = args
    project = game.choice_set.project
    value_and_gradient = jax.value_and_grad(_utility)

    def size(residual):
        return jnp.max(jnp.abs(residual))

    def measure(choice):
        value, gradient = value_and_gradient(choice, args)
        return value, gradient, size(choice - project(choice + gradient))

    def goes_on(carry):
        choice, (_, gradient, error), _, step = carry
        precision = max(tolerance, 4 * float(jnp.finfo(choice.dtype).eps))
        enough = precision * (1 + size(choice) + size(gradient))
        return (error > enough) & (step < max_steps)

    def improve(carry):
        choice, here, length, step = carry
        value, gradient, error = here
        residual = choice - project(choice + gradient)
        matrix = jax.jacfwd(natural_residual)(choice, args).reshape(choice.size, choice.size)
        move = jnp.linalg.solve(matrix, residual.ravel()).reshape(choice.shape)
        newton, ascent = project(choice - move), project(choice + length * gradient)
        candidates = jnp.stack([newton, ascent])
        values, gradients, errors = jax.vmap(measure)(candidates)
        newton_works = errors[0] <= 0.5 * error
        ascent_works = values[1] >= value + 1e-4 * jnp.sum(gradient * (ascent - choice))
        taken = jax.tree.map(
            lambda tried, stay: jnp.where(
                newton_works, tried[0], jnp.where(ascent_works, tried[1], stay)
            ),
            (candidates, (values, gradients, errors)),
            (choice, here),
        )
        length = jnp.where(newton_works, length, length * jnp.where(ascent_works, 2.0, 0.5))
        return *taken, length, step + 1

    start = project(game.choice_set.centre())
    carry = start, measure(start), jnp.ones((), start.dtype), jnp.array(0)
    return jax.lax.while_loop(goes_on, improve, carry)[0]
