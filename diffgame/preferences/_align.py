"""How nearly mixes of providers agree with what people want: everything `diffgame align` says."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from ._distance import KINDS, strong_distance, sup_distances, working_size
from ._errors import (
    EVERYONE,
    AlignSettings,
    fit_errors,
    group_means,
    provider_curve,
    worst_decile,
)
from ._ratings import Ratings, check_answers

# Programs in the sup norm for at most as much work: people * providers^2 * items of one program.
_SUP_WORK = 2e7
# A smaller sample says little about people, a larger one little more.
_SMALLEST_SAMPLE, _LARGEST_SAMPLE = 10, 500


def _sup_report(names: Sequence[str], found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        name: {
            kind: {
                "lower": float(found[kind]["lower"][k]),
                "upper": float(found[kind]["upper"][k]),
                "certified": bool(found[kind]["certified"][k]),
                "weights": found[kind]["weights"][k].tolist(),
                "offset": float(found[kind]["offset"][k]),
            }
            for kind in KINDS
        }
        for k, name in enumerate(names)
    }


def _group_report(errors, members: np.ndarray) -> dict[str, Any]:
    report: dict[str, Any] = {"people": int(members.sum())}
    for method, record in errors.items():
        report[method] = {
            field: {
                "mean": float(record[field][members].mean()),
                "worst_decile": worst_decile(record[field][members]),
            }
            for field in ("error", "held_out")
        }
    return report


def align_ratings(
    ratings: Ratings,
    providers: Sequence[str],
    utilities: Float64[np.ndarray, "providers items"],
    settings: AlignSettings | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure how nearly mixes of the providers agree with each person and each group.

    Args:
        ratings: of the people; each gives at least `settings.minimum` answers.
        providers: names of the providers.
        utilities: what they think of the same items, in any unit.
        settings: see `AlignSettings`.
        progress: told in words what is going on.

    Returns:
        What docs/preferences.md describes, as plain numbers, texts, lists and dicts: `people`,
        `groups`, `curve`, `sup_norm`, `strong_alignment`, `certified`, `settings`.

    Raises:
        RatingsError: somebody gives too few answers, or a group has too few people.

    Needs float64 (`jax.config.update("jax_enable_x64", True)`).
    """
    settings = settings or AlignSettings()
    check_answers(ratings, settings.minimum)
    errors, mixes, folds = fit_errors(ratings, utilities, settings, progress)
    people = {}
    for k, person in enumerate(ratings.people):
        record: dict[str, Any] = {"answers": int(ratings.observed[k].sum())}
        if ratings.groups is not None:
            record["group"] = ratings.groups[k]
        for method, found in errors.items():
            record[method] = {field: float(found[field][k]) for field in ("error", "held_out")}
        for method, mix in mixes.items():
            record[method] |= {
                "lower": float(mix.lower[k]),
                "kkt_residual": float(mix.kkt_residual[k]),
                "certified": bool(mix.certified[k]),
                "weights": mix.weights[k].tolist(),
                "offset": float(mix.offset[k]),
            }
        record["single"]["provider"] = providers[int(errors["single"]["weights"][k].argmax())]
        people[person] = record
    progress("error against the number of providers")
    values, observed = np.nan_to_num(ratings.values), ratings.observed
    curve = provider_curve(values, observed, utilities, folds, settings)

    progress("sup-norm distances")
    names, means, known, share = group_means(ratings)
    group_sup = _sup_report(names, sup_distances(means, known, utilities))
    work = len(utilities) ** 2 * working_size(ratings.observed, len(utilities), 1)
    sampled = min(int(_SUP_WORK / work), _LARGEST_SAMPLE, len(people))
    sampled = sampled if sampled >= min(_SMALLEST_SAMPLE, len(people)) else 0
    rng = np.random.default_rng([settings.seed, 2])
    who = np.sort(rng.permutation(len(people))[:sampled])
    if sampled:
        found = sup_distances(values[who], observed[who], utilities)
        for name, record in _sup_report([ratings.people[k] for k in who], found).items():
            people[name]["sup_norm"] = record
    progress("one mix for all groups")
    strong = strong_distance(means, known, utilities, share)
    labels = np.array(ratings.groups or [EVERYONE] * len(people))
    groups = {name: _group_report(errors, labels == name) for name in names}
    for name in names:
        groups[name] |= {"share": float(share[names.index(name)]), "sup_norm": group_sup[name]}
    sups = [group_sup[name] for name in names]
    sups += [record["sup_norm"] for record in people.values() if "sup_norm" in record]
    certified = {
        "squared_error": int(sum(int(mix.certified.sum()) for mix in mixes.values())),
        "squared_error_of": 2 * len(people),
        "sup_norm": sum(record[kind]["certified"] for record in sups for kind in KINDS),
        "sup_norm_of": len(KINDS) * len(sups),
        "strong_alignment": strong["certified"],
    }
    return {
        "format": "diffgame.align/1",
        "name": ratings.name,
        "scale": list(ratings.scale),
        "items": len(ratings.items),
        "answers": int(ratings.observed.sum()),
        "providers": list(providers),
        "settings": dataclasses.asdict(settings),
        "all": _group_report(errors, np.ones(len(people), bool)),
        "groups": groups,
        "curve": curve,
        "sup_norm": {"people": sampled, "of": len(people), "groups": len(names)},
        "strong_alignment": {
            key: value.tolist() if isinstance(value, np.ndarray) else value
            for key, value in strong.items()
        },
        "certified": certified,
        "people": people,
    }
