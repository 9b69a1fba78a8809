"""All crowds that a search finds at one profile."""

import equinox as eqx
import jax
import jax.flatten_util as flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from ._choice_set import AbstractChoiceSet, AbstractConvexSet, AbstractFiniteSet
from ._crowd_game import AbstractCrowdGame
from ._crowd_search import Search, make_offers, make_search
from ._fixed_point import size, small
from ._interaction import CrowdEquilibrium, CrowdStatus, examine
from ._joint_response import AbstractJointResponse
from ._policy import AbstractPolicy
from ._response import AbstractResponse
from ._total import total

# Crowds closer than this part of their size are one.
_SAME = 1e-6
_NEWTON_STEPS = 100


def _random_choice(choices: AbstractChoiceSet, key: Key[Array, ""]) -> Float[Array, "..."]:
    """Anywhere in the set, its faces and corners included."""
    if isinstance(choices, AbstractConvexSet):
        centre = choices.centre()
        axes = jnp.eye(centre.size, dtype=centre.dtype).reshape(-1, *centre.shape)
        width = jax.vmap(lambda axis: choices.support(axis) + choices.support(-axis))(axes)
        noise = jax.random.uniform(key, centre.shape, centre.dtype, -1, 1)
        return choices.project(centre + noise * width.reshape(centre.shape))
    if not isinstance(choices, AbstractFiniteSet):
        raise TypeError(
            f"crowd_equilibria: the choice set is {type(choices).__name__}; use Simplex, Box or "
            "DecisionTree."
        )
    leaves = jnp.ones(())
    for level, user_moves in enumerate(choices.decides):
        shape = choices.shape[: level + 1]
        own = jnp.ones(shape)
        if user_moves:
            own = jax.random.dirichlet(
                jax.random.fold_in(key, level), jnp.ones(shape[-1]), shape[:-1]
            )
        leaves = jnp.expand_dims(leaves, -1) * own
    return leaves


def _random_start(search: Search, key: Key[Array, ""]) -> PyTree:
    """The unknowns if users chose at random: all alike for a crowd, each on her own for choices."""
    game = search.game
    if isinstance(search.response, AbstractJointResponse):
        keys = jax.random.split(key, game.mass.shape[0])
        return jax.vmap(lambda key: _random_choice(game.choice_set, key))(keys)
    choice = _random_choice(game.choice_set, key)

    def contribute(shared, user):
        game, profile, choice = shared
        return game.contribution(choice, make_offers(game, profile, user), user)

    shared = game, search.profile, choice
    return total(contribute, shared, game.mass, game.users, chunk=search.chunk)


def _newton(search: Search, start: PyTree) -> PyTree:
    """A zero of the residual, stable or not: Levenberg-Marquardt steps on its square."""
    flat, unravel = flatten_util.ravel_pytree(start)

    def residual(point):
        return point - flatten_util.ravel_pytree(search.respond(unravel(point)))[0]

    def goes_on(carry):
        point, error, damping, step = carry
        going = jnp.isfinite(size(error)) & ~small(error, size(point))
        return going & (damping < 1e12) & (step < _NEWTON_STEPS)

    def improve(carry):
        point, error, damping, step = carry
        matrix = jax.jacfwd(residual)(point)
        square = jnp.sum(error**2)
        normal = matrix.T @ matrix
        normal = normal + damping * jnp.minimum(square, 1) * jnp.eye(
            *normal.shape, dtype=normal.dtype
        )
        tried = point - jnp.linalg.solve(normal, matrix.T @ error)
        there = residual(tried)
        better = jnp.sum(there**2) < square
        point, error = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), (tried, there), (point, error)
        )
        return point, error, damping * jnp.where(better, 0.2, 10.0), step + 1

    carry = flat, residual(flat), jnp.ones((), flat.dtype), jnp.array(0)
    return unravel(jax.lax.while_loop(goes_on, improve, carry)[0])


@eqx.filter_jit
def _search_all(search: Search, key: Key[Array, ""], starts: int) -> CrowdEquilibrium:
    """What every start leads to, the selected crowd first: by the flow, and by Newton steps."""
    first = search.start()
    drawn = jax.vmap(lambda key: _random_start(search, key))(jax.random.split(key, starts))
    points = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, drawn)

    def both(start):
        return search.find(start)[0], _newton(search, start)

    flowed, jumped = jax.lax.map(both, points)
    reached = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), flowed, jumped)
    return jax.lax.map(lambda unknown: examine(search, unknown), reached)


def crowd_equilibria(
    game: AbstractCrowdGame,
    response: AbstractResponse,
    profile: AbstractPolicy,
    *,
    key: Key[Array, ""],
    starts: int = 32,
    chunk: int | None = None,
) -> tuple[CrowdEquilibrium, ...]:
    """The distinct crowds found at one profile, the one that `play` selects first.

    From `crowd_start()` and from the crowds of `starts` random choices, it follows the dynamics
    dc/dt = T(c) - c to stable crowds, and takes Newton steps to any, unstable ones (the tipping
    points between basins) included. Crowds apart by at most 1e-6 times 1 + their size are one.
    All that it returns are fixed points up to rounding, each with its isolation and its stability;
    a search may miss some. The first one is missing if the selection itself failed: see
    `play(...).interaction`. For a concrete game, not under jit: the number of crowds varies.

    **Errors:** ValueError if `starts` is not positive; TypeError for `Argmax`.

    >>> import jax, jax.numpy as jnp
    >>> from diffgame import Constant, Logit, crowd_equilibria
    >>> from diffgame.games import Adoption
    >>> game, price = Adoption(jnp.array(3.0), jnp.zeros(1)), Constant(jnp.array([1.5]))
    >>> for found in crowd_equilibria(game, Logit(0.5), price, key=jax.random.key(0)):
    ...     print(f"{found.crowd:.4f} {found.stable} {found.spectral_radius:.2f}")
    0.0707 True 0.39
    0.5000 False 1.50
    0.9293 True 0.39
    """
    if starts < 1:
        raise ValueError(f"crowd_equilibria: starts is {starts}; it must be at least 1.")
    found = _search_all(make_search(game, response, profile, chunk), key, starts)
    rows = [jax.tree.map(lambda leaf, row=row: leaf[row], found) for row in range(2 * starts + 2)]
    distinct: list[CrowdEquilibrium] = []
    for row in rows:
        failed = (row.status == CrowdStatus.unsettled) | (row.status == CrowdStatus.nonfinite)
        if not failed and not any(_is_same(row, other) for other in distinct):
            distinct.append(row)
    # The first row is where the dynamics lead from `crowd_start`.
    head = 1 if distinct and distinct[0] is rows[0] else 0
    return (*distinct[:head], *sorted(distinct[head:], key=lambda row: tuple(_numbers(row))))


def _numbers(equilibrium: CrowdEquilibrium) -> np.ndarray:
    return np.asarray(flatten_util.ravel_pytree(equilibrium.crowd)[0])


def _is_same(one: CrowdEquilibrium, other: CrowdEquilibrium) -> bool:
    distance = np.max(np.abs(_numbers(one) - _numbers(other)))
    return bool(distance <= _SAME * (1 + np.max(np.abs(_numbers(one)))))
