"""Random strongly concave problems on polytopes: residuals, an independent solver, derivatives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffgame as dg

from .quadratic_users import NAMES, draw, least_distance, residual, solve

SMALLEST_RESIDUAL = 1e-9
SAME_CHOICE = 1e-8
SAME_SLOPE = 1e-6
# Away from degeneracy: every inequality has a slack or a multiplier of this size, and active rows
# are this far from dependent.
APART = 1e-2
_STEP = 1e-4


def parts(*data):
    best = solve(*data)
    return jnp.concatenate([best.choice, best.inequality_duals, best.equality_duals])


batched = eqx.filter_jit(jax.vmap(solve))
moved = eqx.filter_jit(jax.vmap(parts))
slopes = eqx.filter_jit(jax.vmap(lambda data, along: jax.jvp(parts, data, along)[1]))


def arrays(problems) -> tuple:
    return tuple(jnp.asarray(problems[name]) for name in NAMES)


def degenerate(problem, best) -> bool:
    """Whether the active set may change, or nearly depends, close by."""
    _, _, A, b, E, _ = problem
    length = np.linalg.norm(A, axis=1)
    real = length > 0
    slack = (b - A @ best[0])[real] / length[real]
    price = best[1][real] * length[real]
    active = np.concatenate([A[real][price > slack], E])
    if np.any(np.maximum(slack, price) < APART):
        return True
    values = np.linalg.svd(active, compute_uv=False)
    return len(active) > 0 and (len(active) > A.shape[1] or values[-1] < 0.1 * values[0])


def directions(problems, seed: int) -> tuple:
    """A random direction of all data; rows that are no constraint stay so, Q stays symmetric."""
    rng = np.random.default_rng(seed)
    along = {name: rng.normal(size=problems[name].shape) / 10 for name in NAMES}
    along["Q"] = (along["Q"] + along["Q"].swapaxes(1, 2)) / 2
    off = ~np.any(problems["A"] != 0, axis=2)
    along["A"][off], along["b"][off] = 0.0, 0.0
    return arrays(along)


def compare(seed: int, count: int, n: int, m: int, equalities: int) -> dict[str, float]:
    """The worst of everything over one batch, and how many problems had their slopes compared."""
    problems = draw(seed, count, n, m, equalities)
    data, along = arrays(problems), directions(problems, seed)
    best = jax.device_get(batched(*data))
    fine = np.isin(
        best.status._value, [dg.UserStatus.optimal._value, dg.UserStatus.weakly_active._value]
    )
    found = (best.choice, best.inequality_duals, best.equality_duals)
    exact = np.asarray(slopes(data, along))

    def at(length):
        return np.asarray(moved(*(d + length * a for d, a in zip(data, along, strict=True))))

    # Of fourth order in the step.
    near, far = at(_STEP) - at(-_STEP), at(2 * _STEP) - at(-2 * _STEP)
    differences = (8 * near - far) / (12 * _STEP)
    worst = {"residual": 0.0, "choice": 0.0, "slope": 0.0}
    compared = 0
    for k in range(count):
        problem, own = [problems[name][k] for name in NAMES], [part[k] for part in found]
        size = 1 + np.max(np.abs(own[0]))
        apart = np.max(np.abs(own[0] - least_distance(problem))) / size
        worst["residual"] = np.maximum(worst["residual"], residual(problem, *own))
        worst["choice"] = np.maximum(worst["choice"], apart)
        if not degenerate(problem, own):
            error = np.max(np.abs(exact[k] - differences[k]))
            scale = 1 + np.max(np.abs(differences[k]))
            worst["slope"] = np.maximum(worst["slope"], error / scale)
            compared += 1
    return {"unsolved": int(np.sum(~fine)), "compared": compared, **worst}


def check(found, least_compared: int):
    assert found["unsolved"] == 0
    assert found["residual"] <= SMALLEST_RESIDUAL
    assert found["choice"] <= SAME_CHOICE
    assert found["slope"] <= SAME_SLOPE
    assert found["compared"] >= least_compared


@pytest.mark.parametrize("seed", [0, 1])
def test_random_problems_are_solved_and_differentiated(seed: int):
    check(compare(seed, 40, 4, 7, 1), least_compared=20)


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("n", "m", "equalities"),
    [
        (2, 4, 0),
        (2, 60, 0),
        (3, 10, 1),
        (5, 20, 2),
        (8, 60, 0),
        (10, 30, 3),
        (15, 40, 0),
        (20, 60, 5),
        (25, 30, 10),
        (30, 60, 0),
    ],
)
def test_ten_thousand_random_problems(n: int, m: int, equalities: int, capsys):
    found = compare(100 * n + m, 1000, n, m, equalities)
    with capsys.disabled():
        print(f"\n{n} variables, {m} inequalities, {equalities} equalities: {found}")
    check(found, least_compared=10)
