"""Pages of tables and figures: one HTML file each, which needs no network."""

from typing import Any

_FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 66rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem;
  border-bottom: 1px solid #ddd; }
.number { text-align: right; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.rows { max-height: 24rem; overflow: auto; }
td.yes { color: #12692b; } td.no { color: #a61b1b; font-weight: 600; }
td.unknown { color: #6a5400; }
pre { background: #f4f4f4; padding: .75rem; overflow: auto; font-size: .85rem; }
summary { cursor: pointer; margin: .5rem 0; }
</style>
<script>{{ plotly }}</script>
</head>
<body>
<h1>{{ title }}</h1>
{% block body %}{% endblock %}
</body>
</html>
"""


def draw_figure(figure: Any, name: str) -> str:
    """A plotly figure as a part of a page; `name` is its id there."""
    import markupsafe

    # Made by plotly, not by a user: it is HTML already.
    return markupsafe.Markup(
        figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            div_id=name,
            config={"displaylogo": False, "responsive": True},
        )
    )


def render_page(body: str, title: str, **values: Any) -> str:
    """The HTML text of a page: `body` is a jinja template of these values."""
    import jinja2
    import markupsafe
    import plotly.offline

    text = f'{{% extends "frame" %}}{{% block body %}}\n{body}{{% endblock %}}'
    loader = jinja2.DictLoader({"frame": _FRAME})
    page = jinja2.Environment(autoescape=True, loader=loader).from_string(text)
    script = markupsafe.Markup(plotly.offline.get_plotlyjs())
    return page.render(title=title, plotly=script, **values)
