"""The table over temperature of a market whose exact equilibrium value is known."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from diffgame.market import Market
from diffgame.market._quantal_search import temperature_table

from .quantal import CONVICTION, JUDGE


def test_the_table_over_temperature_of_a_prosecutor_and_a_defender():
    wants = jnp.stack([CONVICTION, 1 - CONVICTION])[:, None]
    market = Market(np.array([0.7, 0.3]), JUDGE[None], wants, np.ones(1))
    temperatures = (0.5, 0.2, 0.05)
    rows = temperature_table(market, temperatures, starts=0)
    for row, temperature in zip(rows, temperatures, strict=True):
        assert row["temperature"] == temperature
        assert row["status"] == "certified"
        assert row["certified"] + row["local"] + row["exploitable"] == row["found"] == 2
        assert row["certified_by_gradient"] == 2
        assert 0 <= row["worst_gain"] <= 1e-6
        assert row["full_information"] == pytest.approx(1, abs=1e-15)
        assert row["loss"] == pytest.approx(1 - row["worst"], abs=1e-15)
        assert row["noise_bound"] == pytest.approx(2 * 0.278465 * temperature, abs=1e-6)
    losses = [row["loss"] for row in rows]
    # Her exact equilibrium value is 1, the whole of full information; colder users get nearer.
    assert all(warm > cold for warm, cold in itertools.pairwise(losses))
    assert losses[-1] <= 0.06


@pytest.mark.campaign
def test_best_replies_certify_what_gradients_leave_exploitable():
    wants = jnp.stack([CONVICTION, 1 - CONVICTION])[:, None]
    market = Market(np.array([0.7, 0.3]), JUDGE[None], wants, np.ones(1))
    (row,) = temperature_table(market, [0.5], starts=2)
    assert row["found"] == 4
    assert row["certified_by_gradient"] == 2
    assert row["certified"] == 4
    assert row["worst"] == pytest.approx(row["best"], abs=1e-5)
