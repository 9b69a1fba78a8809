"""Users with constraints: closed forms, every status, one-sided derivatives, nobody disturbed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import Array, Float, PyTree

import diffgame as dg
from diffgame import UserStatus

from .quadratic_users import NAMES, QuadraticUser, draw, residual, solve

SHAPE = 4, 7, 1
BATCH = 1000


class CobbDouglas(dg.AbstractGame):
    """Buy goods at the prices offered; a user is (tastes that sum to one, income)."""

    users: PyTree
    mass: Float[Array, " users"] = eqx.field(default_factory=lambda: jnp.ones(1))
    choice_set: dg.Constrained = eqx.field(
        default_factory=lambda: dg.Constrained(3, jnp.full(3, 5.0))
    )

    def user_utility(self, choice, offers, user):
        return jnp.sum(user[0] * jnp.log(choice))

    def user_constraints(self, choice, offers, user):
        return dg.Constraints(inequalities=(jnp.sum(offers * choice) - user[1])[None])

    def provider_payoffs(self, choice, offers, user):
        return offers * choice


TASTES = jnp.array([0.2, 0.3, 0.5])


def demand(prices, income):
    game = CobbDouglas((TASTES[None], income[None]))
    best = dg.solve_user_problem(game, prices, (TASTES, income))
    return (best.choice, best.inequality_duals[0]), best.status


@eqx.filter_jit
def demand_and_slopes(prices, income):
    """Demand with the price of income and a status; their slopes; the slopes of those in income."""

    def slopes(prices, income):
        return jax.jacrev(demand, argnums=(0, 1), has_aux=True)(prices, income)[0]

    return (
        demand(prices, income),
        slopes(prices, income),
        jax.jacfwd(slopes, argnums=1)(prices, income),
    )


def test_demand_is_that_of_the_textbook_with_its_first_and_second_derivatives():
    """Varian (1992), Microeconomic Analysis, 7.5: y = taste * income / price, dual = 1 / income."""
    prices, income = jnp.array([1.0, 2.0, 0.5]), jnp.array(4.0)
    value, first, second = demand_and_slopes(prices, income)
    (choice, dual), status = value
    assert status == UserStatus.optimal
    np.testing.assert_allclose(choice, TASTES * income / prices, rtol=1e-12)
    np.testing.assert_allclose(dual, 1 / income, rtol=1e-12)

    (in_prices, in_income), (dual_in_prices, dual_in_income) = first
    np.testing.assert_allclose(in_prices, np.diag(-TASTES * income / prices**2), atol=1e-11)
    np.testing.assert_allclose(in_income, TASTES / prices, rtol=1e-11)
    np.testing.assert_allclose(dual_in_prices, 0, atol=1e-11)
    np.testing.assert_allclose(dual_in_income, -1 / income**2, rtol=1e-11)

    (mixed, twice), (_, dual_twice) = second
    np.testing.assert_allclose(mixed, np.diag(-TASTES / prices**2), atol=1e-10)
    np.testing.assert_allclose(twice, 0, atol=1e-10)
    np.testing.assert_allclose(dual_twice, 2 / income**3, rtol=1e-10)


@eqx.filter_jit
def compiled(data):
    """Everything about each problem, and the gradient of a sum over its choice in all data."""

    def one(data):
        def total(data):
            best = solve(*data)
            return jnp.sum(best.choice * jnp.arange(1.0, 5.0)), best

        slope, best = jax.grad(total, has_aux=True)(data)
        return best, slope

    return jax.vmap(one)(data)


def solve_and_slope(data):
    """The same, filled up to one size of batch, so that all tests share one compilation."""
    count = len(data[0])
    index = jnp.arange(BATCH) % count
    found = jax.device_get(compiled(tuple(part[index] for part in data)))
    return jax.tree.map(lambda leaf: leaf[:count], found)


def batch(seed: int, count: int) -> dict[str, np.ndarray]:
    return draw(seed, count, *SHAPE)


def arrays(problems) -> tuple:
    return tuple(jnp.asarray(problems[name]) for name in NAMES)


def make_infeasible(problems, k):
    """Rows 0 and 1 leave a gap of one between them."""
    problems["A"][k, 1], problems["b"][k, 1] = -problems["A"][k, 0], -problems["b"][k, 0] - 1


def make_unbounded(problems, k):
    """No curvature, and all goods are good and never bounded above."""
    problems["Q"][k] = 0.0
    problems["c"][k] = np.abs(problems["c"][k])
    problems["A"][k] = -np.abs(problems["A"][k])
    problems["E"][k], problems["e"][k] = 0.0, 0.0


def make_nonfinite(problems, k):
    problems["c"][k, 2] = np.nan


SPOIL = {
    "infeasible": make_infeasible,
    "unbounded": make_unbounded,
    "nonfinite": make_nonfinite,
}


def spoiled(count: int):
    """A batch in which lanes 3, 4 and 5 of every hundred (and so on, shifted) are spoiled."""
    problems = batch(0, count)
    # Row 0 is a real row everywhere, so that it can be contradicted.
    problems["A"][:, 0] = np.eye(4)[0]
    problems["b"][:, 0] = 50.0
    bad = {}
    for at, (name, spoil) in enumerate(SPOIL.items()):
        for k in range(3 + at, count, 97 + at):
            spoil(problems, k)
            bad[k] = name
    return problems, bad


def test_no_user_disturbs_another_in_a_batch_of_a_thousand():
    count = BATCH
    problems, bad = spoiled(count)
    healthy = {name: part.copy() for name, part in problems.items()}
    fresh = batch(1, count)
    for k in bad:
        for name in NAMES:
            healthy[name][k] = fresh[name][k]
    with_bad = solve_and_slope(arrays(problems))
    without = solve_and_slope(arrays(healthy))
    good = np.array([k for k in range(count) if k not in bad])
    assert len(bad) > 25
    for one, other in zip(jax.tree.leaves(with_bad), jax.tree.leaves(without), strict=True):
        np.testing.assert_array_equal(one[good], other[good])
        assert np.all(np.isfinite(one[good]))
    status = with_bad[0].status._value
    for k, name in bad.items():
        assert status[k] == getattr(UserStatus, name)._value, f"user {k} is not called {name}"
        # No derivative is claimed for them.
        assert not np.any(np.isfinite(with_bad[1][1][k]))
    solved = [UserStatus.optimal._value, UserStatus.weakly_active._value]
    assert np.all(np.isin(status[good], solved))


def test_infeasibility_comes_with_the_vector_of_farkas():
    """Multipliers z >= 0, w whose priced violations stay positive a million sizes around."""
    problems, bad = spoiled(200)
    best, _ = solve_and_slope(arrays(problems))
    named = [k for k, name in bad.items() if name == "infeasible"]
    assert len(named) >= 2
    for k in named:
        A, b, E, e = (problems[name][k] for name in NAMES[2:])
        z, w, y = best.inequality_duals[k], best.equality_duals[k], best.choice[k]
        assert np.all(z >= 0)
        priced = z @ (A @ y - b) + w @ (E @ y - e)
        slope = np.linalg.norm(z @ A + w @ E)
        assert slope * 1e6 * (1 + np.linalg.norm(y)) < priced


def test_unboundedness_comes_with_a_ray():
    problems, bad = spoiled(200)
    best, _ = solve_and_slope(arrays(problems))
    named = [k for k, name in bad.items() if name == "unbounded"]
    assert len(named) >= 2
    for k in named:
        ray, start = best.ray[k], best.choice[k]
        assert np.all(problems["A"][k] @ ray <= 1e-12)
        assert np.all(problems["A"][k] @ start <= problems["b"][k] + 1e-9)
        np.testing.assert_allclose(problems["Q"][k] @ ray, 0, atol=1e-12)
        assert problems["c"][k] @ ray > 0
    others = [k for k in range(200) if k not in named]
    np.testing.assert_array_equal(best.ray[others], 0)


def one_dimension(centre, bound):
    """Max -(y0 - centre)^2 / 2 - ... subject to y0 <= bound, in the shape of all others."""
    problems = {name: part[:1].copy() for name, part in batch(0, 1).items()}
    problems["Q"][0], problems["c"][0] = np.eye(4), np.array([centre, 0, 0, 0])
    problems["A"][0], problems["b"][0] = 0.0, 1.0
    problems["A"][0, 0, 0], problems["b"][0, 0] = 1.0, bound
    problems["E"][0], problems["e"][0] = 0.0, 0.0
    best, slope = solve_and_slope(arrays(problems))
    return jax.tree.map(lambda leaf: leaf[0], (best, dict(zip(NAMES, slope, strict=True))))


def status_of(best) -> int:
    return int(best.status._value)


def test_active_and_inactive_constraints():
    best, slope = one_dimension(2.0, 1.0)
    assert status_of(best) == UserStatus.optimal._value
    np.testing.assert_allclose([best.choice[0], best.inequality_duals[0]], [1, 1], atol=1e-14)
    np.testing.assert_allclose([slope["c"][0], slope["b"][0]], [0, 1], atol=1e-12)
    best, slope = one_dimension(0.5, 1.0)
    assert status_of(best) == UserStatus.optimal._value
    np.testing.assert_allclose([best.choice[0], best.inequality_duals[0]], [0.5, 0], atol=1e-14)
    np.testing.assert_allclose([slope["c"][0], slope["b"][0]], [1, 0], atol=1e-12)


def test_weakly_active_constraints_have_the_derivative_of_the_side_without_them():
    best, slope = one_dimension(1.0, 1.0)
    assert status_of(best) == UserStatus.weakly_active._value
    np.testing.assert_allclose(best.choice[0], 1, atol=1e-12)
    step = 1e-3
    below, above = (
        (one_dimension(1.0 + move, 1.0)[0].choice[0] - 1) / move for move in (-step, step)
    )
    np.testing.assert_allclose([below, above], [1, 0], atol=1e-9)
    np.testing.assert_allclose(slope["c"][0], below, atol=1e-12)
    # Where the bound gives way the constraint drops out, and the derivative in it is zero.
    looser = (one_dimension(1.0, 1.0 + step)[0].choice[0] - 1) / step
    tighter = (one_dimension(1.0, 1.0 - step)[0].choice[0] - 1) / -step
    np.testing.assert_allclose([looser, tighter], [0, 1], atol=1e-9)
    np.testing.assert_allclose(slope["b"][0], looser, atol=1e-12)


def test_redundant_active_constraints_change_no_derivative():
    problems = batch(2, 40)
    best, slope = solve_and_slope(arrays(problems))
    # Row 6 becomes a multiple of whichever row is active, or stays.
    twins = {name: part.copy() for name, part in problems.items()}
    changed = 0
    for k in range(40):
        (active,) = np.nonzero(best.inequality_duals[k][:6] > 1e-3)
        idle = best.inequality_duals[k][6] == 0
        if len(active) and idle:
            twins["A"][k, 6] = 3 * problems["A"][k, active[0]]
            twins["b"][k, 6] = 3 * problems["b"][k, active[0]]
            changed += 1
    assert changed >= 15
    again, twin_slope = solve_and_slope(arrays(twins))
    np.testing.assert_allclose(again.choice, best.choice, atol=1e-10)
    np.testing.assert_allclose(twin_slope[1], slope[1], atol=1e-9)
    for k in range(40):
        parts = again.choice[k], again.inequality_duals[k], again.equality_duals[k]
        assert residual([twins[name][k] for name in NAMES], *parts) <= 1e-9


def test_a_linear_utility_ends_at_a_vertex_with_its_derivative():
    """Max y0 + 2 y1 + ... under y_i <= b_i: the choice is b."""
    problems = {name: part[:1].copy() for name, part in batch(0, 1).items()}
    problems["Q"][0], problems["c"][0] = 0.0, np.arange(1.0, 5.0)
    problems["A"][0], problems["b"][0] = 0.0, 1.0
    problems["A"][0, :4], problems["b"][0, :4] = np.eye(4), [4.0, 3.0, 2.0, 1.0]
    problems["E"][0], problems["e"][0] = 0.0, 0.0
    best, slope = solve_and_slope(arrays(problems))
    assert best.status._value[0] == UserStatus.optimal._value
    np.testing.assert_allclose(best.choice[0], [4, 3, 2, 1], atol=1e-11)
    np.testing.assert_allclose(best.inequality_duals[0], [1, 2, 3, 4, 0, 0, 0], atol=1e-11)
    np.testing.assert_allclose(slope[3][0], [1, 2, 3, 4, 0, 0, 0], atol=1e-10)


def test_a_choice_that_is_not_isolated_raises_with_advice():
    """Linear utility, constant along an edge."""
    problems = {name: part[:1].copy() for name, part in batch(0, 1).items()}
    problems["Q"][0], problems["c"][0] = 0.0, np.array([1.0, 0, 0, 0])
    problems["A"][0], problems["b"][0] = 0.0, 1.0
    problems["A"][0, 0, 0] = 1.0
    problems["E"][0], problems["e"][0] = 0.0, 0.0
    with pytest.raises(eqx.EquinoxRuntimeError, match="strongly concave along the active"):
        solve_and_slope(arrays(problems))


def test_other_sets_are_refused():
    game = QuadraticUser(jnp.eye(2), jnp.ones(2), dg.Polytope(jnp.ones((1, 2)), jnp.ones(1)))
    game = eqx.tree_at(lambda g: g.choice_set, game, dg.Box(jnp.zeros(2), jnp.ones(2)))
    with pytest.raises(TypeError, match="the choice set is Box; use Polytope or Constrained"):
        dg.solve_user_problem(game, None, None)


class Basket(dg.AbstractGame):
    """Users buy from two providers out of an income; without curvature or income they cannot.

    A user is (income, smallest total purchase).
    """

    users: Float[Array, "users 2"]
    mass: Float[Array, " users"]
    choice_set: dg.Constrained = eqx.field(default_factory=lambda: dg.Constrained(2))

    def user_utility(self, choice, offers, user):
        return jnp.sum(3 * choice - choice**2) - choice[0] * choice[1] - offers @ choice

    def user_constraints(self, choice, offers, user):
        low = user[1] - jnp.sum(choice)
        return dg.Constraints(jnp.append(-choice, jnp.stack([offers @ choice - user[0], low])))

    def provider_payoffs(self, choice, offers, user):
        return (offers - 0.1) * choice


def basket(users) -> Basket:
    return Basket(jnp.asarray(users), jnp.ones(len(users)) / len(users))


# The first buys what she likes, the second what she can pay for.
SOLVENT = ((9.0, 0.0), (0.6, 0.0))
# The second has to buy more than her income pays for.
INSOLVENT = ((9.0, 0.0), (0.6, 50.0))


def test_a_bound_on_what_users_leave_on_the_table():
    gaps = eqx.filter_jit(dg.user_gap)
    profile = dg.Constant(jnp.full(2, 0.5))
    found = gaps(basket(SOLVENT), dg.Concave(), profile)
    assert jnp.all((found >= 0) & (found <= 1e-9))
    found = gaps(basket(INSOLVENT), dg.Concave(), profile)
    assert 0 <= found[0] <= 1e-9
    assert found[1] == jnp.inf


@pytest.mark.campaign
def test_equilibria_with_constrained_users_are_certified_and_bad_users_are_named():
    key, profile = jax.random.key(0), dg.Constant(jnp.full(2, 0.5))
    game = basket(SOLVENT)
    found = dg.solve(game, dg.Concave(), profile, dg.GradientPlay(optax.sgd(0.2)))
    found = dg.certify(game, dg.Concave(), found, key=key, starts=1, steps=20)
    assert found.status == dg.Status.certified
    found = dg.certify(basket(INSOLVENT), dg.Concave(), found, key=key, starts=1, steps=20)
    assert found.status == dg.Status.response_inexact
    assert jnp.isfinite(found.certificate.user_gap[0])
    assert found.certificate.user_gap[1] == jnp.inf
