"""What personalization is worth against how well the market is aligned."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import numpy as np

from ..market import (
    Market,
    alignment_distances,
    equilibrium_values,
    find_extremes,
    full_information,
    worst_case_losses,
)
from ._draw import COLOURS, figure, scatter
from ._markets import draw_market, perturb_opposed
from ._section import Claim, Row, Section, StudySettings, certified, decide

_NOISES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
_FAMILIES = {"random markets": draw_market, "perturbed opposed users": perturb_opposed}
_SLACK = 1e-6


@eqx.filter_jit
def _user_facts(market: Market):
    def facts(utility, objective):
        values = equilibrium_values(market.prior, utility, objective)
        distance = alignment_distances(utility, objective)["cone_state"].distance
        full = full_information(market.prior, utility)
        return distance, full, values.worst()[0], values.complete

    return jax.vmap(facts, in_axes=(0, 1))(market.utility, market.objective)


_losses = eqx.filter_jit(worst_case_losses)


def _compute(settings: StudySettings, progress: Callable[[str], None]) -> list[Row]:
    rows = []
    each = settings.count(6)
    for structure, (family, draw) in enumerate(_FAMILIES.items()):
        for step, noise in enumerate(_NOISES):
            progress(f"{family}, noise {noise}")
            for number in range(each):
                seed = (settings.seed, 1, structure, step, number)
                market = draw(seed, noise)
                distance, full, worst, complete = map(np.asarray, _user_facts(market))
                anonymous = find_extremes(market.anonymous(), starts=14, seed=settings.seed)
                status = anonymous.worst.status.value
                rows.append(
                    {
                        "family": family,
                        "noise": noise,
                        "number": number,
                        "alignment distance": float(distance.max()),
                        "loss personalized": float((full - worst).max()),
                        "certificate": float(np.max(_losses(market).per_user.loss)),
                        "total loss personalized": float((full - worst).sum()),
                        "total loss anonymous": anonymous.loss,
                        "gap": anonymous.loss - float((full - worst).sum()),
                        "bound anonymous": anonymous.bound,
                        "status": status if np.all(complete) else "local",
                    }
                )
    return rows


def _figures(rows: Sequence[Row]):
    from plotly import graph_objects

    far = max(row["alignment distance"] for row in rows)
    line = graph_objects.Scatter(
        x=[0, far], y=[0, 2 * far], mode="lines", name="theorem: 2 eps", line={"color": COLOURS[5]}
    )
    groups = [(name, [row for row in rows if row["family"] == name]) for name in _FAMILIES]
    losses = [line]
    for colour, (name, part) in enumerate(groups):
        x = "alignment distance"
        losses.append(scatter(part, x, "loss personalized", f"{name}: exact worst", colour))
        losses.append(
            scatter(part, x, "certificate", f"{name}: certificate", colour, opacity=0.35, size=5)
        )
    gaps = [
        scatter(part, "alignment distance", "gap", name, colour)
        for colour, (name, part) in enumerate(groups)
    ]
    return [
        figure(losses, "distance of the worst user, eps", "largest loss of a user, personalized"),
        figure(gaps, "distance of the worst user, eps", "users' total: personalized - anonymous"),
    ]


def _claims(rows: Sequence[Row]) -> list[Claim]:
    sure = certified(rows)
    ratios = [
        row["loss personalized"] / (2 * row["alignment distance"])
        for row in sure
        if row["alignment distance"] > 1e-6
    ]
    above = sum(row["loss personalized"] > row["certificate"] + _SLACK for row in sure)
    positive = sum(row["gap"] > _SLACK for row in sure)
    negative = sum(row["gap"] < -_SLACK for row in sure)
    equal = len(sure) - positive - negative
    return [
        Claim(
            "P: with weak alignment within eps every personalized equilibrium gives each user full "
            "information less at most 2 eps",
            f"{len(sure)} certified markets of {len(rows)}, exact worst equilibrium of each user",
            f"largest loss is {max(ratios, default=0.0):.3f} of 2 eps",
            decide(
                rows,
                lambda row: row["loss personalized"] <= 2 * row["alignment distance"] + _SLACK,
            ),
        ),
        Claim(
            "The worst-equilibrium certificate bounds the loss in every personalized equilibrium",
            f"{len(sure)} certified markets",
            f"exact worst above the certificate in {above}",
            decide(rows, lambda row: row["loss personalized"] <= row["certificate"] + _SLACK),
        ),
        Claim(
            "In every market the worst personalized equilibrium is no worse for users than the "
            "worst with one policy for all (no theorem says so)",
            f"{len(sure)} certified markets, worst anonymous equilibrium found",
            f"better in {positive}, worse in {negative}, equal in {equal}",
            decide(rows, lambda row: row["gap"] >= -_SLACK),
        ),
    ]


SECTION = Section(
    "gap",
    "Personalization and alignment",
    "Markets of two users and two providers: random ones, whose users want a mix of the "
    "objectives and a share (noise) of something else, and opposed users moved towards random "
    "tables. Above: what the worst-off user loses of full information in her worst personalized "
    "equilibrium, which is computed exactly, under the theorem's line of twice the alignment "
    "distance, with the certificate's bound in pale. Below: users' total in the worst "
    "personalized equilibrium less the worst anonymous one that was found; a worse anonymous one "
    "may exist, so the gap may be larger, never smaller.",
    _compute,
    _figures,
    _claims,
)
