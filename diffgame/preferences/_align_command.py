"""The command `diffgame align`."""

import argparse
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .._terminal import check_output, write_json
from ._ratings import MINIMUM_ANSWERS, Ratings, RatingsError

EXAMPLES = """examples:
  diffgame align ratings.csv --scale 1,5 --providers models.csv
  diffgame align survey.csv --scale 0,10 --groups country --personas 50 --json align.json
  diffgame align --data movielens --seed 1

RATINGS.csv has a header and a row per person: her id, then an answer per item, empty where she
gave none. The providers' file has a row per provider: its name, then its utility for every item.

exit status:
  0  every figure is certified
  1  a fault of diffgame itself
  2  bad input or usage
  3  some figure is not certified (brackets say what is known)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `diffgame align`."""
    parser.add_argument("file", metavar="RATINGS.csv", nargs="?", help="ratings or answers, CSV")
    parser.add_argument("--data", metavar="NAME", help="movielens or wvs, in place of a file")
    parser.add_argument("--scale", metavar="MIN,MAX", help="the ends of the scale, as in 1,5")
    parser.add_argument("--providers", metavar="FILE", help="the providers' utilities, CSV")
    parser.add_argument("--groups", metavar="COLUMN", help="the column of the people's groups")
    parser.add_argument(
        "--personas",
        metavar="COUNT",
        type=int,
        help="without --providers: make so many by perturbing the groups' means (default 20)",
    )
    parser.add_argument("--folds", type=int, default=5, help="parts held out (default 5)")
    parser.add_argument(
        "--minimum",
        type=int,
        default=MINIMUM_ANSWERS,
        help=f"least number of answers per person (default {MINIMUM_ANSWERS})",
    )
    parser.add_argument(
        "--offset",
        choices=("constant", "none"),
        default="constant",
        help="whether squared error may add a constant per person (default constant)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of all random draws (default 0)")
    parser.add_argument("--json", metavar="OUT", help="also write everything to this file, as JSON")


def _scale(text: str | None) -> tuple[float, float]:
    if text is None:
        raise RatingsError("--scale", "is missing", "state the ends of the scale, as in 1,5")
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise RatingsError("--scale", f"is {text!r}", "give MIN,MAX, as in 1,5") from None
    return low, high


def _ratings(options: argparse.Namespace) -> Ratings:
    from ._data import load_source
    from ._tables import read_ratings

    if (options.file is None) == (options.data is None):
        given = "is missing" if options.file is None else "comes together with --data"
        raise RatingsError("RATINGS.csv", given, "give either a file or --data NAME")
    if options.data is None:
        return read_ratings(options.file, _scale(options.scale), options.groups)
    for option in ("scale", "groups"):
        if getattr(options, option) is not None:
            problem = f"does not go with --data {options.data}"
            raise RatingsError(f"--{option}", problem, "leave it out: the data have their own")
    return load_source(options.data)


def run(options: argparse.Namespace) -> int:
    """Measure, print and write; returns the exit status.

    The caller turns on float64 before (`jax.config.update("jax_enable_x64", True)`).

    Raises:
        RatingsError, Refused: bad input or usage, in one line; nothing has been written.
    """
    from ._align import align_ratings
    from ._errors import AlignSettings
    from ._personas import PersonaSettings, personas_of
    from ._report import print_alignment
    from ._tables import read_providers

    settings = AlignSettings(
        options.seed, options.folds, options.offset == "constant", options.minimum
    )
    target = None if options.json is None else Path(options.json)
    if target is not None:
        check_output("--json", target)
    ratings = _ratings(options)
    personas = ""
    if options.providers is not None:
        if options.personas is not None:
            raise RatingsError("--personas", "does not go with --providers", "leave one out")
        names, utilities = read_providers(options.providers, ratings.items)
    else:
        count = 20 if options.personas is None else options.personas
        made = PersonaSettings(count=count, seed=options.seed)
        names, utilities = personas_of(ratings, made)
        personas = (
            f"The providers are {count} personas made from the groups' means (modelled): with "
            f"fidelity uniform from {made.fidelity[0]:g} (always the middle of the scale) to "
            f"{made.fidelity[1]:g} (the means), plus normal noise of {made.noise:g} of the scale."
        )

    import jax
    from rich.console import Console

    def progress(text: str) -> None:
        print(f"diffgame: {text}", file=sys.stderr, flush=True)

    report = align_ratings(ratings, names, utilities, settings, progress)
    report["settings"] |= {"diffgame": version("diffgame"), "jax": jax.__version__}
    if personas:
        report["personas"] = personas
    if target is not None:
        write_json(target, report)
    print_alignment(report, Console())
    certified = report["certified"]
    return 0 if _all_certified(certified) else 3


def _all_certified(certified: dict[str, Any]) -> bool:
    counts = all(
        certified[kind] == certified[f"{kind}_of"] for kind in ("squared_error", "sup_norm")
    )
    return counts and certified["strong_alignment"]
