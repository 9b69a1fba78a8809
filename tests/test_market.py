"""The market as a game: values and payoffs by hand-made policies, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffgame as dg
from diffgame.market import Market, babbling, full_revelation, random_profile

from . import oracle
from .markets import random_market

LABELS = {"anonymous": [0, 0, 0], "segments": [0, 1, 0], "personalized": [0, 1, 2]}


def make(market, labels, messages=3):
    mu, mass, us, U = market
    return Market(
        mu, us, U, mass, np.asarray(labels), observations=max(labels) + 1, messages=messages
    )


def expected(market, table, labels):
    """Values and payoffs at tables [providers, observations, states, messages], by the oracle."""
    mu, mass, us, U = market
    pis = [[np.asarray(own[label]) for label in labels] for own in table]
    _, values, outcomes = oracle.market_state(pis, list(us), mu)
    payoffs = [
        sum(rho * np.sum(x * own) for rho, x, own in zip(mass, outcomes, mine, strict=True))
        for mine in U
    ]
    return np.array(values), np.array(payoffs)


play_exactly = jax.jit(lambda market, profile: dg.play(market, dg.Argmax(), profile))


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())
def test_exact_play_equals_the_oracle(labels):
    for seed in range(20):
        random = random_market(seed, 3, 3, 3, 3)
        market = make(random, labels)
        profiles = [babbling(market), full_revelation(market)]
        profiles += [random_profile(market, jax.random.key(seed + at)) for at in (100, 200)]
        for profile in profiles:
            found = play_exactly(market, profile)
            values, payoffs = expected(random, profile.probability, labels)
            assert np.asarray(found.utilities) == pytest.approx(values, abs=1e-12), f"seed={seed}"
            assert np.asarray(found.payoffs) == pytest.approx(payoffs, abs=1e-12), f"seed={seed}"


def test_babbling_tells_nothing_and_full_revelation_everything():
    mu, mass, us, U = random_market(0, 3, 3, 3, 3)
    market = make((mu, mass, us, U), [0, 1, 2])
    low = play_exactly(market, babbling(market)).utilities
    high = play_exactly(market, full_revelation(market)).utilities
    for j, u in enumerate(us):
        assert low[j] == pytest.approx(oracle.babble_value(mu, u), abs=1e-12)
        assert high[j] == pytest.approx(oracle.full_value(mu, u), abs=1e-12)


def test_providers_are_paid_for_users_who_listen_to_others():
    """She listens to the first provider, who tells her the state; both are paid for her action."""
    paid = jnp.array([[[0.0, 0.0], [1.0, 1.0]]] * 2)[:, None]
    market = Market(jnp.array([0.7, 0.3]), jnp.eye(2)[None], paid, jnp.array([2.0]))
    silent = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    outcome = dg.play(
        market, dg.Argmax(), dg.ProbabilityTable(jnp.stack([jnp.eye(2), silent])[:, None])
    )
    assert outcome.utilities == pytest.approx([1], abs=1e-12)
    assert outcome.payoffs == pytest.approx([0.6, 0.6], abs=1e-12)


def test_what_providers_see_is_a_label():
    market = make(random_market(0, 3, 3, 3, 2), [0, 1, 2])
    assert market.observations == 3
    assert market.anonymous().observations == 1
    assert market.observing([0, 1, 0]).observations == 2
    assert market.anonymous().personalized().observation.tolist() == [0, 1, 2]
    for seen in (market, market.anonymous(), market.observing([0, 1, 0])):
        assert babbling(seen).probability.shape == (2, seen.observations, 3, 3)
        user = jax.tree.map(lambda leaf: leaf[2], seen.users)
        assert seen.observe(user) == seen.observation[2]


def test_the_same_table_for_everybody_plays_alike_whatever_providers_see():
    random = random_market(1, 3, 3, 3, 2)
    public = make(random, [0, 0, 0])
    profile = random_profile(public, jax.random.key(0))
    each = dg.ProbabilityTable(jnp.repeat(profile.probability, 3, axis=1))
    together = play_exactly(public, profile)
    apart = play_exactly(public.personalized(), each)
    assert jnp.allclose(together.utilities, apart.utilities, atol=1e-14)
    assert jnp.allclose(together.payoffs, apart.payoffs, atol=1e-14)


def test_one_user_needs_as_many_messages_as_actions_unless_told_otherwise():
    market = Market(np.full(3, 1 / 3), np.zeros((1, 2, 3)), np.zeros((1, 1, 2, 3)), np.ones(1))
    assert market.messages == 2
    assert market.with_messages(5).messages == 5
    with pytest.raises(ValueError, match=r"2 messages cannot name 3 states.*with_messages\(3\)"):
        full_revelation(market)
    assert full_revelation(market.with_messages(3)).probability.shape == (1, 1, 3, 3)


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]], ids=["anonymous", "personalized"])
def test_gradients_against_quantal_users_equal_finite_differences(labels):
    random = random_market(2, 3, 3, 3, 2)
    market = make(random, labels)
    profile, response = random_profile(market, jax.random.key(1)), dg.Logit(0.2)
    field = jax.jit(lambda profile: dg.pseudogradient(market, response, profile))(profile)
    payoffs = jax.jit(lambda profile: dg.provider_payoffs(market, response, profile))
    step = 1e-5
    for at in np.ndindex(profile.probability.shape):
        ends = [
            payoffs(dg.ProbabilityTable(profile.probability.at[at].add(sign * step)))[at[0]]
            for sign in (1, -1)
        ]
        slope = (ends[0] - ends[1]) / (2 * step)
        assert field.probability[at] == pytest.approx(float(slope), rel=1e-6, abs=1e-8), at


def test_a_batch_of_markets_is_played_at_once():
    randoms = [random_market(seed, 3, 3, 3, 3) for seed in range(5)]
    markets = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *(make(r, [0, 0, 0]) for r in randoms)
    )
    profiles = jax.vmap(random_profile)(markets, jax.random.split(jax.random.key(0), 5))
    found = jax.vmap(lambda market, profile: dg.play(market, dg.Argmax(), profile))(
        markets, profiles
    )
    for at, random in enumerate(randoms):
        values, payoffs = expected(random, profiles.probability[at], [0, 0, 0])
        assert np.asarray(found.utilities[at]) == pytest.approx(values, abs=1e-12)
        assert np.asarray(found.payoffs[at]) == pytest.approx(payoffs, abs=1e-12)


@pytest.mark.parametrize(
    ("field", "shapes"),
    [
        pytest.param("utility", {"utility": (2, 2)}, id="utility without users"),
        pytest.param("objective", {"objective": (2, 2, 2)}, id="objective without providers"),
        pytest.param("prior", {"prior": (3,)}, id="prior of other states"),
        pytest.param("objective", {"objective": (1, 2, 3, 2)}, id="objective of other actions"),
        pytest.param("mass", {"mass": (1,)}, id="mass of other users"),
    ],
)
def test_a_field_of_the_wrong_shape_is_named(field, shapes):
    right = {"prior": (2,), "utility": (2, 2, 2), "objective": (1, 2, 2, 2), "mass": (2,)}
    arrays = {name: np.full(shape, 0.5) for name, shape in (right | shapes).items()}
    Market(**{name: np.full(shape, 0.5) for name, shape in right.items()})
    with pytest.raises(ValueError, match=rf"^Market: .*\b{field}\b"):
        Market(**arrays)
