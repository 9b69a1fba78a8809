"""The implicit function theorem: any order and mode, singular systems, broken numbers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest
from hypothesis import given, strategies as st

from diffgame import implicit_root


def square_root(a):
    return implicit_root(lambda y, a: y**2 - a, jnp.sqrt(a), a)


@pytest.mark.parametrize("first", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("second", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("third", [jax.jacfwd, jax.jacrev])
def test_every_order_in_every_mode(first, second, third):
    a = 2.3
    one = first(square_root)
    two = second(one)
    three = third(two)
    found = jax.jit(lambda a: (one(a), two(a), three(a)))(a)
    np.testing.assert_allclose(found, [a**-0.5 / 2, -(a**-1.5) / 4, 3 * a**-2.5 / 8], rtol=1e-13)


@jax.jit
def cubic_slope(root):
    def solve(a):
        return implicit_root(lambda y, a: y**3 + y - a, root, a)

    return jax.grad(solve)(root**3 + root)


@given(st.floats(-5, 5))
def test_slope_of_a_cubic(root: float):
    np.testing.assert_allclose(cubic_slope(root), 1 / (3 * root**2 + 1), rtol=1e-13)


def test_linear_systems_of_pytrees(key):
    matrix = jax.random.normal(key, (3, 3)) + 3 * jnp.eye(3)

    def residual(root, args):
        scale, matrix, right = args
        joined = jnp.append(root["a"], root["b"])
        flat = scale(matrix @ joined - right)
        return {"a": flat[:2], "b": flat[2]}

    def solve(matrix, right):
        joined = jax.lax.stop_gradient(jnp.linalg.solve(matrix, right))
        # A function among the arguments is data without a derivative.
        root = implicit_root(
            residual, {"a": joined[:2], "b": joined[2]}, (jnp.negative, matrix, right)
        )
        return jnp.append(root["a"], root["b"])

    right = jnp.arange(1.0, 4.0)
    for mode in (jax.jacfwd, jax.jacrev):
        found = jax.jit(mode(solve, argnums=(0, 1)))(matrix, right)
        expected = jax.jit(jax.jacrev(jnp.linalg.solve, argnums=(0, 1)))(matrix, right)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_agrees_with_optimistix(key):
    weights = jax.random.normal(key, (4, 4)) / 4

    def residual(y, a):
        return y - jnp.tanh(weights @ y + a)

    def theirs(a):
        solver = optimistix.Newton(rtol=1e-13, atol=1e-13)
        return optimistix.root_find(residual, solver, jnp.zeros(4), args=a).value

    def ours(a):
        return implicit_root(residual, jax.lax.stop_gradient(theirs(a)), a)

    a = jnp.linspace(-1, 1, 4)
    found, expected = jax.jit(jax.jacrev(ours))(a), jax.jit(jax.jacrev(theirs))(a)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_the_root_itself_gets_no_derivative():
    def solve(start):
        return implicit_root(lambda y, a: y - a, start, 1.0)

    assert jax.grad(solve)(1.0) == 0


def flat_residual(y, a):
    """Both rows say y0 + y1 = a^2: a line of roots."""
    return jnp.stack([y[0] + y[1] - a**2, 2 * (y[0] + y[1] - a**2)])


def test_singular_systems_raise_with_advice():
    def solve(a):
        return implicit_root(flat_residual, jnp.array([0.0, a**2]), a)

    with pytest.raises(eqx.EquinoxRuntimeError, match="cutoff=1e-8 for the minimum-norm"):
        jax.block_until_ready(eqx.filter_jit(jax.jacfwd(solve))(3.0))


@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
def test_a_cutoff_gives_the_minimum_norm_derivative(mode):
    def solve(a):
        return implicit_root(flat_residual, jnp.array([0.0, a**2]), a, cutoff=1e-8)

    np.testing.assert_allclose(jax.jit(mode(solve))(3.0), [3.0, 3.0], rtol=1e-13)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(mode(solve)))(3.0), [1.0, 1.0], rtol=1e-12)


@pytest.mark.parametrize("cutoff", [None, 1e-8], ids=["isolated", "manifold"])
def test_nan_goes_in_and_comes_out_and_stays_in_its_lane(cutoff):
    def solve(a):
        root = jnp.stack([jnp.sqrt(a), a])
        residual = implicit_root(
            lambda y, a: jnp.stack([y[0] ** 2 - a, y[1] - a]), root, a, cutoff=cutoff
        )
        return residual[0]

    batch = jnp.array([1.0, jnp.nan, 4.0])
    slopes = jax.jit(jax.vmap(jax.grad(solve)))
    np.testing.assert_array_equal(slopes(batch), slopes(batch.at[1].set(2.0)).at[1].set(jnp.nan))
    np.testing.assert_allclose(slopes(batch)[jnp.array([0, 2])], [0.5, 0.25], rtol=1e-14)


def test_a_cotangent_of_nan_does_not_raise():
    slope = jax.jit(jax.grad(lambda a: square_root(a) * jnp.nan))(2.0)
    assert jnp.isnan(slope)


def test_a_symmetric_solver_replaces_the_matrix(key):
    """Minimisers of a convex function: first and second derivatives, by conjugate gradients."""
    half = jax.random.normal(key, (4, 4))

    def gradient(y, data):
        matrix, a = data
        return matrix @ y + y**3 - a

    def solver(root, data):
        matrix, _ = data
        curvature = matrix + 3 * jnp.diag(root**2)
        return lambda right: jax.scipy.sparse.linalg.cg(lambda v: curvature @ v, right, tol=1e-14)[
            0
        ]

    def solve(data, **how):
        newton = optimistix.Newton(rtol=1e-14, atol=1e-14)
        frozen = jax.lax.stop_gradient(data)
        root = optimistix.root_find(gradient, newton, jnp.zeros(4), args=frozen).value
        return jnp.sum(implicit_root(gradient, root, data, **how) ** 2)

    def both(data):
        def derivatives(**how):
            first = jax.grad(lambda a: solve((data[0], a), **how))
            return first(data[1]), jax.jacfwd(first)(data[1])

        return derivatives(symmetric_solver=solver), derivatives()

    found, expected = jax.jit(both)((half @ half.T + jnp.eye(4), jnp.linspace(-1, 2, 4)))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)
