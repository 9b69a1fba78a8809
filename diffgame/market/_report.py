"""An audit as tables that a person can read."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ._conversation_audit import names_states
from ._file import MarketFile

# A lowest value that falls by more than this is fragile.
_JUMP = 1e-3
_NEGLIGIBLE = 5e-7


def _number(value: float) -> str:
    text = f"{value:.4f}"
    return "0.0000" if text == "-0.0000" else text


def _gain(bracket: Mapping[str, float]) -> str:
    lower, upper = bracket["lower"], bracket["upper"]
    if upper - lower <= _NEGLIGIBLE:
        return "under 1e-9" if upper < 1e-9 else f"at most {upper:.0e}"
    return f"from {lower:.1g} to {upper:.1g}"


def _short(value: float) -> str:
    return "0" if value <= 1e-9 else f"{value:.2g}"


def _table(title: str, columns: list[str], left: int = 1) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < left else "right", overflow="fold")
    return table


def _users(file: MarketFile, report: Mapping[str, Any]) -> Table:
    talk = any("best_conversation" in facts for facts in report["users"].values())
    columns = ["user", "mass", "full information", "uninformed", "hull", "cone"]
    columns += ["best conversation"] if talk else []
    table = _table("Users: values, and distance from the providers' objectives", columns)
    for j, user in enumerate(file.users):
        facts = report["users"][user]
        alignment = facts["alignment"]
        values = [file.mass[j], facts["full_information"], facts["uninformed"]]
        values += [alignment["hull_state"], alignment["cone_state"]]
        best = facts.get("best_conversation")
        known = [] if not talk else ["too large"] if best is None else [_number(best)]
        table.add_row(user, *map(_number, values), *known)
    return table


def _mode_table(file: MarketFile, name: str, mode: Mapping[str, Any]) -> Table:
    exact, bounded = "equilibrium_range" in mode, mode["worst_case_loss"] is not None
    columns = ["user", *(["lose at most"] if bounded else []), "worst found", "best found"]
    columns += ["exact range"] if exact else []
    title = f"{name.capitalize()} policies: users' values in equilibrium"
    table = _table(title, columns)
    for user in file.users:
        cells = [_number(mode["worst_case_loss"]["per_user"][user])] if bounded else []
        cells += [_number(mode[end]["user_values"][user]) for end in ("worst", "best")]
        if exact:
            ends = mode["equilibrium_range"][user]
            cells.append("unknown" if ends is None else " to ".join(map(_number, ends)))
        table.add_row(user, *cells)
    return table


def _mode_lines(name: str, mode: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{end} found: {mode[end]['status']}, from {mode[end]['start']}; "
        f"deviating gains {_gain(mode[end]['exploitability'])}"
        for end in ("worst", "best")
    ]
    lines.append(f"{mode['certified']} of {mode['searched']} end points certified")
    gains = ", ".join(f"{who} {_short(gain)}" for who, gain in mode["babbling_gain"].items())
    verdict = {True: "an equilibrium", False: "no equilibrium", None: "not decided"}
    lines.append(
        f"saying nothing: {verdict[mode['babbling_is_equilibrium']]}; gain from leaving: {gains}"
    )
    if "timing" in mode:
        lines += _menu_lines(mode)
    lines += _range_lines(mode)
    if mode["worst_case_loss"] is None:
        return lines
    total = mode["worst_case_loss"]["total"]
    everyone = ": all give full information" if total <= _NEGLIGIBLE else ""
    lines.append(f"no {name} equilibrium loses users over {_number(total)} in total{everyone}")
    return lines


def _menu_lines(mode: Mapping[str, Any]) -> list[str]:
    """What to know about equilibria in menus."""
    revealed = mode["full_revelation"]
    told = "the protocol is too small to name the state"
    if revealed is not None:
        gain = _gain(revealed["exploitability"])
        told = f"{revealed['status']}; deviating gains {gain}"
    missing = mode["not_computed"]
    unknown = [f"{user}: {why}" for user, why in missing.get("equilibrium_range", {}).items()]
    return [
        f"telling everything: {told}",
        "tried: menus that all providers post alike; users pick a provider "
        f"{mode['timing']} they learn their private value",
        *(f"no exact range for {text}" for text in unknown),
        *(f"no bound on losses: {why}" for why in [missing.get("worst_case_loss")] if why),
    ]


def _range_lines(mode: Mapping[str, Any]) -> list[str]:
    """What to know about the exact ranges: which are not proved, and which a small gain changes."""
    if "equilibrium_range" not in mode:
        return []
    lines = []
    certified = mode["equilibrium_range_certified"]
    unsure = [user for user, sure in certified.items() if sure is False]
    if unsure:
        lines.append(f"the exact range is not certified for {', '.join(unsure)}")
    for delta, found in mode.get("equilibrium_range_delta", {}).items():
        moved = [
            f"{user} {_number(low)}"
            for user, (low, _) in found["range"].items()
            if mode["equilibrium_range"][user][0] - low > _JUMP
        ]
        if moved:
            lines.append(
                f"if a gain of {delta} of a provider's range counts as none, the lowest value "
                f"falls to: {', '.join(moved)}"
            )
    return lines


def _theorems(file: MarketFile, report: Mapping[str, Any]) -> list[str]:
    lines = []
    providers = len(file.providers)
    if not names_states(file):
        lines.append(
            "no provider can name the state in so short a conversation, so no theorem promises "
            "users anything"
        )
    elif providers == 1:
        lines.append("one provider: no competition, so no theorem promises users anything")
    elif "personalized" in report:
        worst = max(facts["alignment"]["cone_state"] for facts in report["users"].values())
        lines.append(
            f"weak alignment within {_short(worst)}: every personalized equilibrium gives each "
            f"user full information less at most twice her distance ({_short(2 * worst)} at most)"
        )
    if providers > 1 and "anonymous" in report and names_states(file):
        strong = report["strong_alignment"]["state"]["distance"]
        loss = 2 * len(file.users) * strong
        lines.append(
            f"common weights within {_short(strong)}: every anonymous equilibrium loses users at "
            f"most {_short(loss)} in total, each counted by her scale"
            + ("" if strong > _NEGLIGIBLE else ": full information for all")
        )
    return lines


def _gap(file: MarketFile, report: Mapping[str, Any]) -> list[str]:
    if not {"personalized", "anonymous"} <= set(report):
        return []

    def total(mode: str, end: str) -> float:
        values = report[mode][end]["user_values"]
        return sum(float(m) * values[u] for u, m in zip(file.users, file.mass, strict=True))

    return [
        f"personalization gives users {total('personalized', end) - total('anonymous', end):+.4f} "
        f"at the {end} equilibria found (personalized {_number(total('personalized', end))}, "
        f"anonymous {_number(total('anonymous', end))}, mass-weighted)"
        for end in ("worst", "best")
    ]


def _count(things: Sequence[Any], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _item(console: Console, text: str) -> None:
    console.print(Padding(Text(f"- {text}"), (0, 0, 0, 1)))


def print_report(file: MarketFile, report: Mapping[str, Any], console: Console) -> None:
    """Print an audit (`audit_market`) as tables and sentences."""
    providers = ", ".join(file.providers)
    console.print(f"{file.name}", style="bold", highlight=False, markup=False)
    console.print(
        f"{_count(file.users, 'user')}, {_count(file.providers, 'provider')} ({providers}), "
        f"{_count(file.states, 'state')}, {_count(file.actions, 'action')}",
        highlight=False,
        markup=False,
    )
    console.print()
    console.print(_users(file, report))
    for name in ("personalized", "anonymous"):
        if name in report:
            console.print(_mode_table(file, name, report[name]))
            for line in _mode_lines(name, report[name]):
                _item(console, line)
            console.print()
    console.print("What follows", style="bold")
    for line in [*_theorems(file, report), *_gap(file, report)]:
        _item(console, line)
    console.print(
        "Ties: users follow the recommendation when indifferent and stay with their provider; "
        "deviations are suprema, with ties in the deviator's favour. certified: linear programs "
        "over all deviations; local: over those searched.",
        style="dim",
        highlight=False,
        markup=False,
    )
