"""Infinitesimals: as many as asked, and no two sums alike."""

import itertools

import numpy as np
import pytest

from diffgame._ties import infinitesimals


@pytest.mark.parametrize("count", [*range(40), 100, 1000])
def test_they_are_as_many_as_asked_and_all_different(count):
    found = infinitesimals(count)
    assert found.shape == (count,)
    assert np.all((found > 0.5) & (found < 1.5))
    assert np.min(np.diff(np.sort(found)), initial=1) > 1e-9


def test_they_begin_with_the_roots_of_the_first_primes():
    primes = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71]
    assert np.array_equal(infinitesimals(20), 0.5 + np.sqrt(primes) % 1)


def test_small_combinations_of_them_do_not_vanish():
    """As rows of small integers combine: weights from -2 to 2 of any four of the first twelve."""
    weights = np.array([w for w in itertools.product(range(-2, 3), repeat=4) if any(w)])
    for chosen in itertools.combinations(infinitesimals(12), 4):
        assert np.min(np.abs(weights @ np.array(chosen))) > 1e-6
