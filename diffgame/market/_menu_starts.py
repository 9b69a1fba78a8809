"""Menus to try, and whether a conversation of limited length can be one of them."""

import itertools
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from ._menu_meeting import recommend_branches
from ._monopoly import persuade_by_menu
from ._tree import Protocol
from ._typed_tables import TypedTables

# Messages sent with less probability than this in every state are rounding errors.
_NEGLIGIBLE = 1e-9


def protocol_fits(protocol: Protocol | None, branches: int, messages: int) -> bool:
    """Whether a menu of that size is a conversation: C^a >= branches, M^b >= messages.

    Sufficient, with a + b <= rounds + 1, both at least 1 (docs/menus.md, Theorem 2).
    """
    if protocol is None:
        return True

    def turns(symbols: int, size: int) -> int:
        """How many symbols spell `size` numbers; too many for the protocol if it cannot."""
        enough = (n for n in range(1, protocol.rounds + 1) if symbols**n >= size)
        return next(enough, protocol.rounds + 1)

    said, heard = protocol.user_messages, protocol.provider_messages
    return turns(said, branches) + turns(heard, messages) <= protocol.rounds + 1


def distinct_branches(
    menu: Float[np.ndarray, "pairs actions states"],
) -> tuple[Float[np.ndarray, "branches actions states"], Int[np.ndarray, " pairs"]]:
    """The branches of a menu, each once, and which of them each pair has."""
    flat = np.round(menu, 12).reshape(len(menu), -1)
    _, first, place = np.unique(flat, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return menu[first[order]], np.argsort(order)[place.reshape(-1)]


def grouped(tables: TypedTables, groups: int) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Joint, utility, objective and mass with an axis of groups in front of the users'."""

    def split(array, axis):
        shape = array.shape
        parts = groups, shape[axis] // groups
        return jnp.asarray(array.reshape(*shape[:axis], *parts, *shape[axis + 1 :]))

    return (
        split(tables.joint, 0),
        split(tables.utility, 0),
        split(tables.objective, 1),
        split(tables.mass, 0),
    )


def _tidy(menu: np.ndarray) -> np.ndarray:
    """Without messages that only rounding errors send; columns sum to 1."""
    sent = menu.max(axis=-1, keepdims=True) > _NEGLIGIBLE
    menu = np.where(sent, np.maximum(menu, 0), 0)
    return menu / menu.sum(axis=-2, keepdims=True)


def _random_menus(
    shape: tuple[int, int, int, int, int], key: jax.Array
) -> Float[np.ndarray, "starts groups branches states messages"]:
    """Every other one partitions the states, as bad equilibria often do; the rest is uniform."""
    pure, mixed = jax.random.split(key)
    messages = shape[-1]
    named = jax.nn.one_hot(jax.random.randint(pure, shape[:-1], 0, messages), messages)
    drawn = jax.random.dirichlet(mixed, jnp.ones(messages), shape[:-1])
    odd = jnp.arange(shape[0]) % 2 == 1
    return np.asarray(jnp.where(odd[:, None, None, None, None], drawn, named))


@eqx.filter_jit
def _recommend(joint, utility, menus):
    """Direct menus of raw ones: [starts, groups, pairs, actions, states]."""
    each_group = jax.vmap(recommend_branches)
    return jax.vmap(each_group, in_axes=(None, None, 0))(joint, utility, menus)


_monopolies = eqx.filter_jit(
    jax.vmap(jax.vmap(persuade_by_menu), in_axes=(None, None, 0, None)),
)


def make_starts(
    tables: TypedTables,
    groups: int,
    protocol: Protocol | None,
    starts: int,
    seed: int,
    found: Sequence[tuple[str, Float[np.ndarray, "users values actions states"]]] = (),
) -> tuple[list[str], np.ndarray, Bool[np.ndarray, "starts groups"]]:
    """Names, direct menus [starts, groups, pairs, actions, states], which the protocol allows.

    Those `found` elsewhere come last.
    """
    joint, utility, objective, mass = grouped(tables, groups)
    users, values, actions, states = tables.utility.shape
    providers, pairs = len(tables.objective), users // groups * values
    branches, messages = min(pairs, 4), max(actions, states)
    if protocol is not None:
        branches = min(branches, protocol.user_messages)
        # From two messages on, so many rounds say more than could be used.
        rounds = min(protocol.rounds, messages)
        messages = min(messages, protocol.provider_messages**rounds)
    plain = {"babbling": np.ones((states, 1)), "full revelation": np.eye(states)}
    raw = [
        (name, signal.shape[1], np.broadcast_to(signal, (1, groups, 1, *signal.shape)))
        for name, signal in plain.items()
    ]
    shape = (starts, groups, branches, states, messages)
    drawn = _random_menus(shape, jax.random.key(seed))
    names = [name for name, *_ in raw]
    fits = [[protocol_fits(protocol, 1, said)] * groups for _, said, _ in raw]
    direct = [np.asarray(_recommend(joint, utility, menu)) for *_, menu in raw]
    names += [f"monopoly of provider {i + 1}" for i in range(providers)]
    monopolies = _monopolies(joint, utility, objective, mass)
    direct.append(_tidy(np.asarray(monopolies.branches)))
    fits += [[False] * groups] * providers
    if starts:
        names += [f"random {n}" for n in range(1, starts + 1)]
        direct.append(np.asarray(_recommend(joint, utility, drawn)))
        fits += [[protocol_fits(protocol, branches, messages)] * groups] * starts
    names += [name for name, _ in found]
    direct += [_tidy(menu.reshape(1, groups, pairs, actions, states)) for _, menu in found]
    fits += [[False] * groups] * len(found)
    menus = np.concatenate(direct)
    allowed = np.array(fits)
    own = np.arange(values) < np.array(tables.values).reshape(groups, -1, 1)
    for s, g in itertools.product(range(len(menus)), range(groups)):
        # The recommendations may need less than what they were made from.
        different, _ = distinct_branches(menus[s, g][own[g].reshape(-1)])
        said = int((different.max(axis=2) > 0).sum(axis=1).max())
        allowed[s, g] |= protocol_fits(protocol, len(different), said)
    return names, menus, allowed
