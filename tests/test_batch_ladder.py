"""Rungs of a ladder: precision, statuses, settings out of range."""

import dataclasses
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from diffgame import AbstractGame, Automatic, Box, Concave, Constant, Status
from diffgame.batch import CertificateSettings, Rung, default_ladder, solve_many
from diffgame.batch._search import STATUSES, Search, begin
from diffgame.batch._source import Made
from diffgame.games import Cournot

from .batches import CERTIFICATE, LADDER, RESPONSE, make

COUNT = 64
ROUGH = Rung("rough", Automatic(most_parameters=0), 1e-3, 200, precision="float32")


def run(ladder, **settings):
    settings = {"certificate": CERTIFICATE} | settings
    return solve_many(make, RESPONSE, count=COUNT, key=jax.random.key(3), ladder=ladder, **settings)


@pytest.fixture(scope="module")
def straight():
    return run(LADDER)


@pytest.fixture(scope="module")
def rough():
    return run((ROUGH, *LADDER))


def test_a_rough_search_ends_at_the_same_certified_equilibria(straight, rough):
    assert straight.counts() == rough.counts() == {"certified": COUNT}
    np.testing.assert_allclose(rough.profiles.offer, straight.profiles.offer, atol=1e-5)
    np.testing.assert_allclose(rough.payoffs, straight.payoffs, atol=1e-5)


def test_what_a_rough_search_finds_is_finished_in_float64(rough):
    assert np.all(rough.rung == 1)
    assert np.all(rough.residual <= LADDER[0].tolerance)
    for values in (rough.residual, rough.gain, rough.payoffs, rough.profiles.offer):
        assert values.dtype == np.float64
    # A residual that only float64 can tell from 0: rounding alone is 1e-7 in float32.
    assert np.median(rough.residual[rough.residual > 0]) < 1e-6
    # Prices are no numbers of float32.
    prices = rough.profiles.offer
    assert np.all(prices.astype(np.float32) != prices)


def test_a_rough_search_is_in_float32_throughout():
    limits = jnp.asarray(1e-3), jnp.asarray(10), jnp.asarray(5)
    search = Search(
        Made(make, jax.random.key(0)), RESPONSE, Automatic(most_parameters=0), *limits, "float32"
    )
    carry = eqx.filter_eval_shape(begin, search, jnp.array(0), None)
    floats = [leaf.dtype for leaf in jax.tree.leaves(carry) if leaf.dtype.kind == "f"]
    assert len(floats) >= 3
    assert set(floats) == {np.dtype(np.float32)}
    text = str(jax.make_jaxpr(lambda index: begin(search, index, None))(jnp.array(0)))
    # Games are drawn in float64 and cast; what follows the last cast is the search.
    after = text[text.rindex("new_dtype=float32") :]
    assert len(re.findall(r"f32\[\d", after)) > 3
    assert re.findall(r"f64\[\d", after) == []


def test_concave_users_are_searched_roughly_too():
    def duopoly(index, key):
        del index
        return Cournot(cost=jax.random.uniform(key, (2,)) / 4), Constant(jnp.zeros(2))

    ladder = (ROUGH, *default_ladder()[:1])
    found = solve_many(
        duopoly, Concave(), count=8, key=jax.random.key(0), ladder=ladder, certificate=None
    )
    assert found.counts() == {"stationary_only": 8}


class Hoard(AbstractGame):
    """A buyer whose second unit is worth more than the first: all or nothing, never in between."""

    users: Array
    mass: Array
    choice_set: Box

    def user_utility(self, choice, offers, user):
        return jnp.sum(choice * (choice - offers[0]))

    def provider_payoffs(self, choice, offers, user):
        return offers * jnp.sum(choice)


@pytest.mark.parametrize("certificate", [None, CERTIFICATE], ids=["searched", "certified"])
def test_a_utility_that_is_not_concave_is_named(certificate):
    def hoard(index, key):
        del index, key
        game = Hoard(jnp.ones(1), jnp.ones(1), Box(jnp.zeros(1), jnp.ones(1)))
        return game, Constant(jnp.array([1.0]), 1.0, 1.0)

    found = solve_many(
        hoard,
        Concave(),
        count=1,
        lanes=1,
        key=jax.random.key(0),
        ladder=LADDER,
        certificate=certificate,
    )
    assert found.counts() == {"not_concave": 1}
    assert not found.certified[0]


def test_every_status_has_a_code():
    assert set(Status._name_to_item) == set(STATUSES)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"precision": "float16"}, "precision is 'float16'; choose from float64, float32"),
        ({"precision": "double"}, "precision is 'double'"),
    ],
)
def test_precisions_out_of_range_are_refused(settings, problem):
    with pytest.raises(ValueError, match=problem):
        dataclasses.replace(ROUGH, **settings)


def test_a_ladder_that_ends_in_float32_is_refused():
    with pytest.raises(ValueError, match="the last rung 'rough' is in float32; add one in float64"):
        run((ROUGH,))
    with pytest.raises(ValueError, match="the ladder is empty"):
        run((), certificate=CertificateSettings())
