"""Solvers compared on the same games, every answer judged by the same independent check."""

from ._suite import (
    Answer as Answer,
    Budget as Budget,
    Game as Game,
    Solver as Solver,
    Suite as Suite,
    Verdict as Verdict,
)
from ._suites import SUITES as SUITES, load_suite as load_suite
