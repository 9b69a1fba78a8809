"""What a bilevel problem is, and what game it makes."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from .._choice_set import Constrained
from .._constraints import Constraints
from .._game import AbstractGame
from .._policy import Constant

Vector = Float[Array, " n"]


def no_limits(x: Vector, y: Float[Array, " k"]) -> Float[Array, " 0"]:
    """No constraint on the leader besides its bounds."""
    del x, y
    return jnp.zeros(0)


@dataclasses.dataclass(frozen=True)
class BilevelProblem:
    """min F(x, y) over x in a box with G(x, y) <= 0 and y in argmin of f(x, .) under g(x, .) <= 0.

    - `lower`, `upper`: bounds of x. Where the source has none, wide ones that do not bind.
    - `size`: coordinates of y. `start`: where the follower's search starts, zeros by default.
    - `best_known`: value of F, as exact as its source has it: to `precision`, half a unit of the
        last digit given. `source`: of the problem. `remark`: on the value.
    """

    name: str
    source: str
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    size: int
    F: Callable[[Vector, Vector], Scalar]
    f: Callable[[Vector, Vector], Scalar]
    g: Callable[[Vector, Vector], Vector]
    best_known: float
    precision: float = 1e-6
    G: Callable[[Vector, Vector], Vector] = no_limits
    start: tuple[float, ...] | None = None
    remark: str = ""

    def game(self) -> "BilevelGame":
        """The problem as a game: the leader is the provider, the follower the user."""
        return BilevelGame(self)

    def profile(self) -> Constant:
        """The middle of the leader's box."""
        lower, upper = jnp.array([self.lower]), jnp.array([self.upper])
        return Constant((lower + upper) / 2, lower, upper)


class BilevelGame(AbstractGame):
    """One leader with the payoff -F, one follower with the utility -f."""

    users: Float[Array, " users"]
    mass: Float[Array, " users"]
    choice_set: Constrained
    problem: BilevelProblem = eqx.field(static=True)

    def __init__(self, problem: BilevelProblem):
        self.users = jnp.zeros(1)
        self.mass = jnp.ones(1)
        start = None if problem.start is None else jnp.array(problem.start)
        self.choice_set = Constrained(problem.size, start)
        self.problem = problem

    def user_utility(self, choice, offers, user):
        """Minus the lower objective."""
        return -self.problem.f(offers[0], choice)

    def user_constraints(self, choice, offers, user):
        """The lower constraints."""
        return Constraints(self.problem.g(offers[0], choice))

    def provider_payoffs(self, choice, offers, user):
        """Minus the upper objective, and what the leader's constraints are functions of."""
        return -self.problem.F(offers[0], choice)[None], offers[0], choice

    def settle(self, totals):
        """The payoff."""
        return totals[0]

    def provider_constraints(self, profile, totals, provider):
        """The upper constraints."""
        return Constraints(self.problem.G(totals[1], totals[2]))


def square(*parts) -> Scalar:
    """The sum of squares."""
    return jnp.sum(jnp.stack(parts) ** 2)


def rows(*values) -> Vector:
    """A vector of numbers."""
    return jnp.stack(values)
