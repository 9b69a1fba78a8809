"""One game's users spread over devices: in parts, so that no result depends on how many devices."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from ._game import AbstractGame

_Game = TypeVar("_Game", bound=AbstractGame)

AXIS = "users"
# A divisor of it as the number of devices cuts users into the same parts as any other divisor.
_PARTS = 64


def part_count(spread: NamedSharding) -> int:
    """How many parts there are: the least multiple of the devices that is 64 or more."""
    axis = spread.spec[0]
    names = axis if isinstance(axis, tuple) else (axis,)
    devices = math.prod(spread.mesh.shape[name] for name in names)
    return devices * -(-_PARTS // devices)


def shard_users(game: _Game, mesh: Mesh | None = None) -> _Game:
    """The same game with its users spread over the devices of a mesh.

    `play`, `provider_payoffs`, `pseudogradient`, `solve`, `certify` and all else that sums over
    users then run on all devices, with `jax.shard_map`; nothing else changes, and `chunk` streams
    the users of each part. Call it outside of `jit`, on concrete arrays.

    Users are cut into 64 parts of equal size (with more than 64 devices, or with a number of them
    that does not divide 64: the least multiple of it above). One program plays one part, each
    device its own parts one after another, and the totals of the parts are added in one order. So
    results are bitwise the same, on CPU as XLA compiles by default, for 1, 2, 4, ..., 64 devices of
    one kind in any number of processes; those of a game that is not sharded differ in rounding, and
    so may those of any two numbers of devices under XLA_FLAGS that switch optimisations off. What
    all users share (the profile, a game's other arrays) is copied once per part.

    **Arguments:**

    - `game`: its users are filled up to a multiple of the parts by copies of the first with mass
        0; results per user have as many rows more at the end.
    - `mesh`: with an axis "users"; default: one of all devices, of all processes. Under
        `jax.distributed` every process gives the whole game; a game too large for one host is
        built from arrays that are sharded already (see `user_sharding`).

    **Errors:** ValueError for a mesh without an axis "users", and for traced arrays. A game whose
    methods read all users at once (`self.users`) is refused when played, and so are the joint
    responses `Wardrop` and `Nash`.

    >>> import jax.numpy as jnp
    >>> from diffgame import Constant, Logit, provider_payoffs, shard_users
    >>> from diffgame.games import LogitBertrand
    >>> game = LogitBertrand(cost=jnp.zeros(2), quality=jnp.ones(2), users=jnp.ones(1))
    >>> game = shard_users(game)
    >>> print(game.mass.shape, provider_payoffs(game, Logit(1.0), Constant(jnp.ones(2))).round(3))
    (64,) [0.333 0.333]
    """
    sharding = user_sharding(mesh)
    count = game.mass.shape[0]
    parts = part_count(sharding)
    padded = parts * -(-count // parts)

    def spread(leaf: Any, empty: bool = False) -> Array:
        if isinstance(leaf, Tracer):
            raise ValueError(
                "shard_users: the users are traced; call it outside of jit, grad and vmap."
            )
        rows = np.asarray(leaf)

        def own(index: Any) -> np.ndarray:
            numbers = np.arange(padded)[index[0]]
            if numbers[-1] < count:
                return rows[index]
            mine = rows[np.where(numbers < count, numbers, 0)]
            if empty:
                mine[numbers >= count] = 0
            return mine

        return jax.make_array_from_callback((padded, *rows.shape[1:]), sharding, own)

    everywhere = NamedSharding(sharding.mesh, PartitionSpec())
    arrays, rest = eqx.partition(game, eqx.is_array)
    arrays = eqx.tree_at(lambda game: (game.users, game.mass), arrays, (None, None))
    common = eqx.combine(jax.device_put(arrays, everywhere), rest)
    laid_out = jax.tree.map(spread, game.users), spread(game.mass, empty=True)
    return eqx.tree_at(
        lambda game: (game.users, game.mass), common, laid_out, is_leaf=lambda leaf: leaf is None
    )


def user_sharding(mesh: Mesh | None = None) -> NamedSharding:
    """How arrays of users lie on a mesh; to make them where they are used.

    For `jax.make_array_from_callback`, which asks every process for its own rows only, or for
    `jax.jit(make, out_shardings=...)` of the users' numbers. The number of users must then be a
    multiple of 64, or what `shard_users` says; fill up with users of mass 0.

    >>> import jax, jax.numpy as jnp
    >>> from diffgame import user_sharding
    >>> draw = lambda number: jax.random.normal(jax.random.fold_in(jax.random.key(0), number))
    >>> make = jax.jit(jax.vmap(draw), out_shardings=user_sharding())
    >>> print(make(jnp.arange(128)).sharding.spec[0])
    users
    """
    if mesh is None:
        mesh = jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Explicit,))
    if AXIS not in mesh.axis_names:
        raise ValueError(
            f"shard_users: the mesh has the axes {mesh.axis_names}; name one of them {AXIS!r}, as "
            f"in jax.make_mesh((jax.device_count(),), ({AXIS!r},))."
        )
    # Only explicit axes are part of an array's type, where functions under jit can see them.
    mesh = Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Explicit,) * mesh.devices.ndim)
    return NamedSharding(mesh, PartitionSpec(AXIS))


def shared_out(members: PyTree) -> NamedSharding | None:
    """How users are spread over devices; None if they are not."""
    for leaf in jax.tree.leaves(members):
        sharding = jax.typeof(leaf).sharding
        first = tuple(sharding.spec)[:1]
        if first not in ((), (None,)):
            return NamedSharding(sharding.mesh, PartitionSpec(*first))
    return None


def first_user(users: PyTree) -> PyTree:
    """The data of one user, on every device."""

    def row(leaf):
        spread = shared_out(leaf)
        if spread is None:
            return leaf[0]
        firsts = jax.shard_map(
            lambda mine: mine[:1], mesh=spread.mesh, in_specs=spread.spec, out_specs=spread.spec
        )(leaf)
        return jax.sharding.reshard(firsts, NamedSharding(spread.mesh, PartitionSpec()))[0]

    return jax.tree.map(row, users)


class _AllUsers:
    """In place of an array of all users, where a game sees one user."""

    def __getattr__(self, name: str) -> Any:
        raise ValueError(
            "a method of the game reads the array of all users, of which no device holds more than "
            "its own: use the argument `user`, or give what all users share a field of its own."
        )


def over_parts(
    function: Callable[[PyTree, PyTree], PyTree],
    shared: PyTree,
    members: PyTree,
    spread: NamedSharding,
) -> PyTree:
    """`function(shared, part of the members)` per part, leaves [parts, ...], spread like users.

    Every part has its own copy of `shared`, so that derivatives in it too come out part by part.
    What it closes over must not be traced.
    """
    count, parts = jax.tree.leaves(members)[0].shape[0], part_count(spread)
    if count % parts:
        raise ValueError(
            f"{count} users are spread over devices: their number must be a multiple of {parts}; "
            "shard_users(game) fills it up with users of mass 0."
        )

    def cut(leaf: Array) -> Array:
        leaf = jax.sharding.reshard(leaf, spread)
        return leaf.reshape(parts, count // parts, *leaf.shape[1:])

    everywhere = NamedSharding(spread.mesh, PartitionSpec())

    def copy(leaf: Array) -> Array:
        # Backwards this gathers the parts' derivatives and adds them, in that order.
        copies = jnp.broadcast_to(leaf, (parts, *leaf.shape))
        copies = jax.lax.optimization_barrier(jax.sharding.reshard(copies, everywhere))
        return jax.sharding.reshard(copies, spread)

    def hide(leaf: Any) -> Any:
        return _AllUsers() if eqx.is_array(leaf) and shared_out(leaf) is not None else leaf

    common, static = eqx.partition(jax.tree.map(hide, shared), eqx.is_array)

    def play(part):
        common, mine = part
        return function(eqx.combine(common, static), mine)

    # Nothing crosses devices in here, so there is nothing for the check of varying axes to find;
    # it would refuse loops that start from constants.
    run = jax.shard_map(
        lambda *mine: jax.lax.map(play, mine),
        mesh=spread.mesh,
        in_specs=spread.spec,
        out_specs=spread.spec,
        check_vma=False,
    )
    return jax.jit(run)(jax.tree.map(copy, common), jax.tree.map(cut, members))


def add_parts(totals: PyTree, spread: NamedSharding) -> PyTree:
    """The sum over parts, on every device, in the order of the parts."""
    everywhere = NamedSharding(spread.mesh, PartitionSpec())
    gathered = jax.tree.map(lambda leaf: jax.sharding.reshard(leaf, everywhere), totals)
    # What computes a part is not to be merged with the sum: it would round differently.
    gathered = jax.lax.optimization_barrier(gathered)
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), gathered)
