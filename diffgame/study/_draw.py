"""Figures that look alike: certified points filled, others hollow."""

from collections.abc import Sequence
from typing import Any

from ._section import Row

COLOURS = ("#1f5fa8", "#c1532f", "#2f8a5b", "#7a4fa3", "#8a6d1d", "#4a4a4a")
_FILLED = ("certified", "measured")


def symbols_of(rows: Sequence[Row]) -> list[str]:
    """Filled circles for what was certified (or measured, where there is nothing to certify)."""
    return ["circle" if row["status"] in _FILLED else "circle-open" for row in rows]


def scatter(rows: Sequence[Row], x: str, y: str, name: str, colour: int = 0, **marker: Any):
    """Points of rows, hollow where not certified."""
    from plotly import graph_objects

    symbols = symbols_of(rows)
    return graph_objects.Scatter(
        x=[row[x] for row in rows],
        y=[row[y] for row in rows],
        mode="markers",
        name=name,
        text=[row["status"] for row in rows],
        marker={"color": COLOURS[colour], "symbol": symbols, "size": 7} | marker,
        hovertemplate=f"{x} %{{x:.4g}}<br>{y} %{{y:.4g}}<br>%{{text}}",
    )


def line(rows: Sequence[Row], x: str, y: str, name: str, colour: int = 0, dash: str = "solid"):
    """A curve through rows sorted by `x`, with its points hollow where not certified."""
    from plotly import graph_objects

    rows = sorted(rows, key=lambda row: row[x])
    symbols = symbols_of(rows)
    return graph_objects.Scatter(
        x=[row[x] for row in rows],
        y=[row[y] for row in rows],
        mode="lines+markers",
        name=name,
        text=[row["status"] for row in rows],
        line={"color": COLOURS[colour], "dash": dash},
        marker={"symbol": symbols, "size": 7},
        hovertemplate=f"{x} %{{x:.4g}}<br>{y} %{{y:.4g}}<br>%{{text}}",
    )


def figure(traces: Sequence[Any], x: str, y: str, title: str = ""):
    """Traces with titled axes."""
    from plotly import graph_objects

    made = graph_objects.Figure(list(traces))
    made.update_layout(
        template="plotly_white",
        height=420,
        title=title,
        margin={"l": 60, "r": 20, "t": 40 if title else 20, "b": 50},
        legend={"orientation": "h", "y": -0.2},
        xaxis_title=x,
        yaxis_title=y,
    )
    return made
