"""Personalized prices learned by a network, against the best price of every single buyer.

    python examples/learned_pricing.py [--users 100000] [--steps 4000] [--firms 1]

A buyer of value v and price sensitivity s buys from a firm at price p with logit probability,
utility v - s p against 0 for buying nothing. Firms see (v, s) and post a price: a network of both.
With one firm the best price of every buyer is known in closed form, s p = 1 + W(exp(v - 1)), with
Lambert's W, so the learned profit can be held against the best one. With more firms it is held
against the best table of prices, one per segment of buyers.
"""

import argparse

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import diffgame as dg


class PersonalizedPricing(dg.AbstractGame):
    """Logit buyers of type (v, s) and firms that see the type. No costs."""

    users: jax.Array
    mass: jax.Array
    choice_set: dg.Simplex

    def observe(self, user):
        """Firms see everything about a buyer."""
        return user

    def user_utility(self, choice, offers, user):
        """Value minus price of what she buys; the last option is nothing."""
        value, sensitivity = user
        return jnp.sum(choice[:-1] * (value - sensitivity * offers[:, 0]))

    def provider_payoffs(self, choice, offers, user):
        """Price times the probability of a sale."""
        return offers[:, 0] * choice[:-1]


class PriceNetwork(eqx.Module):
    """A small network whose price is positive."""

    layers: eqx.nn.MLP

    def __init__(self, key):
        self.layers = eqx.nn.MLP(2, 1, 32, 2, jax.nn.gelu, jax.nn.softplus, key=key)

    def __call__(self, user):
        """The price for a buyer of this type."""
        value, sensitivity = user
        return self.layers(jnp.stack([value, jnp.log(sensitivity)]))


def make_game(users: int, firms: int, key: jax.Array) -> PersonalizedPricing:
    """Values from 0 to 3, sensitivities from 1/2 to 2, one unit of mass in total."""
    value_key, sensitivity_key = jax.random.split(key)
    value = jax.random.uniform(value_key, (users,), minval=0.0, maxval=3.0)
    sensitivity = 2 ** jax.random.uniform(sensitivity_key, (users,), minval=-1.0, maxval=1.0)
    types = jnp.stack([value, sensitivity], axis=1)
    return PersonalizedPricing(types, jnp.full(users, 1 / users), dg.Simplex(firms + 1))


def best_profit(game: PersonalizedPricing) -> jax.Array:
    """A monopolist's profit when every buyer gets her best price: W(exp(v - 1)) / s."""
    value, sensitivity = game.users.T

    def improve(_, w):
        return w - (w + jnp.log(w) - (value - 1)) / (1 + 1 / w)

    w = jax.lax.fori_loop(0, 50, improve, jnp.maximum(jnp.exp(value - 1) / 4, 0.1))
    return jnp.sum(game.mass * w / sensitivity)


def main(arguments: list[str] | None = None) -> None:
    """Train, compare and print."""
    parser = argparse.ArgumentParser(description="Learned personalized prices.")
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--firms", type=int, default=1)
    options = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", True)

    game = make_game(options.users, options.firms, jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), options.firms)
    profile = dg.Network(eqx.filter_vmap(PriceNetwork)(keys))
    schedule = optax.cosine_decay_schedule(3e-3, options.steps)
    optim = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    key = jax.random.key(2)
    found = dg.train(game, dg.Logit(1.0), profile, optim, key=key, steps=options.steps, batch=512)
    payoffs = dg.play(game, dg.Logit(1.0), found.profile, chunk=10_000).payoffs
    print("profits of the learned policies:", payoffs.round(6))
    if options.firms == 1:
        best = best_profit(game)
        print(
            f"best profit, buyer by buyer: {best:.6f}; short of it by {1 - payoffs[0] / best:.3%}"
        )

    value, sensitivity = game.users.T
    bins = jnp.floor(value / 3 * 5).astype(int) * 4
    labels = bins + jnp.floor(2 * (jnp.log2(sensitivity) + 1)).astype(int).clip(0, 3)
    table = dg.Constant(jnp.ones(1), 0.0, 10.0)
    tables = dg.segment_deviations(
        game, dg.Logit(1.0), found.profile, table, labels, segments=20, key=key, starts=1, steps=20
    )
    share = tables.tabular_gains / tables.payoffs
    print("best table of 20 prices instead, gain per profit:", [f"{x:.3%}" for x in share])
    print("largest gain in one segment per profit:", f"{(tables.gains.max() / payoffs.min()):.4%}")


if __name__ == "__main__":
    main()
