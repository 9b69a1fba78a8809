"""What a provider gains by deviating alone: searched, from many starts."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.flatten_util as flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Scalar

from ._ascent import ascend
from ._augmented import ascend_within, violation
from ._constraints import Constraints
from ._game import AbstractGame
from ._play import provider_payoffs, provider_totals, replace, select, split
from ._policy import AbstractPolicy
from ._problem import has_constraints
from ._response import AbstractResponse

# Candidates per provider with one parameter in a finite interval; beyond _FAR no bound is seen.
GRID = 513
# How far a deviation may violate a constraint and still count.
FEASIBLE = 1e-8
_FAR = 1e12


class OwnProblem(eqx.Module):
    """One provider's maximisation against the others' given policies, in one vector.

    - `start`: its present parameters, flat. `unravel`: the way back.
    - `evaluate(point)`: its payoff and all constraints that bind it. `project`: onto its simple
        set.
    """

    start: Float[Array, " n"]
    evaluate: Callable[[Float[Array, " n"]], tuple[Scalar, Constraints]]
    project: Callable[[Float[Array, " n"]], Float[Array, " n"]]
    unravel: Callable[[Float[Array, " n"]], AbstractPolicy]

    def value(self, point: Float[Array, " n"]) -> Scalar:
        """The payoff alone."""
        return self.evaluate(point)[0]


def own_problem(
    game: AbstractGame,
    response: AbstractResponse,
    profile: AbstractPolicy,
    provider: Int[Array, ""],
    chunk: int | None,
) -> OwnProblem:
    """What `provider` faces while the others stay."""
    everyone, rest = split(profile)
    own_rest = select(rest, provider)
    flat, unravel = flatten_util.ravel_pytree(select(everyone, provider))

    def evaluate(point):
        trial = eqx.combine(replace(everyone, provider, unravel(point)), rest)
        totals = provider_totals(game, response, trial, chunk=chunk)
        own = game.provider_constraints(trial, totals, provider)
        shared = game.shared_constraints(trial, totals)
        return game.settle(totals)[provider], Constraints(
            jnp.concatenate([own.inequalities, shared.inequalities]),
            jnp.concatenate([own.equalities, shared.equalities]),
        )

    def project_flat(point):
        policy = eqx.combine(unravel(point), own_rest).project()
        return flatten_util.ravel_pytree(split(policy)[0])[0]

    return OwnProblem(flat, evaluate, project_flat, unravel)


class Deviations(eqx.Module):
    """The best deviations found: `gains` [providers] in units of payoff, and `policies`.

    `policies` is a profile whose i-th policy attains the i-th gain against the others' given
    policies; together they are no equilibrium.
    """

    gains: Float[Array, " providers"]
    policies: AbstractPolicy


@eqx.filter_jit
def find_deviations(
    game: AbstractGame,
    response: AbstractResponse,
    profile: AbstractPolicy,
    *,
    key: Key[Array, ""],
    starts: int = 16,
    steps: int | Int[Array, ""] = 100,
    chunk: int | None = None,
) -> Deviations:
    """Search each provider's best deviation alone, and return it with its gain.

    Projected ascent of its own payoff, at most `steps` steps, from the present policy and from
    `starts` policies of `sample` (random in the box where bounds are finite, around the present
    one otherwise). A policy with one parameter in a finite interval is also tried at 513 equally
    spaced values, a 512th of the interval apart, the best of which is climbed from. With `steps=0`
    starts are only evaluated, which works for responses without derivatives (`Argmax`) too.

    With constraints on providers, the ascent is of augmented Lagrangians, and a deviation counts
    if it violates none of them by more than 1e-8 in their units.

    A gain found is a lower bound on the true one, never negative: zero proves nothing outside
    what was searched. Its true counterpart is the regret of the provider; the largest over
    providers is the exploitability of the profile.
    """
    base = provider_payoffs(game, response, profile, chunk=chunk)
    constrained = has_constraints(game)

    def search(provider):
        own = own_problem(game, response, profile, provider, chunk)
        policy = select(profile, provider)

        def draw(number):
            # Each start has a key of its own: more starts only add to the search.
            drawn = policy.sample(jax.random.fold_in(jax.random.fold_in(key, provider), number))
            return flatten_util.ravel_pytree(split(drawn)[0])[0]

        def judge(point):
            value, constraints = own.evaluate(point)
            return jnp.where(violation(constraints) <= FEASIBLE, value, -jnp.inf)

        def climb(start):
            if constrained:
                return ascend_within(own.evaluate, own.project, start, steps, FEASIBLE)
            return ascend(own.value, own.project, start, steps)

        points = jnp.concatenate([own.start[None], jax.vmap(draw)(jnp.arange(starts))])
        if own.start.size == 1:
            points = jnp.concatenate([points, _best_on_grid(judge, own)[None]])
        if isinstance(steps, jax.Array) or steps > 0:
            points, values = jax.vmap(climb)(points)
        else:
            values = jax.vmap(judge)(points)
        found = jnp.where(jnp.isfinite(values), values, -jnp.inf)
        best = jnp.argmax(found)
        better = found[best] > base[provider]
        # An unbounded payoff is a gain without bound, not a value to be passed over.
        unbounded = jnp.any(values == jnp.inf)
        gain = jnp.where(better, found[best] - base[provider], 0)
        gain = jnp.where(unbounded, jnp.inf, gain)
        gain = jnp.where(jnp.isfinite(base[provider]), gain, jnp.nan)
        return gain, own.unravel(jnp.where(better, points[best], own.start))

    gains, parameters = jax.lax.map(search, jnp.arange(base.shape[0]))
    return Deviations(gains, eqx.combine(parameters, split(profile)[1]))


def _best_on_grid(judge: Callable, own: OwnProblem) -> Float[Array, "1"]:
    """The best of equally spaced points of the interval; where there is none, the point itself."""
    flat = own.start
    lower, upper = own.project(flat - _FAR), own.project(flat + _FAR)
    bounded = (lower > flat - _FAR) & (upper < flat + _FAR)

    def search():
        parts = jnp.linspace(0, 1, GRID, dtype=flat.dtype)[:, None]
        points = lower[None] + parts * (upper - lower)[None]
        values = jax.lax.map(judge, points, batch_size=32)
        return points[jnp.argmax(jnp.where(jnp.isfinite(values), values, -jnp.inf))]

    return jax.lax.cond(jnp.all(bounded), search, lambda: flat)


def deviation_gains(
    game: AbstractGame,
    response: AbstractResponse,
    profile: AbstractPolicy,
    *,
    key: Key[Array, ""],
    starts: int = 16,
    steps: int = 100,
    chunk: int | None = None,
) -> Float[Array, " providers"]:
    """The most that each provider was found to gain alone; see `find_deviations`.

    >>> import jax, jax.numpy as jnp
    >>> from diffgame import Concave, Constant, deviation_gains
    >>> from diffgame.games import Cournot
    >>> game, monopoly = Cournot(cost=jnp.zeros(2)), Constant(jnp.full(2, 0.25))
    >>> print(deviation_gains(game, Concave(), monopoly, key=jax.random.key(0)).round(6))
    [0.015625 0.015625]
    """
    return find_deviations(
        game, response, profile, key=key, starts=starts, steps=steps, chunk=chunk
    ).gains
