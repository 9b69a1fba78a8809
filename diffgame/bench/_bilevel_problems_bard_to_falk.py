"""Bilevel problems of the literature, Bard to Falk and Liu: mathematics of the papers cited."""

import jax.numpy as jnp

from ._bilevel_problem import BilevelProblem, rows, square


def _bard_limits(x, y):
    return rows(3 - 3 * x[0] + y[0], x[0] - y[0] / 2 - 4, x[0] + y[0] - 7, -y[0])


def _bard_1984_limits(x, y):
    return jnp.append(
        rows(
            -(x[0] ** 2) + 2 * x[0] - x[1] ** 2 + 2 * y[0] - y[1] - 3,
            4 - x[1] - 3 * y[0] + 4 * y[1],
        ),
        -y,
    )


def _clark_westerberg_limits(x, y):
    return rows(-2 * x[0] + y[0] - 1, x[0] - 2 * y[0] + 2, x[0] + 2 * y[0] - 14)


BARD_TO_FALK = (
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
        f=lambda x, y: square(y[0] - 4, y[1] - 13, y[2] - 35, y[3] - 2),
        g=lambda x, y: jnp.concatenate(
            [
                rows(
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
        F=lambda x, y: square(x[0] - 0.8, x[1] - 0.2, y[0] - 1) / 2,
        f=lambda x, y: y[0] ** 2 / 2 - y[0] - x[0] * y[0] + 2 * x[1] * y[0],
        g=lambda x, y: rows(-y[0], y[0] - 1),
        best_known=0.0,
    ),
    BilevelProblem(
        "Bard 1998, example 8.3.1",
        "Bard (1998), Practical Bilevel Optimization, 8.3",
        (-100.0,),
        (100.0,),
        1,
        F=lambda x, y: square(x[0] - 1, y[0] - 1),
        f=lambda x, y: y[0] ** 2 / 2 + 500 * y[0] - 50 * x[0] * y[0],
        g=lambda x, y: rows(-100 - y[0], y[0] - 100),
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
            rows(
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
        F=lambda x, y: square(x[0] - 3, y[0] - 2),
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
        F=lambda x, y: square(x[0] - 3, y[0] - 2),
        f=lambda x, y: (y[0] - 5) ** 2,
        g=lambda x, y: rows(-y[0], y[0] - 10),
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
        g=lambda x, y: rows(4 * x[0] + y[0] - 50, -y[0]),
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
        g=lambda x, y: rows(x[0] + y[0] - 20, -y[0], y[0] - 20),
        G=lambda x, y: (y[0] - x[0])[None],
        best_known=100.0,
    ),
    BilevelProblem(
        "Shimizu, Aiyoshi 1981, example 2",
        "Shimizu, Aiyoshi (1981), A new computational method for Stackelberg and min-max problems",
        (0.0, 0.0),
        (25.0, 15.0),
        2,
        F=lambda x, y: square(x[0] - 30, x[1] - 20) - 20 * y[0] + 20 * y[1],
        f=lambda x, y: square(x[0] - y[0], x[1] - y[1]),
        g=lambda x, y: jnp.append(-y, y - 10),
        G=lambda x, y: rows(30 - x[0] - 2 * x[1], x[0] + x[1] - 25),
        best_known=225.0,
    ),
    BilevelProblem(
        "Aiyoshi, Shimizu 1984, example 2",
        "Aiyoshi, Shimizu (1984), A solution method for the static constrained Stackelberg problem",
        (0.0, 0.0),
        (50.0, 50.0),
        2,
        F=lambda x, y: 2 * x[0] + 2 * x[1] - 3 * y[0] - 3 * y[1] - 60,
        f=lambda x, y: square(y[0] - x[0] + 20, y[1] - x[1] + 20),
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
        F=lambda x, y: square(*x) - 2 * x[0] - 2 * x[1] + square(*y),
        f=lambda x, y: square(y[0] - x[0], y[1] - x[1]),
        g=lambda x, y: jnp.append(0.5 - y, y - 1.5),
        best_known=-1.0,
    ),
    BilevelProblem(
        "Falk, Liu 1995",
        "Falk, Liu (1995), On bilevel programming, part I: general nonlinear cases",
        (-10.0, -10.0),
        (10.0, 10.0),
        2,
        F=lambda x, y: square(*x) - 3 * x[0] - 3 * x[1] + square(*y),
        f=lambda x, y: square(y[0] - x[0], y[1] - x[1]),
        g=lambda x, y: jnp.append(0.5 - y, y - 1.5),
        best_known=-2.1962,
        precision=5e-5,
    ),
)
