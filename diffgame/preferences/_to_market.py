"""From ratings to a market for advice."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from ..market import MarketFile
from ._errors import group_means
from ._ratings import Ratings, RatingsError, check_answers

ACTIONS = ("skip", "use")


def market_from_ratings(
    ratings: Ratings,
    providers: Sequence[str] | None = None,
    utilities: Float64[np.ndarray, "providers items"] | None = None,
    *,
    mixtures: int = 3,
    promotion: float = 0.0,
    seed: int = 0,
) -> MarketFile:
    """A market in which people are advised whether to use an item, by the topic of the item.

    - States are the topics of the items (the items themselves, if the ratings have no topics); the
      prior is a topic's share of all answers.
    - Users are the groups of people (or one for all); mass is their share of the people.
    - Actions are skip, worth 0, and use: worth the mean, over a group's answers in the topic, of
      the rating minus the person's own mean rating (0 where the group gave no answer).
    - Providers are those given: using is worth the mean of `utilities` over the topic minus the
      provider's own mean over all answers. Without any, `mixtures` of them value using by random
      mixtures of the groups' values (uniform weights; drawn by `seed`), plus `promotion`, in
      points of the ratings, for one topic that each promotes: modelled, not measured.

    Raises:
        RatingsError: there are too few people in a group, or names and utilities do not match.
        MarketFileError: names that a market file cannot hold.

    Example:
        >>> import numpy as np
        >>> films = Ratings("films", ("a", "b", "c"), ("x", "y"), (1.0, 5.0),
        ...                 np.array([[1.0, 5.0], [2.0, 4.0], [3.0, 3.0]]))
        >>> market = market_from_ratings(films, ("p",), np.array([[4.0, 0.0]]))
        >>> market.states, market.utility[0].tolist(), market.objective[0, 0].tolist()
        (('x', 'y'), [[0.0, 0.0], [-1.0, 1.0]], [[0.0, 0.0], [2.0, -2.0]])
    """
    check_answers(ratings, 1)
    names, _, _, share = group_means(ratings)
    topics = ratings.topics or ratings.items
    belongs = np.eye(len(topics)) if ratings.topic_weights is None else ratings.topic_weights
    observed = ratings.observed
    weight = observed.sum(axis=0) @ belongs
    labels = np.array(ratings.groups or names * len(ratings.people))
    member = (labels[:, None] == np.array(names)[None]) * 1.0
    above = np.nan_to_num(ratings.values - np.nanmean(ratings.values, axis=1, keepdims=True))
    total, count = member.T @ above @ belongs, member.T @ observed @ belongs
    use = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    if (weight <= 0).any():
        topic = topics[int((weight <= 0).argmax())]
        raise RatingsError(f"{ratings.name}: topic {topic!r}", "has no answers", "leave it out")
    prior = weight / weight.sum()
    if utilities is None:
        providers, paid = _mixtures(use, topics, mixtures, promotion, seed)
    else:
        providers = list(providers or ())
        if utilities.shape != (len(providers), len(ratings.items)):
            problem = f"have the shape {utilities.shape}"
            remedy = f"give {len(providers)} providers times {len(ratings.items)} items"
            raise RatingsError("the utilities", problem, remedy)
        answers = observed.sum(axis=0)[:, None] * belongs
        paid = utilities @ answers / weight[None]
        paid -= (paid @ prior)[:, None]
    objective = np.stack([np.zeros_like(paid), paid], axis=1)
    return MarketFile(
        name=f"{ratings.name}: using items by topic",
        states=topics,
        actions=ACTIONS,
        users=names,
        providers=providers,
        segments=names if ratings.groups is not None else [None] * len(names),
        prior=prior,
        utility=np.stack([np.zeros_like(use), use], axis=1),
        objective=[[table] * len(names) for table in objective.tolist()],
        mass=share,
    )


def _mixtures(
    use: np.ndarray, topics: Sequence[str], count: int, promotion: float, seed: int
) -> tuple[list[str], np.ndarray]:
    if count < 1:
        raise RatingsError("mixtures", f"is {count}", "choose at least 1")
    rng = np.random.default_rng(seed)
    promoted = np.resize(rng.permutation(len(topics)), count)
    paid = rng.dirichlet(np.ones(len(use)), size=count) @ use
    paid[np.arange(count), promoted] += promotion
    if promotion:
        return [f"{i + 1} promotes {topics[t]}" for i, t in enumerate(promoted.tolist())], paid
    return [f"mixture {i + 1}" for i in range(count)], paid
