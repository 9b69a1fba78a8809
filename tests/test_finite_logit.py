"""Logit equilibria: closed forms, the principal branch through turning points, derivatives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame.finite import LogitStatus, NormalForm, logit_equilibrium

PENNIES = np.array([[1.0, -1.0], [-1.0, 1.0]])
ROCK = np.array([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]])


@eqx.filter_jit
def batch(tables, rationality):
    return jax.vmap(lambda u, t: logit_equilibrium(NormalForm(u), t))(tables, rationality)


@eqx.filter_jit
def profiles(tables, rationality):
    return logit_equilibrium(NormalForm(tables), rationality).profile


def test_zero_sum_games_with_symmetry_are_played_uniformly_at_every_rationality():
    for table in (PENNIES, ROCK):
        found = batch(
            jnp.asarray(np.stack([[table, -table]] * 4)), jnp.array([0.0, 1.0, 5.0, 50.0])
        )
        assert found.check.certified.all()
        np.testing.assert_allclose(found.profile[0], 1 / len(table), atol=1e-10)


def test_the_prisoners_dilemma_is_a_logistic_of_the_gain_from_defecting():
    """Defecting gains 1 whatever the other does, so its odds are exp(rationality)."""
    game = np.array([[[2.0, 0.0], [3.0, 1.0]], [[2.0, 3.0], [0.0, 1.0]]])
    levels = np.array([0.0, 0.5, 2.0, 10.0])
    found = batch(jnp.asarray(np.stack([game] * 4)), jnp.asarray(levels))
    assert found.check.certified.all()
    for mixed in found.profile:
        np.testing.assert_allclose(mixed[:, 1], 1 / (1 + np.exp(-levels)), atol=1e-9)


def test_the_branch_of_a_coordination_game_goes_to_the_better_equilibrium():
    """Asymmetric coordination: with u = (1 + e) against 1 the principal branch picks the first."""
    games = np.stack([np.stack([np.diag([1 + gap, 1.0])] * 2) for gap in (1e-6, 1e-3, 0.1, 1.0)])
    found = batch(jnp.asarray(games), jnp.full(4, 6.0))
    assert found.check.certified.all()
    assert (np.asarray(found.profile[0])[:, 0] > 0.9).all()
    assert (np.asarray(found.bifurcations) == 0).all()


def test_beyond_a_pitchfork_the_point_is_certified_and_the_crossing_counted():
    games = jnp.asarray(np.stack([np.stack([np.eye(2)] * 2)] * 4))
    found = batch(games, jnp.array([1.0, 1.9, 2.1, 8.0]))
    assert found.check.certified.all()
    np.testing.assert_array_equal(found.bifurcations, [0, 0, 1, 1])
    np.testing.assert_allclose(found.profile[0], 0.5, atol=1e-9)


def test_where_the_equilibrium_is_unique_up_to_the_rationality_it_is_the_one_found():
    """Logit equilibria of 2x2 games are the roots of a function of the first probability.

    p1 = s gives p2 = sigmoid(t gap2(s)), and s = sigmoid(t gap1(p2)) must hold; all roots are found
    on a grid, at rationalities up to the one asked for.
    """
    tables = np.random.default_rng(11).normal(size=(256, 2, 2, 2)) * 2
    found = batch(jnp.asarray(tables), jnp.full(256, 5.0))
    assert found.check.certified.all()
    first, second = tables[:, 0], tables[:, 1]
    s = np.linspace(0, 1, 4001)[None]
    unique, error = np.ones(256, bool), s
    for level in np.linspace(0.25, 5.0, 20):
        gap2 = np.diff(second, axis=2)[:, 0] * s + np.diff(second, axis=2)[:, 1] * (1 - s)
        other = 1 / (1 + np.exp(level * gap2))
        gap1 = np.diff(first, axis=1)[:, 0, :1] * other + np.diff(first, axis=1)[:, 0, 1:] * (
            1 - other
        )
        error = 1 / (1 + np.exp(level * gap1)) - s
        unique &= (np.sign(error[:, 1:]) != np.sign(error[:, :-1])).sum(1) == 1
    assert 100 < unique.sum() < 256
    place = np.argmin(np.abs(error), axis=1)
    near = np.abs(np.asarray(found.profile[0])[:, 0] - s[0, place])
    assert near[unique].max() < 5e-3


def trace(table, target, step=0.02):
    """The first arrival at `target` by tiny steps in (p, t), and whether the branch turned back.

    It shares no formula with the package: unknowns are probabilities, tangents null vectors.
    """
    first, second = table
    rows = len(first)

    def residual(x):
        p, q, t = x[:rows], x[rows:-1], x[-1]
        logits = t * (first @ q), t * (second.T @ p)
        weights = [np.exp(own - own.max()) for own in logits]
        return np.concatenate([p, q]) - np.concatenate([w / w.sum() for w in weights])

    def jacobian(x):
        p, q, t = x[:rows], x[rows:-1], x[-1]
        a, b = first @ q, second.T @ p
        mixed = x[:-1] - residual(x)
        slopes = [np.diag(m) - np.outer(m, m) for m in (mixed[:rows], mixed[rows:])]
        top = np.hstack([np.eye(rows), -t * slopes[0] @ first, -(slopes[0] @ a)[:, None]])
        low = np.hstack([-t * slopes[1] @ second.T, np.eye(len(q)), -(slopes[1] @ b)[:, None]])
        return np.vstack([top, low])

    columns = first.shape[1]
    x = np.concatenate([np.full(rows, 1 / rows), np.full(columns, 1 / columns), [0.0]])
    tangent, turned = np.eye(len(x))[-1], False
    for _ in range(5000):
        fresh = np.linalg.svd(jacobian(x))[2][-1]
        tangent = fresh * np.sign(fresh @ tangent)
        turned = turned or tangent[-1] < 0
        ahead = x + step * tangent
        for _ in range(4):
            ahead = ahead - np.linalg.pinv(jacobian(ahead)) @ residual(ahead)
        if ahead[-1] >= target:
            ahead[-1] = target
            for _ in range(8):
                move = np.linalg.solve(jacobian(ahead)[:, :-1], residual(ahead))
                ahead[:-1] -= move
            return ahead, turned
        x = ahead
    raise AssertionError("the tracing did not arrive")


# Of 256 games drawn, the two that take most steps, whose branches turn back, and two that do not.
TURNING = (105, True), (238, True), (203, False), (69, False)


def test_turning_points_are_followed_to_the_first_arrival():
    tables = np.random.default_rng(21).normal(size=(256, 2, 3, 3)) * 2
    found = batch(jnp.asarray(tables), jnp.full(256, 6.0))
    assert found.check.certified.all()
    for index, turns in TURNING:
        traced, turned = trace(tables[index], 6.0)
        assert turned == turns, index
        np.testing.assert_allclose(
            found.profile[0][index], traced[:3], atol=1e-8, err_msg=str(index)
        )
        np.testing.assert_allclose(
            found.profile[1][index], traced[3:6], atol=1e-8, err_msg=str(index)
        )


def test_three_players_who_want_to_differ():
    """The odd one out wins; uniform play is the symmetric logit equilibrium."""
    table = np.zeros((3, 2, 2, 2))
    for cell in np.ndindex(2, 2, 2):
        for player in range(3):
            others = [cell[k] for k in range(3) if k != player]
            table[(player, *cell)] = all(other != cell[player] for other in others)
    found = batch(jnp.asarray(table[None]), jnp.array([3.0]))
    assert found.check.certified.all()
    np.testing.assert_allclose(np.asarray(found.profile), 0.5, atol=1e-9)


def test_a_broken_game_disturbs_no_other():
    random = np.random.default_rng(3)
    tables = random.normal(size=(256, 2, 2, 2))
    clean = batch(jnp.asarray(tables), jnp.full(256, 4.0))
    tables[7, 1, 0, 1] = np.nan
    levels = np.full(256, 4.0)
    levels[9] = -1
    spoilt = batch(jnp.asarray(tables), jnp.asarray(levels))
    np.testing.assert_array_equal(
        np.flatnonzero(spoilt.status == LogitStatus.nonfinite), np.array([7, 9])
    )
    assert not spoilt.check.certified[np.array([7, 9])].any()
    others = np.delete(np.arange(256), [7, 9])
    for one, other in zip(clean.profile, spoilt.profile, strict=True):
        np.testing.assert_array_equal(np.asarray(one)[others], np.asarray(other)[others])


def test_too_few_steps_are_said():
    game = NormalForm(np.random.default_rng(0).normal(size=(2, 2, 2)))
    found = logit_equilibrium(game, 20.0, max_steps=2)
    assert found.status == LogitStatus.max_steps
    assert not found.check.certified


@pytest.mark.parametrize(
    "shape", [(2, 2, 2), pytest.param((3, 2, 2, 2), marks=pytest.mark.campaign)], ids=str
)
def test_derivatives_agree_with_finite_differences(shape):
    random = np.random.default_rng(5)
    tables, change = jnp.asarray(random.normal(size=(2, *shape)))
    weights = [jnp.asarray(random.normal(size=count)) for count in shape[1:]]

    @eqx.filter_jit
    def value(tables, level):
        mixed = profiles(tables, level)
        return sum(jnp.dot(own, weight) for own, weight in zip(mixed, weights, strict=True))

    step = 1e-5
    by_payoffs, by_level = jax.grad(value, argnums=(0, 1))(tables, 2.0)
    ahead, behind = value(tables + step * change, 2.0), value(tables - step * change, 2.0)
    along = float(jnp.vdot(by_payoffs, change))
    assert along == pytest.approx(float(ahead - behind) / (2 * step), abs=1e-7)
    ahead, behind = value(tables, 2.0 + step), value(tables, 2.0 - step)
    assert float(by_level) == pytest.approx(float(ahead - behind) / (2 * step), abs=1e-7)
    _, forward = jax.jvp(lambda u: value(u, 2.0), (tables,), (change,))
    assert float(forward) == pytest.approx(along, abs=1e-12)
