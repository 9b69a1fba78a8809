"""Fixed points by following the flow, and how disturbances of them grow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame._fixed_point import follow, is_stable, spectral_radius

SIZES = [1, 2, 5]


@jax.jit
def follow_fold(start, gap):
    """dx/dt = gap + x^2 below 1, then back to a stable point at 2: a fold, and what is beyond."""
    return follow(lambda x: x + jnp.where(x < 1, gap + x**2, (1 + gap) * (2 - x)), start)


@pytest.mark.parametrize("gap", [-1.0, -1e-2, -1e-4, -1e-8])
def test_the_near_point_is_found_however_close_the_fold(gap: float):
    found = follow_fold(jnp.array([-3.0]), jnp.array(gap))
    np.testing.assert_allclose(found, -np.sqrt(-gap), rtol=1e-6, atol=1e-11 / np.sqrt(-gap))


@pytest.mark.parametrize("gap", [1e-2, 1e-4, 1e-8])
def test_beyond_the_fold_the_flow_passes_the_bottleneck(gap: float):
    np.testing.assert_allclose(follow_fold(jnp.array([-3.0]), jnp.array(gap)), 2, rtol=1e-10)


@pytest.mark.parametrize(("start", "end"), [(0.099, -0.1), (0.101, 2.0), (-0.2, -0.1), (5.0, 2.0)])
def test_the_basin_of_the_start_decides(start: float, end: float):
    """At the gap -.01 there is a stable point at -.1 and an unstable one at .1."""
    np.testing.assert_allclose(follow_fold(jnp.array([start]), jnp.array(-0.01)), end, rtol=1e-9)


@jax.jit
def follow_linear(matrix, target):
    return follow(lambda x: x + matrix @ (x - target), jnp.zeros_like(target))


@pytest.mark.parametrize("stiffness", [1e0, 1e3, 1e8])
def test_stiff_and_rotating_flows_settle(stiffness: float):
    rotation = np.array([[-0.01, 5.0, 0.0], [-5.0, -0.01, 0.0], [1.0, 0.0, -stiffness]])
    target = jnp.array([1.0, -2.0, 3.0])
    np.testing.assert_allclose(follow_linear(jnp.array(rotation), target), target, rtol=1e-8)


def test_a_broken_flow_does_not_touch_its_neighbours():
    starts, gaps = jnp.array([[-3.0], [jnp.nan], [-3.0]]), jnp.array([-1.0, -1.0, jnp.nan])
    together = jax.jit(jax.vmap(follow_fold))(starts, gaps)
    alone = jax.jit(jax.vmap(follow_fold))(jnp.full((3, 1), -3.0), jnp.full(3, -1.0))
    np.testing.assert_array_equal(together[0], alone[0])
    assert jnp.isnan(together[1]).all()


@pytest.mark.parametrize("size", SIZES)
def test_the_spectral_radius_is_that_of_the_eigenvalues(key: jax.Array, size: int):
    matrix = jax.random.normal(key, (size, size))
    expected = np.max(np.abs(np.linalg.eigvals(np.asarray(matrix))))
    np.testing.assert_allclose(spectral_radius(matrix), expected, rtol=1e-10)


def test_radii_of_special_matrices():
    jordan = jnp.array([[0.5, 1e6], [0.0, 0.5]])
    np.testing.assert_allclose(spectral_radius(jordan), 0.5, rtol=1e-8)
    assert spectral_radius(jnp.array([[0.0, 1.0], [0.0, 0.0]])) == 0
    assert jnp.isnan(spectral_radius(jnp.array([[1.0, jnp.nan], [0.0, 0.0]])))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("distance", [1e-4, -1e-4])
def test_stability_is_the_sign_of_the_largest_real_part(key: jax.Array, size: int, distance: float):
    matrix = np.asarray(jax.random.normal(key, (size, size)))
    matrix = matrix - (np.max(np.linalg.eigvals(matrix).real) + distance) * np.eye(size)
    assert bool(is_stable(jnp.array(matrix))) == (distance > 0)


def test_pure_rotation_and_rest_count_as_stable():
    assert is_stable(jnp.array([[0.0, 1.0], [-1.0, 0.0]])) & is_stable(jnp.zeros((2, 2)))
    assert not is_stable(jnp.array([[jnp.nan]]))
