"""Users who choose with noise: what they get at equilibrium, against their temperature."""

from collections.abc import Callable, Sequence

from ..market import Market, temperature_table
from ._draw import figure, line
from ._markets import draw_market, prosecutor_and_defender
from ._section import Claim, Row, Section, StudySettings, certified, decide

_TEMPERATURES = (0.02, 0.05, 0.1, 0.2, 0.5)
_SLACK = 1e-6


def _markets(settings: StudySettings) -> dict[str, Market]:
    """Exact weak alignment, two states and two actions."""
    random = {
        f"random {number + 1}": draw_market(
            (settings.seed, 7, number), 0.0, users=2, actions=2, states=2
        )
        for number in range(settings.count(4))
    }
    return {"prosecutor and defender": prosecutor_and_defender()} | random


def _compute(settings: StudySettings, progress: Callable[[str], None]) -> list[Row]:
    rows = []
    for name, market in _markets(settings).items():
        progress(name)
        table = temperature_table(market, _TEMPERATURES, seed=settings.seed, tolerance=1e-3)
        rows += [{"market": name} | row for row in table]
    return rows


def _figures(rows: Sequence[Row]):
    markets = list(dict.fromkeys(row["market"] for row in rows))
    traces = []
    for colour, market in enumerate(markets[:6]):
        part = [row for row in rows if row["market"] == market]
        traces.append(line(part, "temperature", "loss", f"{market}: loss", colour))
    part = [row for row in rows if row["market"] == markets[-1]]
    traces.append(
        line(part, "temperature", "noise_bound", "what noise can cost two users", 5, dash="dot")
    )
    drawn = figure(traces, "temperature", "users' total loss at equilibrium")
    drawn.update_xaxes(type="log")
    return [drawn]


def _claims(rows: Sequence[Row]) -> list[Claim]:
    sure = certified(rows)
    over = [row["loss"] - row["noise_bound"] for row in sure]
    within = sum(loss <= _SLACK for loss in over)
    coldest = [row["loss"] for row in sure if row["temperature"] == min(_TEMPERATURES)]
    return [
        Claim(
            "With exact weak alignment quantal users lose no more than their own noise can cost (a "
            "strict reading of faring near-optimally)",
            f"{len(sure)} certified equilibria found of {len(rows)}, temperatures "
            f"{', '.join(str(t) for t in _TEMPERATURES)}",
            f"within in {within} of {len(sure)}; beyond it by at most "
            f"{max(over, default=float('nan')):.3g}",
            decide(rows, lambda row: row["loss"] <= row["noise_bound"] + _SLACK),
        ),
        Claim(
            "Quantal users fare near-optimally: what they lose is at most twice the temperature",
            f"{len(sure)} certified equilibria found, losses in units of the range of utility",
            f"at temperature {min(_TEMPERATURES)} at most "
            f"{max(coldest, default=float('nan')):.3g}; loss / temperature at most "
            f"{max((r['loss'] / r['temperature'] for r in sure), default=float('nan')):.3g}",
            decide(rows, lambda row: row["loss"] <= 2 * row["temperature"]),
        ),
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
