"""Generalized Nash games that others publish, stated as games of diffgame.

Players of different sizes have padded decisions, held at 0 by equal bounds.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._constraints import Constraints
from .._nash_game import AbstractNashGame
from .._policy import Constant


class ThreeAgents(AbstractNashGame):
    """Agents of sizes 2, 1, 1 aim at targets; x1[0] + x2 + x3 may not exceed `capacity`.

    Payoffs: -|x1 - (1, -1/2)|^2, -(x2 + 3/10)^2, -(x3 - (x1[0] + x2) / 2)^2.

    **Source:** Bemporad (2025), NashOpt, arXiv 2512.23636 (its first example, capacity 2).
    """

    capacity: Float[Array, ""]

    def payoffs(self, offers: Float[Array, "3 2"]) -> Float[Array, "3"]:
        """Everybody's payoff."""
        first, second, third = offers[0], offers[1, 0], offers[2, 0]
        aims = (
            jnp.sum((first - jnp.array([1.0, -0.5])) ** 2),
            (second + 0.3) ** 2,
            (third - (first[0] + second) / 2) ** 2,
        )
        return -jnp.stack(aims)

    def shared_constraints(self, profile: Any, totals: PyTree) -> Constraints:
        """What all decisions together must satisfy."""
        load = jnp.sum(profile.offer[:, 0])
        return Constraints((load - self.capacity)[None])


class LinearCosts(AbstractNashGame):
    """Suppliers with unit costs N (1 + i / 2), i from 0, at the price 60 N - total supply.

    **Source:** Salehisadaghiani, Shi, Pavel (2017), section 5; here with N suppliers in [7, 100].
    """

    slope: Float[Array, ""]

    def payoffs(self, offers: Float[Array, " providers"]) -> Float[Array, " providers"]:
        """Everybody's payoff."""
        count = offers.shape[0]
        cost = count * (1 + jnp.arange(count) / 2)
        return offers * (60.0 * count - self.slope * jnp.sum(offers)) - cost * offers


class PullAndPush(AbstractNashGame):
    """Two agents of size 10: one wants x1 + x2 = 0, the other 10, both short vectors.

    Payoffs -|x1 + x2 - t_i|^2 - |x1|^2 - |x2|^2, t = (0, `target`); the sum of all decisions stays
    within -15 and 15.

    **Source:** Bemporad (2025), NashOpt, example gne_3 (target 10).
    """

    target: Float[Array, ""]

    def payoffs(self, offers: Float[Array, "2 10"]) -> Float[Array, "2"]:
        """Everybody's payoff."""
        both, size = offers[0] + offers[1], jnp.sum(offers**2)
        return -jnp.stack([jnp.sum(both**2), jnp.sum((both - self.target) ** 2)]) - size

    def shared_constraints(self, profile: Any, totals: PyTree) -> Constraints:
        """What all decisions together must satisfy."""
        total = jnp.sum(profile.offer)
        return Constraints(jnp.stack([total - 15, -total - 15]))


class QuadraticAgents(AbstractNashGame):
    """Payoffs -x'Q_i x / 2 - c_i'x; shared A x <= b, and all decisions add up to `total`.

    **Source:** Bemporad (2025), NashOpt, examples vgne_1 and vgne_2 (total 1).
    """

    curvature: Float[Array, "providers n n"]
    slope: Float[Array, "providers n"]
    rows: Float[Array, "constraints n"]
    limits: Float[Array, " constraints"]
    total: Float[Array, ""]

    def payoffs(self, offers: Float[Array, "providers own"]) -> Float[Array, " providers"]:
        """Everybody's payoff."""
        x = offers.ravel()
        return -jnp.einsum("i,kij,j->k", x, self.curvature, x) / 2 - self.slope @ x

    def shared_constraints(self, profile: Any, totals: PyTree) -> Constraints:
        """What all decisions together must satisfy."""
        x = profile.offer.ravel()
        return Constraints(self.rows @ x - self.limits, (jnp.sum(x) - self.total)[None])


class River(AbstractNashGame):
    """Three polluters on a river, and two stations that limit what reaches them.

    Profits (3 - sum / 100 - c_i - d_i x_i) x_i; concentrations at the stations at most `limit`.

    **Source:** Haurie, Krawczyk (1997); numbers as in Krawczyk, Uryasev (2000), Relaxation
    algorithms to find Nash equilibria with economic applications, 5.3 (limits 100).
    """

    limit: Float[Array, "2"]

    def payoffs(self, offers: Float[Array, "3"]) -> Float[Array, "3"]:
        """Everybody's payoff."""
        price = 3 - 0.01 * jnp.sum(offers)
        cost = jnp.array([0.1, 0.12, 0.15]) + jnp.array([0.01, 0.05, 0.01]) * offers
        return (price - cost) * offers

    def shared_constraints(self, profile: Any, totals: PyTree) -> Constraints:
        """What all decisions together must satisfy."""
        emission = jnp.array([0.5, 0.25, 0.75])
        decay = jnp.array([[6.5, 5.0, 5.5], [4.583, 6.25, 3.75]])
        return Constraints(decay @ (emission * profile.offer) - self.limit)


class Harker(AbstractNashGame):
    """Two players on a common resource; they may not take more than `common` together.

    **Source:** Harker (1991), Generalized Nash games and quasi-variational inequalities, section 4
    (common 15: (5, 9), and all from (9, 6) to (10, 5)).
    """

    common: Float[Array, ""]

    def payoffs(self, offers: Float[Array, "2"]) -> Float[Array, "2"]:
        """Everybody's payoff."""
        x, y = offers
        first = 34 * x - x**2 - 8 / 3 * x * y
        return jnp.stack([first, 24.25 * y - y**2 - 5 / 4 * x * y])

    def shared_constraints(self, profile: Any, totals: PyTree) -> Constraints:
        """What all decisions together must satisfy."""
        return Constraints((jnp.sum(profile.offer) - self.common)[None])


class RationedDemand(AbstractNashGame):
    """Firms post prices p for one network, which serves no more than `served` of all demand.

    Demand is base - reaction p, profit (p_i - cost_i) demand_i.
    """

    base: Float[Array, " providers"]
    reaction: Float[Array, "providers providers"]
    cost: Float[Array, " providers"]
    served: Float[Array, ""]

    def payoffs(self, offers: Float[Array, " providers"]) -> Float[Array, " providers"]:
        """Everybody's payoff."""
        return (offers - self.cost) * (self.base - self.reaction @ offers)

    def shared_constraints(self, profile: Any, totals: PyTree) -> Constraints:
        """What all decisions together must satisfy."""
        demand = self.base - self.reaction @ profile.offer
        return Constraints((jnp.sum(demand) - self.served)[None])


def quadratic_agents(seed: int = 3, agents: int = 3, own: int = 2) -> QuadraticAgents:
    """The published random instance (seed 3 of NumPy's legacy generator)."""
    random = np.random.RandomState(seed)
    n, curvature, slope = agents * own, [], []
    for _ in range(agents):
        root = random.randn(n, n)
        curvature.append(root @ root.T + 1e-3 * np.eye(n))
        slope.append(10 * random.randn(n))
    rows = random.randn(3, n) / 2
    return QuadraticAgents(
        curvature=jnp.array(curvature),
        slope=jnp.array(slope),
        rows=jnp.array(np.concatenate([rows, -rows])),
        limits=jnp.array(random.rand(6)),
        total=jnp.ones(()),
    )


@dataclasses.dataclass(frozen=True)
class Case:
    """A game, where to start, which kind of equilibrium, and how to vary it for a sweep.

    `sizes`: how many of each agent's padded decisions are its own. `vary` makes the game of one
    number; `span` is the range of the sweep.
    """

    name: str
    vary: Callable[..., AbstractNashGame]
    base: float
    span: tuple[float, float]
    start: Constant
    sizes: Sequence[int]
    normalized: bool

    @property
    def game(self) -> AbstractNashGame:
        """The published game."""
        return self.vary(jnp.asarray(self.base))

    def pack(self, x: np.ndarray) -> Float[Array, "..."]:
        """The offers of a plain vector."""
        offers = np.zeros(self.start.offer.shape)
        if offers.ndim == 1:
            return jnp.asarray(x)
        ends = np.cumsum(self.sizes)
        for row, size, end in zip(offers, self.sizes, ends, strict=True):
            row[:size] = x[end - size : end]
        return jnp.asarray(offers)

    def unpack(self, offers: Float[Array, "..."]) -> np.ndarray:
        """The plain vector of offers: agents one after another, without padding."""
        if offers.ndim == 1:
            return np.asarray(offers)
        rows = zip(np.asarray(offers), self.sizes, strict=True)
        return np.concatenate([row[:size] for row, size in rows])


def cases() -> list[Case]:
    """The games of the comparison."""
    quadratic = quadratic_agents()

    def with_total(total):
        return dataclasses.replace(quadratic, total=total)

    upper = jnp.array([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    three = Constant(jnp.zeros((3, 2)), jnp.zeros((3, 2)), upper)
    return [
        Case("three agents", ThreeAgents, 2.0, (0.5, 2.5), three, (2, 1, 1), False),
        Case(
            "linear costs (gne_2)",
            LinearCosts,
            1.0,
            (0.8, 1.5),
            Constant(jnp.full(10, 53.5), 7.0, 100.0),
            (1,) * 10,
            False,
        ),
        Case(
            "pull and push (gne_3)",
            PullAndPush,
            10.0,
            (5.0, 15.0),
            Constant(jnp.zeros((2, 10)), -3.0, 3.0),
            (10, 10),
            False,
        ),
        Case(
            "quadratic, common prices (vgne_1, vgne_2)",
            with_total,
            1.0,
            (0.0, 1.5),
            Constant(jnp.zeros((3, 2)), -1.0, 1.0),
            (2, 2, 2),
            True,
        ),
    ]
