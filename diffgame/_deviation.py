"""What a provider gains by deviating alone: searched, from many starts."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.flatten_util as flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ._ascent import ascend
from ._game import AbstractGame
from ._play import provider_payoffs, replace, select, split
from ._policy import AbstractPolicy
from ._response import AbstractResponse

# Candidates per provider with one parameter in a finite interval; beyond _FAR no bound is seen.
GRID = 513
_FAR = 1e12


def own_problem(
    game: AbstractGame,
    response: AbstractResponse,
    profile: AbstractPolicy,
    provider: Int[Array, ""],
    chunk: int | None,
) -> tuple[Float[Array, " n"], Callable, Callable, Callable]:
    """One provider's flat parameters, its payoff and projection in them, and the way back."""
    everyone, rest = split(profile)
    own_rest = select(rest, provider)
    flat, unravel = flatten_util.ravel_pytree(select(everyone, provider))

    def value(point):
        trial = eqx.combine(replace(everyone, provider, unravel(point)), rest)
        return provider_payoffs(game, response, trial, chunk=chunk)[provider]

    def project_flat(point):
        policy = eqx.combine(unravel(point), own_rest).project()
        return flatten_util.ravel_pytree(split(policy)[0])[0]

    return flat, value, project_flat, unravel


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

    A gain found is a lower bound on the true one, never negative: zero proves nothing outside
    what was searched. Its true counterpart is the regret of the provider; the largest over
    providers is the exploitability of the profile.
    """
    base = provider_payoffs(game, response, profile, chunk=chunk)

    def search(provider):
        flat, value, project_flat, unravel = own_problem(game, response, profile, provider, chunk)
        policy = select(profile, provider)

        def draw(number):
            # Each start has a key of its own: more starts only add to the search.
            drawn = policy.sample(jax.random.fold_in(jax.random.fold_in(key, provider), number))
            return flatten_util.ravel_pytree(split(drawn)[0])[0]

        points = jnp.concatenate([flat[None], jax.vmap(draw)(jnp.arange(starts))])
        if flat.size == 1:
            points = jnp.concatenate([points, _best_on_grid(value, project_flat, flat)[None]])
        if isinstance(steps, jax.Array) or steps > 0:
            points, values = jax.vmap(lambda start: ascend(value, project_flat, start, steps))(
                points
            )
        else:
            values = jax.vmap(value)(points)
        found = jnp.where(jnp.isfinite(values), values, -jnp.inf)
        best = jnp.argmax(found)
        better = found[best] > base[provider]
        # An unbounded payoff is a gain without bound, not a value to be passed over.
        unbounded = jnp.any(values == jnp.inf)
        gain = jnp.where(better, found[best] - base[provider], 0)
        gain = jnp.where(unbounded, jnp.inf, gain)
        gain = jnp.where(jnp.isfinite(base[provider]), gain, jnp.nan)
        return gain, unravel(jnp.where(better, points[best], flat))

    gains, parameters = jax.lax.map(search, jnp.arange(base.shape[0]))
    return Deviations(gains, eqx.combine(parameters, split(profile)[1]))


def _best_on_grid(value, project_flat, flat):
    """The best of equally spaced points of the interval; where there is none, the point itself."""
    lower, upper = project_flat(flat - _FAR), project_flat(flat + _FAR)
    bounded = (lower > flat - _FAR) & (upper < flat + _FAR)

    def search():
        parts = jnp.linspace(0, 1, GRID, dtype=flat.dtype)[:, None]
        points = lower[None] + parts * (upper - lower)[None]
        values = jax.lax.map(value, points, batch_size=32)
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
