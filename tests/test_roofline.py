"""What bounds the solvers: the work that the benchmarks count is the work that the solvers do."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import roofline, start
from benchmarks.market_programs import persuasion, random_programs
from diffgame._lanes import lanes_last


def pivots(carry):
    """Of either simplex method, or the steps of the interior point."""
    own = carry[1] if isinstance(carry, tuple) else carry.basis
    return own.steps if hasattr(own, "steps") else own.pivots


@pytest.mark.parametrize(
    "method", [roofline.RAYS, roofline.ROWS, roofline.INTERIOR], ids=lambda method: method.name
)
def test_the_steps_that_are_counted_are_the_solvers(method):
    data = tuple(map(jnp.asarray, random_programs(3, 3, 4)))
    programs = jax.vmap(persuasion)(*data)
    taken = np.asarray(jax.jit(jax.vmap(method.solve))(programs)[2])
    carry = jax.jit(method.begin)(lanes_last(programs))
    step = jax.jit(method.step)
    for _ in range(int(taken.max()) + 5):
        carry = step(carry)
    np.testing.assert_array_equal(pivots(carry), taken)
    assert taken.max() > 0


def test_every_row_has_its_share_of_what_one_core_can_do(tmp_path, capsys):
    out = tmp_path / "roofline.json"
    roofline.main(["--quick", "--json", str(out)])
    content = json.loads(out.read_text())
    printed = capsys.readouterr().out
    assert [row["program"] for row in content["rows"]] == ["2x2", "4x4"]
    for row in content["rows"]:
        assert all(x > 0 and math.isfinite(x) for x in row.values() if not isinstance(x, str))
        assert row["carried_steps"] >= row["steps"]
        assert f"{row['share']:.0%}" in printed


def test_jax_tells_what_it_spends_on_programs():
    seen = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        assert duration_secs >= 0
        seen.append(event.rsplit("/", 1)[-1])

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.jit(lambda x: x + 1)(jnp.arange(3))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert set(seen) >= set(start._EVENTS.values())
