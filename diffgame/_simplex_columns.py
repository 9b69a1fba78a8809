"""The columns of block programs, for the simplex method. All arrays end in an axis of lanes."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._lanes import take


def largest(array: Array, axis: int | tuple[int, ...]) -> Array:
    """The size of the largest entries along an axis, 1 where all are 0."""
    top = jnp.max(jnp.abs(array), axis=axis, initial=0.0)
    return jnp.where(top > 0, top, 1)


class Columns(eqx.Module):
    """Minimise cost @ x + slack_cost @ z under rows of the blocks and rows that tie them together.

        sum sums * x[:, state] + ...            = target    for every state, where there are `sums`
        sum coupling * x + slack_coupling @ z   = target
        within[block] @ x[block] - surplus      = 0         for every block
        x, z, surplus >= 0

    Columns are numbered through x, z and surplus, rows in the order above. Only what may differ
    from 0 is stored and multiplied.
    """

    cost: Float[Array, "blocks states lanes"]
    slack_cost: Float[Array, "slacks lanes"]
    within: Float[Array, "blocks inequalities states lanes"]
    coupling: Float[Array, "coupling blocks states lanes"]
    slack_coupling: Float[Array, "ties slacks lanes"]
    target: Float[Array, "ties lanes"]
    sums: Float[Array, "blocks lanes"] | None = None

    @property
    def sizes(self) -> tuple[int, int, int]:
        """How many columns are x, how many z, how many surplus."""
        blocks, inequalities, states, _ = self.within.shape
        return blocks * states, len(self.slack_cost), blocks * inequalities

    @property
    def lanes(self) -> int:
        return self.target.shape[-1]

    def reduce_costs(
        self, prices: Float[Array, "rows lanes"], second: Bool[Array, " lanes"]
    ) -> Float[Array, "columns lanes"]:
        """Cost less what the prices of rows make a column worth; the first phase costs nothing."""
        blocks, inequalities, states, lanes = self.within.shape
        ties = len(self.target)
        own = prices[ties:].reshape(blocks, inequalities, lanes)
        x = jnp.where(second[None, None], self.cost, 0)
        if self.sums is not None:
            x = x - self.sums[:, None] * prices[None, :states]
        for price, row in zip(prices[ties - len(self.coupling) : ties], self.coupling, strict=True):
            x = x - price[None, None] * row
        for k in range(inequalities):
            x = x - own[:, k, None] * self.within[:, k]
        z = jnp.where(second[None], self.slack_cost, 0)
        if len(z):
            for price, row in zip(prices[:ties], self.slack_coupling, strict=True):
                z = z - price[None] * row
        return jnp.concatenate([x.reshape(blocks * states, lanes), z, prices[ties:]])

    def price(self, column: Int[Array, " lanes"]) -> Float[Array, " lanes"]:
        """The cost of one column per lane."""
        x, _, surplus = self.sizes
        costs = [
            self.cost.reshape(x, self.lanes),
            self.slack_cost,
            jnp.zeros((surplus, self.lanes)),
        ]
        return take(jnp.concatenate(costs), column)

    def image(
        self, column: Int[Array, " lanes"], work: Float[Array, "n places lanes"]
    ) -> Float[Array, "n lanes"]:
        """The product of the first places of `work` and one column per lane."""
        _, inequalities, states, lanes = self.within.shape
        x, slacks, surplus = self.sizes
        ties = len(self.target)
        entries = [jnp.zeros(lanes)] * ties
        if x:
            is_x, inside = column < x, jnp.minimum(column, x - 1)
            coupled = [take(row.reshape(x, lanes), inside) for row in self.coupling]
            if self.sums is not None:
                own = take(self.sums, inside // states)
                coupled = [jnp.where(inside % states == s, own, 0) for s in range(states)] + coupled
            entries = [jnp.where(is_x, entry, 0) for entry in coupled]
        if slacks:
            is_z = (column >= x) & (column < x + slacks)
            inside = jnp.clip(column - x, 0, slacks - 1)
            entries = [
                entry + jnp.where(is_z, take(row, inside), 0)
                for entry, row in zip(entries, self.slack_coupling, strict=True)
            ]
        terms = [entry[None] * work[:, row] for row, entry in enumerate(entries)]
        if surplus:
            number = column - x - slacks
            block = jnp.where(
                number >= 0, number // inequalities, jnp.minimum(column, x - 1) // states
            )
            mine = take(
                self.within.swapaxes(0, 1).reshape(inequalities, x, lanes),
                jnp.minimum(column, x - 1),
            )
            places = ties + block[None] * inequalities + jnp.arange(inequalities)[:, None]
            taken = jnp.take_along_axis(work, places[None], axis=1, mode="promise_in_bounds")
            for k in range(inequalities):
                is_own = (number >= 0) & (number % inequalities == k)
                entry = jnp.where(column < x, mine[k], jnp.where(is_own, -1.0, 0.0))
                terms.append(entry[None] * taken[:, k])
        return sum(terms[1:], terms[0])

    def spread(self, index: Int[Array, "rows lanes"], values: Float[Array, "rows lanes"]):
        """x, z and surplus of the values of basic columns; those after the last are left out."""
        x, slacks, surplus = self.sizes
        blocks, _, states, lanes = self.within.shape
        flat = jnp.zeros((x + slacks + surplus, lanes))
        flat = flat.at[index, jnp.arange(lanes)[None]].add(values, mode="drop")
        return (
            flat[:x].reshape(blocks, states, lanes),
            flat[x : x + slacks],
            flat[x + slacks :],
        )

    def missing(self, x, z, surplus) -> Float[Array, "rows lanes"]:
        """By how much the rows are not met."""
        met = jnp.sum(self.coupling * x[None], axis=(1, 2))
        if self.sums is not None:
            met = jnp.concatenate([jnp.sum(self.sums[:, None] * x, axis=0), met])
        met = met + jnp.sum(self.slack_coupling * z[None], axis=1)
        own = jnp.sum(self.within * x[:, None], axis=2).reshape(surplus.shape)
        return jnp.concatenate([self.target - met, surplus - own])
