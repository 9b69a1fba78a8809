"""The file of a search: TOML, every key checked before anything runs."""

import dataclasses
import difflib
import itertools
import math
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .._newton import Automatic, LevenbergMarquardt, Newton
from .._solver import AbstractSolver, Extragradient
from ._checkpoint import BatchError
from ._ladder import PRECISIONS, Rung, default_ladder
from ._market_family import MarketFamily
from ._solve_many import CertificateSettings

FORMAT = "diffgame.search/1"
_SOLVERS: dict[str, Callable[..., AbstractSolver]] = {
    "automatic": Automatic,
    "adaptive extragradient": lambda: Automatic(most_parameters=0),
    "extragradient": Extragradient,
    "levenberg-marquardt": LevenbergMarquardt,
    "newton": Newton,
}
_MODES = ("personalized", "partial", "anonymous")
_MOST = 2**63 - 1
_MOST_TOGETHER = 4
_MOST_PROFILES = 256
_BRACKETED = (2, 3)
_LEAST_HEAT, _MOST_HEAT = 1e-3, 1e3
# Programs for quantal users are long, and all lanes wait for the slowest.
_LANES, _QUANTAL_LANES = 128, 8


@dataclasses.dataclass(frozen=True)
class Factory:
    """A user's own games: `function` ("module:name", also in `folder`), called with `arguments`."""

    function: str
    arguments: Mapping[str, Any]
    folder: str


@dataclasses.dataclass(frozen=True)
class SearchFile:
    """What to search. Either `families` (equal shares of the markets) or `factory`.

    `profiles`: whether results hold games and profiles; None: if they are not too many.
    """

    games: int
    seed: int
    chunk: int
    lanes: int
    families: tuple[MarketFamily, ...]
    factory: Factory | None
    ladder: tuple[Rung, ...]
    certificate: CertificateSettings
    stop_certified: float
    stop_seconds: float
    profiles: bool | None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class _Table:
    """A table of the file whose keys are taken one by one; what is left over is unknown."""

    def __init__(self, path: Path, name: str, values: Any):
        if not isinstance(values, dict):
            raise BatchError(f"{path}: {name} is {values!r}; make it a table")
        self._path, self._name, self._values = path, name, dict(values)
        self._known: list[str] = []
        self._left_out: list[str] = []

    def refuse(self, key: str, value: Any, remedy: str) -> BatchError:
        where = f"{self._name}.{key}" if self._name else key
        return BatchError(f"{self._path}: {where} is {value!r}; {remedy}")

    def take(self, key: str, default: Any = None) -> Any:
        self._known.append(key)
        if default is None and key not in self._values:
            where = f"{self._name}.{key}" if self._name else key
            # Strict: a key that is not read yet may be right.
            close = difflib.get_close_matches(key, self._values, n=1, cutoff=0.8)
            remedy = f"rename {close[0]}" if close else "state it"
            raise BatchError(f"{self._path}: {where} is missing; {remedy}")
        if key not in self._values:
            self._left_out.append(key)
        return self._values.pop(key, default)

    def has(self, key: str) -> bool:
        return key in self._values

    def number(self, key: str, default: float | None, low: float, *, above: bool = False) -> float:
        given = self.has(key)
        value = self.take(key, default)
        good = _is_number(value) and (value > low if above else value >= low)
        if not good or (given and not math.isfinite(value)):
            raise self.refuse(
                key, value, f"give a finite number {'above' if above else 'of at least'} {low:g}"
            )
        return float(value)

    def integer(self, key: str, default: int | None, low: int, high: int = _MOST) -> int:
        value = self.take(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            most = "" if high == _MOST else f" and at most {high}"
            raise self.refuse(key, value, f"give a whole number of at least {low}{most}")
        return value

    def integers(self, key: str, low: int) -> list[int]:
        """One whole number or a list of them."""
        value = self.take(key)
        values = value if isinstance(value, list) else [value]
        whole = all(isinstance(v, int) and not isinstance(v, bool) and v >= low for v in values)
        if not values or not whole or len(set(values)) < len(values):
            raise self.refuse(
                key, value, f"give a whole number of at least {low}, or a list of different ones"
            )
        return values

    def span(self, key: str, default: float, low: float, high: float) -> tuple[float, float]:
        """A number, or [least, greatest]."""
        value = self.take(key, default)
        ends = value if isinstance(value, list) else [value, value]
        good = len(ends) == 2 and all(map(_is_number, ends))
        if not good or not low <= ends[0] <= ends[1] <= high:
            raise self.refuse(
                key, value, f"give a number or [least, greatest], from {low:g} to {high:g}"
            )
        return float(ends[0]), float(ends[1])

    def switch(self, key: str) -> bool | None:
        """True, false, or None if it is left out."""
        if not self.has(key):
            self._known.append(key)
            return None
        value = self.take(key)
        if not isinstance(value, bool):
            raise self.refuse(key, value, "give true or false")
        return value

    def texts(self, key: str, default: str, choices: tuple[str, ...]) -> list[str]:
        """One of the choices or a list of them."""
        value = self.take(key, default)
        values = value if isinstance(value, list) else [value]
        known = all(isinstance(one, str) and one in choices for one in values)
        if not values or not known or len(set(values)) < len(values):
            raise self.refuse(
                key, value, f"choose from {', '.join(choices)}, or give a list of different ones"
            )
        return values

    def spans(self, key: str, low: float, high: float) -> list[tuple[float, float]]:
        """A number, a list of different ones, or a range; 0 by default and whatever the range."""
        value = self.take(key, 0.0)
        remedy = (
            f"give a number, a list of different ones, or {{ least = ..., greatest = ... }}: 0, or "
            f"from {low:g} to {high:g}"
        )
        if isinstance(value, dict):
            ends = [value.get(name, math.nan) for name in ("least", "greatest")]
            good = set(value) == {"least", "greatest"} and all(map(_is_number, ends))
            if not good or not low <= ends[0] <= ends[1] <= high:
                raise self.refuse(key, value, remedy + " (a range holds no 0)")
            return [(float(ends[0]), float(ends[1]))]
        values = value if isinstance(value, list) else [value]
        good = values and all(_is_number(v) and (v == 0 or low <= v <= high) for v in values)
        if not good or len(set(values)) < len(values):
            raise self.refuse(key, value, remedy)
        return [(float(v), float(v)) for v in values]

    def text(self, key: str, default: str | None, choices: tuple[str, ...] = ()) -> str:
        value = self.take(key, default)
        if not isinstance(value, str) or (choices and value not in choices):
            raise self.refuse(
                key, value, f"choose from {', '.join(choices)}" if choices else "give text"
            )
        return value

    def end(self) -> None:
        for key in self._values:
            where = f"{self._name}.{key}" if self._name else key
            close = difflib.get_close_matches(key, self._left_out, n=1)
            remedy = f"rename it {close[0]}" if close else f"known: {', '.join(self._known)}"
            raise BatchError(f"{self._path}: {where} is unknown; {remedy}")


def _groups(table: _Table, mode: str, users: int, segments: list[int]) -> list[tuple[int, ...]]:
    """Sizes of the groups that providers can tell apart, for every degree that is asked for."""
    counts = {"personalized": [users], "anonymous": [1], "partial": segments}[mode]
    found = []
    for count in counts:
        if count > users:
            raise table.refuse(
                "segments", count, f"{users} users make {users} groups at most; give fewer"
            )
        found.append(tuple(users // count + (number < users % count) for number in range(count)))
    return found


def _check(table: _Table, family: MarketFamily) -> MarketFamily:
    """The family, unless its equilibria could not be certified."""
    largest = max(family.groups)
    if largest > _MOST_TOGETHER:
        raise table.refuse(
            "users",
            family.users,
            f"deviations from a signal that {largest} users share are exact for up to "
            f"{_MOST_TOGETHER}: give fewer users or more segments",
        )
    if largest > 1 and family.actions**largest > _MOST_PROFILES:
        raise table.refuse(
            "actions",
            family.actions,
            f"{largest} users who share a signal have {family.actions**largest} profiles of "
            f"actions, and {_MOST_PROFILES} are the most: give fewer actions, fewer users or more "
            "segments",
        )
    if family.quantal and largest > 1:
        raise table.refuse(
            "temperature",
            family.temperature[1],
            "deviations against quantal users who share a signal have no exact certificate: give "
            'temperature = 0, or mode = "personalized"',
        )
    if family.quantal and family.states not in _BRACKETED:
        raise table.refuse(
            "states",
            family.states,
            "deviations against quantal users are bracketed for 2 or 3 states: give 2 or 3, or "
            "temperature = 0",
        )
    return family


def _families(table: _Table) -> tuple[MarketFamily, ...]:
    modes = table.texts("mode", "personalized", _MODES)
    users, providers = table.integers("users", 1), table.integers("providers", 1)
    segments = []
    if "partial" in modes:
        segments = table.integers("segments", 1)
    elif table.has("segments"):
        raise table.refuse(
            "segments", table.take("segments"), 'say mode = "partial", or leave segments out'
        )
    temperatures = table.spans("temperature", _LEAST_HEAT, _MOST_HEAT)
    shared = {
        "actions": table.integer("actions", None, 2),
        "states": table.integer("states", None, 2),
        "prior": table.number("prior", 1.0, 0.0, above=True),
        "weights": table.number("weights", 1.0, 0.0, above=True),
        "misalignment": table.span("misalignment", 0.0, 0.0, 1.0),
        "mass": table.span("mass", 1.0, 1e-6, 1e6),
    }
    table.end()
    found = []
    for mode, many, rivals, heat in itertools.product(modes, users, providers, temperatures):
        for groups in _groups(table, mode, many, segments):
            family = MarketFamily(providers=rivals, groups=groups, temperature=heat, **shared)
            # A degree may have two names: one user is personalized and anonymous.
            if family not in found:
                found.append(_check(table, family))
    return tuple(found)


def _rung(table: _Table) -> Rung:
    solver = table.text("solver", None, tuple(_SOLVERS))
    settings = {}
    if solver == "extragradient" or table.has("learning_rate"):
        if solver in ("automatic", "adaptive extragradient"):
            raise table.refuse("learning_rate", table.take("learning_rate"), f"{solver} has none")
        settings["learning_rate"] = table.number("learning_rate", None, 0.0, above=True)
    rung = Rung(
        table.text("name", solver),
        _SOLVERS[solver](**settings),
        table.number("tolerance", 1e-6, 0.0, above=True),
        table.integer("max_steps", 1000, 1),
        table.text("precision", PRECISIONS[0], PRECISIONS),
    )
    table.end()
    return rung


def read_search(path: Path) -> SearchFile:
    """Read and check the file of a search.

    **Errors:** BatchError in one line, naming the key, its value and the remedy.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise BatchError(f"{path}: cannot be read ({error.strerror}); name a TOML file") from error
    except ValueError as error:
        raise BatchError(f"{path}: is no TOML ({error}); see docs/batch.md") from error
    return parse_search(text, path)


def parse_search(text: str, path: Path) -> SearchFile:
    """The same from the file's text; `path` is what errors name, and a factory's folder is its."""
    try:
        values = tomllib.loads(text)
    except ValueError as error:
        line = " ".join(str(error).split())
        raise BatchError(f"{path}: is no TOML ({line}); see docs/batch.md") from error
    top = _Table(path, "", values)
    top.text("format", None, (FORMAT,))
    games, seed = top.integer("games", None, 1), top.integer("seed", 0, 0, 2**32 - 1)
    chunk = top.integer("chunk", 4096, 1)
    if top.has("market") == top.has("factory"):
        raise BatchError(f"{path}: give either a table [market] or a table [factory]")
    families, factory, ladder = (), None, ()
    certificate = _Table(path, "certificate", top.take("certificate", {}))
    tolerance = certificate.number("tolerance", 1e-6, 0.0, above=True)
    settings = CertificateSettings(tolerance)
    if top.has("market"):
        families = _families(_Table(path, "market", top.take("market")))
        if games < len(families):
            raise top.refuse("games", games, f"there are {len(families)} sizes: give one to each")
    else:
        table = _Table(path, "factory", top.take("factory"))
        name = table.text("function", None)
        if not all(name.partition(":")[::2]):
            raise table.refuse("function", name, 'write "module:function"')
        arguments = table.take("arguments", {})
        if not isinstance(arguments, dict):
            raise table.refuse("arguments", arguments, "make it a table")
        factory = Factory(name, arguments, str(path.absolute().parent))
        table.end()
        starts = certificate.integer("starts", settings.starts, 0)
        steps = certificate.integer("steps", settings.steps, 1)
        settings = CertificateSettings(tolerance, starts, steps)
        rungs = top.take("ladder", [])
        if not isinstance(rungs, list):
            raise top.refuse("ladder", rungs, "write [[ladder]] for every rung")
        ladder = tuple(
            _rung(_Table(path, f"ladder[{number}]", rung)) for number, rung in enumerate(rungs)
        )
        if ladder and ladder[-1].precision != PRECISIONS[0]:
            raise BatchError(
                f"{path}: ladder[{len(ladder) - 1}].precision is {ladder[-1].precision!r}; end "
                f"with a rung in {PRECISIONS[0]}, which certificates need"
            )
        ladder = ladder or default_ladder()
    certificate.end()
    lanes = _QUANTAL_LANES if any(family.quantal for family in families) else _LANES
    lanes = top.integer("lanes", lanes, 1)
    results = _Table(path, "results", top.take("results", {}))
    profiles = results.switch("profiles")
    results.end()
    stop = _Table(path, "stop", top.take("stop", {}))
    stop_certified = stop.number("certified", math.inf, 1.0)
    stop_seconds = stop.number("seconds", math.inf, 0.0, above=True)
    stop.end()
    top.end()
    return SearchFile(
        games,
        seed,
        chunk,
        lanes,
        families,
        factory,
        ladder,
        settings,
        stop_certified,
        stop_seconds,
        profiles,
    )
