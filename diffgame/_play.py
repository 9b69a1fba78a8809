"""One play of a game: offers, choices, payoffs, and each provider's own gradient."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ._game import AbstractGame
from ._policy import AbstractPolicy
from ._response import AbstractResponse


class Outcome(eqx.Module):
    """What happened: per user, and in total.

    - `offers`: leaves [users, providers, ...]. `choices`: leaves [users, ...].
    - `utilities`: each user's utility [users]. `payoffs`: each provider's payoff [providers].
    """

    offers: PyTree
    choices: PyTree
    utilities: Float[Array, " users"]
    payoffs: Float[Array, " providers"]


def make_offers(game: AbstractGame, profile: AbstractPolicy, user: PyTree) -> PyTree:
    """What every provider offers to one user: leaves with a leading "providers" axis."""
    observation = game.observe(user)
    return eqx.filter_vmap(lambda policy: policy(observation))(profile)


def _total(mass: Float[Array, " users"], contributions: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.tensordot(mass, leaf, axes=1), contributions)


def play(
    game: AbstractGame,
    response: AbstractResponse,
    profile: AbstractPolicy,
    *,
    chunk: int | None = None,
) -> Outcome:
    """Let every user respond to `profile` and count the payoffs.

    **Arguments:** a game, a response of the users, and a profile: one policy whose array leaves
    have a leading "providers" axis. With `chunk`, users play in groups of that size, so that only
    the outcome itself grows with their number.

    >>> import jax.numpy as jnp
    >>> from diffgame import Constant, Logit, play
    >>> from diffgame.games import LogitBertrand
    >>> game = LogitBertrand(cost=jnp.zeros(2), quality=jnp.ones(2), users=jnp.ones(1))
    >>> print(play(game, Logit(1.0), Constant(jnp.ones(2))).payoffs.round(3))
    [0.333 0.333]
    """

    def one(user):
        offers = make_offers(game, profile, user)
        choice = response(game, offers, user)
        utility = game.user_utility(choice, offers, user)
        return offers, choice, utility, game.provider_payoffs(choice, offers, user)

    each = jax.lax.map(one, game.users, batch_size=chunk) if chunk else jax.vmap(one)(game.users)
    offers, choices, utilities, contributions = each
    payoffs = game.settle(_total(game.mass, contributions))
    return Outcome(offers, choices, utilities, payoffs)


def provider_payoffs(
    game: AbstractGame,
    response: AbstractResponse,
    profile: AbstractPolicy,
    *,
    expected: AbstractPolicy | None = None,
    chunk: int | None = None,
) -> Float[Array, " providers"]:
    """Payoffs of all providers, without keeping what each user did.

    With `chunk`, users are streamed through in groups of that size, forward and backward, so
    that working memory does not grow with their number; choose a divisor of it, or the data of the
    users are copied once. With `expected`, users respond to that
    profile while payoffs are counted at `profile`: for providers that ignore how users react.
    """

    def contribute(mass, users):
        def one(user):
            offers = make_offers(game, profile, user)
            seen = offers if expected is None else make_offers(game, expected, user)
            choice = response(game, seen, user)
            return game.provider_payoffs(choice, offers, user)

        return _total(mass, jax.vmap(one)(users))

    count = game.mass.shape[0]
    if chunk is None or chunk >= count:
        return game.settle(contribute(game.mass, game.users))
    whole = count - count % chunk
    data = (game.mass, game.users)
    head = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, chunk, *leaf.shape[1:]), data)
    # Recomputing a group in the backward pass keeps only one group's residuals alive.
    recomputed = jax.checkpoint(contribute)

    def add(total, group):
        return jax.tree.map(jnp.add, total, recomputed(*group)), None

    if whole < count:
        totals = contribute(*jax.tree.map(lambda leaf: leaf[whole:], data))
    else:
        shapes = jax.eval_shape(contribute, *jax.tree.map(lambda leaf: leaf[0], head))
        totals = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    totals, _ = jax.lax.scan(add, totals, head)
    return game.settle(totals)


def split(profile: AbstractPolicy) -> tuple[AbstractPolicy, AbstractPolicy]:
    """Separate what providers control from the rest; `equinox.combine` puts it together."""
    return eqx.partition(profile, profile.parameters())


def project(profile: AbstractPolicy) -> AbstractPolicy:
    """The nearest feasible profile, provider by provider."""
    return eqx.filter_vmap(lambda policy: policy.project())(profile)


def select(profile: PyTree, provider: Int[Array, ""] | int) -> PyTree:
    """The policy of one provider, or that half of it which `split` gave."""
    return jax.tree.map(lambda leaf: leaf[provider] if eqx.is_array(leaf) else leaf, profile)


def replace(profile: PyTree, provider: Int[Array, ""] | int, policy: PyTree) -> PyTree:
    """The profile with one provider's policy exchanged."""
    return jax.tree.map(
        lambda leaf, own: leaf.at[provider].set(own) if eqx.is_array(leaf) else leaf,
        profile,
        policy,
    )


def pseudogradient(
    game: AbstractGame,
    response: AbstractResponse,
    profile: AbstractPolicy,
    *,
    anticipate: bool = True,
    chunk: int | None = None,
) -> Any:
    """Each provider's gradient of its own payoff in its own parameters.

    The gradients go through the users' responses and come in the structure of the profile, with
    None where a leaf is no parameter. One forward pass serves all providers; each adds one
    pullback. `anticipate=False` gives the naive field instead, in which every provider takes the
    responses as fixed. `chunk` streams the users, as in `provider_payoffs`.

    **Source:** Rosen (1965), Existence and uniqueness of equilibrium points for concave N-person
    games (the pseudogradient).
    """
    parameters, rest = split(profile)
    expected = None if anticipate else profile

    def payoffs(parameters):
        moved = eqx.combine(parameters, rest)
        return provider_payoffs(game, response, moved, expected=expected, chunk=chunk)

    value, pull = jax.vjp(payoffs, parameters)
    providers = jnp.arange(value.shape[0])
    (jacobian,) = jax.vmap(pull)(jnp.eye(value.shape[0], dtype=value.dtype))
    return jax.tree.map(lambda leaf: leaf[providers, providers], jacobian)
