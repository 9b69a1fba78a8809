"""Pages: whole documents that need no network, in which text from files stays text."""

import re

import plotly.graph_objects

from diffgame._page import draw_figure, render_page


def test_text_from_a_file_is_shown_and_not_run():
    page = render_page("<p>{{ name }}</p>", "<b>A & B</b>", name="<script>alert(1)</script>")
    assert "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>" in page
    assert page.count("&lt;b&gt;A &amp; B&lt;/b&gt;") == 2
    assert "<b>A" not in page


def test_a_page_is_one_document_that_fetches_nothing():
    figure = plotly.graph_objects.Figure(plotly.graph_objects.Scatter(x=[1, 2], y=[3, 4]))
    page = render_page("{{ drawn }}", "Curves", drawn=draw_figure(figure, "curve-0"))
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>")
    assert '<div id="curve-0"' in page
    head, _, body = page.partition("<body>")
    assert "Plotly.newPlot" in body
    assert "plotly.js v" in head
    assert not re.search(r'<(script|link|img)[^>]*(src|href)="http', page)
