"""Partitions, labels and their bits: counts, other clusterings, entropies, refusals."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.cluster.hierarchy import fcluster, linkage

from diffgame.market._degree import (
    all_partitions,
    information_bits,
    likelihood_of,
    merge_by_distance,
    noisy_labels,
    noisy_market,
    threshold_labels,
)

from .degrees import USERS, cautious_market, random_likelihood, refines

BELL = [1, 2, 5, 15, 52, 203, 877, 4140]


@pytest.mark.parametrize("users", range(1, 9))
def test_all_partitions_are_as_many_as_bell_numbers_and_distinct(users):
    partitions = all_partitions(users)
    assert partitions.shape == (BELL[users - 1], users)
    assert len({frozenset(map(tuple, p[:, None] == p[None])) for p in partitions}) == len(
        partitions
    )
    top = np.maximum.accumulate(partitions, axis=1)
    assert np.all(partitions[:, 0] == 0)
    assert np.all(partitions[:, 1:] <= top[:, :-1] + 1)


@pytest.mark.parametrize("seed", range(5))
def test_merging_by_distance_is_complete_linkage(seed):
    features = np.random.default_rng(seed).normal(size=(9, 3))
    chain = merge_by_distance(features)
    tree = linkage(features, "complete", metric="chebyshev")
    for count, labels in enumerate(chain, 1):
        other = fcluster(tree, count, "maxclust")
        assert len(np.unique(labels)) == count
        assert refines(labels, other), f"{seed=}, {count} segments"
        assert refines(other, labels), f"{seed=}, {count} segments"
    assert all(refines(fine, coarse) for coarse, fine in itertools.pairwise(chain))


def test_utilities_are_features_too():
    u = np.array([np.eye(2), 1 - np.eye(2), np.eye(2) + 0.1])
    np.testing.assert_array_equal(merge_by_distance(u)[1], [0, 1, 0])


def test_thresholds_cut_every_feature():
    features = np.array([[1.0, 0.0], [3.0, 0.0], [2.0, 5.0], [2.5, 0.2]])
    np.testing.assert_array_equal(threshold_labels(features, [2.0, 1.0]), [0, 1, 2, 1])
    # The same feature twice: three classes.
    np.testing.assert_array_equal(threshold_labels(features[:, [0, 0]], [1.5, 2.2]), [0, 1, 2, 1])


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=6), st.data())
def test_bits_are_zero_together_the_entropy_apart_and_that_of_segments_between(mass, data):
    mass = np.array(mass)
    share = mass / mass.sum()
    assert information_bits(mass, np.zeros(len(mass), int)) == pytest.approx(0, abs=1e-12)
    entropy = -np.sum(share * np.log2(share))
    assert information_bits(mass, np.arange(len(mass))) == pytest.approx(entropy, abs=1e-12)
    labels = data.draw(st.lists(st.integers(0, 3), min_size=len(mass), max_size=len(mass)))
    sizes = np.array([share[np.array(labels) == label].sum() for label in set(labels)])
    expected = -np.sum(sizes * np.log2(sizes))
    assert information_bits(mass, labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("accuracy", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_noisy_bit_is_a_binary_symmetric_channel(accuracy):
    noise = [accuracy, 1 - accuracy]
    expected = 1 + sum(p * math.log2(p) for p in noise if p > 0)
    bits = information_bits(np.ones(2), noisy_labels([0, 1], accuracy))
    assert bits == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_a_garbled_label_never_says_more(seed):
    rng = np.random.default_rng(seed)
    mass, fine = rng.uniform(0.5, 2, USERS), random_likelihood(rng)
    garbled = fine @ rng.dirichlet(np.ones(3), 3)
    assert information_bits(mass, garbled) < information_bits(mass, fine)


def test_a_noisy_market_has_a_user_per_label_that_she_may_get():
    market = cautious_market(0)
    likelihood = np.array([[1, 0, 0], [0.5, 0.5, 0], [0.2, 0.3, 0.5], [0, 0, 1.0]])
    noisy = noisy_market(market, likelihood)
    user, label = np.argwhere(likelihood > 0).T
    np.testing.assert_array_equal(noisy.observation, label)
    np.testing.assert_array_equal(noisy.utility, market.utility[user])
    np.testing.assert_array_equal(noisy.objective, market.objective[:, user])
    mass = [float(noisy.mass[user == j].sum()) for j in range(USERS)]
    np.testing.assert_allclose(mass, market.mass, rtol=1e-12)
    assert noisy.mass[1] == pytest.approx(0.5 * float(market.mass[1]))
    assert (noisy.observations, noisy.messages) == (3, market.messages)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: likelihood_of([[0.5, 0.5]], 2), r"likelihood has shape \(1, 2\).*2 users"),
        (lambda: likelihood_of([[0.5, 0.4]], 1), r"likelihood\[0\] sums to 0.9"),
        (lambda: likelihood_of([[1.5, -0.5]], 1), "likelihood has -0.5: give probabilities"),
        (lambda: likelihood_of([[np.nan, 1]], 1), "no finite numbers"),
        (lambda: noisy_labels([0, 1], 1.5), "accuracy is 1.5; give a probability"),
        (lambda: noisy_labels([0, 1], math.nan), "accuracy is nan"),
        (lambda: information_bits([1, -1.0], [0, 1]), r"mass is \[1.0, -1.0\]: give one positive"),
        (lambda: information_bits([1, math.nan], [0, 1]), "mass is .*nan"),
        (lambda: all_partitions(11), "users is 11; give 1 to 10"),
        (lambda: all_partitions(0), "users is 0; give 1 to 10"),
        (lambda: merge_by_distance([1.0, 2.0]), r"features has shape \(2,\)"),
        (lambda: merge_by_distance([[math.inf]]), "features has entries that are not finite"),
        (lambda: threshold_labels([[1.0]], [1.0, 2.0]), r"cutoffs has shape \(2,\).*1 features"),
        (lambda: threshold_labels([[1.0]], [math.nan]), "cutoffs has entries that are not finite"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
