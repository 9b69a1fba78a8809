"""One game's search in pieces: the loop of `solve`, left after some steps and entered again."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, Scalar

from .. import _solve
from .._certificate import certify
from .._equilibrium import Equilibrium, Status
from .._game import AbstractGame
from .._play import play, split
from .._policy import AbstractPolicy
from .._problem import AbstractProblem, Problem
from .._response import AbstractResponse
from .._solve import Carry, freeze, growth_bound, judge, pose, prices_of, unfinished
from .._solver import AbstractSolver
from ._source import AbstractSource

# The order of the codes in results.
STATUSES = (
    "certified",
    "stationary_only",
    "not_stationary",
    "improvable",
    "response_inexact",
    "crowd_not_settled",
    "not_concave",
    "max_steps",
    "diverged",
    "nonfinite",
)
GOES_ON, FROM_ITS_START, FROM_HERE = range(3)


class Search(eqx.Module):
    """What all lanes of a rung share. `source` says what each game is."""

    source: AbstractSource
    response: AbstractResponse
    solver: AbstractSolver
    tolerance: Scalar
    max_steps: Int[Array, ""]
    pause: Int[Array, ""]
    precision: str = eqx.field(static=True)

    def pose(self, index: Int[Array, ""]) -> tuple[AbstractProblem, PyTree]:
        """A game's problem and its own start, in the search's precision."""
        game, profile = self.source.game(index)
        game, profile, response = self.cast((game, profile, self.response))
        parameters, rest = split(profile)
        return pose(Problem(game, response, rest, True, None), parameters, None, True)

    def cast(self, tree: PyTree) -> PyTree:
        """The same with all floating arrays in the search's precision."""
        if self.precision == "float64":
            return tree
        floats, rest = eqx.partition(tree, eqx.is_inexact_array)
        return eqx.combine(jax.tree.map(lambda leaf: leaf.astype(self.precision), floats), rest)


def begin(search: Search, index: Int[Array, ""], start: PyTree | None) -> Carry:
    """Before the first step of a rung, from `start` or from the game's own."""
    problem, own = freeze(search.pose(index))
    start = own if start is None else start
    solver = freeze(search.cast(search.solver))
    return search.cast(_solve.begin(problem, solver, start, growth_bound(own))[0])


def advance(search: Search, lane: tuple[Int[Array, ""], Int[Array, ""], Carry]):
    """At most `pause` steps more; returns the carry and whether the search is to go on."""
    index, mode, carry = lane
    problem, own = freeze(search.pose(index))
    solver, bound = freeze(search.cast(search.solver)), growth_bound(own)
    start = jax.tree.map(
        lambda mine, here: jnp.where(mode == FROM_ITS_START, mine, here), own, carry.parameters
    )
    fresh, fixed = _solve.begin(problem, solver, start, bound)
    fresh = search.cast(fresh)
    carry = jax.tree.map(lambda new, old: jnp.where(mode == GOES_ON, old, new), fresh, carry)
    stop = jnp.minimum(carry.steps + search.pause, search.max_steps)
    carry = _solve.advance(problem, solver, carry, fixed, bound, search.tolerance, stop)
    return carry, unfinished(carry, search.tolerance) & (carry.steps < search.max_steps)


class End(eqx.Module):
    """What a game's result says, apart from how its search went. NaN without certificate."""

    profile: AbstractPolicy
    payoffs: Float[Array, " providers"]
    user_total: Scalar
    status: Int[Array, ""]
    gain: Scalar
    curvature: Scalar
    user_gap: Scalar


class Examination(eqx.Module):
    """What the last step shares: how to certify, if at all."""

    search: Search
    key: Key[Array, ""]
    tolerance: float | None = eqx.field(static=True)
    starts: int = eqx.field(static=True)
    steps: int = eqx.field(static=True)


def examine(
    shared: Examination, lane: tuple[Int[Array, ""], PyTree, Scalar, Bool[Array, ""], Scalar]
) -> End:
    """Play a game's last profile, name its status and certify it."""
    index, parameters, residual, bounded, tolerance = lane
    search = shared.search
    problem, _ = search.pose(index)
    game: AbstractGame = search.source.game(index)[0]
    profile = problem.profile(parameters)
    outcome = play(game, search.response, profile)
    status = judge(game, search.response, parameters, outcome, residual, bounded, tolerance)
    gain = curvature = gap = jnp.full((), jnp.nan)
    if shared.tolerance is not None:
        paid = prices_of(problem, parameters)
        steps = jnp.array(0)
        found = Equilibrium(profile, outcome, residual, status, steps, "", multipliers=paid)
        key = jax.random.fold_in(shared.key, index)
        found = certify(
            game,
            search.response,
            found,
            key=key,
            tolerance=shared.tolerance,
            starts=shared.starts,
            steps=shared.steps,
        )
        status, certificate = found.status, found.certificate
        assert certificate is not None
        gain = jnp.max(certificate.deviation_gains)
        curvature = jnp.max(certificate.second_order)
        gap = jnp.max(certificate.user_gap)
    names = jnp.stack([status == getattr(Status, name) for name in STATUSES])
    user_total = jnp.sum(game.mass * outcome.utilities)
    return End(profile, outcome.payoffs, user_total, jnp.argmax(names), gain, curvature, gap)
