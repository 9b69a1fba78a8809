"""Best replies in turn against quantal users: where gradients stop, the bracket shows a way on."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .._policy import ProbabilityTable
from ._market import Market
from ._quantal import play_quantal, respond, rivals_of
from ._segment import unit_utility

ROUNDS = 8
# Posteriors of a reply that are nearer than this, in total variation, become one message.
_RADIUS = 0.005


def signal_from_posteriors(
    posteriors: Float[np.ndarray, "points states"],
    weights: Float[np.ndarray, " points"],
    messages: int,
) -> Float[np.ndarray, "states messages"]:
    """The table of a signal of at most `messages` messages with nearly these posteriors.

    The heaviest posteriors that are apart from each other head one message each, and every other
    one joins the head that is nearest. Rows sum to 1; all states need positive probability.

    >>> import numpy as np
    >>> posteriors = np.array([[1.0, 0.0], [0.4, 0.6], [0.4, 0.6]])
    >>> print(signal_from_posteriors(posteriors, np.array([0.5, 0.2, 0.3]), 2))
    [[0.71428571 0.28571429]
     [0.         1.        ]]
    """
    heads: list[int] = []
    for point in np.argsort(-weights, kind="stable"):
        apart = np.abs(posteriors[heads] - posteriors[point]).sum(axis=1) > 2 * _RADIUS
        if len(heads) < messages and weights[point] > 0 and np.all(apart):
            heads.append(int(point))
    distance = np.abs(posteriors[:, None] - posteriors[heads][None]).sum(axis=2)
    table = np.zeros((posteriors.shape[1], messages))
    np.add.at(table.T, np.argmin(distance, axis=1), weights[:, None] * posteriors)
    return table / table.sum(axis=1, keepdims=True)


def reply_in_turn(
    market: Market,
    profile: ProbabilityTable,
    temperature: float,
    *,
    tolerance: float,
    rounds: int = ROUNDS,
) -> tuple[ProbabilityTable, int]:
    """Let providers move to their best replies in turn, user by user, until nobody gains.

    A provider moves if the bracket's lower end promises more than `tolerance`, as a share of the
    range of its payoffs and evenly over users, and the signal keeps the promise at least in part.

    **Arguments:** a personalized market with two or three states of positive probability.

    **Returns:** the profile after the last round, and how many rounds moved anybody.
    """
    heat = jnp.asarray(temperature, market.prior.dtype)
    possible = np.flatnonzero(np.asarray(market.prior) > 0)
    prior = market.prior[possible]
    labels, mass = np.asarray(market.observation), np.asarray(market.mass)
    least = tolerance * np.asarray(unit_utility(market.objective)[1] @ market.mass) / len(mass)
    tables = np.array(profile.probability)
    providers, *_, messages = tables.shape

    def play():
        return play_quantal(market, ProbabilityTable(jnp.asarray(tables)), heat)

    def move(provider: int, user: int) -> bool:
        outcome = play()
        at = provider, labels[user]
        posted, before = tables[at].copy(), float(outcome.payoffs[provider])
        found = respond(
            prior,
            market.utility[user][:, possible],
            market.objective[provider, user][:, possible],
            heat,
            rivals_of(outcome, market.mass, provider, user, heat),
        )
        now = float(outcome.shares[:, user] @ outcome.worth[provider, :, user])
        if mass[user] * float(found.lower) - now > least[provider]:
            posteriors, weights = np.asarray(found.posteriors), np.asarray(found.weights)
            tables[at][possible] = signal_from_posteriors(posteriors, weights, messages)
            if float(play().payoffs[provider]) > before:
                return True
            tables[at] = posted
        return False

    for number in range(rounds):
        moved = [move(i, j) for i in range(providers) for j in range(len(mass))]
        if not any(moved):
            return ProbabilityTable(jnp.asarray(tables)), number
    return ProbabilityTable(jnp.asarray(tables)), rounds
