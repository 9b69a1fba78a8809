"""The README's Python runs, and its audit output is what the command prints today."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from diffgame.market import audit_market, print_report, read_market

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def block_after(marker: str) -> str:
    found = re.search(rf"<!-- {marker} -->\s*```\w+\n(.*?)```", README, re.DOTALL)
    assert found, f"README.md has no block after <!-- {marker} -->"
    return found[1]


@pytest.mark.parametrize("place", range(len(SNIPPETS)), ids="snippet {}".format)
def test_python_in_the_readme_runs(place, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(compile(SNIPPETS[place], f"README.md, snippet {place}", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_audit_output_is_what_the_command_prints():
    file = read_market(ROOT / "examples" / "markets" / "opposed_users.json")
    text = io.StringIO()
    print_report(file, audit_market(file), Console(file=text, width=80))
    printed = [line.rstrip() for line in text.getvalue().strip().splitlines()]
    assert printed == block_after("audit output").strip().splitlines()
