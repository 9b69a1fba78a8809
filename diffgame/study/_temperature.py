"""Users who choose with noise: what they get at equilibrium, against their temperature."""

from collections.abc import Callable, Sequence

from ..market import Market, temperature_table
from ._draw import figure, line
from ._markets import draw_market
from ._section import Claim, Row, Section, StudySettings, certified, decide

_TEMPERATURES = (0.02, 0.05, 0.1, 0.2, 0.5)
_SLACK = 1e-6


def _market(settings: StudySettings, number: int) -> Market:
    """Exact weak alignment, two states and two actions."""
    return draw_market((settings.seed, 7, number), 0.0, users=2, actions=2, states=2)


def _compute(settings: StudySettings, progress: Callable[[str], None]) -> list[Row]:
    rows = []
    for number in range(settings.count(4)):
        progress(f"market {number + 1}")
        for row in temperature_table(
            _market(settings, number), _TEMPERATURES, seed=settings.seed, tolerance=1e-3
        ):
            rows.append({"market": number + 1} | row)
    return rows


def _figures(rows: Sequence[Row]):
    markets = list(dict.fromkeys(row["market"] for row in rows))
    traces = []
    for colour, market in enumerate(markets[:6]):
        part = [row for row in rows if row["market"] == market]
        traces.append(line(part, "temperature", "loss", f"market {market}: loss", colour))
    part = [row for row in rows if row["market"] == markets[0]]
    traces.append(
        line(part, "temperature", "noise_bound", "what her own noise can cost", 5, dash="dot")
    )
    drawn = figure(traces, "temperature", "users' total loss at equilibrium")
    drawn.update_xaxes(type="log")
    return [drawn]


def _claims(rows: Sequence[Row]) -> list[Claim]:
    sure = certified(rows)
    over = [row["loss"] - row["noise_bound"] for row in sure]
    return [
        Claim(
            "Quantal users fare near-optimally: with exact weak alignment they lose no more than "
            "their own noise can cost",
            f"{len(sure)} certified equilibria found of {len(rows)}, temperatures "
            f"{', '.join(str(t) for t in _TEMPERATURES)}",
            f"loss less that bound, at most {max(over, default=float('nan')):.3g}",
            decide(rows, lambda row: row["loss"] <= row["noise_bound"] + _SLACK),
        )
    ]


SECTION = Section(
    "temperature",
    "Temperature",
    "Users choose provider and action with probabilities proportional to exp(value / temperature). "
    "Equilibria are searched for at each temperature and certified by a rigorous bracket of the "
    "best deviation, to a gain of 1e-3; where the bracket stays open the point is hollow. The "
    "dotted line is what noisy decisions can cost users whatever is posted.",
    _compute,
    _figures,
    _claims,
)
