"""Learned policies: gradient play on random batches of users."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util as flatten_util
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, Scalar

from ._game import AbstractGame
from ._play import project, pseudogradient, split
from ._policy import AbstractPolicy
from ._response import AbstractResponse


class Trained(eqx.Module):
    """Policies after `train`: candidates, never an equilibrium; see `segment_deviations`.

    - `profile`: the average of the policies over the last quarter of the steps.
    - `field_norms` [steps]: Euclidean norm of the sampled pseudogradient at every step, in payoff
        per unit of parameters: noise included, so it does not go to 0.
    """

    profile: AbstractPolicy
    field_norms: Float[Array, " steps"]


def sample_users(game: AbstractGame, index: Int[Array, " batch"]) -> AbstractGame:
    """The game with the users of `index` only, each counting for as many as were left out.

    Totals over uniformly drawn users are unbiased for the totals over all; payoffs are too if
    `settle` is linear.
    """
    count = game.mass.shape[0]
    users = jax.tree.map(lambda leaf: leaf[index], game.users)
    mass = game.mass[index] * (count / index.shape[0])
    return eqx.tree_at(lambda game: (game.users, game.mass), game, (users, mass))


def _norm(field: AbstractPolicy) -> Scalar:
    return jnp.linalg.norm(flatten_util.ravel_pytree(field)[0])


@eqx.filter_jit
def _train_steps(game, response, optim, rest, carry, keys, batch, average_from):
    count = game.mass.shape[0]

    def step(carry, key):
        parameters, state, mean, number = carry
        index = jax.random.randint(key, (batch,), 0, count)
        field = pseudogradient(sample_users(game, index), response, eqx.combine(parameters, rest))
        descent = jax.tree.map(jnp.negative, field)
        updates, state = optim.update(descent, state, parameters)
        moved: Any = optax.apply_updates(parameters, updates)
        parameters = split(project(eqx.combine(moved, rest)))[0]
        # A running mean of the last quarter takes out most of the noise of the batches.
        weight = jnp.where(number < average_from, 1.0, 1 / (number - average_from + 1))
        mean = jax.tree.map(lambda old, new: old + weight * (new - old), mean, parameters)
        return (parameters, state, mean, number + 1), _norm(field)

    return jax.lax.scan(step, carry, keys)


def train(
    game: AbstractGame,
    response: AbstractResponse,
    profile: AbstractPolicy,
    optim: optax.GradientTransformation,
    *,
    key: Key[Array, ""],
    steps: int,
    batch: int,
    progress: Callable[[int, float], None] | None = None,
) -> Trained:
    """Every provider climbs its own gradient at once, on `batch` users drawn anew at every step.

    For networks of many parameters and crowds too large for one pass (every step costs as much as
    a game of `batch` users). It is `GradientPlay` with noise: it needs a learning rate that falls
    (an optax schedule) to settle, and the same caution where play rotates. Step t uses the key
    `fold_in(key, t)`, so a run is a function of its arguments.

    **Arguments:**

    - `profile`: one policy, leaves with a leading "providers" axis. `optim`: any optax optimiser.
    - `steps`, `batch`: how many steps, and users per step, drawn with replacement.
    - `progress`: called after every hundredth part with the steps done and the field's norm.

    **Errors:** ValueError for settings out of range; FloatingPointError, with the step, when the
    field is not finite.

    **Source:** Robbins, Monro (1951); Polyak, Juditsky (1992), Acceleration of stochastic
    approximation by averaging.

    >>> import jax, jax.numpy as jnp, optax
    >>> from diffgame import Constant, Logit, train
    >>> from diffgame.games import LogitBertrand
    >>> game = LogitBertrand(jnp.zeros(2), jnp.ones(2), users=jnp.linspace(0.9, 1.1, 1000))
    >>> optim = optax.sgd(optax.linear_schedule(2.0, 0.1, 300))
    >>> start, key = Constant(jnp.ones(2)), jax.random.key(0)
    >>> found = train(game, Logit(1.0), start, optim, key=key, steps=300, batch=50)
    >>> print(found.profile.offer.round(1))
    [1.4 1.4]
    """
    if steps < 1 or batch < 1:
        raise ValueError(f"train: steps is {steps}, batch is {batch}; both must be at least 1.")
    parameters, rest = split(profile)
    current: Any = parameters
    carry = parameters, optim.init(current), parameters, jnp.array(0)
    average_from = jnp.array(steps - max(1, steps // 4))
    chunk = max(1, steps // 100)
    norms = []
    done = 0
    while done < steps:
        numbers = jnp.arange(done, min(done + chunk, steps))
        keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
        carry, taken = _train_steps(game, response, optim, rest, carry, keys, batch, average_from)
        done += len(numbers)
        norms.append(taken)
        if not jnp.isfinite(taken).all():
            first = done - len(numbers) + int(jnp.argmin(jnp.isfinite(taken)))
            raise FloatingPointError(
                f"train: the field is not finite at step {first}; lower the learning rate, or "
                "clip the updates (optax.clip_by_global_norm)."
            )
        if progress is not None:
            progress(done, float(taken[-1]))
    return Trained(eqx.combine(carry[2], rest), jnp.concatenate(norms))
