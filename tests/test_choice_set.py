"""Choice sets: projections are nearest points, supports are attained maxima, trees have a shape."""

import equinox as eqx
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, strategies as st

from diffgame import Box, Constrained, DecisionTree, Polytope, Simplex

CONVEX = {
    "simplex": Simplex(4),
    "box": Box(jnp.array([-1.0, 0.0, 2.0, -3.0]), jnp.array([1.0, 0.0, 5.0, -1.0])),
}
each_set = pytest.mark.parametrize("name", CONVEX)
vectors = st.lists(st.floats(-10, 10), min_size=4, max_size=4).map(np.array)

PROJECT = {name: eqx.filter_jit(choices.project) for name, choices in CONVEX.items()}
SUPPORT = {name: eqx.filter_jit(choices.support) for name, choices in CONVEX.items()}


@each_set
@given(point=vectors, other=vectors)
def test_projection_is_the_nearest_point(name: str, point, other):
    """The obtuse angle criterion: <x - Px, z - Px> <= 0 for every z of the set."""
    nearest, member = PROJECT[name](point), PROJECT[name](other)
    assert jnp.sum((point - nearest) * (member - nearest)) <= 1e-12 * 100
    np.testing.assert_allclose(PROJECT[name](nearest), nearest, rtol=0, atol=1e-14)


@given(point=vectors)
def test_members_of_the_simplex_are_probabilities(point):
    nearest = PROJECT["simplex"](point)
    assert jnp.all(nearest >= 0)
    np.testing.assert_allclose(jnp.sum(nearest), 1, rtol=1e-14)


@each_set
@given(gradient=vectors, other=vectors)
def test_support_is_the_largest_inner_product(name: str, gradient, other):
    support = SUPPORT[name](gradient)
    member = PROJECT[name](other)
    assert jnp.sum(gradient * member) <= support + 1e-12 * 100
    attained = PROJECT[name](1e6 * gradient)
    np.testing.assert_allclose(jnp.sum(gradient * attained), support, rtol=1e-7, atol=2e-5)


@each_set
def test_the_centre_is_a_member(name: str):
    centre = CONVEX[name].centre()
    np.testing.assert_allclose(PROJECT[name](centre), centre, atol=1e-15)


def test_trees():
    tree = DecisionTree((("user", 2), ("nature", 3), ("user", 4)))
    assert tree.shape == (2, 3, 4)
    assert tree.decides == (True, False, True)
    # A centre is one plan: given nature's moves, her own probabilities sum to one.
    np.testing.assert_allclose(jnp.sum(tree.centre(), axis=(0, 2)), 1, rtol=1e-14)


def test_polytopes_and_constrained_sets_evaluate_their_constraints():
    budget = Polytope(jnp.array([[2.0, 1.0]]), jnp.array([4.0]))
    found = budget.constraints(jnp.ones(2))
    np.testing.assert_array_equal(found.inequalities, [-1])
    assert found.equalities.shape == (0,)
    share = Polytope(-jnp.eye(2), jnp.zeros(2), jnp.ones((1, 2)), jnp.ones(1))
    np.testing.assert_array_equal(share.constraints(jnp.array([0.5, 0.75])).equalities, [0.25])
    free = Constrained(2, jnp.array([3.0, 4.0]))
    np.testing.assert_array_equal(free.centre(), [3, 4])
    assert free.constraints(free.centre()).inequalities.shape == (0,)


def test_polytopes_are_data_under_vmap():
    stacked = eqx.filter_vmap(lambda b: Polytope(jnp.ones((1, 2)), b))(jnp.ones((3, 1)))
    assert stacked.b.shape == (3, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Simplex(0), "Simplex: size is 0; it must be at least 1"),
        (
            lambda: Box(jnp.array([0.0, 2.0]), jnp.ones(2)),
            r"Box: coordinate 1 goes from 2\.0 to 1\.0; give finite bounds, the lower one first",
        ),
        (lambda: Box(jnp.zeros(2), jnp.array([jnp.inf, 1])), "coordinate 0 goes from 0.0 to inf"),
        (lambda: Box(jnp.array([jnp.nan]), jnp.ones(1)), "coordinate 0 goes from nan to 1"),
        (lambda: DecisionTree((("users", 2),)), r"moves\[0\] is \('users', 2\)"),
        (lambda: DecisionTree((("user", 2), ("nature", 0))), r"moves\[1\] is \('nature', 0\)"),
        (lambda: DecisionTree((("nature", 2),)), "the user never moves"),
        (
            lambda: Polytope(jnp.ones((2, 2)), jnp.array([1.0, jnp.inf])),
            r"b\[1\] is inf; give finite numbers \(a row of zeros in A with b = 1",
        ),
        (
            lambda: Polytope(jnp.eye(2).at[1, 0].set(jnp.nan), jnp.ones(2)),
            r"A\[1, 0\] is nan",
        ),
        (
            lambda: Polytope(jnp.eye(2), jnp.ones(2), jnp.ones((1, 2))),
            "only one of E and e is given",
        ),
        (
            lambda: Polytope(jnp.eye(2), jnp.ones(2), jnp.ones((1, 2)), jnp.array([-jnp.inf])),
            r"e\[0\] is -inf; give finite numbers \(a row of zeros in E with e = 0",
        ),
        (lambda: Constrained(0), "Constrained: size is 0; it must be at least 1"),
    ],
    ids=[
        "simplex",
        "order",
        "infinite",
        "nan",
        "who",
        "size",
        "spectator",
        "unlimited",
        "coefficient",
        "half",
        "equality",
        "empty",
    ],
)
def test_bad_sets_are_refused(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_bounds_must_have_one_shape():
    # The checked signatures of the tests would speak first.
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ValueError, match=r"lower has shape \(2,\), upper \(3,\)"):
            Box(jnp.zeros(2), jnp.ones(3))
        with pytest.raises(ValueError, match=r"A has shape \(2, 2\), b \(3,\); give A \[rows, 2\]"):
            Polytope(jnp.eye(2), jnp.ones(3))
        with pytest.raises(ValueError, match=r"E has shape \(1, 3\), e \(1,\); give E \[rows, 2\]"):
            Polytope(jnp.eye(2), jnp.ones(2), jnp.ones((1, 3)), jnp.ones(1))
        with pytest.raises(ValueError, match=r"start has shape \(3,\); give shape \(2,\)"):
            Constrained(2, jnp.ones(3))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
