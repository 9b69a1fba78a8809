"""`design` where equilibria have several branches: jumps are crossed, stopped at, and reported."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffgame._design import Design, DesignStatus, design
from diffgame._equilibrium import Status
from diffgame._nash_game import AbstractNashGame, Passive
from diffgame._policy import Constant

from .designs import is_stationary

KEY = jax.random.key(0)


# A coordination game whose lower equilibrium ends in a fold.


class Coordination(AbstractNashGame):
    """Two players drawn to a common pull and to each other."""

    pull: Float[Array, ""]

    def payoffs(self, offers):
        return -((offers - self.pull - 2 * jnp.tanh(offers[::-1])) ** 2) / 2


# The lower branch x = pull + 2 tanh(x) ends where 2 = cosh(x)^2.
FOLD = -math.acosh(math.sqrt(2)) + 2 * math.tanh(math.acosh(math.sqrt(2)))


def towards(equilibrium, parameters):
    """Nearness to a target, which is a parameter held by equal bounds."""
    _, target = parameters
    return -((jnp.mean(equilibrium.profile.offer) - target) ** 2)


def pull_towards(target: float, starts: int = 1, first: float = 0.0, **settings) -> Design:
    return design(
        towards,
        (jnp.asarray(first), jnp.asarray(target)),
        coordinate,
        Passive(),
        Constant(jnp.full(2, -2.0)),
        key=KEY,
        lower=(-2.0, target),
        upper=(2.0, target),
        starts=starts,
        **settings,
    )


def coordinate(parameters) -> Coordination:
    return Coordination(parameters[0])


def test_jump_to_a_better_branch_is_crossed_and_reported():
    found = pull_towards(2.5)
    assert is_stationary(found)
    # The upper branch reaches the target at pull = 2.5 - 2 tanh(2.5).
    assert abs(found.parameters[0] - (2.5 - 2 * math.tanh(2.5))) <= 1e-8
    (jump,) = found.answer.jumps
    assert jump.crossed
    before, after = jump.parameters_before[0], jump.parameters_after[0]
    assert before <= FOLD <= after
    assert after - before <= 1e-5
    assert (jump.profile_before.offer < 0).all()
    assert (jump.profile_after.offer > 2).all()
    assert jump.objective_before < jump.objective_after


def test_jump_to_a_worse_branch_stops_the_search_just_before_it():
    # -0.7 lies between the lower branch's end at -0.88 and the middle branch, which is unstable.
    found = pull_towards(-0.7)
    assert found.status == DesignStatus.stopped_at_jump
    assert FOLD - 1e-5 <= found.parameters[0] <= FOLD
    assert found.answer.jumps
    assert not any(jump.crossed for jump in found.answer.jumps)
    assert all(jump.objective_after < jump.objective_before for jump in found.answer.jumps)
    assert found.equilibrium.status == Status.certified
    assert (found.equilibrium.profile.offer < 0).all()


def test_target_on_the_branch_is_reached_without_a_jump():
    found = pull_towards(-1.5)
    assert is_stationary(found)
    assert abs(found.parameters[0] - (-1.5 + 2 * math.tanh(1.5))) <= 1e-8
    assert not found.answer.jumps


def test_batch_of_starts_is_one_by_one():
    batch = pull_towards(2.5, starts=2)
    again = pull_towards(2.5, first=float(batch.attempts[1].steps[0].parameters[0]))
    one, other = batch.attempts[1], again.answer
    assert [len(one.steps), len(one.jumps), one.solves] == [
        len(other.steps),
        len(other.jumps),
        other.solves,
    ]
    for first, second in zip(one.steps, other.steps, strict=True):
        np.testing.assert_allclose(first.parameters[0], second.parameters[0], atol=1e-10)
        np.testing.assert_allclose(first.objective, second.objective, atol=1e-10)


def test_watch_sees_every_step_and_stops_the_search():
    seen = []

    def watch(start, step):
        seen.append((start, step))
        return len(seen) == 2

    found = pull_towards(-1.5, watch=watch)
    assert found.status == DesignStatus.stopped
    assert [start for start, _ in seen] == [0, 0]
    assert [step.objective for step in found.answer.steps] == [step.objective for _, step in seen]
