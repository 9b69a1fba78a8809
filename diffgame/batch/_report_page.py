"""The page of a report: tables and figures in one HTML file that needs no network."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._page import draw_figure, render_page
from ..study._draw import COLOURS, figure
from ._report import Report, Row, losses

# Points of a scatter, and uncertified games, that the page shows; the results file has all.
_MOST_POINTS, _MOST_ROWS = 5000, 500

_BODY = """<p>{{ about }}</p>
<table id="header"><tbody>
{% for name, value in header.items() %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}</tbody></table>
{% for part in parts %}
<section id="{{ part.name }}">
<h2>{{ part.title }}</h2>
{% if part.text %}<p>{{ part.text }}</p>{% endif %}
{% for figure in part.figures %}{{ figure }}{% endfor %}
{% if part.rows %}<div class="rows"><table><thead><tr>
{% for name in part.columns %}<th>{{ name }}</th>{% endfor %}</tr></thead><tbody>
{% for row in part.rows %}<tr>{% for cell in row %}
<td{% if cell.number %} class="number"{% endif %}>{{ cell.text }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% endif %}
</section>
{% endfor %}
<section id="spec"><h2>The search</h2><pre>{{ spec }}</pre></section>
"""
WELFARE = (
    "Over certified equilibria only, one per market: where play from babbling ends, so neither the "
    "best nor the worst. Loss: of users against full information, in units of their utility, "
    "averaged by mass. Welfare: of what full information would add to no information in all these "
    "markets together, the share that users get; below 0 if noise costs them more than they learn. "
    "“No loss”: the share of the markets with a loss of at most 1e-6."
)
_ABOUT = (
    "Only “certified” ends are equilibria, to the tolerance and within the scope that "
    "docs/batch.md states for each kind of game."
)


def text_of(name: str, value: Any) -> str:
    """A cell: shares as percentages, nothing where there is nothing to say."""
    if value is None:
        return ""
    if name in ("certified", "share", "no loss"):
        return f"{value:.3%}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _cells(row: Row) -> list[dict[str, Any]]:
    return [
        {"text": text_of(name, value), "number": not isinstance(value, str)}
        for name, value in row.items()
    ]


def _bars(rows: Sequence[Row], x: str, y: str, title: str):
    from plotly import graph_objects

    bars = graph_objects.Bar(
        x=[row[x] for row in rows],
        y=[row[y] for row in rows],
        text=[f"{row['games']} games" for row in rows],
        marker={"color": COLOURS[0]},
    )
    made = figure([bars], x, y, title)
    made.update_yaxes(rangemode="tozero")
    return made


def _gains(columns: Mapping[str, np.ndarray]):
    from plotly import graph_objects

    gain = columns["gain"]
    # A gain of 0 has no logarithm; the bar at the left holds all up to 1e-16.
    known = np.log10(np.maximum(gain[np.isfinite(gain)], 1e-16))
    counts, edges = np.histogram(known, bins=32, range=(-16, max(0.0, known.max(initial=0))))
    bars = graph_objects.Bar(
        x=((edges[1:] + edges[:-1]) / 2).tolist(),
        y=counts.tolist(),
        width=np.diff(edges).tolist(),
        marker={"color": COLOURS[2]},
    )
    made = figure([bars], "largest gain from deviating, log10", "games", "What providers can gain")
    made.update_yaxes(type="log")
    return made


def _scatter(columns: Mapping[str, np.ndarray]):
    from plotly import graph_objects

    loss, _ = losses(columns)
    chosen = np.flatnonzero(columns["certified"].astype(bool))
    # Every n-th, so that all families are seen.
    chosen = chosen[:: max(1, -(-len(chosen) // _MOST_POINTS))]
    points = graph_objects.Scattergl(
        x=columns["misalignment"][chosen].tolist(),
        y=loss[chosen].tolist(),
        text=[f"game {number}" for number in chosen.tolist()],
        mode="markers",
        marker={"color": COLOURS[0], "size": 4, "opacity": 0.4},
        hovertemplate="misalignment %{x:.4g}<br>loss %{y:.4g}<br>%{text}",
    )
    title = f"What users lose in {len(chosen)} certified markets"
    return figure([points], "misalignment", "loss", title)


def _parts(report: Report, columns: Mapping[str, np.ndarray], rerun: str) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [
        {"name": "statuses", "title": "How games ended", "rows": report.statuses},
        {
            "name": "families",
            "title": report.kind,
            "text": WELFARE if report.markets else "",
            "rows": report.families,
        },
    ]
    parts[0]["figures"] = [_gains(columns)]
    for name, rows in (
        ("misalignment", report.misalignment),
        ("temperature", report.temperatures),
    ):
        if rows:
            figures = [_bars(rows, name, "welfare", f"Welfare against {name}")]
            if name == "misalignment":
                figures.append(_scatter(columns))
            parts.append({"name": name, "title": f"By {name}", "rows": rows, "figures": figures})
    shown = report.open[:_MOST_ROWS]
    cut = "" if len(shown) == len(report.open) else f", the first {len(shown)} of them here"
    parts.append(
        {
            "name": "open",
            "title": "Not certified",
            "text": f"{len(report.open)} games{cut}. {rerun}" if shown else "None.",
            "rows": shown,
        }
    )
    return parts


def render_report(
    report: Report, columns: Mapping[str, np.ndarray], spec: str, title: str, rerun: str
) -> str:
    """The HTML text; `rerun` says how to solve one game again."""
    shown = []
    for part in _parts(report, columns, rerun):
        figures = [
            draw_figure(made, f"{part['name']}-{number}")
            for number, made in enumerate(part.get("figures", []))
        ]
        rows = part["rows"]
        shown.append(
            part
            | {
                "figures": figures,
                "columns": list(rows[0]) if rows else [],
                "rows": [_cells(row) for row in rows],
            }
        )
    return render_page(_BODY, title, about=_ABOUT, header=report.header, parts=shown, spec=spec)
