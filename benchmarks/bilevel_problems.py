"""Bilevel problems of the literature with one best answer of the follower, as games of diffgame.

Their mathematics is that of the papers cited; best known values are those that the papers or the
collections of Zhou, Zemkoho, Tin (2020), BOLIB: Bilevel Optimization LIBrary of test problems, of
Paulavicius, Adjiman (2017), BASBLib, and of Leyffer (2000), MacMPEC, report.
"""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from diffgame import AbstractGame, Constant, Constraints
from diffgame._choice_set import Constrained

Vector = Float[Array, " n"]


def no_limits(x: Vector, y: Vector) -> Vector:
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


def _square(*parts) -> Scalar:
    return jnp.sum(jnp.stack(parts) ** 2)


def _rows(*rows) -> Vector:
    return jnp.stack(rows)


# Shared by several problems.


def _bard_limits(x, y):
    return _rows(3 - 3 * x[0] + y[0], x[0] - y[0] / 2 - 4, x[0] + y[0] - 7, -y[0])


def _bard_1984_limits(x, y):
    return jnp.append(
        _rows(
            -(x[0] ** 2) + 2 * x[0] - x[1] ** 2 + 2 * y[0] - y[1] - 3,
            4 - x[1] - 3 * y[0] + 4 * y[1],
        ),
        -y,
    )


def _clark_westerberg_limits(x, y):
    return _rows(-2 * x[0] + y[0] - 1, x[0] - 2 * y[0] + 2, x[0] + 2 * y[0] - 14)


def _outrata_limits(x, y):
    return jnp.append(_rows(-0.333 * y[0] + y[1] - 2, y[0] - 0.333 * y[1] - 2), -y)


def _outrata_1990(letter, weight, hessian, slope, best_known) -> BilevelProblem:
    return BilevelProblem(
        f"Outrata 1990, example 1{letter}",
        "Outrata (1990), On the numerical solution of a class of Stackelberg problems, section 4",
        (-50.0, -50.0),
        (50.0, 50.0),
        2,
        F=lambda x, y: weight * _square(*x) + _square(y[0] - 3, y[1] - 4) / 2 - 12.5,
        f=lambda x, y: y @ jnp.array(hessian) @ y / 2 - x @ jnp.array(slope) @ y,
        g=_outrata_limits,
        best_known=best_known,
        precision=5e-3,
    )


_UNIT = [[1.0, 0.0], [0.0, 1.0]]
_FIRST, _SECOND = [[1.0, -2.0], [-2.0, 5.0]], [[1.0, 3.0], [3.0, 10.0]]

PROBLEMS = (
    BilevelProblem(
        "Bard 1988, example 1",
        "Bard (1988), Convex two-level optimization",
        (0.0,),
        (10.0,),
        1,
        F=lambda x, y: (x[0] - 5) ** 2 + (2 * y[0] + 1) ** 2,
        f=lambda x, y: (y[0] - 1) ** 2 - 1.5 * x[0] * y[0],
        g=_bard_limits,
        best_known=17.0,
    ),
    BilevelProblem(
        "Bard 1988, example 2",
        "Bard (1988), Convex two-level optimization; two followers, as one",
        (0.0, 0.0, 0.0, 0.0),
        (10.0, 5.0, 15.0, 20.0),
        4,
        F=lambda x, y: -(200 - y[0] - y[2]) * (y[0] + y[2]) - (160 - y[1] - y[3]) * (y[1] + y[3]),
        f=lambda x, y: _square(y[0] - 4, y[1] - 13, y[2] - 35, y[3] - 2),
        g=lambda x, y: jnp.concatenate(
            [
                _rows(
                    0.4 * y[0] + 0.7 * y[1] - x[0],
                    0.6 * y[0] + 0.3 * y[1] - x[1],
                    0.4 * y[2] + 0.7 * y[3] - x[2],
                    0.6 * y[2] + 0.3 * y[3] - x[3],
                ),
                -y,
                y - jnp.array([20.0, 20.0, 40.0, 40.0]),
            ]
        ),
        G=lambda x, y: jnp.sum(x)[None] - 40,
        best_known=-6600.0,
        precision=0.5,
    ),
    BilevelProblem(
        "Bard 1984, example 2",
        "Bard (1984), Optimality conditions for the bilevel programming problem",
        (0.0, 0.0),
        (10.0, 10.0),
        2,
        F=lambda x, y: -(x[0] ** 2) - 3 * x[1] - 4 * y[0] + y[1] ** 2,
        f=lambda x, y: 2 * x[0] ** 2 + y[0] ** 2 - 5 * y[1],
        g=_bard_1984_limits,
        G=lambda x, y: (x[0] ** 2 + 2 * x[1] - 4)[None],
        best_known=-12.6787,
        precision=5e-5,
    ),
    BilevelProblem(
        "Bard 1984, as TP3",
        "Sinha, Malo, Deb (2014), Test problem construction for single-objective bilevel "
        "optimization, TP3",
        (0.0, 0.0),
        (10.0, 10.0),
        2,
        F=lambda x, y: -(x[0] ** 2) - 3 * x[1] ** 2 - 4 * y[0] + y[1] ** 2,
        f=lambda x, y: 2 * x[0] ** 2 + y[0] ** 2 - 5 * y[1],
        g=_bard_1984_limits,
        G=lambda x, y: (x[0] ** 2 + 2 * x[1] - 4)[None],
        best_known=-18.6787,
        precision=5e-5,
    ),
    BilevelProblem(
        "Bard 1998, example 7.2.1",
        "Bard (1998), Practical Bilevel Optimization, 7.2",
        (0.0, 0.0),
        (1.0, 1.0),
        1,
        F=lambda x, y: _square(x[0] - 0.8, x[1] - 0.2, y[0] - 1) / 2,
        f=lambda x, y: y[0] ** 2 / 2 - y[0] - x[0] * y[0] + 2 * x[1] * y[0],
        g=lambda x, y: _rows(-y[0], y[0] - 1),
        best_known=0.0,
    ),
    BilevelProblem(
        "Bard 1998, example 8.3.1",
        "Bard (1998), Practical Bilevel Optimization, 8.3",
        (-100.0,),
        (100.0,),
        1,
        F=lambda x, y: _square(x[0] - 1, y[0] - 1),
        f=lambda x, y: y[0] ** 2 / 2 + 500 * y[0] - 50 * x[0] * y[0],
        g=lambda x, y: _rows(-100 - y[0], y[0] - 100),
        best_known=81.33,
        precision=5e-3,
    ),
    BilevelProblem(
        "Bard 1998, example 8.5.1",
        "Bard (1998), Practical Bilevel Optimization, 8.5",
        (0.0,),
        (10.0,),
        2,
        F=lambda x, y: (x[0] - 1) ** 2 + 2 * y[0] ** 2 - 2 * x[0],
        f=lambda x, y: (2 * y[0] - 4) ** 2 + (2 * y[1] - 1) ** 2 + x[0] * y[0],
        g=lambda x, y: jnp.append(
            _rows(
                4 * x[0] + 5 * y[0] + 4 * y[1] - 12,
                4 * x[0] - 4 * y[0] + 5 * y[1] - 4,
                -4 * x[0] - 5 * y[0] + 4 * y[1] + 4,
                -4 * x[0] + 4 * y[0] + 5 * y[1] - 4,
            ),
            -y,
        ),
        best_known=-1.41,
        precision=5e-3,
    ),
    BilevelProblem(
        "Clark, Westerberg 1990",
        "Clark, Westerberg (1990), Bilevel programming for steady-state chemical process design, "
        "3.2",
        (0.0,),
        (8.0,),
        1,
        F=lambda x, y: _square(x[0] - 3, y[0] - 2),
        f=lambda x, y: (y[0] - 5) ** 2,
        g=_clark_westerberg_limits,
        best_known=5.0,
    ),
    BilevelProblem(
        "Gumus, Floudas 2001, example 4",
        "Gumus, Floudas (2001), Global optimization of nonlinear bilevel programming problems",
        (0.0,),
        (8.0,),
        1,
        F=lambda x, y: _square(x[0] - 3, y[0] - 2),
        f=lambda x, y: (y[0] - 5) ** 2,
        g=lambda x, y: _rows(-y[0], y[0] - 10),
        G=_clark_westerberg_limits,
        best_known=9.0,
    ),
    BilevelProblem(
        "Gumus, Floudas 2001, example 1",
        "Shimizu, Ishizuka, Bard (1997), Nondifferentiable and Two-Level Mathematical Programming, "
        "15.3; Gumus, Floudas (2001)",
        (0.0,),
        (12.5,),
        1,
        F=lambda x, y: 16 * x[0] ** 2 + 9 * y[0] ** 2,
        f=lambda x, y: (x[0] + y[0] - 20) ** 4,
        g=lambda x, y: _rows(4 * x[0] + y[0] - 50, -y[0]),
        G=lambda x, y: (y[0] - 4 * x[0])[None],
        best_known=2250.0,
    ),
    BilevelProblem(
        "Shimizu, Aiyoshi 1981, example 1",
        "Shimizu, Aiyoshi (1981), A new computational method for Stackelberg and min-max problems",
        (0.0,),
        (15.0,),
        1,
        F=lambda x, y: x[0] ** 2 + (y[0] - 10) ** 2,
        f=lambda x, y: (x[0] + 2 * y[0] - 30) ** 2,
        g=lambda x, y: _rows(x[0] + y[0] - 20, -y[0], y[0] - 20),
        G=lambda x, y: (y[0] - x[0])[None],
        best_known=100.0,
    ),
    BilevelProblem(
        "Shimizu, Aiyoshi 1981, example 2",
        "Shimizu, Aiyoshi (1981), A new computational method for Stackelberg and min-max problems",
        (0.0, 0.0),
        (25.0, 15.0),
        2,
        F=lambda x, y: _square(x[0] - 30, x[1] - 20) - 20 * y[0] + 20 * y[1],
        f=lambda x, y: _square(x[0] - y[0], x[1] - y[1]),
        g=lambda x, y: jnp.append(-y, y - 10),
        G=lambda x, y: _rows(30 - x[0] - 2 * x[1], x[0] + x[1] - 25),
        best_known=225.0,
    ),
    BilevelProblem(
        "Aiyoshi, Shimizu 1984, example 2",
        "Aiyoshi, Shimizu (1984), A solution method for the static constrained Stackelberg problem",
        (0.0, 0.0),
        (50.0, 50.0),
        2,
        F=lambda x, y: 2 * x[0] + 2 * x[1] - 3 * y[0] - 3 * y[1] - 60,
        f=lambda x, y: _square(y[0] - x[0] + 20, y[1] - x[1] + 20),
        g=lambda x, y: jnp.concatenate([2 * y - x + 10, -10 - y, y - 20]),
        G=lambda x, y: (x[0] + x[1] + y[0] - 2 * y[1] - 40)[None],
        best_known=5.0,
        remark="5 is the value of BOLIB; BASBLib has 0",
    ),
    BilevelProblem(
        "De Silva 1978",
        "De Silva (1978), Sensitivity formulas for nonlinear factorable programming",
        (0.0, 0.0),
        (10.0, 10.0),
        2,
        F=lambda x, y: _square(*x) - 2 * x[0] - 2 * x[1] + _square(*y),
        f=lambda x, y: _square(y[0] - x[0], y[1] - x[1]),
        g=lambda x, y: jnp.append(0.5 - y, y - 1.5),
        best_known=-1.0,
    ),
    BilevelProblem(
        "Falk, Liu 1995",
        "Falk, Liu (1995), On bilevel programming, part I: general nonlinear cases",
        (-10.0, -10.0),
        (10.0, 10.0),
        2,
        F=lambda x, y: _square(*x) - 3 * x[0] - 3 * x[1] + _square(*y),
        f=lambda x, y: _square(y[0] - x[0], y[1] - x[1]),
        g=lambda x, y: jnp.append(0.5 - y, y - 1.5),
        best_known=-2.1962,
        precision=5e-5,
    ),
    BilevelProblem(
        "Tuy, Migdalas, Hoai-Phuong 2007",
        "Tuy, Migdalas, Hoai-Phuong (2007), A novel approach to bilevel nonlinear programming, "
        "example 1",
        (0.0,),
        (10.0,),
        1,
        F=lambda x, y: x[0] ** 2 + y[0] ** 2,
        f=lambda x, y: -y[0],
        g=lambda x, y: _rows(3 * x[0] + y[0] - 15, x[0] + y[0] - 7, x[0] + 3 * y[0] - 15, -y[0]),
        best_known=22.5,
    ),
    BilevelProblem(
        "Dempe 1992, example 4.1",
        "Dempe (1992), A necessary and a sufficient optimality condition for bilevel programming "
        "problems",
        (1.0,),
        (10.0,),
        1,
        F=lambda x, y: (x[0] - 3.5) ** 2 + (y[0] + 4) ** 2,
        f=lambda x, y: (y[0] - 3) ** 2,
        g=lambda x, y: (y[0] ** 2 - x[0])[None],
        best_known=31.25,
    ),
    BilevelProblem(
        "Yezza 1996, example 4.1",
        "Yezza (1996), First-order necessary optimality conditions for general bilevel programming",
        (0.0,),
        (10.0,),
        1,
        F=lambda x, y: _square(y[0] - 2, x[0] - y[0] - 2) / 2,
        f=lambda x, y: y[0] ** 2 / 2 + x[0] - y[0],
        g=lambda x, y: _rows(y[0] - x[0], -y[0]),
        best_known=0.5,
    ),
    BilevelProblem(
        "Henderson, Quandt 1958",
        "Henderson, Quandt (1958), Microeconomic Theory: a duopoly with a leader",
        (0.0,),
        (200.0,),
        1,
        F=lambda x, y: x[0] ** 2 / 2 + x[0] * y[0] / 2 - 95 * x[0],
        f=lambda x, y: y[0] ** 2 + (x[0] / 2 - 100) * y[0],
        g=lambda x, y: -y,
        best_known=-3266.67,
        precision=5e-3,
    ),
    BilevelProblem(
        "Muu, Quy 2003, example 1",
        "Muu, Quy (2003), A global optimization method for solving convex quadratic bilevel "
        "programming problems",
        (0.0,),
        (2.0,),
        2,
        F=lambda x, y: _square(*y) + x[0] ** 2 - 4 * x[0],
        f=lambda x, y: (
            y[0] ** 2 + y[1] ** 2 / 2 + y[0] * y[1] + (1 - 3 * x[0]) * y[0] + (1 + x[0]) * y[1]
        ),
        g=lambda x, y: jnp.append(-y, 2 * y[0] + y[1] - 2 * x[0] - 1),
        best_known=-2.0769,
        precision=5e-5,
    ),
    BilevelProblem(
        "Muu, Quy 2003, example 2",
        "Muu, Quy (2003), A global optimization method for solving convex quadratic bilevel "
        "programming problems",
        (0.0, 0.0),
        (1.0, 1.0),
        3,
        F=lambda x, y: -7 * x[0] + 4 * x[1] + y[0] ** 2 + y[2] ** 2 - y[0] * y[2] - 4 * y[1],
        f=lambda x, y: (
            y[0] ** 2
            + y[1] ** 2 / 2
            + y[2] ** 2 / 2
            + y[0] * y[1]
            + (1 - 3 * x[0]) * y[0]
            + (1 + x[1]) * y[1]
        ),
        g=lambda x, y: jnp.append(-y, 2 * y[0] + y[1] - y[2] + x[0] - 2 * x[1] + 2),
        G=lambda x, y: (x[0] + x[1] - 1)[None],
        best_known=0.6426,
        precision=5e-5,
    ),
    _outrata_1990("a", 0.1, _FIRST, _UNIT, -8.92),
    _outrata_1990("b", 1.0, _FIRST, _UNIT, -7.58),
    _outrata_1990("c", 0.0, _FIRST, _UNIT, -12.0),
    _outrata_1990("d", 0.1, _SECOND, _UNIT, -3.60),
    _outrata_1990("e", 0.1, _SECOND, [[-1.0, 2.0], [3.0, -3.0]], -3.15),
    BilevelProblem(
        "Outrata 1994, example 3.1",
        "Outrata (1994), On optimization problems with variational inequality constraints",
        (0.0,),
        (10.0,),
        2,
        F=lambda x, y: _square(y[0] - 3, y[1] - 4) / 2,
        f=lambda x, y: (
            (1 + 0.2 * x[0]) * y[0] ** 2 / 2
            + (1 + 0.1 * x[0]) * y[1] ** 2 / 2
            - (3 + 1.333 * x[0]) * y[0]
            - x[0] * y[1]
        ),
        g=lambda x, y: jnp.append(
            _rows(-0.333 * y[0] + y[1] + 0.1 * x[0] - 1, _square(*y) - 0.1 * x[0] - 9), -y
        ),
        best_known=3.2077,
        precision=5e-5,
    ),
    BilevelProblem(
        "Colson 2002, BIPA 1",
        "Colson (2002), BIPA (bilevel programming with approximation methods)",
        (0.0,),
        (15.0,),
        1,
        F=lambda x, y: (10 - x[0]) ** 3 + (10 - y[0]) ** 3,
        f=lambda x, y: (x[0] + 2 * y[0] - 15) ** 4,
        g=lambda x, y: _rows(x[0] + y[0] - 20, -y[0], y[0] - 20),
        G=lambda x, y: (y[0] - x[0])[None],
        best_known=250.0,
        remark="250 is the value of BOLIB; BASBLib has 227.691 at (6.082, 4.487), where the "
        "follower could still move to (15 - x) / 2 = 4.459",
    ),
    BilevelProblem(
        "Colson 2002, BIPA 3",
        "Colson (2002), BIPA (bilevel programming with approximation methods)",
        (0.0,),
        (10.0,),
        1,
        F=lambda x, y: (x[0] - 5) ** 4 + (2 * y[0] + 1) ** 4,
        f=lambda x, y: (
            jnp.exp(y[0] - x[0]) + x[0] ** 2 + 2 * x[0] * y[0] + y[0] ** 2 + 2 * x[0] + 6 * y[0]
        ),
        g=lambda x, y: _rows(y[0] - x[0] - 2, -y[0]),
        G=lambda x, y: (x[0] + y[0] - 4)[None],
        best_known=2.0,
    ),
    BilevelProblem(
        "Colson 2002, BIPA 4",
        "Colson (2002), BIPA (bilevel programming with approximation methods)",
        (0.0,),
        (10.0,),
        1,
        F=lambda x, y: x[0] ** 2 + (y[0] - 10) ** 2,
        f=lambda x, y: x[0] ** 3 + 2 * y[0] ** 3 + x[0] - 2 * y[0] - x[0] ** 2,
        g=lambda x, y: _rows(2 * y[0] - x[0] - 3, -y[0]),
        G=lambda x, y: (x[0] + 2 * y[0] - 6)[None],
        start=(0.5,),
        best_known=88.79,
        precision=5e-3,
        remark="88.79 is the value of BOLIB; BASBLib has 88.754 at (0, 0.579), where the follower "
        "could still move to 1 / sqrt(3) = 0.577",
    ),
    BilevelProblem(
        "Colson 2002, BIPA 5",
        "Colson (2002), BIPA (bilevel programming with approximation methods)",
        (0.0,),
        (10.0,),
        2,
        F=lambda x, y: (x[0] - y[1]) ** 4 + (y[0] - 1) ** 2 + (y[0] - y[1]) ** 2,
        f=lambda x, y: 2 * x[0] + jnp.exp(y[0]) + y[0] ** 2 + 4 * y[0] + 2 * y[1] ** 2 - 6 * y[1],
        g=lambda x, y: jnp.append(
            _rows(6 * x[0] + y[0] ** 2 + jnp.exp(y[1]) - 15, 5 * x[0] + y[0] ** 4 - y[1] - 25),
            -y,
        ),
        best_known=2.75,
        precision=5e-3,
    ),
)
