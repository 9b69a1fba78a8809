"""Bilevel problems of the literature, from Tuy to Colson: mathematics of the papers cited."""

import jax.numpy as jnp

from ._bilevel_problem import BilevelProblem, rows, square


def _outrata_limits(x, y):
    return jnp.append(rows(-0.333 * y[0] + y[1] - 2, y[0] - 0.333 * y[1] - 2), -y)


def _outrata_1990(letter, weight, hessian, slope, best_known) -> BilevelProblem:
    return BilevelProblem(
        f"Outrata 1990, example 1{letter}",
        "Outrata (1990), On the numerical solution of a class of Stackelberg problems, section 4",
        (-50.0, -50.0),
        (50.0, 50.0),
        2,
        F=lambda x, y: weight * square(*x) + square(y[0] - 3, y[1] - 4) / 2 - 12.5,
        f=lambda x, y: y @ jnp.array(hessian) @ y / 2 - x @ jnp.array(slope) @ y,
        g=_outrata_limits,
        best_known=best_known,
        precision=5e-3,
    )


_UNIT = [[1.0, 0.0], [0.0, 1.0]]
_FIRST, _SECOND = [[1.0, -2.0], [-2.0, 5.0]], [[1.0, 3.0], [3.0, 10.0]]

TUY_TO_COLSON = (
    BilevelProblem(
        "Tuy, Migdalas, Hoai-Phuong 2007",
        "Tuy, Migdalas, Hoai-Phuong (2007), A novel approach to bilevel nonlinear programming, "
        "example 1",
        (0.0,),
        (10.0,),
        1,
        F=lambda x, y: x[0] ** 2 + y[0] ** 2,
        f=lambda x, y: -y[0],
        g=lambda x, y: rows(3 * x[0] + y[0] - 15, x[0] + y[0] - 7, x[0] + 3 * y[0] - 15, -y[0]),
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
        F=lambda x, y: square(y[0] - 2, x[0] - y[0] - 2) / 2,
        f=lambda x, y: y[0] ** 2 / 2 + x[0] - y[0],
        g=lambda x, y: rows(y[0] - x[0], -y[0]),
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
        F=lambda x, y: square(*y) + x[0] ** 2 - 4 * x[0],
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
        F=lambda x, y: square(y[0] - 3, y[1] - 4) / 2,
        f=lambda x, y: (
            (1 + 0.2 * x[0]) * y[0] ** 2 / 2
            + (1 + 0.1 * x[0]) * y[1] ** 2 / 2
            - (3 + 1.333 * x[0]) * y[0]
            - x[0] * y[1]
        ),
        g=lambda x, y: jnp.append(
            rows(-0.333 * y[0] + y[1] + 0.1 * x[0] - 1, square(*y) - 0.1 * x[0] - 9), -y
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
        g=lambda x, y: rows(x[0] + y[0] - 20, -y[0], y[0] - 20),
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
        g=lambda x, y: rows(y[0] - x[0] - 2, -y[0]),
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
        g=lambda x, y: rows(2 * y[0] - x[0] - 3, -y[0]),
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
            rows(6 * x[0] + y[0] ** 2 + jnp.exp(y[1]) - 15, 5 * x[0] + y[0] ** 4 - y[1] - 25),
            -y,
        ),
        best_known=2.75,
        precision=5e-3,
    ),
)
