"""What users get against what providers know: the degree of personalization."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..market import (
    Market,
    SearchResult,
    all_partitions,
    coarsest_segmentation,
    find_equilibria,
    find_extremes,
    personalization_curve,
)
from ._draw import figure, line, scatter
from ._markets import perturb_opposed, three_users, two_thresholds
from ._section import Claim, Row, Section, StudySettings, certified, decide

_SLACK = 1e-6
_STARTS = 6


def _search(market: Market, *, starts: int, **options: Any) -> SearchResult:
    """Equilibria from starts, and those that descending and ascending users' welfare finds."""
    found = find_equilibria(market, starts=starts, **options)
    ends = find_extremes(market, starts=14, **options)
    return dataclasses.replace(found, equilibria=[*found.equilibria, ends.worst, ends.best])


def _compute(settings: StudySettings, progress: Callable[[str], None]) -> list[Row]:
    markets = {
        "three users": three_users(),
        "two thresholds": two_thresholds(),
    }
    for number in range(settings.count(2, 1)):
        seed = (settings.seed, 3, number)
        markets[f"perturbed opposed users {number + 1}"] = perturb_opposed(seed, 0.1)
    rows = []
    for name, market in markets.items():
        progress(name)
        partitions = all_partitions(len(market.mass))
        curve = personalization_curve(
            market,
            list(partitions),
            starts=_STARTS,
            seed=settings.seed,
            search=_search,
            progress=lambda text, name=name: progress(f"{name}: {text}"),
        )
        enough = coarsest_segmentation(market, _SLACK)
        for labels, row in zip(partitions, curve.rows(), strict=True):
            rows.append(
                {
                    "market": name,
                    "labels": row["labels"],
                    "segments": row["segments"],
                    "bits": row["bits"],
                    "worst loss": row["worst_loss"],
                    "best loss": row["best_loss"],
                    "certificate": row["certificate"],
                    "coarsest without loss": int(np.array_equal(labels, enough.labels)),
                    "status": row["worst_status"],
                }
            )
    return rows


def _markets(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return {
        name: [row for row in rows if row["market"] == name]
        for name in dict.fromkeys(row["market"] for row in rows)
    }


def _figures(rows: Sequence[Row]):
    made = []
    for name, part in _markets(rows).items():
        least = [
            min(
                (row for row in part if row["segments"] == count),
                key=lambda row: row["certificate"],
            )
            for count in sorted({row["segments"] for row in part})
        ]
        traces = [
            scatter(part, "bits", "worst loss", "worst equilibrium found", 1),
            scatter(part, "bits", "best loss", "best equilibrium found", 2),
            line(
                least, "bits", "certificate", "lowest certificate per number of segments", 0, "dot"
            ),
        ]
        made.append(figure(traces, "bits that providers know", "users' total loss", name))
    return made


def _refines(fine: Row, coarse: Row) -> bool:
    pairs = list(zip(fine["labels"].split(), coarse["labels"].split(), strict=True))
    return len(set(pairs)) == fine["segments"]


def _claims(rows: Sequence[Row]) -> list[Claim]:
    by_market = _markets(rows)
    compared = rising = 0
    for part in by_market.values():
        for fine in part:
            for coarse in part:
                if fine is not coarse and _refines(fine, coarse):
                    compared += 1
                    rising += fine["certificate"] > coarse["certificate"] + _SLACK
    losses = {row["labels"]: row for row in by_market["three users"]}
    path = [losses[labels] for labels in ("0 0 0", "0 0 1", "0 1 2")]
    found = [row["worst loss"] for row in path]
    expected = all(
        abs(loss - wanted) <= _SLACK for loss, wanted in zip(found, (0, 2, 0), strict=True)
    )
    sure = len(certified(path)) == len(path)
    twins = sorted(by_market["two thresholds"], key=lambda row: row["segments"])
    return [
        Claim(
            "The worst-case certificate never rises when segments are split",
            f"{compared} pairs of nested partitions of {len(by_market)} markets",
            f"rises in {rising}",
            rising == 0 if compared else None,
        ),
        Claim(
            "G1: the true worst loss is not monotone in personalization",
            "three users; segments {1,2,3}, {1,2} {3}, {1} {2} {3}",
            f"worst losses found {', '.join(f'{loss:.4g}' for loss in found)}",
            expected if sure else None,
        ),
        Claim(
            "G1: personalization can make the worst equilibrium worse",
            "two thresholds, twin providers; anonymous, personalized",
            f"worst losses found {', '.join(format(row['worst loss'], '.4g') for row in twins)}",
            twins[0]["worst loss"] < twins[1]["worst loss"] - _SLACK
            if len(certified(twins)) == len(twins)
            else None,
        ),
        Claim(
            "No certified equilibrium found loses more than the certificate",
            f"{len(certified(rows))} certified points of {len(rows)}",
            "worst loss found less certificate, at most "
            f"{max(row['worst loss'] - row['certificate'] for row in rows):.1e}",
            decide(rows, lambda row: row["worst loss"] <= row["certificate"] + _SLACK),
        ),
    ]


SECTION = Section(
    "degrees",
    "Degrees of personalization",
    "Providers know only a user's segment; every partition of the users is a point, placed by the "
    "mutual information between user and segment. The certificate falls as segments are split; "
    "what happens in the worst equilibrium need not. With three users, one policy for all and a "
    "policy for each are both harmless, and the segmentation between them is not. Worst and best "
    "are those that were found; worse ones may exist up to the certificate.",
    _compute,
    _figures,
    _claims,
)
