"""The check of an optimum accepts what is proved and nothing else."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from diffgame._linear_program import Dual, LinearProgram, Primal, check_optimum


@pytest.fixture
def program() -> LinearProgram:
    """Minimise x_0 + 2 x_1 + 3 z with x_1 >= x_0 and x_0 + x_1 + z = 2: x = (1, 1), value 3."""
    return LinearProgram(
        cost=jnp.array([[1.0, 2.0]]),
        slack_cost=jnp.array([3.0]),
        within=jnp.array([[[-1.0, 1.0]]]),
        coupling=jnp.array([[[1.0, 1.0]]]),
        slack_coupling=jnp.array([[1.0]]),
        target=jnp.array([2.0]),
    )


PRIMAL = Primal(jnp.array([[1.0, 1.0]]), jnp.array([0.0]))
DUAL = Dual(jnp.array([[0.5]]), jnp.array([1.5]))


def test_an_optimal_pair_is_certified_with_its_value(program):
    found = check_optimum(program, PRIMAL, DUAL)
    assert found.certified
    assert found.value == found.bound == 3
    assert found.primal_violation == found.dual_violation == 0


@pytest.mark.parametrize(
    ("x", "z"),
    [
        pytest.param([[2.0, 0.0]], [0.0], id="cheaper, violates the row within"),
        pytest.param([[0.9, 1.0]], [0.0], id="misses the target"),
        pytest.param([[1.0, 2.0]], [-1.0], id="negative slack"),
        pytest.param([[0.0, 2.0]], [0.0], id="feasible, not optimal"),
        pytest.param([[0.0, 0.0]], [2.0], id="feasible by the slack, not optimal"),
        pytest.param([[jnp.nan, 1.0]], [0.0], id="NaN"),
        pytest.param([[1.0, 1.0]], [jnp.nan], id="NaN slack"),
        pytest.param([[jnp.inf, jnp.inf]], [0.0], id="inf"),
        pytest.param([[jnp.inf, 1.0]], [-jnp.inf], id="inf - inf"),
    ],
)
def test_a_wrong_point_is_not_certified(program, x, z):
    assert not check_optimum(program, Primal(jnp.array(x), jnp.array(z)), DUAL).certified


@pytest.mark.parametrize(
    ("within", "row"),
    [
        pytest.param([[-0.5]], 1.5, id="negative multiplier"),
        pytest.param([[0.0]], 1.5, id="reduced cost negative"),
        pytest.param([[0.5]], 1.4, id="feasible, bound too low"),
        pytest.param([[1.0]], 3.5, id="slack column violated"),
        pytest.param([[jnp.nan]], 1.5, id="NaN"),
        pytest.param([[0.5]], jnp.nan, id="NaN row"),
        pytest.param([[jnp.inf]], 1.5, id="inf"),
        pytest.param([[0.5]], -jnp.inf, id="-inf row"),
    ],
)
def test_wrong_multipliers_are_not_certified(program, within, row):
    dual = Dual(jnp.array(within), jnp.array([row]))
    assert not check_optimum(program, PRIMAL, dual).certified


@pytest.mark.parametrize("field", ["cost", "slack_cost", "within", "coupling", "target"])
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_program_that_is_not_finite_has_no_certified_optimum(program, field, bad):
    spoilt = eqx.tree_at(lambda p: getattr(p, field), program, replace_fn=lambda a: a + bad)
    assert not check_optimum(spoilt, PRIMAL, DUAL).certified


def test_errors_are_certified_up_to_the_tolerance_only(program):
    near = Primal(PRIMAL.x + 1e-7, PRIMAL.z)
    assert check_optimum(program, near, DUAL, 1e-6).certified
    assert not check_optimum(program, near, DUAL, 1e-8).certified


def test_a_high_price_of_a_slack_loosens_nothing(program):
    dear = eqx.tree_at(lambda p: p.slack_cost, program, jnp.array([1e6]))
    assert check_optimum(dear, PRIMAL, DUAL).certified
    worse = Primal(jnp.array([[0.999, 1.001]]), PRIMAL.z)
    assert not check_optimum(dear, worse, DUAL, 1e-6).certified


def test_the_bound_of_feasible_multipliers_holds_for_every_feasible_point(program):
    for x_0, z, row in [(0.0, 0.0, 0.5), (0.5, 0.5, 1.0), (0.2, 1.0, 1.5)]:
        primal = Primal(jnp.array([[x_0, 2 - x_0 - z]]), jnp.array([z]))
        found = check_optimum(program, primal, Dual(jnp.array([[0.5]]), jnp.array([row])))
        assert found.primal_violation == 0
        assert found.dual_violation == 0
        assert found.bound <= found.value


def test_a_program_without_blocks_is_one_in_its_slacks():
    """Minimise z_0 + 2 z_1 with z_0 + z_1 = 1."""
    program = LinearProgram(
        jnp.zeros((0, 1)),
        jnp.array([1.0, 2.0]),
        jnp.zeros((0, 0, 1)),
        jnp.zeros((1, 0, 1)),
        jnp.ones((1, 2)),
        jnp.ones(1),
    )
    right = Primal(jnp.zeros((0, 1)), jnp.array([1.0, 0.0]))
    wrong = Primal(jnp.zeros((0, 1)), jnp.array([0.0, 1.0]))
    dual = Dual(jnp.zeros((0, 0)), jnp.ones(1))
    assert check_optimum(program, right, dual).certified
    assert not check_optimum(program, wrong, dual).certified


def test_sums_are_rows_that_tie_blocks_together_state_by_state():
    """Two blocks, two states: the same program with its sums written out as rows."""
    cost = jnp.array([[1.0, 2.0], [2.0, 1.0]])
    empty, rows = jnp.zeros((2, 0, 2)), jnp.broadcast_to(jnp.eye(2)[:, None], (2, 2, 2))
    parts = jnp.zeros(0), empty
    rest = jnp.zeros((2, 0)), jnp.ones(2)
    short = LinearProgram(cost, *parts, jnp.zeros((0, 2, 2)), *rest, jnp.array([1.0, 0.5]))
    long = LinearProgram(cost, *parts, rows * jnp.array([1.0, 0.5])[None, :, None], *rest)
    x, prices = jnp.array([[1.0, 0.3], [0.2, 1.4]]), jnp.array([0.3, -0.7])
    for summed, written in [
        (short.add_up(x), long.add_up(x)),
        (short.price(prices), long.price(prices)),
    ]:
        assert jnp.allclose(summed, written, rtol=0, atol=1e-15)
    primal, dual = (
        Primal(jnp.eye(2) * jnp.array([[1.0], [2.0]]), jnp.zeros(0)),
        Dual(jnp.zeros((2, 0)), jnp.array([1.0, 2.0])),
    )
    found = [check_optimum(program, primal, dual) for program in (short, long)]
    assert all(jnp.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, found), strict=True))
    assert found[0].certified
