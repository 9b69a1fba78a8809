"""How users find each other: the crowd of a profile, and whether it is isolated."""

from typing import Any

import equinox as eqx
import jax
import jax.flatten_util as flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree, Scalar

from ._crowd_game import AbstractCrowdGame, Crowded
from ._crowd_search import Search, make_search
from ._fixed_point import is_stable, size, small, spectral_radius
from ._game import AbstractGame
from ._implicit import implicit_root
from ._joint_response import AbstractJointResponse
from ._policy import AbstractPolicy
from ._response import AbstractResponse

# Least isolation: at a twentieth, crowd effects multiply a small change by up to twenty. Exact
# users have no such scale, so there only a singular equation counts.
_ISOLATED = 0.05
_ISOLATED_JOINTLY = 1e-6
# Directions of the choices that move the crowd less than this part of the most do not count.
_MOVES = 1e-8


class CrowdStatus(eqx.Enumeration):
    """What is known about a crowd; the text of each member says what to do next."""

    isolated = (
        "The crowd is that of the users' responses to it, and no other crowd is near: it moves "
        "smoothly with policies and the game."
    )
    unstable = (
        "The crowd is that of the users' responses to it and isolated, but a disturbance of it "
        "grows: users would leave it. Start elsewhere (`crowd_start`), and list all with "
        "`crowd_equilibria`."
    )
    not_isolated = (
        "The crowd is that of the users' responses to it, but at or near a tipping point: crowd "
        "effects multiply a small change by more than twenty, and it may jump. List the other "
        "crowds with `crowd_equilibria`, and trust derivatives only for far smaller changes."
    )
    unsettled = (
        "No crowd was found that is that of the users' responses to it: responses to a growing "
        "crowd may circle or jump. Smooth the responses (`Logit` with a higher temperature), raise "
        "`max_steps` of `Wardrop` or `Nash`, or start elsewhere (`crowd_start`)."
    )
    nonfinite = (
        "The crowd or a response to it is not finite: check `crowd_start` and the game's numbers."
    )


class CrowdEquilibrium(eqx.Module):
    """A crowd of users who respond to it, and how it stands.

    T is the response map: it takes a crowd to that of the responses to it. For `Wardrop` and
    `Nash` it takes all choices to their projected gradient step.

    - `crowd`: mass-weighted totals of contributions, in the structure of `crowd_start()`; NaN if
        the status says that none was found. From `play`, it is differentiable.
    - `residual`: sup norm of T(x) - x; NaN if not finite.
    - `isolation`: smallest singular value of I - T', 0 at a tipping point: crowd effects multiply
        a small change by up to its inverse. For `Wardrop` and `Nash` relative to the largest,
        and directions that leave the crowd as it is do not count.
    - `spectral_radius` of T'; below 1, undamped best-response dynamics return to the crowd.
    - `stable`: whether no small disturbance grows under dx/dt = T(x) - x.
    - `status`: a `CrowdStatus`; print `CrowdStatus[status]` for the text.
    """

    crowd: PyTree
    residual: Scalar
    isolation: Scalar
    spectral_radius: Scalar
    stable: Bool[Array, ""]
    status: CrowdStatus


class Meeting(eqx.Module):
    """What users make together; None where they do not affect each other.

    `crowd` is NaN where none was found; `choices` are those of all users, where only determined
    jointly.
    """

    crowd: PyTree = None
    choices: PyTree = None

    def see(self, offers: PyTree) -> PyTree:
        """What a user faces who is offered `offers`."""
        return offers if self.crowd is None else Crowded(offers, self.crowd)


def choose(
    game: AbstractGame, response: AbstractResponse, offers: PyTree, user: PyTree, chosen: PyTree
) -> Any:
    """One user's choice: her response to what she faces, unless it was found jointly."""
    return response(game, offers, user) if chosen is None else chosen


def frozen(tree: PyTree) -> PyTree:
    """The same tree, constant to derivatives: searches are never differentiated."""
    varied, fixed = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.lax.stop_gradient(varied), fixed)


# Jitted, as `_examine` is, so that the many plays within one program share one trace.
@eqx.filter_jit
def _find(search: Search) -> tuple[PyTree, Bool[Array, ""]]:
    return search.find(search.start())


def _residual(unknown: PyTree, search: Search) -> PyTree:
    return jax.tree.map(jnp.subtract, unknown, search.respond(unknown))


def _attach(search: Search, reached: PyTree, found: Bool[Array, ""]) -> Meeting:
    unknown = jax.tree.map(lambda leaf: jnp.where(found, leaf, jnp.nan), reached)
    joint = isinstance(search.response, AbstractJointResponse)
    # Choices may form a manifold (path flows) where the crowd (link flows) is unique.
    cutoff = float(jnp.finfo(search.game.mass.dtype).eps) ** 0.5 if joint else None
    unknown = implicit_root(_residual, unknown, search, cutoff=cutoff)
    return Meeting(search.crowd(unknown), unknown if joint else None)


def meet(
    game: AbstractGame,
    response: AbstractResponse,
    profile: AbstractPolicy,
    *,
    chunk: int | None = None,
) -> Meeting:
    """The crowd of a profile, differentiable in the game, the response and the profile.

    Of several crowds it is the limit of dc/dt = T(c) - c from `crowd_start()`, T(c) being the
    crowd of the responses to c; for `Wardrop` and `Nash`, what the search reaches from the centre
    of the choice set. A crowd that was not found is NaN, so that nothing built on it passes.
    """
    if not isinstance(game, AbstractCrowdGame):
        if isinstance(response, AbstractJointResponse):
            raise TypeError(
                f"{type(response).__name__}: {type(game).__name__} is no AbstractCrowdGame, so "
                "its users do not affect each other; use Concave, Argmax or Logit."
            )
        return Meeting()
    search = make_search(game, response, profile, chunk)
    return _attach(search, *_find(frozen(search)))


def meet_and_examine(
    game: AbstractGame,
    response: AbstractResponse,
    profile: AbstractPolicy,
    *,
    chunk: int | None = None,
) -> tuple[Meeting, CrowdEquilibrium | None]:
    """The same, and how the crowd stands; None where users do not affect each other."""
    if not isinstance(game, AbstractCrowdGame):
        return meet(game, response, profile, chunk=chunk), None
    search = make_search(game, response, profile, chunk)
    fixed = frozen(search)
    reached, found = _find(fixed)
    standing = _examine(fixed, reached)
    # Batched LAPACK calls that do not wait for each other may block each other on few cores
    # (jaxlib 0.10), so those of derivatives come after those of the examination.
    reached, standing = jax.lax.optimization_barrier((reached, standing))
    meeting = _attach(search, reached, found)
    return meeting, CrowdEquilibrium(meeting.crowd, *standing)


def examine(search: Search, unknown: PyTree) -> CrowdEquilibrium:
    """How the crowd stands that some unknowns stand for; not differentiable."""
    search, unknown = frozen((search, unknown))
    return CrowdEquilibrium(search.crowd(unknown), *_examine(search, unknown))


@eqx.filter_jit
def _examine(search: Search, unknown: PyTree) -> tuple[Array, Array, Array, Array, CrowdStatus]:
    flat, unravel = flatten_util.ravel_pytree(unknown)

    def respond(point):
        return flatten_util.ravel_pytree(search.respond(unravel(point)))[0]

    def crowd(point):
        return flatten_util.ravel_pytree(search.crowd(unravel(point)))[0]

    residual = respond(flat) - flat
    slope = jax.jacfwd(respond)(flat)
    finite = jnp.isfinite(size(residual)) & jnp.isfinite(size(slope.ravel()))
    identity = jnp.eye(flat.size, dtype=flat.dtype)
    # The decomposition of a matrix that is not finite may not return.
    matrix = jnp.where(finite, identity - slope, identity)
    _, values, directions = jnp.linalg.svd(matrix)
    moves = jnp.linalg.norm(jax.jacfwd(crowd)(flat) @ directions.T, axis=0)
    counts = moves > _MOVES * jnp.max(moves)
    isolation = jnp.min(jnp.where(counts, values, jnp.inf))
    least = _ISOLATED
    if isinstance(search.response, AbstractJointResponse):
        isolation, least = isolation / jnp.max(values), _ISOLATED_JOINTLY
    isolation = jnp.where(finite, isolation, jnp.nan)
    stable = finite & is_stable(jnp.where(finite, slope, identity) - identity)

    settled = small(residual, search.scale(unknown))
    isolated = isolation > least
    status = CrowdStatus.where(stable, CrowdStatus.isolated, CrowdStatus.unstable)
    status = CrowdStatus.where(isolated, status, CrowdStatus.not_isolated)
    status = CrowdStatus.where(settled, status, CrowdStatus.unsettled)
    status = CrowdStatus.where(finite, status, CrowdStatus.nonfinite)
    return size(residual), isolation, spectral_radius(slope), stable, status
