"""Printing how nearly providers agree with people, for people."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

# How many groups are printed; --json holds all of them.
_GROUPS = 12
_METHODS = {
    "cone": "cone (weights >= 0)",
    "hull": "hull (weights sum to 1)",
    "single": "best single provider",
    "mean": "mean of all providers",
    "none": "no provider",
}


def _number(value: float) -> str:
    return f"{value:.4f}"


def _table(title: str, columns: list[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", overflow="fold")
    return table


def _everybody(report: Mapping[str, Any]) -> Table:
    columns = ["nearest mix", "in sample", "worst tenth", "held out", "worst tenth"]
    table = _table("Error per person: root mean square, in points of the scale", columns)
    for method, label in _METHODS.items():
        errors = report["all"][method]
        cells = [
            errors[f][part] for f in ("error", "held_out") for part in ("mean", "worst_decile")
        ]
        table.add_row(label, *map(_number, cells))
    return table


def _bracket(distance: Mapping[str, Any]) -> str:
    if distance["certified"]:
        return _number(distance["upper"])
    return f"{_number(distance['lower'])} to {_number(distance['upper'])}"


def _groups(report: Mapping[str, Any]) -> Table:
    columns = ["group", "people", "cone", "worst\ntenth", "hull", "worst\ntenth"]
    table = _table(
        "By group: held-out error per person, and largest error for the group's means",
        [*columns, "largest,\nhull", "largest,\ncone"],
    )
    # The worst served come first: a mean over everybody hides them.
    ranked = sorted(
        report["groups"].items(), key=lambda pair: -pair[1]["hull"]["held_out"]["worst_decile"]
    )
    for name, group in ranked[:_GROUPS]:
        cells = [
            group[method]["held_out"][part]
            for method in ("cone", "hull")
            for part in ("mean", "worst_decile")
        ]
        sups = [_bracket(group["sup_norm"][kind]) for kind in ("hull_constant", "cone_constant")]
        table.add_row(Text(name), str(group["people"]), *map(_number, cells), *sups)
    return table


def _curve(report: Mapping[str, Any]) -> Table:
    columns = ["providers", "cone", "worst\ntenth", "hull", "worst\ntenth", "best\nsingle", "mean"]
    table = _table("Held-out error against the number of providers", columns)
    rows: dict[int, list[str]] = {}
    for row in report["curve"]:
        cells = rows.setdefault(row["providers"], [])
        cells.append(_number(row["held_out"]))
        if row["method"] in ("cone", "hull"):
            cells.append(_number(row["held_out_worst_decile"]))
    for size, cells in rows.items():
        table.add_row(str(size), *cells)
    return table


def _sup_people(report: Mapping[str, Any]) -> list[str]:
    scope = report["sup_norm"]
    measured = [person for person in report["people"].values() if "sup_norm" in person]
    if not measured:
        return [
            "largest errors: for the groups' means only; the programs are too large for "
            f"{scope['of']} people"
        ]
    parts = []
    for kind in ("hull_constant", "cone_constant"):
        found = [person["sup_norm"][kind]["upper"] for person in measured]
        parts.append(f"{kind.split('_')[0]} {_number(sum(found) / len(found))}")
    who = "all" if scope["people"] == scope["of"] else f"a random {scope['people']} of"
    return [
        f"largest error of one person, mean over {who} {scope['of']} people: " + ", ".join(parts)
    ]


def _lines(report: Mapping[str, Any]) -> list[str]:
    settings, certified = report["settings"], report["certified"]
    strong = report["strong_alignment"]
    lines = _sup_people(report)
    lines.append(
        f"strong alignment (one mix for all groups, groups scaled up freely): {_bracket(strong)}"
    )
    lines.append(
        f"certified: {certified['squared_error']} of {certified['squared_error_of']} nearest mixes "
        f"and {certified['sup_norm']} of {certified['sup_norm_of']} largest errors"
        + (", and strong alignment" if certified["strong_alignment"] else "")
    )
    offset = "a constant per person is free" if settings["constant"] else "without a constant"
    lines.append(
        f"{offset}; {settings['folds']} folds of each person's items are held out in turn; the "
        f"curve holds out one of them, over {settings['draws']} random orders; seed "
        f"{settings['seed']}"
    )
    return lines


def print_alignment(report: Mapping[str, Any], console: Console) -> None:
    """Print what `align_ratings` found as tables and sentences."""
    low, high = report["scale"]

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, highlight=False, markup=False)

    say(report["name"], "bold")
    say(
        f"{len(report['people'])} people, {report['items']} items, {report['answers']} answers "
        f"from {low:g} to {high:g}, {len(report['providers'])} providers"
    )
    if "personas" in report:
        say(report["personas"])
    console.print()
    console.print(_everybody(report))
    console.print(_groups(report))
    hidden = len(report["groups"]) - _GROUPS
    if hidden > 0:
        say(f"and {hidden} more groups, served better; --json holds them")
    console.print(_curve(report))
    for line in _lines(report):
        console.print(Padding(Text(f"- {line}"), (0, 0, 0, 1)))
