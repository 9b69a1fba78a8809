"""Users whose choices are only determined together: Wardrop and Nash among the users."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ._choice_set import AbstractConvexSet
from ._crowd_game import AbstractCrowdGame, Crowded
from ._fixed_point import size, small
from ._game import AbstractGame
from ._response import AbstractResponse
from ._total import total

# Extragradient steps are so short that the field changes by at most this part of the move.
_SHORT = 0.7


class AbstractJointResponse(AbstractResponse):
    """Exact choices of all users at once, on a convex set (`Simplex`, `Box`).

    They solve a variational inequality: no user gains by moving her choice within her set, given
    the crowd. It is found by extragradient steps, with semismooth Newton steps wherever these
    halve the residual, from the centre of the choice set; for few users (classes of users), as
    all choices are unknowns of one system. Derivatives come from the natural residual; where
    choices are not unique (path flows, say) they are those of minimum norm, which moves the crowd
    rightly where the crowd is unique. Where a constraint is only just active, as a path that is
    just not worth taking, the derivative is that of one side.

    `own_effect` says whether a user counts her own effect on the crowd; `max_steps` when the
    search gives up.

    **Source:** Facchinei, Pang (2003), Finite-Dimensional Variational Inequalities, 1.5, 7.5,
    12.1; Khobotov (1987) for the length of the steps.
    """

    own_effect: ClassVar[bool]

    max_steps: eqx.AbstractVar[int]

    def __call__(self, game: AbstractGame, offers: PyTree, user: PyTree) -> Any:
        raise TypeError(
            f"{type(self).__name__}: users respond together, not one by one; "
            f"{type(game).__name__} must be an AbstractCrowdGame, and is played by `play`."
        )


class Wardrop(AbstractJointResponse):
    """Every user chooses what is best for her, given the crowd that all choices make.

    Each is one of very many, so she takes the crowd as given: all options that she uses are
    equally good, and none is better (Wardrop's first principle). A row of `game.users` stands for
    a class of such users, her choice for how the class is divided. Unique crowds need utilities
    that fall, in total, as the crowd grows (monotone); with increasing returns there may be
    several, and `crowd_equilibria` lists them.

    **Source:** Wardrop (1952), Some theoretical aspects of road traffic research; Sandholm (2010),
    Population Games and Evolutionary Dynamics, chapter 2.

    >>> import jax.numpy as jnp
    >>> from diffgame import Constant, Wardrop, play
    >>> from diffgame.games import Congestion
    >>> game = Congestion.pigou()
    >>> print(play(game, Wardrop(), Constant(jnp.array([[0.5]]))).choices.round(6))
    [[0.5 0.5]]
    """

    own_effect: ClassVar[bool] = False

    max_steps: int = 2_000


class Nash(AbstractJointResponse):
    """A Nash equilibrium among the users, each of whom counts her own effect on the crowd.

    For a small number of followers who play each other: oligopolists behind a leader, bidders,
    carriers. A follower of mass m adds m times her contribution. Her utility must be concave in
    her own choice, her own effect included.

    **Source:** Rosen (1965), Existence and uniqueness of equilibrium points for concave N-person
    games; Sherali (1984), A multiple leader Stackelberg model and analysis.

    >>> import jax.numpy as jnp
    >>> from diffgame import Constant, Nash, play
    >>> from diffgame.games import Congestion
    >>> # One carrier with all the traffic counts the delay that it causes itself: half and half.
    >>> print(play(Congestion.pigou(), Nash(), Constant(jnp.zeros((1, 1)))).choices.round(6))
    [[0.5 0.5]]
    """

    own_effect: ClassVar[bool] = True

    max_steps: int = 2_000


def own_utility(game: AbstractGame, response: AbstractResponse, offers: PyTree, member: PyTree):
    """The utility that one user maximises, as a function of her choice.

    `offers` is what she faces, `member` holds her data, her mass and what she chose, if jointly.
    """
    user, mass, chosen = member

    def utility(choice):
        return game.user_utility(choice, offers, user)

    if not (isinstance(response, AbstractJointResponse) and response.own_effect):
        return utility
    assert isinstance(game, AbstractCrowdGame)
    before = game.contribution(chosen, offers.posted, user)

    def utility_with_own_effect(choice):
        after = game.contribution(choice, offers.posted, user)
        crowd = jax.tree.map(lambda c, a, b: c + mass * (a - b), offers.crowd, after, before)
        return game.user_utility(choice, Crowded(offers.posted, crowd), user)

    return utility_with_own_effect


def joint_crowd(game: AbstractCrowdGame, choices: PyTree, posted: PyTree) -> PyTree:
    """The crowd that the choices [users, ...] make, given what is posted to each user."""
    members = choices, posted, game.users
    return total(lambda game, member: game.contribution(*member), game, game.mass, members)


def joint_gradient(choices: PyTree, args: PyTree) -> PyTree:
    """Each user's gradient of her own utility; args: game, response, what is posted to each."""
    game, response, posted = args
    crowd = joint_crowd(game, choices, posted)

    def gradient(offers, member):
        seen = Crowded(offers, crowd)
        return jax.grad(own_utility(game, response, seen, member))(member[2])

    return jax.vmap(gradient)(posted, (game.users, game.mass, choices))


def _project(game: AbstractCrowdGame, choices: Array) -> Array:
    assert isinstance(game.choice_set, AbstractConvexSet)
    return jax.vmap(game.choice_set.project)(choices)


def joint_residual(choices: PyTree, args: PyTree) -> PyTree:
    """The natural residual of all choices: zero exactly where no user gains by a small move."""
    return choices - _project(args[0], choices + joint_gradient(choices, args))


def joint_start(game: AbstractCrowdGame, response: AbstractJointResponse) -> Float[Array, "..."]:
    """Everybody in the centre of the choice set, [users, ...]."""
    if not isinstance(game.choice_set, AbstractConvexSet):
        raise TypeError(
            f"{type(response).__name__}: the choice set is {type(game.choice_set).__name__}; use "
            "Simplex or Box, or a response to a given crowd: Logit on trees, Concave elsewhere."
        )
    centre = game.choice_set.project(game.choice_set.centre())
    return jnp.broadcast_to(centre[None], (game.mass.shape[0], *centre.shape))


def settle_jointly(start: Array, args: PyTree) -> tuple[Array, Array]:
    """Choices from which no user gains by moving, and whether they are that; not differentiable."""
    game, response, _ = args

    def flat_residual(flat):
        return joint_residual(flat.reshape(start.shape), args).ravel()

    def measure(choices):
        gradient = joint_gradient(choices, args)
        return gradient, choices - _project(game, choices + gradient)

    def solved(choices, here):
        gradient, residual = here
        return small(residual.ravel(), size(choices.ravel()) + size(gradient.ravel()))

    def goes_on(carry):
        choices, here, _, step = carry
        going = jnp.isfinite(size(here[1].ravel())) & ~solved(choices, here)
        return going & (step < response.max_steps)

    def norm(vector):
        # The masses make the field monotone: users count in proportion to their effect.
        squares = jnp.sum(vector.reshape(vector.shape[0], -1) ** 2, axis=1)
        return jnp.sqrt(jnp.sum(game.mass * squares))

    def improve(carry):
        choices, (gradient, residual), length, step = carry
        error = size(residual.ravel())
        matrix = jax.jacfwd(flat_residual)(choices.ravel())
        # A little regularization picks one of many solutions and vanishes with the residual.
        floor = 1e-3 * jnp.minimum(error, 1) * jnp.eye(*matrix.shape, dtype=matrix.dtype)
        move = jnp.linalg.solve(matrix + floor, residual.ravel()).reshape(choices.shape)
        newton = _project(game, choices - move)

        ahead = _project(game, choices + length * gradient)
        ahead_gradient = joint_gradient(ahead, args)
        stretch = length * norm(ahead_gradient - gradient)
        reach = norm(ahead - choices)
        stepped = _project(game, choices + length * ahead_gradient)
        stepped = jnp.where(stretch <= _SHORT * reach, stepped, choices)
        growth = jnp.where(stretch <= _SHORT / 2 * reach, 1.5, 1.0)
        next_length = length * jnp.where(stretch <= _SHORT * reach, growth, 0.5)

        candidates = jnp.stack([newton, stepped])
        there = jax.vmap(measure)(candidates)
        newton_works = size(there[1][0].ravel()) <= 0.5 * error
        choices, here = jax.tree.map(
            lambda leaf: jnp.where(newton_works, leaf[0], leaf[1]), (candidates, there)
        )
        return choices, here, jnp.where(newton_works, length, next_length), step + 1

    carry = start, measure(start), jnp.ones((), start.dtype), jnp.array(0)
    choices, here, _, _ = jax.lax.while_loop(goes_on, improve, carry)
    return choices, solved(choices, here)
