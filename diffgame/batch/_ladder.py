"""The ladder: which solver a game meets first, and which ones if it is not done by then."""

import dataclasses

from .._newton import Automatic
from .._solver import AbstractSolver, Extragradient

PRECISIONS = ("float64", "float32")


@dataclasses.dataclass(frozen=True)
class Rung:
    """One solver with its limits.

    - `name`: what results call it. `solver`: any solver of `solve`.
    - `tolerance`: of the natural residual's sup norm, in units of the parameters.
    - `max_steps`: more than so many steps of this solver send the game to the next rung.
    - `precision`: "float64", or "float32" for a rough search on accelerators that are slow in
        float64. What it finds goes on to the next rung, in float64, so it cannot be the last.
        Certificates are in float64 whatever the rungs are.
    """

    name: str
    solver: AbstractSolver
    tolerance: float = 1e-6
    max_steps: int = 1000
    precision: str = "float64"

    def __post_init__(self):
        if not self.tolerance > 0:
            raise ValueError(
                f"Rung {self.name!r}: tolerance is {self.tolerance}; give a positive number."
            )
        if self.max_steps < 1:
            raise ValueError(
                f"Rung {self.name!r}: max_steps is {self.max_steps}; it must be at least 1."
            )
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"Rung {self.name!r}: precision is {self.precision!r}; choose from "
                f"{', '.join(PRECISIONS)}."
            )


def default_ladder(tolerance: float = 1e-6) -> tuple[Rung, ...]:
    """Cheap first: extragradient steps of their own length, second order, then small steps.

    >>> from diffgame.batch import default_ladder
    >>> [(rung.name, rung.max_steps) for rung in default_ladder()]
    [('extragradient', 64), ('automatic', 500), ('small steps', 5000)]
    """
    return (
        Rung("extragradient", Automatic(most_parameters=0), tolerance, 64),
        Rung("automatic", Automatic(), tolerance, 500),
        Rung("small steps", Extragradient(0.02), tolerance, 5000),
    )


def check_ladder(ladder: tuple[Rung, ...]) -> None:
    """ValueError for a ladder without rungs or one that ends in float32."""
    if not ladder:
        raise ValueError("solve_many: the ladder is empty; give at least one Rung.")
    if ladder[-1].precision != "float64":
        raise ValueError(
            f"solve_many: the last rung {ladder[-1].name!r} is in {ladder[-1].precision}; add one "
            "in float64, which certificates need."
        )
