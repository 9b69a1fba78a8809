"""Loops of lanes that end at different times: same results, less work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame._loop import while_lanes


def collatz(start):
    """Steps and largest number until 1 is reached."""

    def step(_, state):
        number, steps, largest = state
        number = jnp.where(number % 2 == 0, number // 2, 3 * number + 1)
        return number, steps + 1, jnp.maximum(largest, number)

    return while_lanes(lambda state: state[0] > 1, step, (), (start, 0 * start, start))


def plain(start):
    steps, largest = 0, start
    while start > 1:
        start = start // 2 if start % 2 == 0 else 3 * start + 1
        steps, largest = steps + 1, max(largest, start)
    return steps, largest


@pytest.mark.parametrize("lanes", [1, 7, 64, 65, 300])
def test_every_lane_ends_where_it_would_alone(lanes):
    numbers = np.arange(1, lanes + 1)
    _, steps, largest = jax.jit(jax.vmap(collatz))(jnp.asarray(numbers))
    expected = np.array([plain(int(number)) for number in numbers])
    np.testing.assert_array_equal(np.stack([steps, largest], axis=1), expected)


def test_nested_batches_and_shared_values_of_one_axis_only():
    def power(base, limit):
        return while_lanes(lambda x: x < limit, lambda base, x: x * base, base, base)

    def row(base):
        return jax.vmap(lambda limit: shared_limit(base, limit))(jnp.array([5.0, 50.0, 500.0]))

    def shared_limit(base, limit):
        def step(given, x):
            return x[0] * given[0], x[1]

        return while_lanes(lambda x: x[0] < x[1], step, (base, limit), (base, limit))[0]

    assert power(jnp.array(2.0), 100.0) == 128
    found = jax.jit(jax.vmap(row))(jnp.array([2.0, 3.0, 10.0]))
    np.testing.assert_array_equal(found, [[8, 64, 512], [9, 81, 729], [10, 100, 1000]])


def test_a_lane_that_has_ended_is_not_advanced():
    """A step from a finished lane would divide by zero and stay not a number."""
    found = jax.vmap(lambda x: while_lanes(lambda x: x > 0, lambda _, x: x - 1 + 0 / x, (), x))(
        jnp.array([0.0, 3.0])
    )
    np.testing.assert_array_equal(found, [0, 0])


def test_batches_are_traced_once():
    traces = []

    def step(_, x):
        traces.append(x.shape)
        return x - 1

    count = jax.jit(jax.vmap(lambda x: while_lanes(lambda x: x > 0, step, (), x)))
    count(jnp.arange(100))
    first = len(traces)
    count(jnp.arange(100) + 5)
    assert len(traces) == first
