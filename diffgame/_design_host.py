"""The planner's searches side by side: one compiled batch evaluates what all of them ask for."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util as flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from ._certificate import certify
from ._constraints import Constraints
from ._design_search import Accepted, Break, End, Sample, Search, Trial, violation
from ._equilibrium import Equilibrium, Status
from ._play import split
from ._policy import AbstractPolicy
from ._response import AbstractResponse
from ._solve import solve
from ._solver import AbstractSolver


class DesignStep(eqx.Module):
    """One accepted step of a search.

    - `parameters`, `objective`, `gradient`: the last is the objective's, through the equilibrium.
    - `residual`, `violation`: of the planner's own first order conditions and constraints.
    - `equilibrium`: with its certificate; its `status` says whether that holds.
    """

    parameters: PyTree
    objective: float
    gradient: PyTree
    residual: float
    violation: float
    equilibrium: Equilibrium


class Plan(eqx.Module):
    """All that an evaluation needs besides the point and a profile to start from."""

    objective: Callable
    game: Callable
    constraints: Callable | None
    response: AbstractResponse
    solver: AbstractSolver
    unravel: Callable
    tolerance: float = eqx.field(static=True)
    max_steps: int

    def solve(self, parameters: PyTree, profile: AbstractPolicy) -> Equilibrium:
        return solve(
            self.game(parameters),
            self.response,
            profile,
            self.solver,
            tolerance=self.tolerance,
            max_steps=self.max_steps,
            throw=False,
        )

    def read(self, point: Float[Array, " n"], profile: AbstractPolicy):
        """All that is differentiated, and the equilibrium."""
        parameters = self.unravel(point)
        found = self.solve(parameters, profile)
        limits = Constraints()
        if self.constraints is not None:
            limits = self.constraints(found, parameters)
        crowd = None if found.outcome.interaction is None else found.outcome.interaction.crowd
        followed = split(found.profile)[0], found.outcome.payoffs, crowd
        followed, _ = flatten_util.ravel_pytree(followed)
        return (self.objective(found, parameters), limits, followed), found


@eqx.filter_jit
def _evaluate(plan: Plan, points: Float[Array, "starts n"], profiles: AbstractPolicy):
    def one(point, profile):
        def twice(point):
            read, found = plan.read(point, profile)
            return read, (read, found)

        # One column per parameter gives the move of the equilibrium too, not only the gradient.
        slopes, (read, found) = jax.jacfwd(twice, has_aux=True)(point)
        finite = jnp.all(jnp.isfinite(flatten_util.ravel_pytree((slopes, read))[0]))
        return slopes, read, found, finite & (found.status == Status.stationary_only)

    return eqx.filter_vmap(one)(points, profiles)


@eqx.filter_jit
def _certify(plan: Plan, points, found, key, tolerance, starts, steps):
    def one(point, found):
        game = plan.game(plan.unravel(point))
        return certify(
            game, plan.response, found, key=key, tolerance=tolerance, starts=starts, steps=steps
        )

    return eqx.filter_vmap(one)(points, found)


def _take(tree: PyTree, number: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[number] if eqx.is_array_like(leaf) else leaf, tree)


def to_device(tree: PyTree) -> PyTree:
    """Arrays of the device again, so that a status has a text."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray | np.generic) else leaf, tree
    )


def _stack(trees: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(
        lambda *leaves: np.stack(leaves) if eqx.is_array_like(leaves[0]) else leaves[0], *trees
    )


@dataclasses.dataclass(frozen=True)
class Host:
    """Evaluates and certifies batches of points; arrays in and out are the host's.

    `key`, `tolerance`, `starts` and `steps` are those of `certify`.
    """

    plan: Plan
    key: Key[Array, ""]
    tolerance: float
    starts: int
    steps: int

    def evaluate(self, points: Sequence[np.ndarray], profiles: Sequence[PyTree]) -> list[Sample]:
        batch = jnp.asarray(np.stack(points)), to_device(_stack(profiles))
        slopes, read, found, usable = jax.device_get(_evaluate(self.plan, *batch))
        return [
            self._sample(point, *(_take(part, number) for part in (slopes, read, found, usable)))
            for number, point in enumerate(points)
        ]

    def _sample(self, point, slopes, read, found, usable) -> Sample:
        value, limits, followed = read
        value_slope, limits_slope, followed_slope = slopes
        kinds = [np.full(limits.inequalities.size, True), np.full(limits.equalities.size, False)]
        return Sample(
            point,
            float(value),
            value_slope,
            np.concatenate([limits.inequalities, limits.equalities]),
            np.concatenate([limits_slope.inequalities, limits_slope.equalities]),
            np.concatenate(kinds),
            followed,
            followed_slope,
            bool(usable),
            found,
        )

    def certify(self, samples: Sequence[Sample]) -> list[Equilibrium]:
        points = jnp.asarray(np.stack([sample.point for sample in samples]))
        found = to_device(_stack([sample.inner for sample in samples]))
        limits = self.key, self.tolerance, self.starts, self.steps
        found = jax.device_get(_certify(self.plan, points, found, *limits))
        return [to_device(_take(found, number)) for number in range(len(samples))]


class Record:
    """One search under way: what it asks for, and what it has met."""

    def __init__(self, search: Search, first: Sample):
        self.search, self.first = search, first
        self.asked: Trial | Accepted | Break | None = None
        self.end: End | None = None
        self.last: Accepted | None = None
        self.steps: list[DesignStep] = []
        self.breaks: list[Break] = []
        self.solves = 1
        if first.usable:
            self.asked = next(search)

    def advance(self, reply: Sample | None) -> None:
        try:
            self.asked = self.search.send(reply)
        except StopIteration as stop:
            self.asked, self.end = None, stop.value

    def stop(self) -> None:
        self.search.close()
        self.asked = None
        if self.end is None and self.last is not None:
            self.end = End(self.last, "stopped")


def run(host: Host, records: Sequence[Record], watch: Callable | None) -> None:
    """Advance all searches until each has ended."""
    unravel = host.plan.unravel

    def note(number: int, accepted: Accepted, equilibrium: Equilibrium) -> bool:
        sample = accepted.sample
        step = DesignStep(
            unravel(jnp.asarray(sample.point)),
            sample.value,
            unravel(jnp.asarray(sample.value_slope)),
            accepted.residual,
            violation(sample),
            equilibrium,
        )
        records[number].steps.append(step)
        records[number].last = accepted
        return watch is not None and bool(watch(number, step))

    queue: list[tuple[int, Accepted]] = []
    stopping = False
    while queue or any(record.asked is not None for record in records):
        for number, record in enumerate(records):
            while isinstance(record.asked, Accepted | Break):
                if isinstance(record.asked, Break):
                    record.breaks.append(record.asked)
                else:
                    queue.append((number, record.asked))
                record.advance(None)
        trials = {n: r.asked for n, r in enumerate(records) if isinstance(r.asked, Trial)}
        # Every batch is filled up to one size, so that nothing is compiled twice.
        while len(queue) >= len(records) or (queue and (stopping or not trials)):
            batch, queue = queue[: len(records)], queue[len(records) :]
            filled = [*batch, *[batch[-1]] * (len(records) - len(batch))]
            certified = host.certify([accepted.sample for _, accepted in filled])
            asked = [note(*one, found) for one, found in zip(batch, certified, strict=False)]
            stopping = stopping or any(asked)
        if stopping:
            for record in records:
                record.stop()
        elif trials:
            fill = next(iter(trials.values()))
            filled = [trials.get(n, fill) for n in range(len(records))]
            nearby: list[Any] = [trial.nearby.inner for trial in filled]
            samples = host.evaluate(
                [trial.point for trial in filled], [inner.profile for inner in nearby]
            )
            for number in trials:
                records[number].solves += 1
                records[number].advance(samples[number])
