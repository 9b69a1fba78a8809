"""Best menus: a margin worked out by hand, and what is refused.

`test_menu_meeting.py` and `test_monopoly.py` compare the same programs with HiGHS.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from diffgame.market._best_response import Outside
from diffgame.market._menu import menu_best_response


def test_a_margin_is_given_to_users_that_are_won():
    """The judge is at .7 without information; .02 more costs the prosecutor as much."""
    joint, judge = jnp.array([[[0.7, 0.3]]]), jnp.eye(2)[None, None]
    conviction = jnp.array([[[[0.0, 0.0], [1.0, 1.0]]]])
    silence = Outside(jnp.array([0.7]), jnp.zeros(1), jnp.array([False]), jnp.array(True))
    found = menu_best_response(joint, judge, conviction, jnp.ones(1), silence, margin=0.02)
    assert found.lower == pytest.approx(0.58, abs=1e-8)
    assert np.sum(found.branches[0] * judge[0, 0] * joint[0]) == pytest.approx(0.72, abs=1e-8)
    assert found.captured.tolist() == [True]


@pytest.mark.parametrize(
    ("users", "types", "timing", "message"),
    [
        (5, 1, "before", "5 users make 31 sets"),
        (4, 2, "after", r"8 \(user, type\) pairs make 255 sets"),
        (1, 1, "during", "'during' is unknown"),
        (1, 2, "after", "outside has 1 values where timing 'after' asks for 2"),
    ],
)
def test_a_best_response_refuses_what_it_cannot_do(users, types, timing, message):
    joint = jnp.full((users, types, 2), 0.5 / types)
    tables = jnp.ones((users, types, 2, 2))
    outside = Outside(jnp.zeros(1), jnp.zeros(1), jnp.zeros(1, bool), jnp.array(True))
    with pytest.raises(ValueError, match=message):
        menu_best_response(joint, tables, tables, jnp.ones(users), outside, timing=timing)
