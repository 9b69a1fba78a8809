"""One play of a game: offers, choices, payoffs, and each provider's own gradient."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ._crowd_search import make_offers
from ._game import AbstractGame
from ._interaction import CrowdEquilibrium, Meeting, choose, meet, meet_and_examine
from ._policy import AbstractPolicy
from ._response import AbstractResponse
from ._total import each, total


class Outcome(eqx.Module):
    """What happened: per user, and in total.

    - `offers`: leaves [users, providers, ...]. `choices`: leaves [users, ...].
    - `utilities`: each user's utility [users]. `payoffs`: each provider's payoff [providers].
    - `interaction`: the crowd and how it stands, in an `AbstractCrowdGame`; else None.
    """

    offers: PyTree
    choices: PyTree
    utilities: Float[Array, " users"]
    payoffs: Float[Array, " providers"]
    interaction: CrowdEquilibrium | None = None


def _settle(game: AbstractGame, totals: PyTree, profile: AbstractPolicy) -> Array:
    """The payoffs, or one line that says what is wrong with their shape."""
    payoffs = game.settle(totals)
    providers = jax.tree.leaves(split(profile)[0])[0].shape[0]
    shape = getattr(payoffs, "shape", type(payoffs).__name__)
    if shape != (providers,):
        raise ValueError(
            f"{type(game).__name__}: payoffs have shape {shape}, but the profile has {providers} "
            "providers (the first axis of its leaves); return one payoff per provider from "
            "`provider_payoffs`, or turn its totals into that in `settle`."
        )
    return payoffs


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

    In an `AbstractCrowdGame` the crowd is found first; `interaction.status` of the outcome says
    whether that worked, and whether another crowd is near. A crowd that was not found makes
    utilities and payoffs NaN.

    >>> import jax.numpy as jnp
    >>> from diffgame import Constant, Logit, play
    >>> from diffgame.games import LogitBertrand
    >>> game = LogitBertrand(cost=jnp.zeros(2), quality=jnp.ones(2), users=jnp.ones(1))
    >>> print(play(game, Logit(1.0), Constant(jnp.ones(2))).payoffs.round(3))
    [0.333 0.333]
    """
    meeting, interaction = meet_and_examine(game, response, profile, chunk=chunk)

    def one(shared, member):
        (game, response, profile, crowd), (user, chosen) = shared, member
        offers = make_offers(game, profile, user)
        seen = Meeting(crowd).see(offers)
        choice = choose(game, response, seen, user, chosen)
        utility = game.user_utility(choice, seen, user)
        return offers, choice, utility, game.provider_payoffs(choice, seen, user)

    shared, members = (game, response, profile, meeting.crowd), (game.users, meeting.choices)
    offers, choices, utilities, contributions = each(one, shared, members, chunk=chunk)
    totals = total(lambda _, contribution: contribution, None, game.mass, contributions)
    return Outcome(offers, choices, utilities, _settle(game, totals, profile), interaction)


def provider_totals(
    game: AbstractGame,
    response: AbstractResponse,
    profile: AbstractPolicy,
    *,
    expected: AbstractPolicy | None = None,
    chunk: int | None = None,
) -> PyTree:
    """The mass-weighted totals that `settle` turns into payoffs; see `provider_payoffs`."""
    meeting = meet(game, response, profile if expected is None else expected, chunk=chunk)

    def one(shared, member):
        (game, response, profile, expected, crowd), (user, chosen) = shared, member
        meeting = Meeting(crowd)
        offers = make_offers(game, profile, user)
        promised = offers if expected is None else make_offers(game, expected, user)
        choice = choose(game, response, meeting.see(promised), user, chosen)
        return game.provider_payoffs(choice, meeting.see(offers), user)

    shared = game, response, profile, expected, meeting.crowd
    return total(one, shared, game.mass, (game.users, meeting.choices), chunk=chunk)


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
    totals = provider_totals(game, response, profile, expected=expected, chunk=chunk)
    return _settle(game, totals, profile)


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
