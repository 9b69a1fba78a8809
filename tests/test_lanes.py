"""Many small problems at once: every lane ends as it would alone, however lanes are grouped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame._lanes import advance_lanes, in_parts, over_lanes, stream_lanes


def steps_to_one(number: int) -> int:
    """Of Collatz' sequence, in plain Python."""
    steps = 0
    while number > 1:
        number = number // 2 if number % 2 == 0 else 3 * number + 1
        steps += 1
    return steps


def expected(count: int) -> np.ndarray:
    return np.array([steps_to_one(number) for number in range(1, count + 1)])


def step(carry):
    """One step of every lane; none moves after it has reached 1."""
    number, steps = carry
    on = number > 1
    following = jnp.where(number % 2 == 0, number // 2, 3 * number + 1)
    return jnp.where(on, following, number), steps + on


@pytest.mark.parametrize(
    ("count", "width", "stay"), [(1, 1, 0), (5, 8, 2), (16, 4, 1), (97, 16, 5)]
)
def test_streamed_items_end_as_they_would_alone(count, width, stay):
    @jax.jit
    def run(numbers):
        return stream_lanes(
            lambda number: (number, 0 * number),
            lambda carry: carry[0] > 1,
            step,
            lambda carry: carry[1],
            numbers,
            width=width,
            stay=stay,
        )

    np.testing.assert_array_equal(run(jnp.arange(1, count + 1)), expected(count))


@pytest.mark.parametrize("count", [1, 5, 64, 97, 200])
def test_advanced_lanes_end_as_they_would_alone(count):
    @jax.jit
    def run(numbers):
        # Each adds its own amount per step.
        return advance_lanes(
            lambda carry: carry[0] > 1,
            lambda amount, carry: (step(carry[:2])[0], carry[1] + amount),
            jnp.full(numbers.shape, 3),
            (numbers, 0 * numbers),
        )

    _, steps = run(jnp.arange(1, count + 1))
    np.testing.assert_array_equal(steps, 3 * expected(count))


def test_a_lane_that_does_not_go_on_is_left_as_it_is():
    """A step from there would be no number."""
    start = jnp.array([0.0, 3.0])
    (found,) = advance_lanes(
        lambda carry: carry[0] > 0, lambda _, carry: (carry[0] - 1 + 0 / carry[0],), (), (start,)
    )
    np.testing.assert_array_equal(found, [0, 0])


def shares(table, total):
    """Of every lane: the rows' sums over its total; leaves with lanes last."""
    return {"share": jnp.sum(table, axis=1) / total[None], "lanes": 0 * total + len(total)}


def shares_of_first(table, total):
    """The same with lanes first."""
    return {"share": jnp.sum(table, axis=2) / total[:, None], "lanes": 0 * total + len(total)}


LAYOUTS = {
    "first": (shares_of_first, 0, None),
    "last": (shares, -1, None),
    "parts": (shares, -1, 4),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_function_of_lanes_becomes_one_of_a_single_lane(layout):
    function, axis, width = LAYOUTS[layout]
    own = function if width is None else in_parts(function, width)
    one = over_lanes(own, axis=axis)
    rng = np.random.default_rng(0)
    table, total = (
        jnp.asarray(rng.uniform(size=(3, 5, 2, 4))),
        jnp.asarray(rng.uniform(1, 2, (3, 5))),
    )
    truth = np.sum(table, axis=-1) / np.asarray(total)[..., None]
    alone = one(table[0, 0], total[0, 0])
    np.testing.assert_allclose(alone["share"], truth[0, 0], rtol=1e-15)
    assert alone["lanes"] == (width or 1)
    both = jax.vmap(jax.vmap(one))(table, total)
    np.testing.assert_allclose(both["share"], truth, rtol=1e-15)
    # All lanes of both batch axes in one call, or as many as fit.
    np.testing.assert_array_equal(both["lanes"], width or 15)
    mixed = jax.vmap(jax.vmap(one, in_axes=(0, None)), in_axes=(None, 0))(table[0], total[:, 0])
    np.testing.assert_allclose(
        mixed["share"], np.sum(table[0], axis=-1)[None] / np.asarray(total)[:, :1, None], rtol=1e-15
    )
