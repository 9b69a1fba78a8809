"""Squared errors of mixes of providers: in sample, on held-out items, by their number."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float64, Int64

from ._fit import Mixes, check_mix, mix_weights, root_mean_square
from ._ratings import MINIMUM_ANSWERS, Ratings, RatingsError

METHODS = ("cone", "hull", "single", "mean")
EVERYONE = "everyone"
_CURVE = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200)

_weights = eqx.filter_jit(mix_weights)
_check = eqx.filter_jit(check_mix)
_error = eqx.filter_jit(root_mean_square)


@dataclasses.dataclass(frozen=True)
class AlignSettings:
    """What to measure.

    Attributes:
        seed: of all random draws: the folds, the order of the providers, the sample of people.
        folds: in how many parts each person's items are split; each part is held out once.
        constant: whether squared error may add a constant to each mix.
        minimum: the least number of answers per person; at least the number of folds.
        draws: random orders of the providers that the curve averages over.

    Raises:
        RatingsError: one of them is out of range.
    """

    seed: int = 0
    folds: int = 5
    constant: bool = True
    minimum: int = MINIMUM_ANSWERS
    draws: int = 3

    def __post_init__(self):
        for field, least in (("seed", 0), ("folds", 2), ("draws", 1), ("minimum", self.folds)):
            if getattr(self, field) < least:
                problem = f"is {getattr(self, field)}"
                why = " (the number of folds)" if field == "minimum" else ""
                raise RatingsError(f"--{field}", problem, f"choose at least {least}{why}")


def split_folds(observed: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """A fold 0, 1, ... per person and item; each person's own items are split evenly."""
    order = np.where(observed, rng.random(observed.shape), np.inf).argsort(axis=1).argsort(axis=1)
    return order % folds


def worst_decile(errors: Float64[np.ndarray, " people"]) -> float:
    """Mean of the tenth of the errors that are largest (of at least one).

    >>> import numpy as np
    >>> worst_decile(np.arange(20.0))
    18.5
    """
    return float(np.sort(errors)[-math.ceil(len(errors) / 10) :].mean())


def group_means(ratings: Ratings) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Names of the groups, their mean rating of each item (0 if none), whether any, their share.

    Without groups everybody is one.
    """
    labels = np.array(ratings.groups or [EVERYONE] * len(ratings.people))
    names, member = np.unique(labels, return_inverse=True)
    belongs = np.eye(len(names))[member]
    count = belongs.T @ ratings.observed
    total = belongs.T @ np.nan_to_num(ratings.values)
    means = total / np.maximum(count, 1)
    return names.tolist(), means, count > 0, belongs.mean(axis=0)


def fit_errors(
    ratings: Ratings,
    utilities: Float64[np.ndarray, "providers items"],
    settings: AlignSettings,
    progress: Callable[[str], None],
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Mixes], np.ndarray]:
    """Squared error of each method: in sample, held out; certificates of cone and hull; folds."""
    observed = ratings.observed
    values, tables = jnp.asarray(np.nan_to_num(ratings.values)), jnp.asarray(utilities)
    everything = jnp.ones((1, len(utilities)), bool)
    constant = jnp.array(settings.constant)
    rng = np.random.default_rng(settings.seed)
    folds = split_folds(observed, settings.folds, rng)

    def evaluate(weights, fitted, tested):
        return np.asarray(_error(values, fitted, tested, tables, weights, constant)[0])

    progress("nearest mixes, all items")
    mask = jnp.asarray(observed * 1.0)
    found = _weights(values, mask, tables, everything, constant)
    errors = {
        method: {
            "error": evaluate(found[method][0], mask, mask),
            "held_out_square": np.zeros(len(values)),
            "weights": np.asarray(found[method][0]),
        }
        for method in METHODS
    }
    # What a person's own mean, or the middle of the scale, achieves without any provider.
    nothing = jnp.zeros_like(errors["cone"]["weights"])
    errors["none"] = {
        "error": evaluate(nothing, mask, mask),
        "held_out_square": np.zeros(len(values)),
        "weights": np.asarray(nothing),
    }
    certificates = {
        method: _check(values, mask, tables, found[method][0], everything[0], constant, hull=hull)
        for method, hull in (("cone", False), ("hull", True))
    }
    for fold in range(settings.folds):
        progress(f"held-out items, fold {fold + 1} of {settings.folds}")
        train, test = mask * (folds != fold), mask * (folds == fold)
        part = _weights(values, train, tables, everything, constant)
        for method, record in errors.items():
            weights = part[method][0] if method in part else nothing
            square = evaluate(weights, train, test) ** 2
            record["held_out_square"] += square * test.sum(axis=1)
    for record in errors.values():
        record["held_out"] = np.sqrt(record.pop("held_out_square") / observed.sum(axis=1))
    return errors, certificates, folds


def provider_curve(
    values: Float64[np.ndarray, "people items"],
    observed: Bool[np.ndarray, "people items"],
    utilities: Float64[np.ndarray, "providers items"],
    folds: Int64[np.ndarray, "people items"],
    settings: AlignSettings,
) -> list[dict[str, Any]]:
    """Error against the number of providers: nested subsets, in `draws` random orders.

    Fitted without fold 0, which is held out. Rows: providers, method, and the mean over people
    and orders of the error in sample and held out, and of the worst decile of the latter.
    """
    answers, tables, mask = map(jnp.asarray, (values, utilities, observed * 1.0))
    train, test = mask * (folds != 0), mask * (folds == 0)
    count = len(utilities)
    counts = sorted({size for size in _CURVE if size < count} | {count})
    rng = np.random.default_rng([settings.seed, 1])
    # A provider's place in an order: the first `size` of them make the subset.
    places = np.stack([rng.permutation(count) for _ in range(settings.draws)])
    subsets = [(size, place < size) for size in counts for place in places]
    # All providers are one subset, whatever the order.
    subsets = subsets[: len(subsets) - settings.draws + 1]
    allowed = jnp.asarray(np.stack([subset for _, subset in subsets]))
    found = _weights(answers, train, tables, allowed, jnp.array(settings.constant))
    sizes = np.array([size for size, _ in subsets])
    rows = []
    for size in counts:
        for method in METHODS:
            weights = found[method][sizes == size]
            inside, outside = _both(answers, train, test, tables, weights, settings.constant)
            rows.append(
                {
                    "providers": size,
                    "method": method,
                    "in_sample": float(np.mean(inside)),
                    "held_out": float(np.mean(outside)),
                    "held_out_worst_decile": float(np.mean([*map(worst_decile, outside)])),
                }
            )
    return rows


def _both(values, fitted, tested, utilities, weights, constant):
    """Errors [subsets, people] on the items fitted and on those held out."""
    pairs = [
        [_error(values, fitted, items, utilities, mix, jnp.array(constant))[0] for mix in weights]
        for items in (fitted, tested)
    ]
    return np.asarray(pairs)
