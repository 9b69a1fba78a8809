"""Markets whose users are quantal: temperature as part of the model, profiles certified."""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Scalar

from .._ascent import ascend
from .._play import provider_payoffs
from .._policy import ProbabilityTable
from .._response import Logit
from ._market import Market
from ._quantal_persuasion import PARTS
from ._quantal_response import Rivals, respond_quantal
from ._search import MarketStatus
from ._segment import unit_utility

_SEARCHED = 4
_ASCENT_STEPS = 150


class QuantalOutcome(eqx.Module):
    """What quantal users do with a profile, in the units of the market.

    - `values` [providers, users]: what each signal is worth to each user who acts quantally.
    - `shares` [providers, users]: the probability that she listens to each provider.
    - `worth` [providers, listened, users]: what her action is worth to a provider, mass included,
        when she listens to `listened`.
    - `utilities` [users], `payoffs` [providers]: expected.
    """

    values: Float[Array, "providers users"]
    shares: Float[Array, "providers users"]
    worth: Float[Array, "providers listened users"]
    utilities: Float[Array, " users"]
    payoffs: Float[Array, " providers"]


def quantal_outcome(
    market: Market, profile: ProbabilityTable, temperature: Scalar | float
) -> QuantalOutcome:
    """Play a one-shot market against users with logit choice at both their decisions.

    She picks provider i with probability proportional to exp(V_i / temperature), V_i what its
    signal is worth to her, and after a message the action a with probability proportional to
    exp(E[u_a | message] / temperature): `play(market, Logit(temperature), profile)`, taken apart.

    **Source:** McKelvey, Palfrey (1998), Quantal response equilibria for extensive form games.

    >>> import jax.numpy as jnp
    >>> from diffgame.market import Market, full_revelation
    >>> from diffgame.market import quantal_outcome
    >>> coin = jnp.array([0.5, 0.5])
    >>> market = Market(coin, jnp.eye(2)[None], jnp.zeros((2, 1, 2, 2)), jnp.ones(1))
    >>> print(quantal_outcome(market, full_revelation(market), 0.5).utilities.round(4))
    [0.8808]
    """
    tables = profile.probability[:, market.observation]

    def hear(table, utility, objective):
        joint = market.prior[:, None] * table
        reach = jnp.sum(joint, axis=0)
        posterior = joint / jnp.where(reach > 0, reach, 1)[None]
        choice = jax.nn.softmax(utility @ posterior / temperature, axis=0)
        taken = jnp.einsum("am,sm->as", choice, joint)
        return jnp.sum(taken * utility), jnp.einsum("as,ias->i", taken, objective)

    listen = jax.vmap(jax.vmap(hear, in_axes=(0, 0, 1)), in_axes=(0, None, None))
    values, worth = listen(tables, market.utility, market.objective)
    worth = jnp.moveaxis(worth, -1, 0) * market.mass[None, None]
    shares = jax.nn.softmax(values / temperature, axis=0)
    return QuantalOutcome(
        values,
        shares,
        worth,
        jnp.sum(shares * values, axis=0),
        jnp.einsum("kj,ikj->i", shares, worth),
    )


def rivals_of(
    outcome: QuantalOutcome,
    mass: Float[Array, " users"],
    provider: int,
    user: int,
    temperature: Scalar,
) -> Rivals:
    """The other providers, as the user sees them; `provider` has at least one."""
    others = jnp.arange(len(outcome.values)) != provider
    logits = jnp.where(others, outcome.values[:, user] / temperature, -jnp.inf)
    payoff = jax.nn.softmax(logits) @ outcome.worth[provider, :, user] / mass[user]
    return Rivals(temperature * jax.nn.logsumexp(logits), payoff)


# Compiled once for a number of states and actions, whatever the number of users.
respond = eqx.filter_jit(respond_quantal)


def _bracket(market: Market, outcome: QuantalOutcome, temperature: Scalar):
    """Bounds of what each provider can get from each user by herself, mass included."""
    providers, users = outcome.values.shape
    possible = np.flatnonzero(np.asarray(market.prior) > 0)
    lower, upper = np.full((providers, users), -np.inf), np.zeros((providers, users))
    for provider, user in itertools.product(range(providers), range(users)):
        objective = market.objective[provider, user][:, possible]
        prior, mass = market.prior[possible], float(market.mass[user])
        if len(possible) in PARTS:
            rivals = None
            if providers > 1:
                rivals = rivals_of(outcome, market.mass, provider, user, temperature)
            utility = market.utility[user][:, possible]
            found = respond(prior, utility, objective, temperature, rivals)
            lower[provider, user] = mass * float(found.lower)
            upper[provider, user] = mass * float(found.upper)
        else:
            # Whoever she listens to, no action can be worth more than the best in each state.
            upper[provider, user] = mass * float(jnp.max(objective, axis=0) @ prior)
    return lower, upper


def has_brackets(market: Market) -> bool:
    """Whether best deviations are bracketed: personalized, two or three possible states."""
    labels = np.asarray(market.observation).tolist()
    return len(set(labels)) == len(labels) and np.sum(np.asarray(market.prior) > 0) in PARTS


@eqx.filter_jit
def _search_deviations(market: Market, profile: ProbabilityTable, temperature, keys):
    """Each provider's best payoff found by ascents of its whole policy, `keys` of them random."""
    unit = unit_utility(market.objective)[1]

    def best(provider):
        scale = unit[provider] @ market.mass

        posted = profile.probability[provider]

        def payoff(flat):
            table = flat.reshape(posted.shape)
            moved = ProbabilityTable(profile.probability.at[provider].set(table))
            return provider_payoffs(market, Logit(temperature), moved)[provider] / scale

        def project(flat):
            return ProbabilityTable(flat.reshape(posted.shape)).project().probability.ravel()

        fresh = jax.vmap(ProbabilityTable(posted).sample)(keys).probability
        _, states, messages = posted.shape
        full = jnp.broadcast_to(jnp.eye(states, messages), posted.shape)
        starts = jnp.concatenate([posted[None], full[None], fresh])
        starts = starts.reshape(len(starts), -1)
        reached = jax.vmap(lambda start: ascend(payoff, project, start, _ASCENT_STEPS)[1])(starts)
        return jnp.max(reached) * scale

    return jax.lax.map(best, jnp.arange(len(profile.probability)))


@dataclasses.dataclass(frozen=True)
class QuantalEquilibrium:
    """A profile against quantal users and what was proved about it; arrays are NumPy.

    - `status`: see `MarketStatus`. `temperature`: of all users, in units of utility.
    - `user_values` [users]; `provider_payoffs` [providers].
    - `lower`, `upper` [providers]: bracket of each provider's gain from its best deviation.
    - `table` [providers, observations, states, messages]: the profile.
    - `replies`: rounds of best replies that led to it from where a gradient search had ended.
    """

    status: MarketStatus
    temperature: float
    user_values: Float[np.ndarray, " users"]
    provider_payoffs: Float[np.ndarray, " providers"]
    lower: Float[np.ndarray, " providers"]
    upper: Float[np.ndarray, " providers"]
    table: Float[np.ndarray, "providers observations states messages"]
    replies: int = 0


def _within(gains: np.ndarray, tolerance: np.ndarray) -> Bool[np.ndarray, " providers"]:
    return np.isfinite(gains) & (gains >= 0) & (gains <= tolerance)


def certify_quantal(
    market: Market,
    profile: ProbabilityTable,
    temperature: float,
    *,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> QuantalEquilibrium:
    """How much each provider could gain by deviating, against users of this temperature.

    Personalized markets with two or three states of positive probability: a rigorous bracket over
    all signals, user by user. Users who share a signal: the upper end lets the deviator treat each
    by herself, the lower end comes from searched deviations. Four or more states: searched
    deviations, and an upper end that only full control of her action would reach, so `local` at
    best.

    **Arguments:** `tolerance`: gain that counts as none, as a share of the range of the provider's
    payoffs; `seed`: of the searched deviations. Needs float64.

    **Errors:** ValueError if the temperature is not positive or the market not in float64.

    **Source:** docs/quantal.md.

    >>> import jax.numpy as jnp
    >>> from diffgame.market import Market, full_revelation
    >>> from diffgame.market import certify_quantal
    >>> coin, same = jnp.array([0.5, 0.5]), jnp.eye(2)[None]
    >>> market = Market(coin, same, jnp.stack([same, same]), jnp.ones(1))
    >>> print(certify_quantal(market, full_revelation(market), 0.1).status)
    certified
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(
            f"certify_quantal: temperature is {temperature}; give a positive number, or use "
            "find_equilibria for exact users."
        )
    if market.prior.dtype != jnp.float64:
        raise ValueError(
            f"certify_quantal: the market is in {market.prior.dtype}; certificates need float64: "
            'set jax.config.update("jax_enable_x64", True) before making it.'
        )
    heat = jnp.asarray(temperature, market.prior.dtype)
    outcome = play_quantal(market, profile, heat)
    now = np.asarray(jnp.einsum("kj,ikj->ij", outcome.shares, outcome.worth))
    possible = np.flatnonzero(np.asarray(market.prior) > 0)
    if len(possible) == 1:
        # Nothing can be told: every signal is worth the same.
        lower = upper = np.zeros(len(now))
    else:
        least, most = _bracket(market, outcome, heat)
        upper = np.sum(np.maximum(most - now, 0), axis=1)
        if has_brackets(market):
            lower = np.sum(np.maximum(least - now, 0), axis=1)
        else:
            keys = jax.random.split(jax.random.key(seed), _SEARCHED)
            found = np.asarray(_search_deviations(market, profile, heat, keys))
            lower = np.maximum(found - now.sum(axis=1), 0)
            upper = np.maximum(upper, lower)
    scale = tolerance * np.asarray(unit_utility(market.objective)[1] @ market.mass)
    status = MarketStatus.exploitable
    if np.all(_within(lower, scale)):
        proved = np.all(_within(upper, scale))
        status = MarketStatus.certified if proved else MarketStatus.local
    return QuantalEquilibrium(
        status,
        float(temperature),
        np.asarray(outcome.utilities),
        np.asarray(outcome.payoffs),
        lower,
        upper,
        np.asarray(profile.probability),
    )


play_quantal = eqx.filter_jit(quantal_outcome)
