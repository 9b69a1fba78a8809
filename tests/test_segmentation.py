"""The coarsest segmentation within a loss: against all partitions, and greedily for many users."""

import itertools
import math

import numpy as np
import pytest

from diffgame.market import Market, _segmentation
from diffgame.market._degree import all_partitions, information_bits
from diffgame.market._segment_bounds import information_certificates
from diffgame.market._segmentation import (
    SegmentationStatus,
    coarsest_segmentation,
    merge_by_certificate,
)

from . import oracle
from .degrees import USERS, cautious_market, random_likelihood, reference, refines
from .markets import random_market

RANDOM = cautious_market(0)


@pytest.mark.parametrize("count", [6, pytest.param(100, marks=pytest.mark.campaign)])
def test_the_coarsest_segmentation_is_that_of_brute_force(count):
    partitions = all_partitions(USERS)
    sizes, segments, loose = [], partitions.max(axis=1) + 1, 0
    for seed in range(count):
        market = cautious_market(seed)
        bits = [information_bits(market.mass, labels) for labels in partitions]
        bounds = np.array([reference(market, labels) for labels in partitions])
        if not np.all(information_certificates(market, list(partitions)).certified):
            loose += 1
            continue
        levels = np.unique(bounds.round(6))
        # Between the values that occur, so that rounding decides nothing; and above them all.
        for loss in [*((levels[1:] + levels[:-1]) / 2)[::2], levels[-1] + 1]:
            expected = min(
                np.flatnonzero(bounds <= loss), key=lambda at: (segments[at], bits[at], at)
            )
            found = coarsest_segmentation(market, float(loss))
            assert found.status is SegmentationStatus.coarsest, f"{seed=}, {loss=}"
            np.testing.assert_array_equal(found.labels, partitions[expected], f"{seed=}, {loss=}")
            assert found.loss == pytest.approx(bounds[expected], abs=1e-7)
            assert found.bits == pytest.approx(bits[expected], abs=1e-12)
            sizes.append(found.segments)
        if levels[0] > 0:
            found = coarsest_segmentation(market, float(levels[0] / 2))
            assert found.status is SegmentationStatus.impossible, f"{seed=}"
            np.testing.assert_array_equal(found.labels, range(USERS))
            assert found.loss == pytest.approx(levels[0], abs=1e-6)
    assert set(sizes) == {1, 2, 3, 4}
    assert loose <= max(1, count // 10)
    print(
        f"{len(sizes)} answers in {count - loose} markets; with 1, 2, ... segments: "
        f"{np.bincount(sizes)[1:]}; {loose} markets with bounds that are no optima"
    )


def test_an_answer_that_hangs_on_a_bound_which_is_no_optimum_is_not_called_coarsest():
    """Users 2 and 3 of this market lose nothing together; the bound found for them is .017."""
    mu, mass, us, U = random_market(0, USERS, 3, 2, 2, aligned=True)
    market, together = Market(mu, us, U, mass), [0, 1, 2, 2]
    bound = information_certificates(market, [together])
    optimum = reference(market, together)
    assert not bound.certified[0]
    assert bound.total[0] > optimum + 0.01
    found = coarsest_segmentation(market, optimum + 0.005)
    assert found.status is SegmentationStatus.unproved
    assert found.loss <= optimum + 0.005
    # Where that bound is small enough, nothing hangs on it.
    assert coarsest_segmentation(market, 0.0246).status is SegmentationStatus.coarsest


def test_a_loss_of_zero_is_within_reach_of_rounding():
    """E1 twice: opposed users must be told apart, and like ones need not be."""
    us = np.stack(oracle.opposed_users())[[0, 1, 0, 1]]
    U = np.stack([us[[0, 0, 0, 0]], us[[1, 1, 1, 1]]])
    market = Market(np.full(2, 0.5), us, U, np.array([1, 2, 1, 3.0]))
    found = coarsest_segmentation(market, 0.0)
    assert found.status is SegmentationStatus.coarsest
    np.testing.assert_array_equal(found.labels, [0, 1, 0, 1])
    assert coarsest_segmentation(market, 4.0).segments == 1


def test_greedy_merging_is_nested_within_the_loss_and_called_greedy(monkeypatch):
    monkeypatch.setattr(_segmentation, "EXACT_USERS", USERS - 1)
    for seed in (1, 2, 5):
        market = cautious_market(seed)
        chain = merge_by_certificate(market)
        assert all(refines(fine, coarse) for coarse, fine in itertools.pairwise(chain))
        bounds = [reference(market, labels) for labels in chain]
        pairs = [labels for labels in all_partitions(USERS) if labels.max() == USERS - 2]
        cheapest = min(reference(market, labels) for labels in pairs)
        assert bounds[USERS - 2] == pytest.approx(cheapest, abs=1e-7), f"{seed=}"
        loss = bounds[2] + 1e-3
        found = coarsest_segmentation(market, loss)
        assert found.status is SegmentationStatus.greedy
        assert found.loss <= loss, f"{seed=}"
        assert found.loss == pytest.approx(reference(market, found.labels), abs=1e-7)
        np.testing.assert_array_equal(found.labels, chain[found.segments - 1])


@pytest.mark.campaign
@pytest.mark.parametrize("users", [5, 12])
def test_segments_of_many_sizes_are_solved_in_programs_of_a_few(users):
    market = cautious_market(1, users)
    chain = merge_by_certificate(market)
    found = information_certificates(
        market, [*chain, random_likelihood(np.random.default_rng(0), users)]
    )
    assert np.all(found.certified)
    for labels, total in zip(chain, found.total, strict=False):
        assert total == pytest.approx(reference(market, labels), abs=1e-6)
    answer = coarsest_segmentation(market, float(found.total[3]))
    exact = users <= _segmentation.EXACT_USERS
    assert answer.status is (SegmentationStatus.coarsest if exact else SegmentationStatus.greedy)
    assert answer.segments <= 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: coarsest_segmentation(RANDOM, -0.1), "loss is -0.1; give a finite number"),
        (lambda: coarsest_segmentation(RANDOM, math.inf), "loss is inf; give a finite number"),
        (lambda: coarsest_segmentation(RANDOM, math.nan), "loss is nan; give a finite number"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
