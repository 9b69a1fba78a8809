"""Nearest mixes in squared error: equality with other solvers, bounds that hold, certificates."""

import itertools

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from diffgame.preferences import check_mix, mix_weights, nonnegative_least_squares

PEOPLE, PROVIDERS, ITEMS = 24, 5, 30
weights_of = eqx.filter_jit(mix_weights)
checked = eqx.filter_jit(check_mix)
EVERYTHING = jnp.ones((1, PROVIDERS), bool)
OFFSETS = pytest.mark.parametrize("constant", [False, True], ids=["no offset", "constant"])


def tables(seed: int):
    """Values, mask (3 to all items) and utilities, some of them dependent."""
    rng = np.random.default_rng(seed)
    utilities = rng.normal(size=(PROVIDERS, ITEMS)) + rng.normal(size=(PROVIDERS, 1))
    mix = rng.exponential(size=(PEOPLE, PROVIDERS)) * (rng.random((PEOPLE, PROVIDERS)) < 0.6)
    values = mix @ utilities + rng.normal(size=(PEOPLE, ITEMS)) + 1
    count = rng.integers(3, ITEMS + 1, PEOPLE)
    mask = 1.0 * (rng.random((PEOPLE, ITEMS)).argsort(axis=1) < count[:, None])
    return values, mask, utilities


def fitted(values, mask, utilities, constant, allowed=EVERYTHING):
    arrays = map(jnp.asarray, (values, mask, utilities))
    return weights_of(*arrays, allowed, jnp.array(constant))


def certified(values, mask, utilities, weights, constant, *, hull, allowed=EVERYTHING[0]):
    arrays = map(jnp.asarray, (values, mask, utilities, weights))
    return checked(*arrays, allowed, jnp.array(constant), hull=hull)


def observed_problem(values, mask, utilities, k, constant):
    """The least-squares problem of person k: matrix [items, providers] and right side."""
    seen = mask[k] > 0
    left, right = utilities[:, seen].T, values[k, seen]
    return (left - left.mean(axis=0), right - right.mean()) if constant else (left, right)


def best_in_hull(left, right):
    """The least error with weights of sum one, by trying every support."""
    n, best = left.shape[1], np.inf
    for size in range(1, n + 1):
        for support in map(list, itertools.combinations(range(n), size)):
            first, rest = support[0], support[1:]
            spread = left[:, rest] - left[:, [first]]
            found = np.linalg.lstsq(spread, right - left[:, first], rcond=None)[0]
            weights = np.array([1 - found.sum(), *found])
            if weights.min() >= -1e-12:
                best = min(best, np.sqrt(np.mean((left[:, support] @ weights - right) ** 2)))
    return best


@OFFSETS
@pytest.mark.parametrize("seed", [0, 1])
def test_the_cone_is_what_scipy_finds(seed: int, constant: bool):
    values, mask, utilities = tables(seed)
    weights = fitted(values, mask, utilities, constant)["cone"][0]
    mix = certified(values, mask, utilities, weights, constant, hull=False)
    for k in range(PEOPLE):
        left, right = observed_problem(values, mask, utilities, k, constant)
        _, norm = scipy.optimize.nnls(left, right)
        assert abs(mix.error[k] - norm / np.sqrt(len(right))) <= 1e-8, f"person {k}"
    assert mix.certified.all()
    assert (mix.kkt_residual <= 1e-9).all()


@OFFSETS
@pytest.mark.parametrize("seed", [0, 1])
def test_the_hull_is_the_best_over_all_supports(seed: int, constant: bool):
    values, mask, utilities = tables(seed)
    weights = fitted(values, mask, utilities, constant)["hull"][0]
    mix = certified(values, mask, utilities, weights, constant, hull=True)
    for k in range(PEOPLE):
        left, right = observed_problem(values, mask, utilities, k, constant)
        assert abs(mix.error[k] - best_in_hull(left, right)) <= 1e-8, f"person {k}"
    assert mix.certified.all()
    assert (mix.kkt_residual <= 1e-9).all()


@OFFSETS
def test_more_freedom_never_costs(constant: bool):
    values, mask, utilities = tables(2)
    found = fitted(values, mask, utilities, constant)
    error = {
        method: certified(values, mask, utilities, found[method][0], constant, hull=False).error
        for method in ("cone", "hull", "single", "mean")
    }
    assert (error["cone"] <= error["hull"] + 1e-9).all()
    assert (error["hull"] <= jnp.minimum(error["single"], error["mean"]) + 1e-9).all()
    # The single one is the best of them: no provider alone has a smaller error.
    for k in range(PROVIDERS):
        alone = np.tile(np.eye(PROVIDERS)[k], (PEOPLE, 1))
        other = certified(values, mask, utilities, alone, constant, hull=True).error
        assert (error["single"] <= other + 1e-9).all()


@OFFSETS
@pytest.mark.parametrize("hull", [True, False], ids=["hull", "cone"])
def test_no_mix_beats_the_lower_bound(hull: bool, constant: bool):
    values, mask, utilities = tables(3)
    found = fitted(values, mask, utilities, constant)["hull" if hull else "cone"][0]
    rng = np.random.default_rng(4)
    # Bounds are proved from any weights, good or bad.
    start = rng.dirichlet(np.ones(PROVIDERS), size=PEOPLE)
    bound = certified(values, mask, utilities, start, constant, hull=hull).lower
    best = certified(values, mask, utilities, found, constant, hull=hull)
    within = found.sum(axis=1) <= 1 + 10 * start.sum(axis=1)
    assert (bound <= best.error + 1e-9)[within].all()
    for _ in range(20):
        other = rng.dirichlet(np.ones(PROVIDERS), size=PEOPLE)
        other = other if hull else other * rng.exponential(size=(PEOPLE, 1))
        error = certified(values, mask, utilities, other, constant, hull=hull).error
        assert (best.lower <= error + 1e-9).all()


def test_weights_that_are_not_the_nearest_are_not_certified():
    values, mask, utilities = tables(5)
    found = fitted(values, mask, utilities, True)
    moved = found["hull"][0] * 0.99 + 0.01 / PROVIDERS
    assert not certified(values, mask, utilities, moved, True, hull=True).certified.any()
    longer = found["hull"][0] * (1 + 1e-6)
    assert not certified(values, mask, utilities, longer, True, hull=True).certified.any()
    negative = found["cone"][0].at[:, 0].set(-1e-3)
    assert not certified(values, mask, utilities, negative, True, hull=False).certified.any()
    lost = found["cone"][0].at[:, 0].set(jnp.nan)
    assert not certified(values, mask, utilities, lost, True, hull=False).certified.any()


def test_only_allowed_providers_are_mixed_and_more_of_them_help():
    values, mask, utilities = tables(6)
    nested = jnp.tril(jnp.ones((PROVIDERS, PROVIDERS), bool))
    found = fitted(values, mask, utilities, True, nested)
    for method, hull in (("cone", False), ("hull", True)):
        errors = []
        for weights, allowed in zip(found[method], nested, strict=True):
            assert (weights[:, ~allowed] == 0).all()
            mix = certified(values, mask, utilities, weights, True, hull=hull, allowed=allowed)
            assert mix.certified.all()
            errors.append(mix.error)
        assert (np.diff(errors, axis=0) <= 1e-9).all()
    assert (found["mean"][1, :, :2] == 0.5).all()


def test_twins_zeros_and_exact_mixes_are_no_trouble():
    values, _, utilities = tables(7)
    mask = np.ones_like(values)
    utilities[1], utilities[2] = utilities[0], 0
    values = np.random.default_rng(8).dirichlet(np.ones(PROVIDERS), PEOPLE) @ utilities
    found = fitted(values, mask, utilities, False)
    for method, hull in (("cone", False), ("hull", True)):
        mix = certified(values, mask, utilities, found[method][0], False, hull=hull)
        assert mix.certified.all()
        assert (mix.error <= 1e-7).all()


def test_people_who_answer_everything_alike_are_no_trouble():
    values, mask, utilities = tables(11)
    values[: PEOPLE // 2], values[PEOPLE // 2 :] = 0, 0.1
    for constant in (False, True):
        found = fitted(values, mask, utilities, constant)
        for method, hull in (("cone", False), ("hull", True)):
            weights = found[method][0]
            mix = certified(values, mask, utilities, weights, constant, hull=hull)
            assert mix.certified.all()
            assert (mix.kkt_residual <= 1e-9).all()
    assert (found["cone"] <= 1e-12).all()


def test_what_is_outside_the_mask_does_not_matter():
    values, mask, utilities = tables(9)
    first = fitted(values, mask, utilities, True)
    second = fitted(np.where(mask > 0, values, 1e3), mask, utilities, True)
    for method, weights in first.items():
        np.testing.assert_allclose(weights, second[method], rtol=0, atol=1e-9)


def test_nonnegative_least_squares_of_a_hard_matrix_is_stationary():
    # Condition 1e8: the refinement must leave gradients at rounding error.
    rng = np.random.default_rng(10)
    left = rng.normal(size=(40, PROVIDERS)) * 10.0 ** -np.arange(PROVIDERS)
    right = left @ np.array([1.0, 0, 100, 0, 1e4]) + 1e-3 * rng.normal(size=40)
    matrix, vector = left.T @ left, left.T @ right
    x = nonnegative_least_squares(jnp.asarray(matrix), jnp.asarray(vector), EVERYTHING[0])
    expected, _ = scipy.optimize.nnls(left, right)
    size = np.sqrt(np.diag(matrix))
    np.testing.assert_allclose(x * size, expected * size, rtol=0, atol=1e-7)
