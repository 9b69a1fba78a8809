"""Curves over degrees of personalization: the truth is not monotone, the certificate is.

Both examples of docs/personalization.md.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame.market import (
    Market,
    MarketEquilibrium,
    MarketStatus,
    exploitability,
    find_equilibria,
    make_segment,
    meet,
)
from diffgame.market._degree import noisy_labels
from diffgame.market._personalization import personalization_curve

from . import oracle
from .degrees import cautious_market, reference

NESTED = [[0, 0, 0], [0, 0, 1], [0, 1, 2]]
STARTS = 1
RANDOM = cautious_market(0)


@pytest.fixture(scope="module")
def third_user():
    """E1 with a third user whom both providers serve, heavy enough to decide."""
    us = np.stack(oracle.opposed_users())
    third = np.array([[-9, -9], [1, 0], [0, 1.0]])
    U = np.stack([np.stack([us[0], us[0], third]), np.stack([us[1], us[1], third])])
    market = Market(np.full(2, 0.5), np.stack([*us, third]), U, np.array([1, 1, 12.5]))
    lines = []
    curve = personalization_curve(market, NESTED, starts=STARTS, progress=lines.append)
    return market, curve, lines


def test_the_true_worst_loss_is_0_then_2_then_0_where_the_certificate_falls(third_user):
    """G1, second example: {1, 2, 3} 0; {1, 2}, {3} 2; singletons 0."""
    market, curve, lines = third_user
    rows = curve.rows()
    assert [row["labels"] for row in rows] == ["0 0 0", "0 0 1", "0 1 2"]
    assert all(row["worst_status"] == row["best_status"] == "certified" for row in rows)
    losses = [row["worst_loss"] for row in rows]
    np.testing.assert_allclose(losses, [0, 2, 0], rtol=0, atol=1e-6)
    np.testing.assert_allclose([row["best_loss"] for row in rows], 0, rtol=0, atol=1e-6)
    certificates = [row["certificate"] for row in rows]
    expected = [reference(market, labels) for labels in NESTED]
    np.testing.assert_allclose(certificates, expected, rtol=0, atol=1e-8)
    assert certificates[0] > certificates[1] > certificates[2] - 1e-9
    assert all(row["certificate_is_optimal"] for row in rows)
    mass = np.array([2, 12.5]) / 14.5
    bits = [0, -np.sum(mass * np.log2(mass))]
    np.testing.assert_allclose([row["bits"] for row in rows[:2]], bits, rtol=0, atol=1e-12)
    np.testing.assert_allclose(curve.worst[1], [0, 0, 1], rtol=0, atol=1e-6)
    # {3}, {1} and {2} are searched once each, though they occur in two partitions.
    assert sum(line.endswith("of 5") for line in lines) == 5
    print(*rows, sep="\n")


@pytest.mark.campaign
def test_noise_at_its_ends_gives_the_curve_of_anonymous_and_personalized_users(third_user):
    market, curve, _ = third_user
    noise = [noisy_labels([0, 1, 2], accuracy) for accuracy in (1 / 3, 1.0)]
    ends = personalization_curve(market, noise, starts=STARTS)
    np.testing.assert_allclose(ends.worst, curve.worst[[0, 2]], rtol=0, atol=1e-6)
    np.testing.assert_allclose(ends.best, curve.best[[0, 2]], rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        ends.certificates.total, curve.certificates.total[[0, 2]], rtol=0, atol=1e-8
    )
    assert ends.rows()[0]["labels"] == "3 noisy labels"
    assert ends.rows()[1]["labels"] == "0 1 2"


def twins():
    """T2 with two providers paid alike; the first action again, for the shape of E1."""
    us = np.stack([oracle.threshold_user(0.5), oracle.threshold_user(0.75)])[:, [0, 1, 0]]
    U = np.broadcast_to(np.array([[0, 0], [1, 1], [0, 0.0]]), (2, 2, 3, 2))
    return Market(np.array([0.7, 0.3]), us, U, np.ones(2))


@jax.jit
def assess(market, profiles, signal):
    segment = make_segment(market.prior, market.utility, market.objective, market.mass, profiles)
    meeting = meet(segment, signal, jnp.zeros(len(market.mass), int))
    gain = exploitability(segment, meeting)
    return meeting.values[0], jnp.sum(meeting.payoffs, axis=1), gain.lower, gain.upper


def both_convict(market):
    """Everybody posts the monopolist's signal: both convict at 3/4, all the guilty among them."""
    convict = np.array([1 / 7, 1.0])
    profiles = np.array([[0, 0], [1, 0], [1, 1]])
    signal = np.stack([1 - convict, np.zeros(2), convict])
    values, payoffs, lower, upper = jax.device_get(
        assess(market, profiles, np.stack([signal, signal]))
    )
    status = MarketStatus.certified if np.all(upper <= 1e-9) else MarketStatus.exploitable
    table, said = np.stack([1 - convict, convict], axis=1), np.array([0, 1])
    return MarketEquilibrium(
        "both convict", status, values, payoffs, lower, upper,
        [[table], [table]], np.zeros(2, int), [[said, said], [said, said]],
    )  # fmt: skip


@pytest.mark.campaign
def test_twins_of_a_monopolist_hurt_users_less_in_public_than_one_by_one():
    """G1, first example: worst losses .4 anonymous, .6 personalized; certificates .6, .6.

    Random starts only come near the public .4, which needs ties in the providers' favour: it is
    built, certified, and handed to the search.
    """
    market = twins()

    def search(part, **settings):
        found = find_equilibria(part, **settings)
        if len(part.mass) == 1:
            return found
        return dataclasses.replace(found, equilibria=[*found.equilibria, both_convict(part)])

    public, single = personalization_curve(
        market, [[0, 0], [0, 1]], starts=STARTS, search=search
    ).rows()
    assert public["worst_status"] == single["worst_status"] == "certified"
    assert public["worst_loss"] == pytest.approx(0.4, abs=1e-9)
    assert single["worst_loss"] == pytest.approx(0.6, abs=1e-7)
    assert public["certificate"] == pytest.approx(0.6, abs=1e-8)
    assert single["certificate"] == pytest.approx(0.6, abs=1e-8)
    assert (public["bits"], single["bits"]) == (0, 1)
    # The same signal a hair above the tie, against the oracle.
    above = np.array([[6 / 7 + 1e-9, 1 / 7 - 1e-9], [0, 1]])
    us, U = np.asarray(market.utility), np.asarray(market.objective)
    gains, values = oracle.exploitability(
        [[above] * 2] * 2, list(us), [list(own) for own in U], np.asarray(market.prior), "anon"
    )
    np.testing.assert_allclose(gains, 0, rtol=0, atol=1e-8)
    np.testing.assert_allclose(values, [0.2, 0], rtol=0, atol=1e-8)
    print(public, single, sep="\n")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: personalization_curve(RANDOM, []), "information is empty"),
        (lambda: personalization_curve(RANDOM, [[0, 1, 1, 0, 0]]), r"labels has shape \(5,\)"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
