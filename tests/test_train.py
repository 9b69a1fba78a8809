"""Learned policies: what random batches find, and what tables show of it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from jaxtyping import Array, Float

import diffgame as dg
from diffgame._train import sample_users
from diffgame.games import Adoption, LogitBertrand

LOGIT = dg.Logit(1.0)


class PersonalPrices(dg.AbstractGame):
    """One seller who sees what a product is worth to a buyer; logit demand, no costs."""

    users: Float[Array, " users"]
    mass: Float[Array, " users"]
    choice_set: dg.Simplex

    def observe(self, user):
        return user

    def user_utility(self, choice, offers, user):
        return choice[0] * (user - offers[0, 0])

    def provider_payoffs(self, choice, offers, user):
        return offers[:, 0] * choice[0]


class Line(eqx.Module):
    """The smallest network: price = softplus of a polynomial of the value."""

    weights: Float[Array, "3"]

    def __call__(self, user):
        return jax.nn.softplus(self.weights @ jnp.stack([jnp.ones(()), user, user**2]))[None]


VALUES = jnp.linspace(0.0, 3.0, 1_000)
GAME = PersonalPrices(VALUES, jnp.full(1_000, 1e-3), dg.Simplex(2))
START = dg.Network(Line(jnp.zeros((1, 3))))
# Lambert: the best price of a buyer of value v is 1 + W(exp(v - 1)), its profit W(exp(v - 1)).
BEST = np.real(scipy.special.lambertw(np.exp(np.asarray(VALUES) - 1)))


def learn(seed: int, **settings):
    optim = optax.adam(optax.cosine_decay_schedule(0.05, 400))
    return dg.train(GAME, LOGIT, START, optim, key=jax.random.key(seed), batch=64, **settings)


def profit(profile) -> float:
    return float(dg.play(GAME, LOGIT, profile).payoffs[0])


@pytest.mark.parametrize("seed", [0, 1], ids="seed={}".format)
def test_a_network_learns_everybodys_best_price(seed: int):
    found = learn(seed, steps=400)
    assert profit(START) < 0.95 * BEST.mean()
    assert BEST.mean() * (1 - 1e-3) <= profit(found.profile) <= BEST.mean() + 1e-12
    assert found.field_norms.shape == (400,)


def test_a_run_is_a_function_of_its_seed_and_tells_how_far_it_is():
    told = []
    first = learn(3, steps=150, progress=lambda *step: told.append(step))
    again, other = learn(3, steps=150), learn(4, steps=150)
    np.testing.assert_array_equal(first.profile.module.weights, again.profile.module.weights)
    assert (first.profile.module.weights != other.profile.module.weights).any()
    assert told[-1][0] == 150
    assert len(told) == 150


def test_batches_estimate_the_field_without_bias():
    exact = dg.pseudogradient(GAME, LOGIT, START).module.weights

    @jax.jit
    def estimate(key):
        game = sample_users(GAME, jax.random.randint(key, (64,), 0, 1_000))
        return dg.pseudogradient(game, LOGIT, START).module.weights

    drawn = jax.vmap(estimate)(jax.random.split(jax.random.key(0), 2_000))
    error = jnp.std(drawn, axis=0) / 2_000**0.5
    assert (jnp.abs(jnp.mean(drawn, axis=0) - exact) <= 4 * error).all()
    assert (error > 0).all()


def test_a_field_that_is_not_finite_stops_the_run_and_names_the_step():
    broken = eqx.tree_at(lambda game: game.users, GAME, VALUES.at[0].set(jnp.nan))
    with pytest.raises(FloatingPointError, match=r"not finite at step \d+; lower the learning"):
        dg.train(broken, LOGIT, START, optax.sgd(0.1), key=jax.random.key(0), steps=50, batch=512)


@pytest.mark.parametrize(("steps", "batch"), [(0, 1), (1, 0)])
def test_sizes_out_of_range(steps: int, batch: int):
    with pytest.raises(ValueError, match="both must be at least 1"):
        dg.train(
            GAME, LOGIT, START, optax.sgd(0.1), key=jax.random.key(0), steps=steps, batch=batch
        )


LABELS = jnp.minimum((VALUES / 3 * 4).astype(int), 3)
TABLE = dg.Constant(jnp.ones(1), 0.0, 10.0)


def tables(profile, segments: int = 4, labels=LABELS):
    return dg.segment_deviations(
        GAME, LOGIT, profile, TABLE, labels, segments=segments, key=jax.random.key(0), starts=1
    )


def test_tables_beat_what_was_not_trained_and_not_what_was():
    before, after = tables(START), tables(learn(0, steps=400).profile)
    assert before.tabular_gains[0] > 0.05
    np.testing.assert_allclose(before.payoffs[0], profit(START), rtol=1e-12)
    # Gains in disjoint segments add up where payoffs do.
    np.testing.assert_allclose(before.gains.sum(), before.tabular_gains[0], rtol=1e-9)
    assert after.tabular_gains[0] < 0
    np.testing.assert_allclose(after.gains, 0, rtol=0, atol=1e-5)


def test_the_best_table_is_the_best_price_of_every_segment():
    import scipy.optimize

    found = tables(START)
    for segment in range(4):
        own = np.asarray(VALUES)[np.asarray(LABELS) == segment]

        def loss(price, own=own):
            return -np.sum(price / (1 + np.exp(price - own)))

        best = scipy.optimize.minimize_scalar(loss, bounds=(0, 10), options={"xatol": 1e-10})
        assert abs(found.tables.offer[0, segment, 0] - best.x) <= 1e-5


def test_segments_count_in_payoffs_that_are_no_sums():
    class Taxed(PersonalPrices):
        def settle(self, totals):
            return totals - totals**2 / 4

    taxed = Taxed(VALUES, GAME.mass, GAME.choice_set)
    found = dg.segment_deviations(
        taxed, LOGIT, START, TABLE, 0 * LABELS, segments=1, key=jax.random.key(0), starts=1
    )
    alone = tables(START, 1, 0 * LABELS)
    before, after = float(alone.payoffs[0]), float(alone.payoffs[0] + alone.gains[0, 0])
    expected = after - after**2 / 4 - (before - before**2 / 4)
    np.testing.assert_allclose(found.gains[0, 0], expected, rtol=1e-6)


def test_labels_out_of_range_and_games_with_crowds_are_refused():
    with pytest.raises(ValueError, match="numbers from 0 to 2; got shape"):
        tables(START, 3)
    game = Adoption(jnp.array(3.0), jnp.zeros(1))
    with pytest.raises(TypeError, match="changes the crowd for everybody"):
        dg.segment_deviations(
            game,
            LOGIT,
            dg.Constant(jnp.ones(1)),
            TABLE,
            jnp.zeros(game.mass.shape, int),
            segments=1,
            key=jax.random.key(0),
        )


def test_two_firms_meet_at_the_equilibrium_of_their_prices():
    game = LogitBertrand(jnp.zeros(2), jnp.ones(2), jnp.linspace(0.9, 1.1, 500))
    exact = dg.solve(game, LOGIT, dg.Constant(jnp.ones(2))).profile.offer
    optim = optax.sgd(optax.linear_schedule(3.0, 0.01, 400))
    start, key = dg.Constant(jnp.ones(2)), jax.random.key(0)
    found = dg.train(game, LOGIT, start, optim, key=key, steps=400, batch=64)
    np.testing.assert_allclose(found.profile.offer, exact, rtol=0, atol=0.02)
