"""A solver of your own for `diffgame bench`: optimistic gradient play.

    diffgame bench pricing --solver examples/my_solver.py

Everybody climbs along twice the present slope less the previous one, which damps the rotation that
makes plain gradient play fail (Popov 1980; Rakhlin, Sridharan 2013). `init` makes the first state,
`step` the next parameters and state; the bench runs the loop, keeps the time and checks the end.
Parameters, field and state are pytrees of arrays; `problem.project` keeps parameters feasible. The
file may instead define `solver`, an instance of `diffgame.AbstractSolver`.
"""

import jax

LEARNING_RATE = 0.1


def init(problem, parameters):
    """The state: the slope of the step before; at the start, the slope there."""
    return problem.field(parameters)


def step(problem, parameters, field, state):
    """The next parameters, and the slope that the next step looks back on."""
    moved = jax.tree.map(
        lambda x, now, before: x + LEARNING_RATE * (2 * now - before), parameters, field, state
    )
    return problem.project(moved), field
