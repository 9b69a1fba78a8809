"""What providers gain by another policy of their protocol, and whether that is exact."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ._best_response import Outside, choose_provider
from ._conversation import Conversation
from ._conversation_policy import ConversationTable
from ._protocol_answers import answers_of
from ._protocol_response import protocol_best_response
from ._tree import Protocol

# Values closer than this share of a user's range tie.
_TIE = 1e-12


@dataclasses.dataclass(frozen=True)
class ProtocolExploitability:
    """Each provider's gain from its best deviation, between `lower` and `upper`; never below 0.

    - `lower`, `upper` [providers], in units of the objectives. `exact` [providers]: whether linear
        programs exhaust the provider's deviations and the bracket closes.
    """

    lower: Float[np.ndarray, " providers"]
    upper: Float[np.ndarray, " providers"]
    exact: Bool[np.ndarray, " providers"]

    @property
    def scope(self) -> str:
        """'global' if all brackets are exact, else 'bracket': `upper` proved, `lower` found."""
        return "global" if np.all(self.exact) else "bracket"


@dataclasses.dataclass(frozen=True)
class ProtocolGains:
    """The same by group of users who share a policy: [groups, providers] each."""

    lower: Float[np.ndarray, "groups providers"]
    upper: Float[np.ndarray, "groups providers"]
    exact: Bool[np.ndarray, "groups providers"]


def _converse(joint, utility, objective, answers, protocol: Protocol):
    """Values [users, types] and payoffs [providers, users, types] of one policy of answers.

    Users act and ask optimally, ties to the lowest index.
    """
    value = np.einsum("jxy,jxay,yh->jxha", joint, utility, answers)
    payoff = np.einsum("jxy,ijxay,yh->ijxha", joint, objective, answers)
    tie = _TIE * np.ptp(utility, axis=(1, 2, 3))[:, None, None, None]

    def choose(value, payoff):
        best = np.argmax(value >= value.max(axis=-1, keepdims=True) - tie, axis=-1)[..., None]
        taken = np.broadcast_to(best[None], (*payoff.shape[:-1], 1))
        return (
            np.take_along_axis(value, best, axis=-1)[..., 0],
            np.take_along_axis(payoff, taken, axis=-1)[..., 0],
        )

    value, payoff = choose(value, payoff)
    shape = protocol.user_messages, protocol.provider_messages
    for _ in range(protocol.rounds):
        value = value.reshape(*value.shape[:2], -1, *shape).sum(axis=-1)
        payoff = payoff.reshape(*payoff.shape[:3], -1, *shape).sum(axis=-1)
        value, payoff = choose(value, payoff)
    return value[..., 0], payoff[..., 0]


def _gains(joint, utility, objective, mass, values, payoffs, chosen, fallback, protocol, **options):
    """Gains of all providers in one group: (lower, upper, exact), each [providers].

    `values` [providers, units], `payoffs` [providers, providers, units] (of the first at the
    second), `chosen` [units], `fallback` [providers, units]: where she goes without a provider.
    """
    providers, units = values.shape
    found = []
    for i in range(providers):
        others = np.arange(providers) != i
        outside = Outside(
            jnp.asarray(np.max(values[others], axis=0, initial=-np.inf)),
            jnp.asarray(payoffs[i, fallback[i], np.arange(units)]),
            jnp.asarray(chosen == i),
            jnp.array(providers > 1),
        )
        response = protocol_best_response(
            joint, utility, objective[i], mass, outside, protocol, **options
        )
        now = payoffs[i, chosen, np.arange(units)].sum()
        found.append((response.lower - now, response.upper - now, response.exact))
    lower, upper, exact = (np.array(column) for column in zip(*found, strict=True))
    return np.maximum(lower, 0), np.maximum(upper, 0), exact


def protocol_exploitability(
    game: Conversation,
    profile: ConversationTable,
    incumbent: Int[Array | np.ndarray, " units"] | None = None,
    *,
    limit: int = 20_000,
    seed: int = 0,
) -> ProtocolExploitability:
    """What each provider gains by the best other policy of the same protocol.

    Users who share an observation see one policy, so the gains of the groups add up. They choose
    among the posted policies as `play` with `Argmax` does: ties between actions and between
    questions go to the lowest index, ties between providers (within 1e-9 of her range) to the
    incumbent, else to the lowest index. The deviator has ties between actions in its favour.

    **Arguments:** `incumbent`, per unit: the provider it stays with at a tie; default: the first.
    Units are users for timing "before", pairs (user, type) for "after". `limit`, `seed`, errors:
    as in `protocol_best_response`, for each group of users.

    Nobody gains when all tell a user whose aims they share all that two messages can:

    >>> import jax.numpy as jnp
    >>> from diffgame.market import Conversation, ConversationTable, Market, Protocol
    >>> matching, thirds = jnp.eye(3)[None], jnp.full(3, 1 / 3)
    >>> market = Market(thirds, matching, jnp.stack([matching] * 2), jnp.ones(1))
    >>> game = Conversation.from_market(market, Protocol(1, 1, 2))
    >>> first_or_not = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> profile = ConversationTable((jnp.stack([first_or_not[None, :, None]] * 2),))
    >>> found = protocol_exploitability(game, profile)
    >>> print(found.upper.round(6), found.scope)
    [0. 0.] global
    """
    arrays = game.joint, game.utility, game.objective, game.mass
    joint, utility, objective, mass = map(np.asarray, arrays)
    users, types, _ = joint.shape
    before = game.timing == "before"
    providers = len(objective)
    seen = np.asarray(game.observation)
    tables = [np.asarray(table) for table in profile.tables]
    units = np.arange(users if before else users * types)
    if incumbent is None:
        incumbent = np.zeros(len(units), int)
    size = np.ptp(utility, axis=(1, 2, 3))
    size = np.where(size > 0, size, 1)
    parts = []
    for label in np.unique(seen):
        group = np.flatnonzero(seen == label)
        own = group if before else (group[:, None] * types + np.arange(types)).reshape(-1)
        part = joint[group], utility[group], objective[:, group], mass[group]
        weighted = part[2] * part[3][:, None, None, None]
        met = [
            _converse(
                *part[:2],
                weighted,
                answers_of(game.protocol, tuple(table[k, label] for table in tables)),
                game.protocol,
            )
            for k in range(providers)
        ]
        values, payoffs = (np.stack(found) for found in zip(*met, strict=True))
        payoffs = payoffs.swapaxes(0, 1)
        chance = part[0].sum(axis=2)
        if before:
            values, payoffs = values.sum(axis=-1), payoffs.sum(axis=-1)
            scale = size[group]
        else:
            # Given her type; a type that never occurs is worth 0 everywhere.
            values = (values / np.where(chance > 0, chance, 1)).reshape(providers, -1)
            payoffs = payoffs.reshape(providers, providers, -1)
            scale = np.repeat(size[group], types)
        unit = values / scale
        stays = jnp.asarray(np.asarray(incumbent)[own])
        chosen = np.asarray(choose_provider(jnp.asarray(unit), stays))
        fallback = np.stack(
            [
                choose_provider(
                    jnp.asarray(np.where((np.arange(providers) != i)[:, None], unit, -np.inf)),
                    jnp.asarray(chosen),
                )
                for i in range(providers)
            ]
        )
        options = {"timing": game.timing, "limit": limit, "seed": seed}
        parts.append(_gains(*part, values, payoffs, chosen, fallback, game.protocol, **options))
    lower, upper, exact = (np.stack(column) for column in zip(*parts, strict=True))
    every = np.all(exact, axis=0, keepdims=True)[0]
    return ProtocolExploitability(lower.sum(axis=0), upper.sum(axis=0), every)


def protocol_gains(
    joint: Float[Array | np.ndarray, "groups users types states"],
    utility: Float[Array | np.ndarray, "groups users types actions states"],
    objective: Float[Array | np.ndarray, "providers groups users types actions states"],
    mass: Float[Array | np.ndarray, "groups users"],
    menu: Float[Array | np.ndarray, "groups pairs actions states"],
    protocol: Protocol,
    *,
    limit: int = 20_000,
    seed: int = 0,
) -> ProtocolGains:
    """What each provider gains by the best policy of `protocol` when all post `menu`.

    Arguments as in `menu_gains`, which knows of no protocol: groups of users who share a policy,
    `menu` with one branch per pair (user, type) whose messages recommend actions, followed at
    ties. Users choose before they learn their type and listen to the first provider at a tie.
    `limit`, `seed`, errors: as in `protocol_best_response`, for each group.
    """
    joint, utility, objective, mass, menu = map(np.asarray, (joint, utility, objective, mass, menu))
    providers, groups, users, types = objective.shape[:4]
    branches = menu.reshape(groups, users, types, *menu.shape[2:])
    worth = np.einsum("gjxy,gjxay,gjxay->gj", joint, utility, branches)
    weighted = objective * mass[..., None, None, None]
    earned = np.einsum("gjxy,igjxay,gjxay->igj", joint, weighted, branches)
    first = np.zeros(users, int)
    fallback = np.zeros((providers, users), int)
    fallback[0] = min(1, providers - 1)
    parts = [
        _gains(
            joint[g],
            utility[g],
            objective[:, g],
            mass[g],
            np.broadcast_to(worth[g], (providers, users)),
            np.broadcast_to(earned[:, None, g], (providers, providers, users)),
            first,
            fallback,
            protocol,
            limit=limit,
            seed=seed,
        )
        for g in range(groups)
    ]
    return ProtocolGains(*(np.stack(column) for column in zip(*parts, strict=True)))
