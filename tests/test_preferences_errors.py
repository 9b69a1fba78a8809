"""Errors in sample, on held-out items and by the number of providers."""

import numpy as np
import pytest
import scipy.optimize

from diffgame.preferences import AlignSettings, Ratings, RatingsError
from diffgame.preferences._errors import (
    METHODS,
    fit_errors,
    group_means,
    provider_curve,
    split_folds,
    worst_decile,
)

PEOPLE, PROVIDERS, ITEMS = 24, 5, 30


def table(seed: int, groups=None) -> tuple[Ratings, np.ndarray]:
    rng = np.random.default_rng(seed)
    utilities = rng.normal(size=(PROVIDERS, ITEMS))
    values = 3 + rng.dirichlet(np.ones(PROVIDERS), PEOPLE) @ utilities
    values = np.clip(values + 0.3 * rng.normal(size=values.shape), 1, 5)
    values[rng.random(values.shape) < 0.3] = np.nan
    people = tuple(f"p{k}" for k in range(PEOPLE))
    items = tuple(f"i{k}" for k in range(ITEMS))
    return Ratings("table", people, items, (1.0, 5.0), values, groups), utilities


def test_folds_split_each_persons_own_items_evenly():
    observed = np.random.default_rng(0).random((40, 31)) < 0.6
    folds = split_folds(observed, 4, np.random.default_rng(1))
    sizes = np.stack([((folds == k) & observed).sum(axis=1) for k in range(4)])
    assert (sizes.max(axis=0) - sizes.min(axis=0) <= 1).all()
    assert (sizes.sum(axis=0) == observed.sum(axis=1)).all()


@pytest.mark.parametrize(
    ("errors", "expected"),
    [([3.0], 3), ([1.0, 2.0], 2), (np.arange(10.0), 9), (np.arange(11.0), 9.5)],
)
def test_the_worst_decile_is_the_mean_of_the_worst_tenth(errors, expected):
    assert worst_decile(np.asarray(errors)) == expected


def test_held_out_errors_are_those_of_a_fit_to_the_other_folds():
    ratings, utilities = table(0)
    settings = AlignSettings(seed=3, folds=3)
    errors, mixes, folds = fit_errors(ratings, utilities, settings, lambda text: None)
    for k in range(0, PEOPLE, 5):
        seen = ratings.observed[k]
        square, own_square = 0.0, 0.0
        for fold in range(3):
            fit, held = seen & (folds[k] != fold), seen & (folds[k] == fold)
            left, right = utilities[:, fit].T, ratings.values[k, fit]
            weights, _ = scipy.optimize.nnls(left - left.mean(axis=0), right - right.mean())
            offset = right.mean() - left.mean(axis=0) @ weights
            square += np.sum((weights @ utilities[:, held] + offset - ratings.values[k, held]) ** 2)
            own_square += np.sum((right.mean() - ratings.values[k, held]) ** 2)
        expected = np.sqrt(square / seen.sum()), np.sqrt(own_square / seen.sum())
        assert abs(errors["cone"]["held_out"][k] - expected[0]) <= 1e-8
        assert abs(errors["none"]["held_out"][k] - expected[1]) <= 1e-12
        assert abs(errors["none"]["error"][k] - np.nanstd(ratings.values[k])) <= 1e-12
    assert mixes["cone"].certified.all()
    assert mixes["hull"].certified.all()


def test_in_sample_errors_fall_along_nested_subsets_and_with_freedom():
    ratings, utilities = table(1)
    settings = AlignSettings(folds=3)
    values, observed = np.nan_to_num(ratings.values), ratings.observed
    folds = split_folds(observed, 3, np.random.default_rng(0))
    rows = provider_curve(values, observed, utilities, folds, settings)
    assert [row["providers"] for row in rows[:: len(METHODS)]] == [1, 2, 3, 5]
    errors = {m: np.array([r["in_sample"] for r in rows if r["method"] == m]) for m in METHODS}
    for method in ("cone", "hull", "single"):
        assert (np.diff(errors[method]) <= 1e-9).all()
    assert (errors["cone"] <= errors["hull"] + 1e-9).all()
    assert (errors["hull"] <= np.minimum(errors["single"], errors["mean"]) + 1e-9).all()
    assert rows == provider_curve(values, observed, utilities, folds, settings)
    # With all providers, the fit is the first fold's of the cross-validation.
    assert all(row["held_out_worst_decile"] >= row["held_out"] for row in rows)


def test_group_means_count_the_answers_given():
    groups = ("a",) * 20 + ("b",) * 4
    ratings, _ = table(2, groups)
    names, means, known, share = group_means(ratings)
    assert names == ["a", "b"]
    np.testing.assert_allclose(share, [20 / 24, 4 / 24])
    np.testing.assert_array_equal(
        known, [ratings.observed[:20].any(0), ratings.observed[20:].any(0)]
    )
    np.testing.assert_allclose(means[0], np.nanmean(ratings.values[:20], axis=0))
    assert (means[1][~known[1]] == 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, "--seed is -1; choose at least 0"),
        ({"folds": 1}, "--folds is 1; choose at least 2"),
        ({"draws": 0}, "--draws is 0; choose at least 1"),
        ({"folds": 8}, r"--minimum is 5; choose at least 8 \(the number of folds\)"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(RatingsError, match=message):
        AlignSettings(**settings)
