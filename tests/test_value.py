"""What information is worth, against the independent oracle and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame.market import full_information, outcome, uninformed, user_value

from . import oracle


@pytest.mark.parametrize("seed", range(4), ids="seed={}".format)
def test_values_and_outcomes_equal_the_oracle(seed):
    rng = np.random.default_rng(seed)
    n, A, Y, M = 75, 3, 4, 3
    prior = rng.dirichlet(np.ones(Y), size=n)
    utility = rng.uniform(size=(n, A, Y))
    signal = rng.dirichlet(np.ones(M), size=(n, Y))
    ours = jax.jit(
        jax.vmap(
            lambda p, u, s: (
                full_information(p, u),
                uninformed(p, u),
                user_value(p, u, s),
                outcome(p, u, s),
            )
        )
    )(prior, utility, signal)
    for b in range(n):
        args = prior[b], utility[b]
        np.testing.assert_allclose(ours[0][b], oracle.full_value(*args), rtol=0, atol=1e-14)
        np.testing.assert_allclose(ours[1][b], oracle.babble_value(*args), rtol=0, atol=1e-14)
        value = oracle.user_value(signal[b], *args)
        np.testing.assert_allclose(ours[2][b], value, rtol=0, atol=1e-14)
        joint = oracle.outcome(signal[b], *args)
        np.testing.assert_allclose(ours[3][b], joint, rtol=0, atol=1e-14)


def test_ties_within_a_share_of_1e_12_of_her_range_go_to_the_lowest_action():
    prior, babbling = jnp.array([0.5, 0.5]), jnp.ones((2, 1))
    for scale in (1e-6, 1.0, 1e6):
        near, far = (jnp.array([[0.0, 1 - gap], [1.0, 0.0]]) * scale for gap in (1e-13, 1e-11))
        assert outcome(prior, near, babbling).tolist() == [[0.5, 0.5], [0.0, 0.0]]
        assert outcome(prior, far, babbling).tolist() == [[0.0, 0.0], [0.5, 0.5]]


def test_values_come_in_the_units_of_utility():
    prior, utility = jnp.array([0.7, 0.3]), 1e6 * jnp.eye(2) - 5
    assert full_information(prior, utility) == pytest.approx(1e6 - 5, abs=1e-9)
    assert uninformed(prior, utility) == pytest.approx(0.7e6 - 5, abs=1e-9)
    assert user_value(prior, utility, jnp.eye(2)) == full_information(prior, utility)
    assert user_value(prior, utility, jnp.ones((2, 1))) == uninformed(prior, utility)
