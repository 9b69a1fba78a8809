"""Policies: what they offer, where they may be, what varies, what a random one is."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffgame as dg
from diffgame._play import project, replace, select, split


def make_network():
    keys = jax.random.split(jax.random.key(0), 2)
    return dg.Network(eqx.filter_vmap(lambda key: eqx.nn.MLP(3, 2, 4, 1, key=key))(keys))


def test_constant():
    policy = dg.Constant(jnp.array([-1.0, 0.5, 9.0]), lower=0.0, upper=jnp.array([1.0, 1.0, 2.0]))
    np.testing.assert_array_equal(policy(None), policy.offer)
    np.testing.assert_array_equal(policy.project()("anything"), [0.0, 0.5, 2.0])
    varied, fixed = split(policy)
    np.testing.assert_array_equal(varied.offer, policy.offer)
    assert varied.lower is None
    assert fixed.offer is None


def test_a_constant_profile_survives_transformations():
    profile = dg.Constant(jnp.array([3.0, -3.0]), lower=-1.0, upper=1.0)
    passed = jax.jit(lambda profile: profile)(profile)
    np.testing.assert_array_equal(project(passed).offer, [1.0, -1.0])


def test_probability_table():
    table = dg.ProbabilityTable(jnp.array([[[2.0, 1.0], [0.2, 0.2]], [[0.5, 0.5], [0.0, 3.0]]]))
    feasible = table.project()
    np.testing.assert_allclose(feasible(0), [[1.0, 0.0], [0.5, 0.5]], atol=1e-15)
    np.testing.assert_allclose(feasible(jnp.array(1)), [[0.5, 0.5], [0.0, 1.0]], atol=1e-15)


def test_network():
    profile = make_network()
    one = select(profile, 1)
    observation = jnp.array([1.0, -2.0, 0.5])
    np.testing.assert_array_equal(one(observation), one.module(observation))
    varied, _ = split(profile)
    assert len(jax.tree.leaves(varied)) == 4
    assert all(eqx.is_inexact_array(leaf) for leaf in jax.tree.leaves(varied))
    assert eqx.tree_equal(project(profile), profile)


def test_select_and_replace():
    profile = make_network()
    swapped = replace(profile, 0, select(profile, 1))
    assert eqx.tree_equal(select(swapped, 0), select(profile, 1))
    assert eqx.tree_equal(select(swapped, 1), select(profile, 1))


def test_random_constants_fill_their_box(key):
    policy = dg.Constant(jnp.zeros(2), lower=jnp.array([-1.0, 2.0]), upper=jnp.array([1.0, 6.0]))
    drawn = jax.jit(jax.vmap(lambda key: policy.sample(key).offer))(jax.random.split(key, 4_000))
    assert jnp.all((drawn >= policy.lower[None]) & (drawn <= policy.upper[None]))
    # Standard errors of the mean are below .02, of the variance below .02.
    np.testing.assert_allclose(jnp.mean(drawn, axis=0), [0.0, 4.0], atol=0.1)
    np.testing.assert_allclose(jnp.var(drawn, axis=0), [4 / 12, 16 / 12], atol=0.1)


def test_random_constants_without_bounds_surround_the_offer(key):
    policy = dg.Constant(jnp.array(5.0), lower=0.0)
    drawn = jax.jit(jax.vmap(lambda key: policy.sample(key).offer))(jax.random.split(key, 1_000))
    assert jnp.all(jnp.isfinite(drawn) & (drawn >= 0))
    assert jnp.min(drawn) < 4.9
    assert jnp.max(drawn) > 10


def test_random_tables_are_probabilities(key):
    table = dg.ProbabilityTable(jnp.full((1, 2, 3), 1 / 3))
    drawn = jax.jit(jax.vmap(lambda key: table.sample(key)(0)))(jax.random.split(key, 2_000))
    assert jnp.all(drawn >= 0)
    np.testing.assert_allclose(jnp.sum(drawn, axis=-1), 1, rtol=1e-14)
    # Uniform on the simplex: mean 1/3, variance 1/18.
    np.testing.assert_allclose(jnp.mean(drawn, axis=0), jnp.full((2, 3), 1 / 3), atol=0.03)
    np.testing.assert_allclose(jnp.var(drawn, axis=0), jnp.full((2, 3), 1 / 18), atol=0.01)


def test_random_networks_differ_and_keep_their_structure():
    policy = select(make_network(), 0)
    drawn = policy.sample(jax.random.key(1))
    assert jax.tree.structure(drawn) == jax.tree.structure(policy)
    for ours, theirs in zip(
        jax.tree.leaves(split(drawn)[0]), jax.tree.leaves(split(policy)[0]), strict=True
    ):
        assert jnp.all(ours != theirs)


def test_sampling_is_fixed_by_its_key():
    policy = dg.Constant(jnp.zeros(3))
    first, second = (policy.sample(jax.random.key(seed)).offer for seed in (0, 0))
    np.testing.assert_array_equal(first, second)
    assert jnp.all(first != policy.sample(jax.random.key(1)).offer)


@pytest.mark.parametrize("bound", ["lower", "upper"])
def test_bounds_must_fit_the_offer(bound: str):
    with pytest.raises(ValueError, match="broadcast"):
        dg.Constant(jnp.zeros(2), **{bound: jnp.zeros(3)})
