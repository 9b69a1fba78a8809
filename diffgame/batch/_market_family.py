"""Random markets by their number: what is drawn, and how well providers know their users."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Scalar

from ..market._segment import unit_utility


@dataclasses.dataclass(frozen=True)
class MarketFamily:
    """How one random market is drawn; all draws independent, utilities scaled to [0, 1].

    The prior and each user's weights are Dirichlet; objectives are uniform on [0, 1]; a user wants
    the weighted mix of the objectives, and a share of something else that is uniform on the range
    `misalignment` (0: weak alignment is exact). Masses are uniform on the range `mass`.

    - `groups`: sizes of the groups of users that providers can tell apart, the largest first; who
        is in which is drawn at random. All of size one: personalized. A single one: anonymous.
    - `temperature`: of quantal users, uniform on this range, in units of their utility; (0, 0):
        exact users.
    """

    providers: int
    actions: int
    states: int
    prior: float
    weights: float
    misalignment: tuple[float, float]
    mass: tuple[float, float]
    groups: tuple[int, ...]
    temperature: tuple[float, float]

    @property
    def users(self) -> int:
        """How many."""
        return sum(self.groups)

    @property
    def quantal(self) -> bool:
        """Whether users have a temperature."""
        return self.temperature[1] > 0

    @property
    def messages(self) -> int:
        """How many a signal has: one per profile of actions of a group, or enough posteriors."""
        if self.quantal:
            return max(self.states + 1, self.actions)
        return self.actions ** max(self.groups)


class Drawn(NamedTuple):
    """A market's data; arrays as in `Market`, `observation` [users] the number of her group."""

    prior: Float[Array, " states"]
    utility: Float[Array, "users actions states"]
    objective: Float[Array, "providers users actions states"]
    mass: Float[Array, " users"]
    observation: Int[Array, " users"]
    misalignment: Scalar
    temperature: Scalar


def _uniform(key: Key[Array, ""], span: tuple[float, float], shape: tuple[int, ...] = ()) -> Array:
    low, high = span
    return low + (high - low) * jax.random.uniform(key, shape)


def draw_market(family: MarketFamily, key: Key[Array, ""]) -> Drawn:
    """One market of the family."""
    keys = jax.random.split(key, 8)
    shape = family.users, family.actions, family.states
    prior = jax.random.dirichlet(keys[0], jnp.full(family.states, family.prior))
    objective, _ = unit_utility(jax.random.uniform(keys[1], (family.providers, *shape)))
    weights = jnp.full(family.providers, family.weights)
    weights = jax.random.dirichlet(keys[2], weights, (family.users,))
    mix, _ = unit_utility(jnp.einsum("ji,ijas->jas", weights, objective))
    other, _ = unit_utility(jax.random.uniform(keys[3], shape))
    share = _uniform(keys[4], family.misalignment)
    utility, _ = unit_utility((1 - share) * mix + share * other)
    mass = _uniform(keys[5], family.mass, (family.users,))
    labels = jnp.repeat(
        jnp.arange(len(family.groups)),
        jnp.array(family.groups),
        total_repeat_length=family.users,
    )
    # Numbered as they come where there is nothing to draw.
    mixed = 1 < len(family.groups) < family.users
    observation = jax.random.permutation(keys[6], labels) if mixed else labels
    heat = _uniform(keys[7], family.temperature)
    return Drawn(prior, utility, objective, mass, observation, share, heat)
