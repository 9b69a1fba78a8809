"""Linear programs with known answers, and random persuasion problems, for tests of solvers."""

import jax.numpy as jnp
import numpy as np

from diffgame._linear_program import LinearProgram

TRAITS = ("generic", "integers", "twin actions", "impossible states", "rare states")


def persuasion(seed, actions, states):
    """Prior, utility [A, Y], objective [A, Y]: payoffs scaled by 1e-6 to 1e6, one trait each."""
    rng = np.random.default_rng(seed)
    trait = TRAITS[seed % len(TRAITS)]
    prior = rng.dirichlet(np.ones(states))
    u, U = rng.uniform(-1, 1, (2, actions, states))
    if trait == "integers":
        u, U = rng.integers(-1, 2, (2, actions, states)).astype(float)
        prior = np.full(states, 1 / states)
    elif trait == "twin actions":
        u[-1] = u[rng.integers(actions - 1)]
    elif trait == "impossible states":
        prior[rng.integers(states)] = 0
        prior /= prior.sum()
    elif trait == "rare states":
        prior[0] = 1e-6
        prior /= prior.sum()
    scale, offset = 10 ** rng.uniform(-6, 6, 2), rng.uniform(-1, 1, 2)
    return prior, scale[0] * (u + offset[0]), scale[1] * (U + offset[1])


def signals(seed, actions, states, *, as_rows):
    """A persuasion program with total probabilities as `sums`, or as rows of `coupling`."""
    prior, u, U = persuasion(seed, actions, states)
    u, U = (u - u.min()) / np.ptp(u), (U - U.min()) / np.ptp(U)
    others = np.array([[b for b in range(actions) if b != a] for a in range(actions)])
    one_per_state = np.broadcast_to(np.eye(states)[:, None], (states, actions, states))
    return LinearProgram(
        jnp.asarray(-U * prior),
        jnp.zeros(0),
        jnp.asarray((u[:, None] - u[others]) * prior),
        jnp.asarray(one_per_state) if as_rows else jnp.zeros((0, actions, states)),
        jnp.zeros((states, 0)),
        jnp.ones(states),
        None if as_rows else jnp.ones(actions),
    )


def standard_form(cost, rows, target):
    """Minimise cost @ z with rows @ z = target, z >= 0, as a program without blocks."""
    cost, rows, target = (jnp.asarray(part, float) for part in (cost, rows, target))
    count = len(target)
    return LinearProgram(
        jnp.zeros((0, 1)), cost, jnp.zeros((0, 0, 1)), jnp.zeros((count, 0, 1)), rows, target
    )
