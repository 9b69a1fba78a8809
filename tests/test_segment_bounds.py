"""Certificates of partitions and noisy labels: against HiGHS, under refinement and garbling."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from diffgame.market import Market
from diffgame.market._degree import all_partitions, information_bits, noisy_labels
from diffgame.market._segment_bounds import information_certificates

from .degrees import USERS, cautious_market, random_likelihood, reference, refines
from .markets import random_market

RANDOM = cautious_market(0)


@pytest.mark.parametrize("count", [6, pytest.param(200, marks=pytest.mark.campaign)])
def test_certificates_of_partitions_and_noisy_labels_equal_highs(count):
    worst, zeros, compared, loose = 0.0, 0, 0, 0
    for seed in range(count):
        rng, market = np.random.default_rng([1, seed]), cautious_market(seed)
        known = [*rng.permutation(all_partitions(USERS))[:4], random_likelihood(rng)]
        found = information_certificates(market, known)
        for at, information in enumerate(known):
            if not found.certified[at]:
                # Where multipliers beyond their cap are needed, a bound is valid and says so.
                assert found.total[at] >= reference(market, information) - 1e-7, f"{seed=}"
                loose += 1
                continue
            for user in (None, at % USERS):
                expected = reference(market, information, user)
                value = found.total[at] if user is None else found.per_user[at, user]
                assert value == pytest.approx(expected, abs=1e-7), f"{seed=}, {information}, {user}"
                worst, compared = max(worst, abs(value - expected)), compared + 1
                zeros += expected <= 1e-9
    assert 0 < zeros < compared
    assert loose <= compared // 50
    print(
        f"{compared} certificates compared ({zeros} are 0), worst difference {worst:.1e}; "
        f"{loose} points are bounds only"
    )


@pytest.mark.parametrize("count", [6, pytest.param(100, marks=pytest.mark.campaign)])
def test_the_certificate_falls_under_refinement_and_rises_when_labels_are_garbled(count):
    partitions, strict, garblings = all_partitions(USERS), 0, 0
    pairs = [
        (fine, coarse)
        for fine, coarse in itertools.permutations(range(len(partitions)), 2)
        if refines(partitions[fine], partitions[coarse])
    ]
    for seed in range(count):
        rng, market = np.random.default_rng([2, seed]), cautious_market(seed)
        likelihood = random_likelihood(rng)
        garbled = likelihood @ rng.dirichlet(np.ones(3), 3)
        found = information_certificates(market, [*partitions, likelihood, garbled])
        *total, fine, coarse = found.total
        for part, whole in pairs:
            if not (found.certified[part] and found.certified[whole]):
                continue
            assert total[part] <= total[whole] + 1e-9, f"{seed=}, {partitions[[part, whole]]}"
            assert np.all(found.per_user[part] <= found.per_user[whole] + 1e-9), f"{seed=}"
            strict += total[part] < total[whole] - 1e-6
        # All apart is the most that labels can say, nothing at all the least.
        chain = [total[-1], fine, coarse, total[0]]
        if np.all(found.certified[[-3, -2, -1, 0]]):
            assert np.all(np.diff(chain) >= -1e-9), f"{seed=}: {chain}"
            garblings += 1
    assert strict > len(pairs)
    assert garblings >= 0.9 * count
    print(
        f"{count} markets, {len(pairs)} refinements each, {strict} lower the certificate; "
        f"{garblings} with garbled labels"
    )


@pytest.mark.parametrize("seed", range(3))
def test_noisy_labels_lead_from_anonymous_to_personalized(seed):
    market, each = cautious_market(seed), np.arange(USERS)
    accuracies = np.linspace(1 / USERS, 1, 5)
    known = [np.zeros(USERS, int), each, *(noisy_labels(each, q) for q in accuracies)]
    found = information_certificates(market, known)
    for kind in (found.total, found.per_user):
        np.testing.assert_allclose(kind[2], kind[0], rtol=0, atol=1e-9, err_msg=f"{seed=}")
        np.testing.assert_allclose(kind[-1], kind[1], rtol=0, atol=1e-9, err_msg=f"{seed=}")
    assert np.all(np.diff(found.total[2:]) <= 1e-9), f"{seed=}"
    bits = [information_bits(market.mass, entry) for entry in known]
    assert bits[2] == pytest.approx(0, abs=1e-12)
    assert bits[-1] == pytest.approx(bits[1], abs=1e-12)
    assert np.all(np.diff(bits[2:]) > 0)


def test_strong_alignment_is_hereditary():
    """Common weights for all are common weights for each segment: nothing is lost anywhere."""
    for seed in range(3):
        mu, mass, _, U = random_market(seed, USERS, 3, 2, 2)
        weights = np.random.default_rng(seed).uniform(0.2, 1, 2)
        us = np.einsum("i,j,ijas->jas", weights, mass, U)
        found = information_certificates(Market(mu, us, U, mass), list(all_partitions(USERS)))
        assert np.all(found.certified)
        np.testing.assert_allclose(found.total, 0, rtol=0, atol=1e-8, err_msg=f"{seed=}")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: information_certificates(RANDOM, [[0, 1]]), r"labels has shape \(2,\).*4 users"),
        (lambda: information_certificates(RANDOM, [0]), r"labels has shape \(\)"),
        (lambda: information_certificates(RANDOM, [[0.0, 1, 1, 0]]), "type float64: give integers"),
        (lambda: information_certificates(RANDOM, [[0, -1, 1, 0]]), "labels has -1: give integers"),
        (lambda: information_certificates(RANDOM, []), "information is empty"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_single_precision_is_refused():
    half = [jnp.asarray(part, jnp.float32) for part in (RANDOM.prior, RANDOM.utility)]
    rest = [jnp.asarray(part, jnp.float32) for part in (RANDOM.objective, RANDOM.mass)]
    with pytest.raises(ValueError, match="float32; certificates need float64"):
        information_certificates(Market(*half, *rest), [[0, 0, 0, 0]])
