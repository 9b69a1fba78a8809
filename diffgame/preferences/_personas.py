"""Providers made by perturbing what people want: stand-ins for models that play personas."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float64

from ._errors import AlignSettings, group_means, provider_curve, split_folds
from ._ratings import Ratings, RatingsError, check_answers


@dataclasses.dataclass(frozen=True)
class PersonaSettings:
    """How personas are drawn around a target.

    Persona k answers item t with clip(middle + f_k (target_t - middle) + noise e_kt): middle is
    the middle of the scale, the fidelity f_k is uniform from `fidelity[0]` to `fidelity[1]`, e_kt
    is standard normal, all independent, and clip keeps answers on the scale. Personas hedge, some
    more than others, and err.

    Attributes:
        count: the number of personas.
        fidelity: least and largest fidelity, from 0 (answers everything by the middle) to 1 (no
            bias); two equal numbers make personas that nothing but noise tells apart.
        noise: standard deviation of an answer, as a share of the scale's length.
        seed: of the random numbers.

    Raises:
        RatingsError: one of them is out of range.
    """

    count: int = 100
    fidelity: tuple[float, float] = (0.0, 1.0)
    noise: float = 0.25
    seed: int = 0

    def __post_init__(self):
        if self.count < 1:
            raise RatingsError("--personas", f"is {self.count}", "choose at least 1")
        low, high = self.fidelity
        if not 0 <= low <= high <= 1:
            remedy = "choose two numbers from 0 to 1, the smaller first"
            raise RatingsError("fidelity", f"is {low:g} to {high:g}", remedy)
        if not 0 <= self.noise < np.inf:
            raise RatingsError("noise", f"is {self.noise:g}", "choose a finite number >= 0")
        if self.seed < 0:
            raise RatingsError("--seed", f"is {self.seed}", "choose at least 0")


def make_personas(
    targets: Float64[np.ndarray, "targets items"],
    scale: tuple[float, float],
    settings: PersonaSettings,
) -> Float64[np.ndarray, "personas items"]:
    """Utilities of personas; persona k perturbs target k modulo the number of targets.

    >>> import numpy as np
    >>> make_personas(np.array([[1.0, 5.0]]), (1.0, 5.0), PersonaSettings(2, (0.5, 0.5), 0.0))
    array([[2., 4.],
           [2., 4.]])
    """
    low, high = scale
    middle = (low + high) / 2
    target = targets[np.arange(settings.count) % len(targets)]
    rng = np.random.default_rng(settings.seed)
    fidelity = rng.uniform(*settings.fidelity, size=(settings.count, 1))
    errors = settings.noise * (high - low) * rng.normal(size=target.shape)
    return np.clip(middle + fidelity * (target - middle) + errors, low, high)


def personas_of(ratings: Ratings, settings: PersonaSettings) -> tuple[list[str], np.ndarray]:
    """Names and utilities [personas, items] of personas of the groups' mean ratings.

    An item that nobody of a group rated counts as the mean of all people.
    """
    check_answers(ratings, 1)
    names, means, known, _ = group_means(ratings)
    overall = np.nanmean(ratings.values, axis=0)
    targets = np.where(known, means, overall[None])
    labels = [f"{k + 1} {names[k % len(names)]}" for k in range(settings.count)]
    return labels, make_personas(targets, ratings.scale, settings)


def persona_experiment(
    ratings: Ratings,
    personas: PersonaSettings | None = None,
    settings: AlignSettings | None = None,
) -> list[dict[str, Any]]:
    """How near mixes of personas come to the group that they perturb.

    Every group's mean ratings are the target of personas of its own; mixes of nested random
    subsets of them are fitted without one fold of the items, which is held out. In sample,
    cone <= hull <= min(mean, single) always, and errors of cone, hull and single fall as personas
    are added; whether it is so on held-out items is what the experiment shows.

    Returns:
        Rows with `target` (the group), `providers` (how many personas), `method` (cone: nonnegative
        least squares; hull: weights of sum one; single: the best persona; mean: of all), and the
        root mean squared errors `in_sample` and `held_out` in units of the ratings, means over
        `settings.draws` random orders of the personas.

    **Source:** the experiment with 100 personas of Collina, Goel, Roth, Ryu, Shi, Emergent
    Alignment via Competition (arXiv 2509.15090), with seeded perturbations for language models.

    Raises:
        RatingsError: a group has too few people, or rated too few items to hold some out.
    """
    personas = personas or PersonaSettings()
    settings = settings or AlignSettings()
    check_answers(ratings, 1)
    names, means, known, _ = group_means(ratings)
    rows = []
    for k, name in enumerate(names):
        if known[k].sum() < settings.folds:
            problem = f"rated {known[k].sum()} items, fewer than the {settings.folds} folds"
            raise RatingsError(
                f"{ratings.name}: group {name!r}", problem, "merge it with another group"
            )
        own = dataclasses.replace(personas, seed=personas.seed + k)
        utilities = make_personas(means[k : k + 1], ratings.scale, own)
        folds = split_folds(known[k : k + 1], settings.folds, np.random.default_rng(settings.seed))
        curve = provider_curve(means[k : k + 1], known[k : k + 1], utilities, folds, settings)
        rows += [
            {"target": name}
            | {key: row[key] for key in ("providers", "method", "in_sample", "held_out")}
            for row in curve
        ]
    return rows
