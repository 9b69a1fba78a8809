"""An answer's verdict: first whether it is an answer at all, then the suite's check."""

import math

import numpy as np

from ._suite import Answer, Game, Suite, Verdict


def _number(answer: Answer, name: str) -> float | None:
    value = answer.get(name)
    if value is None or value.size != 1 or value.dtype.kind not in "biuf":
        return None
    return float(value.reshape(()))


def steps_of(answer: Answer) -> float | None:
    """How many steps the solver says it took, if it counts them."""
    steps = _number(answer, "steps")
    return steps if steps is not None and math.isfinite(steps) else None


def claim_of(answer: Answer) -> bool | None:
    """Whether the solver calls its answer a solution, if it says so."""
    claimed = _number(answer, "claimed")
    return None if claimed is None else bool(claimed)


def judge(suite: Suite, game: Game, answer: Answer) -> tuple[Verdict, str]:
    """The verdict, and one line more where the answer was not fit for the check."""
    wanted = {}
    for name, shape in suite.answer(game).items():
        values = answer.get(name)
        if values is None:
            return _unfit(f"it has no {name!r}")
        if values.shape != tuple(shape):
            return _unfit(f"{name!r} has shape {values.shape}, not {tuple(shape)}")
        if values.dtype.kind not in "biuf":
            return _unfit(f"{name!r} is of type {values.dtype}; only real numbers are an answer")
        if not np.all(np.isfinite(values)):
            return Verdict(False, math.nan, "not finite"), f"{name!r} holds NaN or infinity"
        wanted[name] = values.astype(float)
    verdict = suite.check(game, wanted)
    gap = float(verdict.gap)
    if verdict.certified and not (math.isfinite(gap) and gap >= 0):
        raise ValueError(f"the check of {suite.name} certified an answer with the gap {gap}")
    return verdict, ""


def _unfit(detail: str) -> tuple[Verdict, str]:
    return Verdict(False, math.nan, "unfit answer"), detail
