"""Derivatives of responses and of equilibria, on every response x game that has them.

Forward, reverse and second order, against finite differences (relative 1e-6) and against autodiff
through unrolled iterations at both levels (1e-8).
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import Array, Float

import diffgame as dg
from diffgame._play import project, split
from diffgame.games import Cournot, LinearBertrand, LogitBertrand, StackelbergDuopoly

AGAINST_DIFFERENCES = 1e-6
AGAINST_UNROLLED = 1e-8


class SplitBertrand(dg.AbstractGame):
    """Users divide one unit among two sellers and nothing, and dislike concentration."""

    cost: Float[Array, "2"]
    bend: Float[Array, ""]
    users: Float[Array, " users"]
    mass: Float[Array, " users"]
    choice_set: dg.Simplex = dg.Simplex(3)

    def user_utility(self, choice, offers, user):
        return jnp.sum(choice[:2] * (user - offers)) - self.bend * jnp.sum(choice**2) / 2

    def provider_payoffs(self, choice, offers, user):
        return (offers - self.cost) * choice[:2]


class Inspection(dg.AbstractGame):
    """Sellers choose how often defects are flagged; users see the flag (a move of nature)."""

    alarm: Float[Array, "2"]
    users: Float[Array, " users"]
    mass: Float[Array, " users"]
    choice_set: dg.DecisionTree = dg.DecisionTree((("user", 2), ("nature", 2), ("user", 2)))

    def chance(self, offers, user):
        # Messages: flagged or not; a defect has probability .4, an honest flag `offers` of these.
        flagged = 0.4 * offers + 0.6 * self.alarm * offers**2
        return jnp.stack([flagged, 1 - flagged], axis=-1)[:, :, None]

    def user_utility(self, choice, offers, user):
        defect = 0.4 * jnp.stack([offers, 1 - offers], axis=-1)
        total = self.chance(offers, user)[:, :, 0]
        # Buying pays 1 - user * P(defect | message), counted with the probability of the message.
        return jnp.sum(choice[:, :, 1] * (total - user * defect))

    def provider_payoffs(self, choice, offers, user):
        total = self.chance(offers, user)
        return jnp.sum(choice[:, :, 1] * total[:, :, 0], axis=1) - offers**2 / 4


class Unrolled(dg.AbstractResponse):
    """Projected gradient ascent, differentiated step by step."""

    rate: float

    def __call__(self, game, offers, user):
        def step(choice, _):
            gradient = jax.grad(game.user_utility)(choice, offers, user)
            return game.choice_set.project(choice + self.rate * gradient), None

        return jax.lax.scan(step, game.choice_set.centre(), None, length=60)[0]


class Case(NamedTuple):
    """Numbers to differentiate in, what they make, and step sizes that contract."""

    numbers: list[float]
    game: Callable[[Array], dg.AbstractGame]
    response: Callable[[Array], dg.AbstractResponse]
    unrolled: Callable[[Array], dg.AbstractResponse]
    start: dg.AbstractPolicy
    rate: float


def concave(_):
    return dg.Concave()


def substitutes(overlap):
    return jnp.eye(2) + overlap * jnp.array([[0.0, 1.0], [1.0, 0.0]])


CASES = {
    "concave_box-stackelberg": Case(
        [1.1, 0.1, 0.2],
        lambda x: StackelbergDuopoly(x[0] ** 2, x[1], x[0] * x[2]),
        concave,
        lambda x: Unrolled(0.5),
        dg.Constant(jnp.array([0.3])),
        0.6,
    ),
    "concave_box-cournot": Case(
        [0.1, 0.2, 1.3],
        lambda x: Cournot(x[:2], jnp.array([1.0, 1.2]), slope=x[2]),
        concave,
        lambda x: Unrolled(0.7),
        dg.Constant(jnp.array([0.3, 0.3])),
        0.3,
    ),
    "concave_box-linear_bertrand": Case(
        [0.5, 0.8, 3.0, 3.5, 0.4],
        lambda x: LinearBertrand(x[:2], substitutes(x[4]), jnp.stack([x[2:4], x[2:4] + 1])),
        concave,
        lambda x: Unrolled(0.7),
        dg.Constant(jnp.array([1.0, 1.0])),
        0.4,
    ),
    "concave_simplex-split_bertrand": Case(
        [0.1, 0.2, 1.4],
        lambda x: SplitBertrand(x[:2], x[2] ** 2, jnp.array([1.0, 1.2]), jnp.array([0.5, 0.6])),
        concave,
        lambda x: Unrolled(0.5),
        dg.Constant(jnp.array([1.0, 1.0])),
        0.9,
    ),
    "logit_simplex-logit_bertrand": Case(
        [0.5, 0.8, 2.0, 0.9],
        lambda x: LogitBertrand(x[:2], jnp.stack([x[2], 2.5 * x[2] / 2]), jnp.array([1.0, 1.4])),
        lambda x: dg.Logit(x[3]),
        lambda x: dg.Logit(x[3]),
        dg.Constant(jnp.array([1.5, 1.5])),
        1.3,
    ),
    "logit_tree-inspection": Case(
        [0.3, 0.4, 1.5, 0.8],
        lambda x: Inspection(x[:2], jnp.stack([x[2], x[2] + 0.3]), jnp.array([0.5, 0.5])),
        lambda x: dg.Logit(x[3]),
        lambda x: dg.Logit(x[3]),
        dg.Constant(jnp.array([0.5, 0.5]), lower=0.0, upper=1.0),
        0.9,
    ),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def derivatives(function: Callable[[Array], Array]) -> Callable[[Array], tuple[Array, ...]]:
    """Value, forward and reverse Jacobian, second derivative (forward over reverse).

    The function is evaluated once: a second evaluation would compile all of it again.
    """

    def all_of_them(x):
        def reverse(x):
            value, pull = jax.vjp(function, x)
            (jacobian,) = jax.vmap(pull)(jnp.eye(value.size))
            return (value, jacobian), (value, jacobian)

        (forward, second), (value, jacobian) = jax.jacfwd(reverse, has_aux=True)(x)
        return value, forward, jacobian, second

    return jax.jit(all_of_them)


def differences(function: Callable[[Array], tuple[Array, ...]], x: Array) -> tuple[Array, Array]:
    """Of the value and of the Jacobian: central, fourth order, relative error far below 1e-6."""
    size = 1e-3
    firsts, seconds = [], []
    for direction in size * jnp.eye(x.size):
        points = [function(x + k * direction) for k in (-2, -1, 1, 2)]
        for position, columns in ((0, firsts), (2, seconds)):
            a, b, c, d = (point[position] for point in points)
            columns.append((a - 8 * b + 8 * c - d) / (12 * size))
    return jnp.stack(firsts, axis=-1), jnp.stack(seconds, axis=-1)


def assert_close(found, expected, relative):
    scale = np.max(np.abs(expected))
    assert scale > 1e-3, "the derivative must not vanish, or the comparison shows nothing"
    np.testing.assert_allclose(found, expected, rtol=relative, atol=relative * scale)


def choices(case: Case, response: Callable[[Array], dg.AbstractResponse], offers: Array):
    """Every user's choice as a function of the numbers and the offers, all in one vector."""

    def function(x):
        game = case.game(x[: len(case.numbers)])
        rule = response(x[: len(case.numbers)])
        answer = jax.vmap(lambda user: rule(game, x[len(case.numbers) :], user))(game.users)
        return answer.ravel()

    return function, jnp.concatenate([jnp.array(case.numbers), offers])


def check(implicit: Callable[[Array], Array], unrolled: Callable[[Array], Array], x: Array):
    found = derivatives(implicit)
    value, forward, reverse, second = found(x)
    assert_close(forward, reverse, 1e-12)
    first_difference, second_difference = differences(found, x)
    assert_close(reverse, first_difference, AGAINST_DIFFERENCES)
    assert_close(second, second_difference, AGAINST_DIFFERENCES)
    expected_value, _, expected_jacobian, expected_second = derivatives(unrolled)(x)
    np.testing.assert_allclose(value, expected_value, rtol=0, atol=1e-11)
    assert_close(reverse, expected_jacobian, AGAINST_UNROLLED)
    assert_close(second, expected_second, AGAINST_UNROLLED)


@each_case
def test_responses(case: Case):
    implicit, x = choices(case, case.response, case.start.offer)
    unrolled, _ = choices(case, case.unrolled, case.start.offer)
    check(implicit, unrolled, x)


def equilibrium(case: Case):
    solver = dg.GradientPlay(optax.sgd(case.rate))

    def function(x):
        game, response = case.game(x), case.response(x)
        found = dg.solve(game, response, case.start, solver, tolerance=1e-13, max_steps=500)
        return found.profile.offer

    return function


def unrolled_equilibrium(case: Case):
    def function(x):
        game, response = case.game(x), case.unrolled(x)

        def step(profile, _):
            field = dg.pseudogradient(game, response, profile)
            parameters, rest = split(profile)
            moved = jax.tree.map(lambda a, b: a + case.rate * b, parameters, field)
            return project(eqx.combine(moved, rest)), None

        return jax.lax.scan(step, case.start, None, length=100)[0].offer

    return function


@each_case
def test_equilibria(case: Case):
    check(equilibrium(case), unrolled_equilibrium(case), jnp.array(case.numbers))
