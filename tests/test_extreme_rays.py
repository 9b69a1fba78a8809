"""Extreme rays: complete by duality, few by the upper bound theorem, refuted if there is none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame._extreme_rays import count_candidates, count_rays, find_rays

BLOCKS, CONES = 3, 300
SHAPES = [(0, 3), (4, 2), (4, 3), (3, 4)]


def cones(seed, inequalities, states, *, integers):
    """Rows of random cones; with small integers many are degenerate, flat or empty."""
    rng = np.random.default_rng(seed)
    shape = CONES, BLOCKS, inequalities, states
    within = rng.integers(-1, 2, shape).astype(float) if integers else rng.normal(size=shape)
    # Units far from one, row by row.
    return within * 10 ** rng.uniform(-6, 6, (*shape[:3], 1)), rng


@pytest.mark.parametrize("integers", [False, True], ids=["generic", "degenerate"])
@pytest.mark.parametrize(("inequalities", "states"), SHAPES)
def test_rays_lie_in_their_cone_and_prove_every_minimum(inequalities, states, integers):
    within, rng = cones(0, inequalities, states, integers=integers)
    rays = jax.jit(jax.vmap(find_rays))(within)
    cost = rng.normal(size=(CONES, states, BLOCKS))
    some = np.any(rays.exists, axis=1)
    assert integers or inequalities < 2 or 0.02 < np.mean(~some) < 0.9
    # [cones, ...], rays in the third axis, blocks last.
    assert np.all(rays.ray >= 0)
    total = np.sum(rays.ray, axis=1)
    assert np.allclose(total, rays.exists, atol=1e-14)
    unit = within / np.maximum(np.abs(within).max(axis=3, keepdims=True), 1e-300)
    met = np.einsum("cbis,csrb->cirb", unit, rays.ray)
    assert np.all(met >= -1e-11)
    # Multipliers of the rows that are tight, at one of the rays, are all nonnegative: that ray is
    # the cheapest of the whole cone by weak duality, so no ray is missing.
    prices = np.einsum("ctsrb,csb->ctrb", rays.prices, cost)
    proved = np.all(prices >= -1e-7, axis=1) & rays.exists
    worth = np.einsum("csb,csrb->crb", cost, rays.ray)
    best = np.min(np.where(rays.exists, worth, np.inf), axis=1)
    found = np.any(proved & (worth <= best[:, None] + 1e-9), axis=1)
    assert np.all(found | ~some), f"cones {np.argwhere(~found & some)} of seed 0"


@pytest.mark.parametrize("integers", [False, True], ids=["generic", "degenerate"])
@pytest.mark.parametrize(("inequalities", "states"), SHAPES[1:])
def test_a_cone_without_rays_is_refuted(inequalities, states, integers):
    within, _ = cones(1, inequalities, states, integers=integers)
    rays = jax.jit(jax.vmap(find_rays))(within)
    some = np.any(rays.exists, axis=1)
    assert np.all(rays.refutation >= 0)
    unit = within / np.swapaxes(rays.size, 1, 2)[..., None]
    left = np.einsum("cbis,cib->csb", unit, rays.refutation)
    assert np.all((np.max(left, axis=1) <= -1 + 1e-9) | some)
    assert np.all((rays.refutation == 0) | ~some[:, None])


@pytest.mark.parametrize(
    ("inequalities", "states", "most"), [(3, 2, 2), (2, 3, 5), (4, 3, 7), (2, 4, 8), (4, 5, 27)]
)
def test_the_most_rays_are_those_of_the_upper_bound_theorem(inequalities, states, most):
    """Ends of an interval, corners of a polygon, 2 n - 4 of a polyhedron, n (n - 3) / 2."""
    assert count_rays(inequalities, states) == most
    assert count_candidates(inequalities, states) >= most


def test_a_square_within_the_triangle_of_beliefs():
    """Two rows per pair of states: beliefs at which a likelihood ratio is between 1/2 and 2."""
    rows = [[2, -1, 0], [-1, 2, 0], [0, 2, -1], [0, -1, 2]]
    rays = find_rays(jnp.array([rows], float))
    found = np.array(sorted(rays.ray[:, rays.exists[:, 0], 0].T.tolist()))
    expected = np.array([[1, 2, 4], [1, 2, 1], [2, 1, 2], [4, 2, 1]])
    expected = np.array(sorted((expected / expected.sum(axis=1, keepdims=True)).tolist()))
    assert np.allclose(found, expected, atol=1e-14)


def test_rows_that_repeat_each_other_leave_every_ray():
    """Rows 0 and 2 say again that x >= 0: of either only one counts, whichever is relaxed less."""
    rows = jnp.array([[1.0, 0, 0], [1, 1, 2], [0, 0, 1], [2, 0, 1], [1, 0, 1]])
    rays = find_rays(rows[None])
    found = np.asarray(rays.ray[:, :, 0].T[rays.exists[:, 0]])
    assert np.array_equal(np.unique(found, axis=0), np.eye(3)[::-1])
