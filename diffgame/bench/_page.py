"""The page of a bench: tables and performance profiles in one HTML file that needs no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._page import draw_figure, render_page
from ..study._draw import COLOURS, figure
from ._profiles import Profile
from ._rows import Row
from ._suite import Suite
from ._summary import COLUMNS, NUMBERS, Summary, duration

# Rows that the page shows per suite; the Parquet file has all.
MOST_ROWS = 2000

_BODY = """{% for text in about %}<p>{{ text }}</p>
{% endfor %}<table id="settings"><tbody>
{% for name, value in header.items() %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}</tbody></table>
{% for part in parts %}
<section id="{{ part.name }}">
<h2>{{ part.name }}</h2>
<p>{{ part.title }} Gap: {{ part.gap }}.</p>
<table class="summary"><thead><tr>
{% for name in columns %}<th class="{{ kinds[name] }}">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in part.summary %}<tr>{% for name in columns %}
<td class="{{ kinds[name] }}">{{ row[loop.index0] }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>
{% for figure in part.figures %}{{ figure }}{% endfor %}
<details><summary>Rows ({{ part.rows | length }} of {{ part.count }}{{ part.cut }})</summary>
<div class="rows"><table><thead><tr>
{% for name in part.fields %}<th>{{ name }}</th>{% endfor %}</tr></thead><tbody>
{% for row in part.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div></details>
</section>
{% endfor %}
"""
ABOUT = (
    "Every answer was judged by the suite's own check, from the game's arrays alone; what a solver "
    "says of its answer counts nowhere. “Wrong claims” are answers that it called solutions and "
    "the check does not.",
    "Time: every solver has a process of its own, solvers take turns block by block, and the clock "
    "in that process runs from plain arrays to plain arrays, for diffgame and for peers alike, "
    "posing the game and converting included. Solvers that compile (JAX, numba) make one call "
    "for every shape of games beforehand, shown apart as “first call”; so time per game is warm. "
    "A solver with “batch” in its name gets that many games in one call, and its time per game is "
    "the call's over its games; all others get one game at a time. Each process may use all "
    "cores; CPU time adds them up. Medians are over the games that the solver solved.",
    "A performance profile (Dolan, Moré 2002) shows the share of all games that a solver solved, "
    "certified, within a factor τ of the best solver of that game. A game that is not certified "
    "counts as never. At τ = 1 it is the share on which the solver was best; at the right end, the "
    "share that it solves at all. Solvers that are not installed are left out.",
)
_FIELDS = ("solver", "seed", "game", "status", "gap", "seconds", "steps", "claimed", "detail")


@dataclass(frozen=True)
class Part:
    """What the page shows of one suite."""

    suite: Suite
    rows: Sequence[Row]
    summaries: Sequence[Summary]
    profiles: Sequence[Profile]


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "seconds":
        return duration(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def draw_profile(profile: Profile):
    """The curves as steps over a logarithmic axis."""
    from plotly import graph_objects

    finite = [taus[-1] for taus, _ in profile.curves.values()]
    end = max(2.0, 1.1 * max(finite))
    traces = [
        graph_objects.Scatter(
            x=np.append(taus, end),
            y=np.append(shares, shares[-1]),
            mode="lines",
            name=name,
            line={
                "shape": "hv",
                "color": COLOURS[number % len(COLOURS)],
                "dash": ("solid", "dash", "dot")[number // len(COLOURS) % 3],
            },
            hovertemplate=f"{name}<br>within %{{x:.4g}} times the best: %{{y:.1%}}<extra></extra>",
        )
        for number, (name, (taus, shares)) in enumerate(profile.curves.items())
    ]
    made = figure(traces, "τ", "share of games solved", f"Performance profile: {profile.measure}")
    made.update_xaxes(type="log", range=[0, np.log10(end)])
    made.update_yaxes(range=[-0.02, 1.02], tickformat=".0%")
    return made


def render_bench(parts: Sequence[Part], header: Mapping[str, Any]) -> str:
    """The HTML text."""
    shown = []
    for part in parts:
        name = part.suite.name
        figures = [
            draw_figure(draw_profile(profile), f"{name}-{number}")
            for number, profile in enumerate(part.profiles)
        ]
        kept = part.rows[:MOST_ROWS]
        shown.append(
            {
                "name": name,
                "title": part.suite.title,
                "gap": part.suite.gap,
                "summary": [summary.cells() for summary in part.summaries],
                "figures": figures,
                "fields": _FIELDS,
                "count": len(part.rows),
                "cut": "; the Parquet file has all" if len(kept) < len(part.rows) else "",
                "rows": [[_cell(name, getattr(row, name)) for name in _FIELDS] for row in kept],
            }
        )
    return render_page(
        _BODY,
        "diffgame bench: " + ", ".join(part.suite.name for part in parts),
        about=ABOUT,
        header=header,
        parts=shown,
        columns=COLUMNS,
        kinds=dict.fromkeys(NUMBERS, "number") | {"wrong claims": "number no"},
    )
