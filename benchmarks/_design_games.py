"""nashopt's design examples as games of diffgame, from their mathematics."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffgame import (
    AbstractNashGame,
    Constant,
    Constraints,
)

INFINITY = float("inf")


class Circle(AbstractNashGame):
    """Three players, the first on a circle with two variables, all below a line."""

    p: Float[Array, "5"]

    def __init__(self, p: Float[Array, "5"]):
        self.p = p

    def payoffs(self, offers: Float[Array, "..."]) -> Float[Array, " players"]:
        """Minus what each minimises."""
        p, first, second, third = self.p, offers[0], offers[1, 0], offers[2, 0]
        aim = p[0] * jnp.array([1.0, -0.5])
        missed = [jnp.sum((first - aim) ** 2), (second + p[1]) ** 2]
        return -jnp.stack([*missed, (third - p[2] * (first[0] + second)) ** 2])

    def shared_constraints(self, profile: Any, totals: Any) -> Constraints:
        """What binds all players together."""
        del totals
        offers = profile.offer
        return Constraints(
            jnp.sum(offers[:, :1], axis=0) - 5 * self.p[3],
            jnp.sum(offers[0] ** 2)[None] - self.p[4],
        )


class Quadratic(AbstractNashGame):
    """Quadratic players with a shared strip, moved by p: A x <= b + S p."""

    p: Float[Array, "parameters"]
    curvature: Float[Array, "players n n"]
    slope: Float[Array, "players n"]
    matrix: Float[Array, "rows n"]
    bound: Float[Array, " rows"]
    effect: Float[Array, "rows parameters"]

    def __init__(self, p: jax.Array, data: Sequence[np.ndarray]):
        self.p = p
        parts = [jnp.asarray(part) for part in data]
        self.curvature, self.slope, self.matrix, self.bound, self.effect = parts

    def payoffs(self, offers: Float[Array, "..."]) -> Float[Array, " players"]:
        """Minus what each minimises."""
        x = offers.ravel()
        return -(jnp.einsum("i,pij,j->p", x, self.curvature, x) / 2 + self.slope @ x)

    def shared_constraints(self, profile: Any, totals: Any) -> Constraints:
        """What binds all players together."""
        del totals
        x = profile.offer.ravel()
        return Constraints(self.matrix @ x - self.bound - self.effect @ self.p)


@functools.cache
def drawn(players: int = 10, seed: int = 3) -> tuple[np.ndarray, ...]:
    """The numbers that the example draws, in its order."""
    random = np.random.RandomState(seed)
    size, curvature, slope = 2 * players, [], []
    for _ in range(players):
        root = random.randn(size, size)
        curvature.append(root @ root.T)
        slope.append(10 * random.randn(size))
        random.randn(size, 2)  # an effect on the slopes that the example multiplies by 0
    row = random.randn(1, size)
    bound, effect = random.rand(2), random.rand(2, 2)
    return np.stack(curvature), np.stack(slope), np.vstack([row, -row]), bound, effect


def quadratic(p: Float[Array, "2"]) -> Quadratic:
    """The strip moved by p."""
    return Quadratic(p, drawn())


LOAD_COST = np.array([1.0, 1.5, 0.8, 1.2, 2.0, 0.9, 1.8, 1.1])
COUPLED = {(0, 1): 0.2, (0, 4): 0.1, (1, 2): 0.1, (2, 3): 0.15, (3, 4): 0.1}
COUPLED |= {(4, 5): 0.2, (5, 6): 0.1, (6, 7): 0.2}


def coupling() -> np.ndarray:
    """How much each player's load costs the others, symmetric."""
    matrix = np.zeros((8, 8))
    for (i, j), value in COUPLED.items():
        matrix[i, j] = matrix[j, i] = value
    return matrix


class Load(AbstractNashGame):
    """Eight players choose loads under a common capacity of 1; the leader prices them.

    `p`: a price per unit of each player's load, and what it rises by the squared total.
    """

    p: Float[Array, "9"]

    def __init__(self, p: Float[Array, "9"]):
        self.p = p

    def prices(self, load: Float[Array, " players"]) -> Float[Array, " players"]:
        """What each pays per unit."""
        return self.p[:8] + self.p[8] * jnp.sum(load) ** 2

    def payoffs(self, offers: Float[Array, "..."]) -> Float[Array, " players"]:
        """Minus what each minimises."""
        own = jnp.asarray(LOAD_COST) * offers**2 + 2 * jnp.asarray(coupling()) @ offers
        return -(own + self.prices(offers) * offers)

    def shared_constraints(self, profile: Any, totals: Any) -> Constraints:
        """What binds all players together."""
        del totals
        return Constraints(jnp.sum(profile.offer)[None] - 1)


def leader_loss(x: Float[Array, " players"], p: Float[Array, "9"]) -> Float[Array, ""]:
    """Distance from the desired load 0.9 and from the reference price -2, minus revenue."""
    revenue = jnp.sum(Load(p).prices(x) * x)
    return (jnp.sum(x) - 0.9) ** 2 + 0.1 * jnp.sum((p[:8] + 2) ** 2) - 0.3 * revenue


@dataclasses.dataclass(frozen=True)
class Example:
    """One example: the game of both sides, with the objective as a loss, as nashopt has it.

    - `make`: parameters to our game. `loss(x, p)`; `options`: nashopt's for its `solve`.
    - `sizes`: variables per player. `start`, `lower`, `upper`: of x, as we pad it.
    """

    name: str
    make: Callable[[jax.Array], AbstractNashGame]
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    sizes: tuple[int, ...]
    start: Constant
    p: np.ndarray
    low: np.ndarray
    high: np.ndarray
    options: dict[str, Any]
    kept: np.ndarray

    def pad(self, x: jax.Array) -> jax.Array:
        """The players' variables as an offer of ours."""
        return jnp.zeros(self.start.offer.size).at[self.kept].set(x).reshape(self.start.offer.shape)

    def flat(self, offer: jax.Array) -> jax.Array:
        """Our offer as nashopt's x."""
        return offer.ravel()[self.kept]


def nothing(x: jax.Array, p: jax.Array) -> jax.Array:
    """Any parameters do."""
    return 0 * (jnp.sum(x) + jnp.sum(p))


def missed_target(x: jax.Array, p: jax.Array) -> jax.Array:
    """How far the first variable is from 1/2."""
    del p
    return (x[0] - 0.5) ** 2


def negative_sum(x: jax.Array, p: jax.Array) -> jax.Array:
    """Minus everybody's variables together."""
    del p
    return -jnp.sum(x)


def examples() -> list[Example]:
    """All four."""
    wide = np.array([INFINITY, INFINITY, 10.0, 10.0, 10.0])
    first = np.clip(np.random.RandomState(0).randn(5), -wide, wide)
    box = jnp.array([[10.0, 10.0], [10.0, 0.0], [10.0, 0.0]])
    strip = Constant(jnp.zeros((10, 2)))
    low, high = np.zeros(2), np.full(2, 10.0)
    exact = {"rho": 1e8, "tol": 1e-10, "refine_gne": True}
    return [
        Example(
            "game_design_1",
            Circle,
            missed_target,
            (2, 1, 1),
            Constant(jnp.zeros((3, 2)), -box, box),
            first,
            -wide,
            wide,
            {"rho": 1.0, "tol": 1e-10, "refine_gne": True},
            np.array([0, 1, 2, 4]),
        ),
        Example(
            "game_design_2, any p",
            quadratic,
            nothing,
            (2,) * 10,
            strip,
            low,
            low,
            high,
            {"rho": 1e-3},
            np.arange(20),
        ),
        Example(
            "game_design_2, sum",
            quadratic,
            negative_sum,
            (2,) * 10,
            strip,
            low,
            low,
            high,
            exact,
            np.arange(20),
        ),
        Example(
            "stackelberg",
            Load,
            leader_loss,
            (1,) * 8,
            Constant(jnp.full(8, 1 / 8), 0.0),
            np.append(np.full(8, -2.5), 0.1),
            np.append(np.full(8, -5.0), 0.0),
            np.append(np.zeros(8), 0.2),
            {"rho": 1e8, "tol": 1e-10, "x0": np.full(8, 1 / 8)},
            np.arange(8),
        ),
    ]
