"""Best replies in turn: they lead on where gradients stop, to what a grid search cannot better."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffgame.market import Market, MarketStatus, babbling
from diffgame.market._quantal import certify_quantal
from diffgame.market._quantal_replies import reply_in_turn, signal_from_posteriors

from .quantal import CONVICTION, JUDGE, search_gain

OPPOSED = Market(
    np.array([0.7, 0.3]),
    JUDGE[None],
    jnp.stack([CONVICTION, 1 - CONVICTION])[:, None],
    np.ones(1),
).with_messages(3)


@pytest.mark.campaign
def test_replies_to_babbling_end_where_nobody_gains():
    start = babbling(OPPOSED)
    assert certify_quantal(OPPOSED, start, 0.2).lower.max() > 0.01
    profile, rounds = reply_in_turn(OPPOSED, start, 0.2, tolerance=1e-6)
    assert 0 < rounds < 8
    assert certify_quantal(OPPOSED, profile, 0.2).status is MarketStatus.certified
    np.testing.assert_allclose(profile.probability.sum(axis=-1), 1, rtol=0, atol=1e-12)
    for provider in range(2):
        assert search_gain(OPPOSED, profile, 0.2, provider, 120, 16) <= 1e-6, f"{provider=}"


def test_without_rounds_nothing_moves_and_at_rest_nothing_does():
    start = babbling(OPPOSED)
    profile, rounds = reply_in_turn(OPPOSED, start, 0.2, tolerance=1e-6, rounds=0)
    assert rounds == 0
    np.testing.assert_array_equal(profile.probability, start.probability)
    rest, _ = reply_in_turn(OPPOSED, start, 0.2, tolerance=1e-6)
    again, rounds = reply_in_turn(OPPOSED, rest, 0.2, tolerance=1e-6)
    assert rounds == 0
    np.testing.assert_array_equal(again.probability, rest.probability)


def test_a_state_that_never_happens_keeps_its_row():
    wide = Market(
        np.array([0.7, 0.3, 0.0]),
        np.pad(OPPOSED.utility, ((0, 0), (0, 0), (0, 1))),
        np.pad(OPPOSED.objective, ((0, 0), (0, 0), (0, 0), (0, 1))),
        np.ones(1),
    ).with_messages(3)
    start = babbling(wide)
    profile, rounds = reply_in_turn(wide, start, 0.2, tolerance=1e-6)
    narrow, _ = reply_in_turn(OPPOSED, babbling(OPPOSED), 0.2, tolerance=1e-6)
    assert rounds > 0
    np.testing.assert_array_equal(profile.probability[..., 2, :], start.probability[..., 2, :])
    np.testing.assert_allclose(
        profile.probability[..., :2, :], narrow.probability, rtol=0, atol=1e-9
    )


def test_a_signal_has_the_posteriors_it_was_made_of():
    posteriors = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5], [0.1, 0.8, 0.1]])
    weights = np.array([0.2, 0.5, 0.3])
    prior = weights @ posteriors
    table = signal_from_posteriors(posteriors, weights, 4)
    np.testing.assert_allclose(table.sum(axis=1), 1, rtol=0, atol=1e-15)
    reach = prior @ table
    heaviest_first = [1, 2, 0]
    np.testing.assert_allclose(reach, [*weights[heaviest_first], 0], rtol=0, atol=1e-15)
    found = (prior[:, None] * table / np.where(reach > 0, reach, 1)).T
    np.testing.assert_allclose(found[:3], posteriors[heaviest_first], rtol=0, atol=1e-15)


def test_posteriors_beyond_the_number_of_messages_join_the_nearest():
    posteriors = np.array([[1.0, 0.0], [0.5, 0.5], [0.5 - 1e-4, 0.5 + 1e-4], [0.45, 0.55]])
    weights = np.array([0.4, 0.3, 0.2, 0.1])
    prior = weights @ posteriors
    table = signal_from_posteriors(posteriors, weights, 2)
    joined = weights[1:] @ posteriors[1:] / weights[1:].sum()
    np.testing.assert_allclose(prior @ table, [0.4, 0.6], rtol=0, atol=1e-15)
    np.testing.assert_allclose((prior * table[:, 1]) / 0.6, joined, rtol=0, atol=1e-15)
