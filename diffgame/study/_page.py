"""The page of a study: tables and interactive figures in one HTML file that needs no network."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._page import draw_figure, render_page
from .._terminal import write_whole
from ._section import Claim, Row, Section

_BODY = """<p>{{ about }}</p>
<table><tbody>
{% for name, value in header.items() %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}</tbody></table>
<h2>Claims</h2>
<table id="claims"><thead><tr><th>claim</th><th>setting</th><th>computed</th><th>holds?</th></tr>
</thead><tbody>
{% for claim in claims %}<tr><td>{{ claim.claim }}</td><td>{{ claim.setting }}</td>
<td>{{ claim.computed }}</td><td class="{{ verdict[claim.holds][0] }}">{{ verdict[claim.holds][1] }}
</td></tr>
{% endfor %}</tbody></table>
{% for part in parts %}
<section id="{{ part.name }}">
<h2>{{ part.title }}</h2>
<p>{{ part.text }}</p>
<p>Points: {{ part.counts }}.</p>
{% for figure in part.figures %}{{ figure }}{% endfor %}
<details><summary>Table ({{ part.rows | length }} rows)</summary>
<div class="rows"><table><thead><tr>
{% for name in part.columns %}<th>{{ name }}</th>{% endfor %}</tr></thead><tbody>
{% for row in part.rows %}<tr>{% for cell in row %}
<td{% if cell.number %} class="number"{% endif %}>{{ cell.text }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div></details>
</section>
{% endfor %}
"""
_ABOUT = (
    "Every number was computed by diffgame. An equilibrium is certified when linear programs, "
    "checked again from their multipliers, rule out every gain from deviating above the "
    "tolerance; other points when the programs behind them are. Points that are not certified are "
    "hollow. Hover for values; click a name in a legend to hide it."
)
_VERDICT = {True: ("yes", "yes"), False: ("no", "no"), None: ("unknown", "not decided")}


def _cell(value: Any) -> dict[str, Any]:
    if isinstance(value, float):
        return {"text": f"{value:.6g}", "number": True}
    return {"text": str(value), "number": isinstance(value, int) and not isinstance(value, bool)}


def count_statuses(rows: Sequence[Row]) -> str:
    """How many rows have which status."""
    counts = Counter(row["status"] for row in rows)
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))


def write_page(
    path: Path,
    sections: Sequence[Section],
    results: Mapping[str, Sequence[Row]],
    header: Mapping[str, Any],
) -> list[Claim]:
    """Draw the sections that have rows; the file is replaced in one step. Returns all claims."""
    drawn = [section for section in sections if section.name in results]
    claims = [claim for section in drawn for claim in section.claims(results[section.name])]
    parts = []
    for section in drawn:
        rows = results[section.name]
        figures = [
            draw_figure(figure, f"{section.name}-{n}")
            for n, figure in enumerate(section.figures(rows))
        ]
        parts.append(
            {
                "name": section.name,
                "title": section.title,
                "text": section.text,
                "counts": count_statuses(rows),
                "figures": figures,
                "columns": list(rows[0]),
                "rows": [[_cell(value) for value in row.values()] for row in rows],
            }
        )
    everything = [row for section in drawn for row in results[section.name]]
    shown = {name: value for name, value in header.items() if name != "sections"}
    text = render_page(
        _BODY,
        "Competition, personalization and alignment: a study",
        about=_ABOUT,
        header=shown | {"points": count_statuses(everything)},
        claims=claims,
        verdict=_VERDICT,
        parts=parts,
    )
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    return claims


def print_claims(claims: Sequence[Claim]) -> None:
    """The table of claims for a terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, title="Claims", title_justify="left")
    for column in ("holds?", "claim", "setting", "computed"):
        table.add_column(column, overflow="fold")
    for claim in claims:
        table.add_row(_VERDICT[claim.holds][1], claim.claim, claim.setting, claim.computed)
    Console().print(table)
