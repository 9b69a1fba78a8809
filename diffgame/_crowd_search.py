"""The equation that a crowd solves: users respond to the crowd that their responses make."""

import equinox as eqx
import jax
import jax.flatten_util as flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree, Scalar

from ._crowd_game import AbstractCrowdGame, Crowded
from ._fixed_point import follow, size, small
from ._game import AbstractGame
from ._joint_response import (
    AbstractJointResponse,
    joint_crowd,
    joint_gradient,
    joint_residual,
    joint_start,
    settle_jointly,
)
from ._policy import AbstractPolicy
from ._response import AbstractResponse, Argmax
from ._shard import first_user, shared_out
from ._total import total


def make_offers(game: AbstractGame, profile: AbstractPolicy, user: PyTree) -> PyTree:
    """What every provider offers to one user: leaves with a leading "providers" axis."""
    observation = game.observe(user)
    return eqx.filter_vmap(lambda policy: policy(observation))(profile)


class Search(eqx.Module):
    """The equation of a crowd: its unknowns are the crowd itself, or all choices together."""

    game: AbstractCrowdGame
    response: AbstractResponse
    profile: AbstractPolicy
    chunk: int | None

    def posted(self) -> PyTree:
        """What is posted to each user, for joint choices."""
        return jax.vmap(lambda user: make_offers(self.game, self.profile, user))(self.game.users)

    def start(self) -> PyTree:
        """The unknowns from which the search starts, unless told otherwise."""
        if isinstance(self.response, AbstractJointResponse):
            return joint_start(self.game, self.response)
        dtype = self.game.mass.dtype
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), self.game.crowd_start())

    def respond(self, unknown: PyTree) -> PyTree:
        """The map T whose fixed points are sought."""
        game, response = self.game, self.response
        if isinstance(response, AbstractJointResponse):
            residual = joint_residual(unknown, (game, response, self.posted()))
            return jax.tree.map(jnp.subtract, unknown, residual)

        def contribute(shared, user):
            game, response, profile, unknown = shared
            posted = make_offers(game, profile, user)
            choice = response(game, Crowded(posted, unknown), user)
            return game.contribution(choice, posted, user)

        shared = game, response, self.profile, unknown
        return total(contribute, shared, game.mass, game.users, chunk=self.chunk)

    def find(self, start: PyTree) -> tuple[PyTree, Bool[Array, ""]]:
        """Unknowns reached from `start`, and whether they solve the equation."""
        if isinstance(self.response, AbstractJointResponse):
            return settle_jointly(start, (self.game, self.response, self.posted()))
        flat, unravel = flatten_util.ravel_pytree(start)

        def respond(point):
            return flatten_util.ravel_pytree(self.respond(unravel(point)))[0]

        found = follow(respond, flat)
        return unravel(found), small(respond(found) - found, size(found))

    def scale(self, unknown: PyTree) -> Scalar:
        """The size of the numbers that the residual is compared with."""
        scale = size(flatten_util.ravel_pytree(unknown)[0])
        if isinstance(self.response, AbstractJointResponse):
            args = self.game, self.response, self.posted()
            scale = scale + size(joint_gradient(unknown, args).ravel())
        return scale

    def crowd(self, unknown: PyTree) -> PyTree:
        """The crowd that the unknowns stand for."""
        if not isinstance(self.response, AbstractJointResponse):
            return unknown
        return joint_crowd(self.game, unknown, self.posted())


def _shapes(make) -> PyTree:
    return jax.tree.map(lambda leaf: tuple(leaf.shape), jax.eval_shape(make))


def make_search(
    game: AbstractCrowdGame, response: AbstractResponse, profile: AbstractPolicy, chunk: int | None
) -> Search:
    """The equation of the crowd of a profile; errors where there can be none."""
    if isinstance(response, AbstractJointResponse) and shared_out(game.mass) is not None:
        raise TypeError(
            f"{type(response).__name__}: it finds the choices of all users in one system, so they "
            "cannot be spread over devices; give the game as it was before shard_users, or use "
            "Logit(temperature)."
        )

    def contribution():
        user = first_user(game.users)
        return game.contribution(game.choice_set.centre(), make_offers(game, profile, user), user)

    start, added = _shapes(game.crowd_start), _shapes(contribution)
    if start != added:
        raise ValueError(
            f"{type(game).__name__}: crowd_start has shapes {start}, contribution {added}; give "
            "both the same structure and shapes."
        )
    if isinstance(response, Argmax):
        raise TypeError(
            "Argmax: exact users of a crowd are indifferent where it settles, so they have no "
            "single best choice; use Wardrop() for exact users, or Logit(temperature)."
        )
    return Search(game, response, profile, chunk)
