"""From ratings to a market file."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from diffgame.market import full_information, market_of, read_market, uninformed, write_market
from diffgame.preferences import Ratings, RatingsError, load_movielens, market_from_ratings


@pytest.fixture(scope="module")
def films():
    return load_movielens()


def test_users_prior_and_mass_are_counted_from_the_answers(films):
    market = market_from_ratings(films)
    assert market.states == films.topics
    assert market.actions == ("skip", "use")
    assert market.users == tuple(sorted(set(films.groups)))
    weights = np.zeros(7)
    total, count = np.zeros(7), np.zeros(7)
    share = np.mean([group == "Crime fans" for group in films.groups])
    for k, group in enumerate(films.groups):
        seen = films.observed[k]
        mean = films.values[k, seen].mean()
        for t in np.flatnonzero(seen):
            weights += films.topic_weights[t]
            if group == "Crime fans":
                total += films.topic_weights[t] * (films.values[k, t] - mean)
                count += films.topic_weights[t]
    at = market.users.index("Crime fans")
    np.testing.assert_allclose(market.prior, weights / weights.sum(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(market.utility[at, 1], total / count, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(market.utility[:, 0], 0)
    assert abs(market.mass[at] - share) <= 1e-12
    # Fans of a topic like it best.
    assert market.states[market.utility[at, 1].argmax()] == "Crime"


def test_given_providers_are_paid_what_they_think_above_their_mean(films):
    rng = np.random.default_rng(0)
    utilities = rng.normal(size=(2, len(films.items)))
    market = market_from_ratings(films, ("one", "two"), utilities)
    assert market.providers == ("one", "two")
    answers = films.observed.sum(axis=0)
    for i in range(2):
        weight = answers[:, None] * films.topic_weights
        topic = (utilities[i] @ weight) / weight.sum(axis=0)
        own = utilities[i] @ answers / answers.sum()
        for user in range(len(market.users)):
            np.testing.assert_allclose(market.objective[i, user, 1], topic - own, atol=1e-12)
            np.testing.assert_array_equal(market.objective[i, user, 0], 0)


def test_modelled_providers_mix_the_groups_and_promote(films):
    plain = market_from_ratings(films, mixtures=3, seed=1)
    paid = plain.objective[:, 0, 1]
    use = plain.utility[:, 1]
    assert (paid <= use.max(axis=0) + 1e-12).all()
    assert (paid >= use.min(axis=0) - 1e-12).all()
    promoted = market_from_ratings(films, mixtures=3, seed=1, promotion=0.25)
    extra = promoted.objective[:, 0, 1] - paid
    np.testing.assert_allclose(np.sort(extra, axis=1)[:, -1], 0.25, atol=1e-12)
    np.testing.assert_allclose(np.sort(extra, axis=1)[:, :-1], 0, atol=1e-12)
    assert len(set(promoted.providers)) == 3


def test_the_market_is_written_read_and_worth_informing_about(films, tmp_path: Path):
    path = tmp_path / "market.json"
    write_market(path, market_from_ratings(films))
    market = market_of(read_market(path))
    for utility in market.utility:
        informed = full_information(market.prior, utility)
        assert informed > uninformed(market.prior, utility) + 1e-3


def test_without_topics_and_groups_items_are_states_and_everybody_is_one_user():
    values = np.array([[1.0, 5.0], [2.0, np.nan], [4.0, 4.0]])
    ratings = Ratings("t", ("a", "b", "c"), ("x", "y"), (1.0, 5.0), values)
    market = market_from_ratings(ratings)
    assert market.states == ("x", "y")
    assert market.users == ("everyone",)
    assert market.segments == (None,)
    np.testing.assert_allclose(market.prior, [0.6, 0.4])
    np.testing.assert_allclose(market.utility[0, 1], [-2 / 3, 1])
    assert jnp.isfinite(jnp.asarray(market.objective)).all()


def test_providers_of_other_items_are_refused(films):
    with pytest.raises(RatingsError, match=r"the utilities have the shape \(1, 3\)"):
        market_from_ratings(films, ("one",), np.zeros((1, 3)))
    with pytest.raises(RatingsError, match="mixtures is 0"):
        market_from_ratings(films, mixtures=0)
