"""The Python of the documentation runs, and prints what stands below it."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("own_game", "providers", "crowds", "protocols", "design")
BLOCK = re.compile(r"```python\n(.*?)```(?:\s*```text\n(.*?)```)?", re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_python_prints_what_the_page_shows(page: str, capsys: pytest.CaptureFixture[str]):
    blocks = BLOCK.findall((DOCS / f"{page}.md").read_text("utf-8"))
    assert blocks
    names = {"__name__": page}
    for place, (code, shown) in enumerate(blocks):
        exec(compile(code, f"docs/{page}.md, block {place}", "exec"), names)
        printed = capsys.readouterr().out
        if shown:
            assert printed == shown
