"""The file of a search: TOML, every key checked before anything runs."""

import dataclasses
import itertools
import math
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .._newton import Automatic, LevenbergMarquardt, Newton
from .._solver import AbstractSolver, Extragradient
from ._checkpoint import BatchError
from ._ladder import Rung, default_ladder
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
_MOST_TOGETHER = 4


@dataclasses.dataclass(frozen=True)
class Factory:
    """A user's own games: `function` ("module:name"), called with `arguments`."""

    function: str
    arguments: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class SearchFile:
    """What to search. Either `families` (equal shares of the markets) or `factory`."""

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


class _Table:
    """A table of the file whose keys are taken one by one; what is left over is unknown."""

    def __init__(self, path: Path, name: str, values: Any):
        if not isinstance(values, dict):
            raise BatchError(f"{path}: {name} is {values!r}; make it a table")
        self._path, self._name, self._values = path, name, dict(values)
        self._known: list[str] = []

    def refuse(self, key: str, value: Any, remedy: str) -> BatchError:
        where = f"{self._name}.{key}" if self._name else key
        return BatchError(f"{self._path}: {where} is {value!r}; {remedy}")

    def take(self, key: str, default: Any = None) -> Any:
        self._known.append(key)
        if default is None and key not in self._values:
            where = f"{self._name}.{key}" if self._name else key
            raise BatchError(f"{self._path}: {where} is missing; state it")
        return self._values.pop(key, default)

    def has(self, key: str) -> bool:
        return key in self._values

    def number(self, key: str, default: float | None, low: float, *, above: bool = False) -> float:
        value = self.take(key, default)
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not good or not (value > low if above else value >= low) or math.isnan(value):
            raise self.refuse(
                key, value, f"give a number {'above' if above else 'of at least'} {low:g}"
            )
        return float(value)

    def integer(self, key: str, default: int | None, low: int) -> int:
        value = self.take(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise self.refuse(key, value, f"give a whole number of at least {low}")
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
        good = len(ends) == 2 and all(
            isinstance(end, int | float) and not isinstance(end, bool) for end in ends
        )
        if not good or not low <= ends[0] <= ends[1] <= high:
            raise self.refuse(
                key, value, f"give a number or [least, greatest], from {low:g} to {high:g}"
            )
        return float(ends[0]), float(ends[1])

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
            raise BatchError(f"{self._path}: {where} is unknown; known: {', '.join(self._known)}")


def _families(table: _Table) -> tuple[MarketFamily, ...]:
    mode = table.text("mode", "personalized", ("personalized", "anonymous"))
    users, providers = table.integers("users", 1), table.integers("providers", 1)
    if mode == "anonymous" and max(users) > _MOST_TOGETHER:
        raise table.refuse(
            "users",
            max(users),
            f"deviations from anonymous policies are exact for up to {_MOST_TOGETHER} users",
        )
    families = [
        {"users": many, "providers": rivals} for many, rivals in itertools.product(users, providers)
    ]
    shared = {
        "actions": table.integer("actions", None, 2),
        "states": table.integer("states", None, 2),
        "prior": table.number("prior", 1.0, 0.0, above=True),
        "weights": table.number("weights", 1.0, 0.0, above=True),
        "misalignment": table.span("misalignment", 0.0, 0.0, 1.0),
        "mass": table.span("mass", 1.0, 1e-6, 1e6),
        "mode": mode,
    }
    table.end()
    return tuple(MarketFamily(**sizes, **shared) for sizes in families)


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
    )
    table.end()
    return rung


def read_search(path: Path) -> SearchFile:
    """Read and check the file of a search.

    **Errors:** BatchError in one line, naming the key, its value and the remedy.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BatchError(f"{path}: cannot be read ({error.strerror}); name a TOML file") from error
    except ValueError as error:
        line = " ".join(str(error).split())
        raise BatchError(f"{path}: is no TOML ({line}); see docs/batch.md") from error
    top = _Table(path, "", values)
    top.text("format", None, (FORMAT,))
    games, seed = top.integer("games", None, 1), top.integer("seed", 0, 0)
    chunk, lanes = top.integer("chunk", 4096, 1), top.integer("lanes", 128, 1)
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
        factory = Factory(name, arguments)
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
        ladder = ladder or default_ladder()
    certificate.end()
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
    )
