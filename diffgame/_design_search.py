"""The planner's search: from one start, uphill under constraints, along one branch of equilibria.

A search is a coroutine on the host. It yields a `Trial` and is sent the `Sample` there, so that the
trials of many searches are evaluated in one batch.
"""

import dataclasses
from collections.abc import Generator
from typing import Any

import numpy as np

# Below this a change of what is followed counts as none, relative to 1 + its size.
NOTICED = 1e-3
# A move is suspicious if its prediction misses it by more than this part.
_MISSED = 0.1
# How often a suspicious step is halved; a jump is what then keeps more than _KEPT of its surprise.
_HALVINGS = 20
_KEPT = 0.05
_BACKTRACKS = 30
_ROUNDS = 60
_LARGEST_PENALTY = 1e8


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """The planner's problem at one point. Derivatives have a last axis "parameters".

    - `limits` [constraints] with `inequality` [constraints]: whether it may also be negative.
    - `followed`: numbers that move continuously along a branch of equilibria.
    - `usable`: whether the inner solve succeeded and all numbers are finite. `inner`: its answer.
    """

    point: np.ndarray
    value: float
    value_slope: np.ndarray
    limits: np.ndarray
    limits_slope: np.ndarray
    inequality: np.ndarray
    followed: np.ndarray
    followed_slope: np.ndarray
    usable: bool
    inner: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """A point to be evaluated, its equilibrium sought from the one of `nearby`."""

    point: np.ndarray
    nearby: Sample


@dataclasses.dataclass(frozen=True, eq=False)
class Accepted:
    """A point that the search moves to, with the prices of its constraints."""

    sample: Sample
    prices: np.ndarray
    residual: float


@dataclasses.dataclass(frozen=True, eq=False)
class Break:
    """Two neighbouring points whose equilibria are apart, and whether the search crossed over."""

    before: Sample
    after: Sample
    crossed: bool


@dataclasses.dataclass(frozen=True, eq=False)
class End:
    """Where a search ended, and why: the name of a status."""

    last: Accepted
    reason: str


Search = Generator[Trial | Accepted | Break, Any, End]


def surprise(start: Sample, end: Sample) -> float:
    """How far the equilibrium's move is from what its derivatives predict; 0 if unsuspicious.

    Predicted is the mean derivative of both ends times the step. The largest over all numbers
    followed, each relative to 1 + its size, of those that miss by more than a tenth of their move.
    """
    scale = 1 + np.abs(start.followed)
    slope = (start.followed_slope + end.followed_slope) / 2
    predicted = slope @ (end.point - start.point) / scale
    actual = (end.followed - start.followed) / scale
    missed = np.abs(actual - predicted)
    moved = np.maximum(np.abs(actual), np.abs(predicted))
    seen = (missed > _MISSED * moved) & (missed > NOTICED)
    return float(np.max(np.where(seen, missed, 0), initial=0))


def violation(sample: Sample) -> float:
    """The largest violation of a constraint."""
    missed = np.where(sample.inequality, np.maximum(sample.limits, 0), np.abs(sample.limits))
    return float(np.max(missed, initial=0))


class Climber:
    """Projected quasi-Newton ascent of an augmented Lagrangian over a box.

    The model's curvature is BFGS's for the Lagrangian plus the penalty's own, which is known; so
    one step per round of prices is often enough.

    **Source:** Bertsekas (1982), Projected Newton methods for optimization problems with simple
    constraints; Birgin, Martinez (2014), Practical Augmented Lagrangian Methods, algorithm 4.1;
    Nocedal, Wright (2006), procedure 18.2 (damping).
    """

    def __init__(self, first: Sample, lower: np.ndarray, upper: np.ndarray, tolerance: float):
        self.lower, self.upper, self.tolerance = lower, upper, tolerance
        self.here = first
        self.prices = np.zeros(first.limits.size)
        size = 10 * (1 + abs(first.value)) / (1 + float(np.sum(first.limits**2)))
        self.penalty = float(np.clip(size, 1e-2, 1e3))
        self.sharpness = tolerance if first.limits.size == 0 else max(tolerance, 1e-2)
        self.apart = np.inf
        self.rounds = 0
        self.forget()

    def forget(self) -> None:
        """Start the curvature afresh, so that no step moves a parameter by more than a tenth."""
        width = self.upper - self.lower
        reach = 0.1 * np.where(np.isfinite(width), width, 1 + np.abs(self.here.point))
        slope = np.max(np.abs(self.gradient(self.here)))
        self.curvature = np.diag(max(slope, 1e-12) / np.maximum(reach, 1e-12))
        self.fresh = True

    def push(self, sample: Sample) -> np.ndarray:
        """What every constraint would cost next: at least 0 for inequalities."""
        raised = self.prices + self.penalty * sample.limits
        return np.where(sample.inequality, np.maximum(raised, 0), raised)

    def merit(self, sample: Sample) -> float:
        """The augmented Lagrangian."""
        return sample.value - float(np.sum(self.push(sample) ** 2)) / (2 * self.penalty)

    def gradient(self, sample: Sample) -> np.ndarray:
        """Its gradient."""
        return sample.value_slope - self.push(sample) @ sample.limits_slope

    def _shift(self, point: np.ndarray, gradient: np.ndarray) -> float:
        moved = np.clip(point + gradient, self.lower, self.upper) - point
        return float(np.max(np.abs(moved), initial=0))

    def shift(self, sample: Sample) -> float:
        """Sup norm of the natural residual of this round's maximisation."""
        return self._shift(sample.point, self.gradient(sample))

    def residual(self, sample: Sample) -> float:
        """Sup norm of the natural residual of the planner's own KKT conditions."""
        pushed = self.push(sample)
        missed = np.where(sample.inequality, np.minimum(pushed, -sample.limits), sample.limits)
        apart = float(np.max(np.abs(missed), initial=0))
        return max(self.shift(sample), apart)

    def accept(self, sample: Sample) -> Accepted:
        """What is reported about a point."""
        return Accepted(sample, self.push(sample), self.residual(sample))

    def reprice(self) -> bool:
        """Take the next prices if this round's maximum is found; whether more rounds are left."""
        while self.shift(self.here) <= self.sharpness:
            if self.residual(self.here) <= self.tolerance:
                return True
            if self.rounds == _ROUNDS:
                return False
            pushed = self.push(self.here)
            apart = float(np.max(np.abs(pushed - self.prices))) / self.penalty
            self.prices = pushed
            if apart > self.apart / 4:
                if self.penalty == _LARGEST_PENALTY:
                    # No price, however high, brings the constraints nearer.
                    return False
                self.penalty = min(10 * self.penalty, _LARGEST_PENALTY)
            self.apart = apart
            self.sharpness = max(self.tolerance, self.sharpness / 10)
            self.rounds += 1
        return True

    def direction(self) -> np.ndarray:
        """The quasi-Newton step on the parameters that are free to move."""
        here = self.here
        gradient, pushed = self.gradient(here), self.push(here)
        near = min(1e-6, self.shift(here))
        held_low = (here.point <= self.lower + near) & (gradient < 0)
        held_high = (here.point >= self.upper - near) & (gradient > 0)
        free = ~(held_low | held_high)
        active = here.limits_slope[~here.inequality | (pushed > 0)]
        model = self.curvature + self.penalty * active.T @ active
        step = np.where(held_low, self.lower - here.point, 0)
        step = np.where(held_high, self.upper - here.point, step)
        if free.any():
            step[free] = np.linalg.solve(model[np.ix_(free, free)], gradient[free])
        return step

    def learn(self, end: Sample) -> None:
        """Update the curvature of the Lagrangian by the step to `end`."""
        prices = self.push(end)
        shift = end.point - self.here.point
        bend = self.here.value_slope - end.value_slope
        bend = bend - prices @ (self.here.limits_slope - end.limits_slope)
        curved, along = self.curvature @ shift, float(shift @ bend)
        modelled = float(shift @ curved)
        if not modelled > 0:
            return
        if self.fresh and along > 0:
            ratio = along / modelled
            self.curvature, curved, modelled = ratio * self.curvature, ratio * curved, along
        self.fresh = False
        if along < 0.2 * modelled:
            part = 0.8 * modelled / (modelled - along)
            bend = part * bend + (1 - part) * curved
            along = float(shift @ bend)
        self.curvature = (
            self.curvature - np.outer(curved, curved) / modelled + np.outer(bend, bend) / along
        )


def _examine(start: Sample, end: Sample) -> Generator[Trial, Any, tuple[str, Sample, Sample]]:
    """Follow the equilibrium through a suspicious step: "smooth", "jump" or "lost", and where.

    The step is halved where the surprise is largest. Along a continuous branch the surprise
    shrinks, at a jump it does not.
    """
    first = surprise(start, end)
    left, right, now = start, end, first
    for _ in range(_HALVINGS):
        middle = yield Trial((left.point + right.point) / 2, left)
        again = yield Trial(right.point, middle if middle.usable else left)
        if not (middle.usable and again.usable):
            return "lost", left, right
        early, late = surprise(left, middle), surprise(middle, again)
        if early >= late:
            right, now = middle, early
        else:
            left, right, now = middle, again, late
        if now <= _KEPT * first:
            break
    if now > _KEPT * first:
        return "jump", left, right
    # The end must be what small steps lead to, not only a large one.
    again = yield Trial(end.point, right)
    if not again.usable:
        return "lost", left, end
    apart = np.abs(again.followed - end.followed) / (1 + np.abs(end.followed))
    return ("smooth" if np.max(apart, initial=0) <= NOTICED else "lost"), left, end


def seek(
    first: Sample, lower: np.ndarray, upper: np.ndarray, tolerance: float, max_steps: int
) -> Search:
    """Climb from `first` until no small step helps to first order, or until something stops it.

    `first` must be usable.
    """
    climber = Climber(first, lower, upper, tolerance)
    yield climber.accept(first)
    for _ in range(max_steps):
        more = climber.reprice()
        if climber.residual(climber.here) <= tolerance:
            return End(climber.accept(climber.here), "stationary")
        if not more:
            return End(climber.accept(climber.here), "infeasible")
        found, reason = yield from _search_line(climber)
        if reason == "stalled" and not climber.fresh:
            # The model may be to blame: try once more with a new one.
            climber.forget()
            found, reason = yield from _search_line(climber)
        if found is None:
            return End(climber.accept(climber.here), reason)
        if reason == "moved":
            climber.learn(found)
            climber.here = found
        else:
            # Beside a jump the curvature seen so far says nothing.
            climber.here = found
            climber.forget()
        yield climber.accept(found)
    climber.reprice()
    done = climber.residual(climber.here) <= tolerance
    return End(climber.accept(climber.here), "stationary" if done else "max_steps")


def _search_line(
    climber: Climber,
) -> Generator[Trial | Break, Any, tuple[Sample | None, str]]:
    """The next point, or None and what stopped the search."""
    here, direction = climber.here, climber.direction()
    base, gradient = climber.merit(here), climber.gradient(here)
    size = 1 + float(np.max(np.abs(here.point)))
    noise = 1e-10 * (1 + abs(base))

    def rises(sample):
        gain = climber.merit(sample) - base
        if gain >= 1e-4 * float(gradient @ (sample.point - here.point)):
            return True
        # Where values differ by less than the inner solve is exact, gradients decide.
        return gain >= -noise and climber.shift(sample) <= climber.shift(here) / 2

    length, reason = 1.0, "stalled"
    for _ in range(_BACKTRACKS):
        point = np.clip(here.point + length * direction, climber.lower, climber.upper)
        if np.max(np.abs(point - here.point)) <= 1e-15 * size:
            break
        sample = yield Trial(point, here)
        if not sample.usable:
            length, reason = length / 4, "inner_failed"
            continue
        if surprise(here, sample) > 0:
            verdict, before, after = yield from _examine(here, sample)
            if verdict == "jump":
                crossing = climber.merit(after) > max(climber.merit(before), base) and rises(after)
                yield Break(before, after, crossing)
                if crossing:
                    return after, "crossed"
                gone = float(np.max(np.abs(before.point - here.point)))
                if gone <= 1e-6 * size:
                    return None, "stopped_at_jump"
                if rises(before):
                    return before, "blocked"
                length = length * gone / float(np.max(np.abs(point - here.point))) / 2
                reason = "stopped_at_jump"
                continue
            if verdict == "lost":
                length, reason = length / 4, "inner_failed"
                continue
        if rises(sample):
            return sample, "moved"
        # The maximum of the parabola through both values and the slope.
        slope = float(gradient @ (point - here.point))
        drop = climber.merit(sample) - base - slope
        ratio = -slope / (2 * drop) if drop < 0 else 0.5
        length, reason = length * float(np.clip(ratio, 0.1, 0.5)), "stalled"
    return None, reason
