"""The phase transition of common interest, and opposed users of unequal mass."""

from collections.abc import Callable, Sequence

import equinox as eqx

from ..market import (
    Market,
    MarketStatus,
    find_equilibria,
    find_extremes,
    strong_alignment_distances,
    worst_case_losses,
)
from ._draw import figure, line
from ._markets import LOSS, common_interest, opposed_users
from ._section import Claim, Row, Section, StudySettings, certified, decide

_KAPPAS = (0.5, 0.8, 0.9, 1.0, 1.1, 1.5, 2.0, 3.0)
_RATIOS = (0.2, 0.3, 0.34, 0.5, 1.0, 2.0, 2.9, 3.1, 5.0)
_SLACK = 1e-6

_strong = eqx.filter_jit(strong_alignment_distances)
_losses = eqx.filter_jit(worst_case_losses)


def _row(family: str, parameter: float, market: Market, settings: StudySettings) -> Row:
    everyone = market.anonymous()
    babbling = find_equilibria(everyone, starts=0, seed=settings.seed).babbling
    anonymous = find_extremes(everyone, starts=14, seed=settings.seed)
    personal = find_extremes(market, seed=settings.seed)
    strong = _strong(market.utility, market.objective, market.mass)["state"]
    decided = babbling.status is not MarketStatus.local and bool(strong.certified)
    sure = decided and all(
        end.status is MarketStatus.certified for end in (anonymous.worst, personal.worst)
    )
    return {
        "family": family,
        "parameter": parameter,
        "babbling gain": float(babbling.lower.max()),
        "babbling is an equilibrium": int(babbling.status is MarketStatus.certified),
        "strong distance": float(strong.distance),
        "certificate anonymous": float(_losses(everyone, 0.0, everyone.mass).total.loss),
        "loss anonymous": anonymous.loss,
        "loss personalized": personal.loss,
        "status": "certified" if sure else "local",
    }


def _compute(settings: StudySettings, progress: Callable[[str], None]) -> list[Row]:
    rows = []
    for kappa in _KAPPAS:
        progress(f"common interest, kappa {kappa}")
        rows.append(_row("common interest", kappa, common_interest(kappa), settings))
    for ratio in _RATIOS:
        progress(f"opposed users, mass {ratio}")
        rows.append(_row("opposed users", ratio, opposed_users(ratio), settings))
    return rows


def _figures(rows: Sequence[Row]):
    made = []
    for family, x in (("common interest", "kappa"), ("opposed users", "mass of the second user")):
        part = [row for row in rows if row["family"] == family]
        traces = [
            line(part, "parameter", "loss anonymous", "worst anonymous equilibrium found", 1),
            line(part, "parameter", "certificate anonymous", "bound of all of them", 1, "dot"),
            line(part, "parameter", "loss personalized", "worst personalized equilibrium", 0),
            line(part, "parameter", "babbling gain", "gain from leaving babbling", 2, "dash"),
        ]
        made.append(figure(traces, x, "loss of users in total; gain of a provider", family))
    return made


def _claims(rows: Sequence[Row]) -> list[Claim]:
    common = [row for row in rows if row["family"] == "common interest"]
    opposed = [row for row in rows if row["family"] == "opposed users"]

    def transition(row: Row) -> bool:
        below = row["parameter"] < 1
        gain = max(0.0, (1 - row["parameter"]) / 2)
        return (
            (row["strong distance"] <= _SLACK) == below
            and (row["certificate anonymous"] <= _SLACK) == below
            and (row["loss anonymous"] <= _SLACK) == below
            and abs(row["babbling gain"] - gain) <= _SLACK
        )

    def masses(row: Row) -> bool:
        stands = 1 / LOSS <= row["parameter"] <= LOSS
        return bool(row["babbling is an equilibrium"]) == stands

    standing = [row["parameter"] for row in opposed if row["babbling is an equilibrium"]]
    return [
        Claim(
            "N and S: anonymous policies admit an uninformative equilibrium, unless common weights "
            "align the market",
            f"E2, {len(common)} values of kappa, {len(certified(common))} certified",
            "strong alignment, a certificate of zero, full information at worst and a broken "
            "babbling all change together at kappa = 1; babbling gain (1 - kappa) / 2",
            decide(common, transition),
        ),
        Claim(
            "N: with opposed users saying nothing is an anonymous equilibrium for masses between "
            "g/L and L/g",
            f"E1 with g/L = 1/3, {len(opposed)} masses, {len(certified(opposed))} certified",
            f"an equilibrium at {standing}",
            decide(opposed, masses),
        ),
        Claim(
            "P: personalized, every equilibrium gives full information in these markets",
            f"{len(rows)} markets",
            f"largest total loss {max(row['loss personalized'] for row in rows):.1e}",
            decide(rows, lambda row: row["loss personalized"] <= _SLACK),
        ),
    ]


SECTION = Section(
    "transition",
    "Where anonymity fails",
    "Two families with closed forms. Common interest (E2): each provider is paid 1 for its "
    "friend's success and charged kappa for the other's; everything turns at kappa = 1. Opposed "
    "users (E1): informing one costs the other three times what it gains; nobody informs anybody "
    "while masses are within a factor of three. Losses are of users' total from full information.",
    _compute,
    _figures,
    _claims,
)
