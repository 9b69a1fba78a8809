"""Where the games of a batch come from: memory, or a function of their number."""

import abc
import hashlib
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from .._game import AbstractGame
from .._policy import AbstractPolicy


class AbstractSource(eqx.Module):
    """A game and where its search begins, from the game's global number."""

    @abc.abstractmethod
    def game(self, index: Int[Array, ""]) -> tuple[AbstractGame, AbstractPolicy]:
        """The game of that number and its start."""

    @abc.abstractmethod
    def describe(self, games: int) -> str:
        """A text that differs for other games: a checkpoint is not resumed with those."""


class Stacked(AbstractSource):
    """Games and starts in memory, array leaves with a leading axis of games."""

    games: Any
    profiles: Any

    def game(self, index: Int[Array, ""]) -> tuple[AbstractGame, AbstractPolicy]:
        return jax.tree.map(
            lambda leaf: leaf[index] if eqx.is_array(leaf) else leaf, (self.games, self.profiles)
        )

    def describe(self, games: int) -> str:
        return _digest((self.games, self.profiles))


class Made(AbstractSource):
    """Games made where they are needed by `make(index, key)`, the key folded with the index."""

    make: Callable[..., Any] = eqx.field(static=True)
    key: Key[Array, ""]

    def game(self, index: Int[Array, ""]) -> tuple[AbstractGame, AbstractPolicy]:
        return self.make(index, jax.random.fold_in(self.key, index))

    def describe(self, games: int) -> str:
        # The first and the last game stand for all.
        ends = [self.game(jnp.array(number)) for number in (0, games - 1)]
        return _digest(ends)


def _digest(tree: Any) -> str:
    digest = hashlib.sha256(str(jax.tree.structure(tree)).encode())
    for leaf in jax.tree.leaves(tree):
        digest.update(np.asarray(leaf).tobytes() if eqx.is_array(leaf) else repr(leaf).encode())
    return digest.hexdigest()[:16]


def stack_source(games: Any, profiles: Any) -> tuple[Stacked, int]:
    """The source and how many games it has.

    **Errors:** ValueError if leaves disagree.
    """
    arrays = [leaf for leaf in jax.tree.leaves((games, profiles)) if eqx.is_array(leaf)]
    sizes = sorted({leaf.shape[0] if leaf.ndim else 0 for leaf in arrays})
    if len(sizes) != 1 or sizes[0] == 0:
        raise ValueError(
            f"solve_many: the arrays of games and profiles have leading axes of {sizes}; stack "
            "all of them along one axis of at least one game, for instance with "
            "eqx.filter_vmap of the function that makes one game."
        )
    return Stacked(games, profiles), sizes[0]
