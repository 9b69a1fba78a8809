"""The exact best response of a provider whose conversation has few messages or few rounds."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._linear_program import check_optimum
from .._program_solver import solve_linear_program
from ._best_response import Outside
from ._menu import Stakes, capture_sets_of, menu_best_response, stakes_of
from ._menu_program import TypedUsers, typed_users
from ._protocol_answers import Tables, answers_of, babbling_tables, spoken, tables_of
from ._protocol_plan import OFF, count_plans, draw_plan, joint_plans, one_experiment, shortened
from ._protocol_program import program_work, protocol_program, read_slacks, tree_of
from ._segment import MARGIN
from ._tree import Protocol

# Programs in one compiled call.
_BATCH = 16
# Ends of a bracket closer than this share of the range of payoffs are one number.
_CLOSED = 1e-6
# Rows squared times leaves of one program, about 100 MB for a batch.
_MOST_WORK = 10**6
# Joint plans that are tried where there are too many.
_SAMPLE = 64


@dataclasses.dataclass(frozen=True)
class ProtocolResponse:
    """The most a provider can get by a policy that its protocol allows; units of the objective.

    - `lower`: reached by `tables`, one per round [states, histories, messages], up to the capture
        margin, with ties in the provider's favour. `upper`: proved by the dual programs.
    - `exact`: whether the programs exhaust all deviations and their bracket closes, to 1e-6 of
        the range of payoffs. If not (too many programs, or one that counts is not certified),
        `upper` is at most that of the best menu, which no protocol exceeds, and `lower` the best
        of what was tried.
    - `captured` [units]: the users (timing "before") or pairs ("after") held by `tables`.
    - `programs`: how many linear programs exhaust the deviations.
    """

    lower: float
    upper: float
    exact: bool
    tables: tuple[Float[np.ndarray, "states _ messages"], ...]
    captured: Bool[np.ndarray, " units"]
    programs: int


class _Deviations(NamedTuple):
    """What to try: sets of units to hold, and a joint plan of their pairs each."""

    captured: Bool[np.ndarray, "programs units"]
    plans: Int[np.ndarray, "programs pairs leaves"]


class _Solved(NamedTuple):
    """Per program: the answers, by how much its rows are missed, and the bound (if certified).

    `margin`: what the least of the fresh units gets beyond its level.
    """

    answers: Float[np.ndarray, "programs states leaves"]
    missed: Float[np.ndarray, " programs"]
    margin: Float[np.ndarray, " programs"]
    bound: Float[np.ndarray, " programs"]


@eqx.filter_jit
def _solve_batch(
    typed: TypedUsers,
    payoff: Float[Array, "pairs actions states"],
    level: Float[Array, " units"],
    protocol: Protocol,
    plans: Int[Array, "programs pairs leaves"],
    captured: Bool[Array, "programs units"],
    fresh: Bool[Array, "programs units"],
    slackest: Bool[Array, ""],
):
    tree = tree_of(protocol)
    pairs, _, states = typed.utility.shape

    def solve(plan, captured, fresh):
        program = protocol_program(typed, payoff, tree, plan, level, captured, fresh, slackest)
        primal, dual, _ = solve_linear_program(program)
        optimum = check_optimum(program, primal, dual, 1e-8)
        slacks = read_slacks(primal.z, pairs, len(level))
        won = jnp.min(jnp.where(fresh, slacks.ample, jnp.inf))
        margin = jnp.where(slackest, slacks.margin, won)
        bound = jnp.where(optimum.certified, optimum.bound, -jnp.inf)
        return primal.x[:, :states].T, slacks.missed, margin, bound

    return jax.vmap(solve)(plans, captured, fresh)


def _in_batches(solve, *arrays: np.ndarray) -> _Solved:
    """Any number of programs in calls of one size."""
    parts, count = [], len(arrays[0])
    for start in range(0, count, _BATCH):
        index = np.arange(start, start + _BATCH)
        index = np.where(index < count, index, 0)
        found = solve(*(jnp.asarray(array[index]) for array in arrays))
        parts.append([np.asarray(leaf)[: count - start] for leaf in found])
    return _Solved(*(np.concatenate(leaves) for leaves in zip(*parts, strict=True)))


class _Problem(NamedTuple):
    """A deviator's problem on the pairs and units that occur, utilities from 0 to 1."""

    typed: TypedUsers
    stakes: Stakes
    value: Float[np.ndarray, " units"]
    payoff: Float[np.ndarray, " units"]
    held: Bool[np.ndarray, " units"]
    exists: bool
    actions: list[list[int]]

    @property
    def part(self) -> Bool[np.ndarray, "units pairs"]:
        return np.asarray(self.typed.part)

    def sets(self) -> list[Bool[np.ndarray, " units"]]:
        """Nonempty sets of units that may be held, as far as full information and ranges tell."""
        full = np.asarray(jnp.max(self.typed.values(), axis=1)).sum(axis=1)
        winnable = self.held | (np.asarray(self.typed.share) @ full - self.value > MARGIN)
        # Nobody is worth less than 0 here: below that, she cannot be left outside.
        choices = [
            [True] if low else [False, True] if may else [False]
            for low, may in zip(self.value < 0, winnable, strict=True)
        ]
        return [np.array(held) for held in itertools.product(*choices) if any(held)]

    def earned(
        self,
        plans: Int[np.ndarray, "programs pairs leaves"],
        answers: Float[np.ndarray, "programs states leaves"],
    ) -> Float[np.ndarray, " programs"]:
        """What the plans are worth to the deviator beyond the base, in `stakes.size`."""
        unit, every = np.asarray(self.stakes.unit), np.arange(len(self.actions))[:, None]
        total = np.zeros(len(plans))
        for n, (plan, likely) in enumerate(zip(plans, answers, strict=True)):
            paid = np.where(plan[..., None] >= 0, unit[every, np.maximum(plan, 0)], 0.0)
            total[n] = np.einsum("tly,yl->", paid, likely)
        return total

    def members(self, captured: Bool[np.ndarray, " units"]) -> list[int]:
        return np.flatnonzero(captured @ self.part).tolist()

    def actions_of(self, captured: Bool[np.ndarray, " units"]) -> list[list[int]]:
        return [self.actions[t] for t in self.members(captured)]

    def spread(self, captured, plans: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Plans of all pairs, where those outside have none."""
        inside = self.members(captured)
        for plan in plans:
            table = np.full((len(self.actions), plan.shape[1]), OFF)
            table[inside] = plan
            yield table


@eqx.filter_jit
def _typed(joint, utility, objective, mass, outside: Outside, timing: str):
    typed = typed_users(joint, utility, timing)
    capture_sets_of("protocol_best_response", typed, timing)
    if outside.value.shape != typed.size.shape:
        raise ValueError(
            f"protocol_best_response: outside has {len(outside.value)} values where timing "
            f"'{timing}' asks for {len(typed.size)}, one per "
            f"{'user' if timing == 'before' else 'pair (user, type)'}."
        )
    return typed, stakes_of(joint, objective, mass), typed.scale(outside.value)


def _problem(joint, utility, objective, mass, outside: Outside, timing: str):
    """The problem, and which units occur."""
    typed, stakes, value = _typed(joint, utility, objective, mass, outside, timing)
    pairs = np.flatnonzero(np.asarray(typed.occurs))
    units = np.flatnonzero(np.asarray(typed.part)[:, pairs].any(axis=1))
    typed = TypedUsers(
        typed.belief[pairs],
        typed.utility[pairs],
        typed.share[units][:, pairs],
        typed.part[units][:, pairs],
        typed.playable[pairs],
        typed.low[units],
        typed.size[units],
    )
    problem = _Problem(
        typed,
        Stakes(stakes.base[pairs], stakes.unit[pairs], stakes.size),
        np.asarray(value)[units],
        np.asarray(outside.payoff)[units],
        np.asarray(outside.held)[units],
        bool(outside.exists),
        [np.flatnonzero(row).tolist() for row in np.asarray(typed.playable)],
    )
    return problem, units


def _deviations(problem: _Problem, protocol: Protocol, sets: Sequence[np.ndarray]) -> _Deviations:
    """All joint plans of all sets."""
    captured, plans = [], []
    for held in sets:
        found = joint_plans(protocol, problem.actions_of(held))
        for plan in problem.spread(held, found):
            captured.append(held)
            plans.append(plan)
    return _Deviations(np.array(captured), np.array(plans))


def _sample(problem, protocol: Protocol, sets: Sequence[np.ndarray], seed: int) -> _Deviations:
    generator = np.random.default_rng(seed)
    captured = [sets[n] for n in generator.integers(len(sets), size=_SAMPLE)]
    plans = [
        next(problem.spread(held, iter([draw_plan(protocol, problem.actions_of(held), generator)])))
        for held in captured
    ]
    return _Deviations(np.array(captured), np.array(plans))


class _Found(NamedTuple):
    """Bounds, and what reaches `lower`; no tables for holding nobody."""

    lower: float
    upper: float
    tables: Tables | None
    captured: Bool[np.ndarray, " units"]


def _try_all(problem: _Problem, protocol: Protocol, deviations: _Deviations) -> _Found:
    """The best of these deviations and of holding nobody; an infinite `upper` is not proved."""
    stakes, scale = problem.stakes, float(problem.stakes.size)
    nobody = float(problem.payoff.sum()) if problem.exists else -np.inf
    best = _Found(nobody, nobody, None, np.zeros(len(problem.value), bool))
    if len(deviations.plans) == 0:
        return best
    captured, plans = deviations
    fresh = captured & ~problem.held

    def solve(slackest: bool, index: slice | np.ndarray) -> _Solved:
        level, flag = jnp.asarray(problem.value), jnp.array(slackest)

        def call(plans, captured, fresh):
            typed, payoff = problem.typed, stakes.unit
            return _solve_batch(typed, payoff, level, protocol, plans, captured, fresh, flag)

        return _in_batches(call, plans[index], captured[index], fresh[index])

    solved = solve(False, slice(None))
    rest = np.where(captured, 0.0, problem.payoff).sum(axis=1)
    base = rest + captured @ problem.part @ np.asarray(stakes.base)
    reached = base + scale * problem.earned(plans, np.maximum(solved.answers, 0))
    proved = base - scale * solved.bound
    follows = solved.missed <= MARGIN
    # Fresh units must be won strictly. Where the optimum does not, the largest margin is asked,
    # in the order of what the programs promise, until no other promises more than was reached.
    asked = follows & (solved.margin > MARGIN)
    possible, ruled_out = asked.copy(), np.zeros(len(plans), bool)
    while True:
        floor = max(nobody, np.max(reached, initial=-np.inf, where=possible))
        left = np.flatnonzero(~asked & (proved > floor))
        if len(left) == 0:
            break
        batch = left[np.argsort(-proved[left], kind="stable")[:_BATCH]]
        most = solve(True, batch)
        possible[batch] = follows[batch] & (most.missed <= MARGIN) & (most.margin > MARGIN)
        # Only a certified program rules a deviation out; its bound is minus the margin, or a price.
        needed = np.where(fresh[batch].any(axis=1), -MARGIN, MARGIN)
        ruled_out[batch] = most.bound >= needed
        asked[batch] = True
    upper = max(nobody, np.max(proved, initial=-np.inf, where=~ruled_out))
    if not possible.any() or reached[possible].max() <= nobody:
        return best._replace(upper=upper)
    top = np.flatnonzero(possible)[np.argmax(reached[possible])]
    tables = tables_of(protocol, solved.answers[top])
    earned = problem.earned(plans[top][None], answers_of(protocol, tables)[None])[0]
    return _Found(float(base[top] + scale * earned), float(upper), tables, captured[top])


def protocol_best_response(
    joint: Float[Array | np.ndarray, "users types states"],
    utility: Float[Array | np.ndarray, "users types actions states"],
    objective: Float[Array | np.ndarray, "users types actions states"],
    mass: Float[Array | np.ndarray, " users"],
    outside: Outside,
    protocol: Protocol,
    *,
    timing: str = "before",
    limit: int = 20_000,
    seed: int = 0,
) -> ProtocolResponse:
    """The exact best response of one provider whose conversations have few messages or rounds.

    A provider that all these users see as one commits to a policy of `protocol`. One linear
    program per set of units to hold and joint plan of theirs (what each asks and does after every
    history), plans that differ by the names of messages counted once. Where each pair (user, type)
    can ask a question of its own and the answers can name its actions, that is the program of
    `menu_best_response`.

    **Arguments:** as in `menu_best_response`, all in float64, and

    - `protocol`: rounds and numbers of messages.
    - `limit`: programs to solve at most. Beyond it, or where a single program is too large (rows
        squared times leaves above 1e6), the result is only a bracket: the best of 64 joint plans,
        drawn with `seed` (of one round if programs are too large), and the best menu.

    A set counts if it can be held strictly (margin above 1e-9 of each unit's range, except for
    units that the provider already holds); the others stay with their outside option at a tie.
    Other ties are in the provider's favour, pair by pair: two pairs with the same utility may act
    differently on the same message if both are indifferent.

    **Errors:** ValueError for more than 4 users ("before") or 6 pairs ("after"), and for outside
    options that do not fit the timing.

    **Source:** docs/protocols.md.

    Three equally likely states to be guessed, and a provider who wants them guessed but has two
    messages: 2/3, though the best menu tells the state.

    >>> import jax.numpy as jnp
    >>> from diffgame.market import Outside, Protocol
    >>> matching, thirds = jnp.eye(3)[None, None], jnp.full((1, 1, 3), 1 / 3)
    >>> alone = Outside(jnp.array([-jnp.inf]), jnp.zeros(1), jnp.array([False]), jnp.array(False))
    >>> found = protocol_best_response(
    ...     thirds, matching, matching, jnp.ones(1), alone, Protocol(1, 1, 2)
    ... )
    >>> print(round(found.lower, 6), round(found.upper, 6), found.exact, found.programs)
    0.666667 0.666667 True 3
    """
    joint, utility, objective, mass = map(jnp.asarray, (joint, utility, objective, mass))
    problem, occurs = _problem(joint, utility, objective, mass, outside, timing)
    sets = problem.sets()
    short = shortened(protocol, problem.actions)
    programs = sum(count_plans(short, problem.actions_of(held)) for held in sets)
    small = program_work(short, len(problem.actions), joint.shape[-1]) <= _MOST_WORK
    exhausted = not sets or (programs <= limit and small)
    if exhausted:
        deviations = _deviations(problem, short, sets)
    else:
        if not small:
            short = one_experiment(protocol, problem.actions)
        deviations = _sample(problem, short, sets, seed)
    found = _try_all(problem, short, deviations)
    upper = max(found.upper, found.lower) if exhausted else np.inf
    exact = bool(upper - found.lower <= _CLOSED * float(problem.stakes.size))
    if not exact:
        menu = menu_best_response(joint, utility, objective, mass, outside, timing=timing)
        upper = max(min(upper, float(menu.upper)), found.lower)
    captured = np.zeros(len(occurs), bool)
    captured[occurs] = found.captured
    tables = (
        babbling_tables(protocol, joint.shape[-1])
        if found.tables is None
        else spoken(protocol, short, found.tables)
    )
    return ProtocolResponse(found.lower, upper, exact, tables, captured, programs)
