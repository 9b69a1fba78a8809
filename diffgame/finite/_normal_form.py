"""Games given by tables of payoffs, their profiles, and what a profile leaves to gain."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Scalar

# One array of probabilities per player, as long as that player has actions.
Profile = tuple[Float[Array, " _"], ...]


class NormalForm(eqx.Module):
    """A game of finitely many players, each with finitely many actions.

    `payoffs[i, a_0, a_1, ...]` is what player i receives when player k plays action a_k; players
    may have different numbers of actions, which the shape of the table says. Made from one array
    [players, *actions], or from a sequence of one table [*actions] per player. Batch games with
    `jax.vmap(NormalForm)`.

    **Errors:** `ValueError` when there are no players, the axes are not one per player, a player
    has no action, tables differ in shape, or a payoff is not a finite number.

    >>> import jax.numpy as jnp
    >>> rows = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    >>> NormalForm([rows, -rows]).actions
    (2, 2)
    """

    payoffs: Float[Array, "players *actions"]

    def __init__(self, payoffs: Array | np.ndarray | Sequence):
        if isinstance(payoffs, Sequence):
            shapes = [np.shape(table) for table in payoffs]
            for player, shape in enumerate(shapes):
                if shape != shapes[0]:
                    raise ValueError(
                        f"payoffs: the table of player {player} has shape {shape}, that of player "
                        f"0 has {shapes[0]}; give tables of equal shape, one axis per player"
                    )
            if not shapes:
                raise ValueError("payoffs: no tables; give one table per player")
            payoffs = jnp.stack([jnp.asarray(table) for table in payoffs])
        table = jnp.asarray(payoffs)
        table = table.astype(jnp.result_type(table, float))
        players = table.shape[0] if table.ndim else 0
        if players == 0 or table.ndim != players + 1:
            raise ValueError(
                f"payoffs: shape {table.shape} is not [players, *actions]; give one table per "
                "player, and tables with one axis per player"
            )
        if 0 in table.shape:
            raise ValueError(
                f"payoffs: player {table.shape.index(0) - 1} has no actions; give at least one"
            )
        if not isinstance(table, Tracer):
            wrong = np.argwhere(~np.isfinite(np.asarray(table)))
            if len(wrong):
                where = tuple(int(index) for index in wrong[0])
                raise ValueError(
                    f"payoffs: the entry at {where} is {table[where]}; give finite numbers"
                )
        self.payoffs = table

    @property
    def actions(self) -> tuple[int, ...]:
        """How many actions each player has."""
        return self.payoffs.shape[1:]

    def uniform_profile(self) -> Profile:
        """Everybody mixes all own actions equally."""
        return tuple(jnp.full(count, 1 / count, self.payoffs.dtype) for count in self.actions)

    def pure_profile(self, *played: int) -> Profile:
        """Each player's named action with probability 1.

        **Errors:** `ValueError` when the actions are not one per player, or one does not exist.
        """
        counts = self.actions
        if len(played) != len(counts) or not all(
            0 <= action < count for action, count in zip(played, counts, strict=True)
        ):
            raise ValueError(
                f"played: {played} is no action per player; give {len(counts)} indices below "
                f"{counts}"
            )
        return tuple(
            jax.nn.one_hot(action, count, dtype=self.payoffs.dtype)
            for action, count in zip(played, counts, strict=True)
        )


def _check_shapes(game: NormalForm, profile: Profile) -> None:
    shapes = tuple(np.shape(mixed) for mixed in profile)
    if shapes != tuple((count,) for count in game.actions):
        raise ValueError(
            f"profile: shapes {shapes} do not fit a game with {game.actions} actions; give one "
            "vector of probabilities per player"
        )


def action_payoffs(game: NormalForm, profile: Profile) -> Profile:
    """Per player the expected payoff of each own action against the others' mixed actions.

    **Errors:** `ValueError` when the profile does not fit the game.
    """
    _check_shapes(game, profile)
    values = []
    for player, table in enumerate(game.payoffs):
        for other in reversed(range(len(profile))):
            if other != player:
                table = jnp.tensordot(table, profile[other], axes=(other, 0))
        values.append(table)
    return tuple(values)


def expected_payoffs(game: NormalForm, profile: Profile) -> Float[Array, " players"]:
    """Everybody's expected payoff.

    >>> import jax.numpy as jnp
    >>> rows = jnp.array([[4.0, 0.0], [0.0, 0.0]])
    >>> game = NormalForm([rows, 2 * rows])
    >>> print(expected_payoffs(game, game.uniform_profile()))
    [1. 2.]
    """
    values = action_payoffs(game, profile)
    return jnp.stack([mixed @ value for mixed, value in zip(profile, values, strict=True)])


def regrets(game: NormalForm, profile: Profile) -> Float[Array, " players"]:
    """What each player would gain by its best deviation alone, in units of its payoff.

    Never negative for probabilities, up to rounding; zero for all exactly at a Nash equilibrium.
    """
    # A constant added to a player's payoffs is no incentive; left in, it would cost digits.
    lowest = jnp.min(game.payoffs, axis=tuple(range(1, game.payoffs.ndim)), keepdims=True)
    above = eqx.tree_at(lambda g: g.payoffs, game, game.payoffs - lowest)
    values = action_payoffs(above, profile)
    return jnp.stack(
        [jnp.max(value) - mixed @ value for mixed, value in zip(profile, values, strict=True)]
    )


def nash_conv(game: NormalForm, profile: Profile) -> Scalar:
    """The sum of all players' regrets.

    **Source:** Lanctot et al. (2017), A unified game-theoretic approach to multiagent reinforcement
    learning; the definition of OpenSpiel's `nash_conv`.

    >>> import jax.numpy as jnp
    >>> rows = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    >>> pennies = NormalForm([rows, -rows])
    >>> print(nash_conv(pennies, pennies.pure_profile(0, 0)))
    2.0
    """
    return jnp.sum(regrets(game, profile))


def exploitability(game: NormalForm, profile: Profile) -> Scalar:
    """`nash_conv` per player: what a player gains on average by deviating alone.

    OpenSpiel's `exploitability` is this number, and is defined there for two players whose payoffs
    have a constant sum; `nash_conv` has no such limit, nor has this mean of it.
    """
    return nash_conv(game, profile) / len(profile)
