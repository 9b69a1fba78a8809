"""First and second order conditions of a profile, computed without the solver."""

from typing import Any

import equinox as eqx
import jax
import jax.flatten_util as flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from ._constraints import Constraints
from ._deviation import OwnProblem, own_problem
from ._game import AbstractGame
from ._play import select, split
from ._policy import AbstractPolicy
from ._problem import ConstrainedProblem, Joint, Multipliers, Problem
from ._response import AbstractResponse


@eqx.filter_jit
def stationarity(
    game: AbstractGame,
    response: AbstractResponse,
    profile: AbstractPolicy,
    multipliers: Multipliers | None = None,
    *,
    chunk: int | None = None,
) -> Scalar:
    """Sup norm of the natural residual `x - P(x + F(x))` of anticipating providers.

    In units of the parameters; NaN if anything is not finite. Zero says that no provider gains by
    a small move to first order, which is necessary for an equilibrium and no more: with softmax
    or sigmoid parameters it also vanishes where these saturate.

    With `multipliers` (of a game with constraints on providers) it is the residual of everybody's
    KKT conditions: also the violation of constraints, prices below 0, and for every inequality the
    smaller of its price and its slack.

    **Source:** Facchinei, Pang (2003), Finite-Dimensional Variational Inequalities, 1.5.

    >>> import jax.numpy as jnp
    >>> from diffgame import Concave, Constant, stationarity
    >>> from diffgame.games import Cournot
    >>> game = Cournot(cost=jnp.zeros(2))
    >>> print(stationarity(game, Concave(), Constant(jnp.full(2, 0.25))).round(6))
    0.25
    """
    parameters, rest = split(profile)
    problem: Any = Problem(game, response, rest, True, chunk)
    point: Any = parameters
    if multipliers is not None:
        count = jax.tree.leaves(parameters)[0].shape[0]
        problem = ConstrainedProblem(problem, jnp.ones(count), normalized=False)
        point = Joint(parameters, multipliers)
    field = problem.field(point)
    difference, _ = flatten_util.ravel_pytree(problem.residual(point, field))
    gradient, _ = flatten_util.ravel_pytree(field)
    finite = jnp.all(jnp.isfinite(difference)) & jnp.all(jnp.isfinite(gradient))
    return jnp.where(finite, jnp.max(jnp.abs(difference)), jnp.nan)


def _own_prices(multipliers: Multipliers | None, provider) -> Constraints:
    """The prices of all constraints that bind one provider, in the order of `own_problem`."""
    if multipliers is None:
        return Constraints()
    own, shared = select(multipliers.own, provider), select(multipliers.shared, provider)
    return Constraints(
        jnp.concatenate([own.inequalities, shared.inequalities]),
        jnp.concatenate([own.equalities, shared.equalities]),
    )


def _free_directions(
    own: OwnProblem, prices: Constraints, beyond: Float[Array, " n"]
) -> tuple[Float[Array, "n n"], Float[Array, " n"]]:
    """Orthonormal directions, and whether each is free (as a weight between 0 and 1)."""
    tangent = jax.jacfwd(own.project)(beyond)
    gradients = jax.jacfwd(lambda point: own.evaluate(point)[1])(own.start)
    # Constraints with a price hold with equality to first order.
    paid = (prices.inequalities > 0).astype(beyond.dtype)
    rows = jnp.concatenate([paid[:, None] * gradients.inequalities, gradients.equalities])
    if rows.shape[0]:
        within = rows @ tangent
        tangent = tangent @ (jnp.eye(beyond.size) - jnp.linalg.pinv(within, rtol=1e-8) @ within)
    # An orthogonal projector, up to ties (1/2 for a bound that is just touched: free).
    weights, directions = jnp.linalg.eigh((tangent + tangent.T) / 2)
    return directions, weights


@eqx.filter_jit
def second_order(
    game: AbstractGame,
    response: AbstractResponse,
    profile: AbstractPolicy,
    multipliers: Multipliers | None = None,
    *,
    chunk: int | None = None,
) -> Float[Array, " providers"]:
    """Largest eigenvalue of each provider's own Hessian on its free directions; -inf if none.

    Free are the directions along which the projection moves freely just beyond the point (the
    range of its derivative at `x + F(x)`): at a stationary point of a polyhedral feasible set,
    those of the face that strictly active bounds leave. Positive contradicts a local maximum;
    negative for all proves strict local ones there. Payoff per squared parameter. One Hessian per
    provider: for few parameters.

    With `multipliers`, the Hessian is that of the Lagrangian, and free directions also leave the
    constraints that have a price, and the equalities, unchanged to first order.

    **Source:** Nocedal, Wright (2006), Numerical Optimization, 12.5.

    >>> import jax.numpy as jnp
    >>> from diffgame import Concave, Constant, second_order
    >>> from diffgame.games import Cournot
    >>> print(second_order(Cournot(cost=jnp.zeros(2)), Concave(), Constant(jnp.full(2, 1 / 3))))
    [-2. -2.]
    """

    def largest(provider):
        own = own_problem(game, response, profile, provider, chunk)
        prices = _own_prices(multipliers, provider)

        def lagrangian(point):
            payoff, constraints = own.evaluate(point)
            costs = jax.tree.map(lambda price, row: jnp.sum(price * row), prices, constraints)
            return payoff - costs.inequalities - costs.equalities

        flat = own.start
        hessian = jax.hessian(lagrangian)(flat)
        beyond = flat + jax.grad(lagrangian)(flat)
        directions, weights = _free_directions(own, prices, beyond)
        free = weights > 0.25
        inner = directions.T @ ((hessian + hessian.T) / 2) @ directions
        both = free[:, None] & free[None, :]
        # Directions that are not free get an eigenvalue below all others.
        floor = -(jnp.linalg.norm(hessian) + 1)
        inner = jnp.where(both, inner, floor * jnp.eye(flat.size, dtype=flat.dtype))
        top = jnp.max(jnp.linalg.eigvalsh(inner))
        top = jnp.where(jnp.any(free), top, -jnp.inf)
        finite = jnp.all(jnp.isfinite(hessian)) & jnp.all(jnp.isfinite(weights))
        return jnp.where(finite, top, jnp.nan)

    count = jax.tree.leaves(split(profile)[0])[0].shape[0]
    return jax.lax.map(largest, jnp.arange(count))
