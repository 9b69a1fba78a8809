"""A segment: users that a provider cannot tell apart, and signals that recommend actions.

Exact computation works with recommendations: a message names one action per user of the segment
(an action profile), and users follow it when it is optimal for them. By the revelation principle
this loses nothing for exact users. A market with observations is a sum of its segments: a
personalized one of segments of one user, an anonymous one a single segment.
"""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._extreme_rays import Rays, find_rays
from .._linear_program import LinearProgram
from .._program_solver import are_few, solve_linear_program

# Margins below this share of a user's payoff range count as ties.
MARGIN = 1e-9
# Payoffs nearer than this share of their range are equal.
EQUAL = 1e-12
_SHORTFALL_PRICE = 1e6


class Segment(eqx.Module):
    """Users who all see the same signal, in the units of the market.

    - `profiles` [profiles, users]: the action that each message recommends to each user.
    - `playable` [profiles]: whether some posterior makes exactly these actions the users'
        choices, ties to the lowest index (assumption G without its failures).
    - `rays`: the extreme posteriors at which each playable profile is optimal, if they are few.
    """

    prior: Float[Array, " states"]
    utility: Float[Array, "users actions states"]
    objective: Float[Array, "providers users actions states"]
    mass: Float[Array, " users"]
    profiles: Int[Array, "profiles users"]
    playable: Bool[Array, " profiles"]
    rays: Rays | None = None

    def obedience(self) -> Float[Array, "profiles rows states"]:
        """Rows that make recommended actions optimal; zero for unplayable profiles."""
        rows = _obedience(self.prior, self.utility, self.profiles)
        return jnp.where(self.playable[:, None, None], rows, 0)

    def user_values(self) -> Float[Array, "users profiles states"]:
        """Each user's expected utility from a recommendation, per conditional probability."""
        users = jnp.arange(self.utility.shape[0])
        return self.utility[users, self.profiles].swapaxes(0, 1) * self.prior[None, None, :]

    def provider_values(self) -> Float[Array, "providers users profiles states"]:
        """What each user's recommended action is worth, mass included, likewise."""
        users = jnp.arange(self.utility.shape[0])
        picked = self.objective[:, users, self.profiles].swapaxes(1, 2)
        return jnp.einsum("kjps,j,s->kjps", picked, self.mass, self.prior)


def action_profiles(users: int, actions: int) -> Int[np.ndarray, "profiles users"]:
    """All profiles of actions, the last user's action changing fastest."""
    return np.array(list(itertools.product(range(actions), repeat=users)))


def unit_utility(utility: Float[Array, "*users actions states"]):
    """Utilities from 0 to 1, user by user, and the length of each range (1 where it is 0)."""
    low = jnp.min(utility, axis=(-2, -1), keepdims=True)
    size = jnp.max(utility, axis=(-2, -1), keepdims=True) - low
    size = jnp.where(size > 0, size, 1)
    return (utility - low) / size, size[..., 0, 0]


def _obedience(
    prior: Float[Array, " states"],
    utility: Float[Array, "users actions states"],
    profiles: Int[Array, "profiles users"],
) -> Float[Array, "profiles rows states"]:
    """Rows that make every user's recommended action as good as each other one, in order."""
    users, actions, states = utility.shape
    picked = utility[jnp.arange(users), profiles]
    rows = picked[:, :, None] - utility[None]
    # Equal payoffs may differ by a rounding error once compiled; scaled up by the solver, that
    # row would forbid a recommendation that nobody minds.
    rows = jnp.where(jnp.abs(rows) > EQUAL, rows, 0) * prior[None, None, None]
    # The row of an action against itself says nothing: keep the others.
    others = jnp.arange(actions - 1)[None, None, :]
    others = others + (others >= profiles[:, :, None])
    kept = jnp.take_along_axis(rows, others[..., None], axis=2)
    return kept.reshape(len(profiles), users * (actions - 1), states)


def _leads(
    prior: Float[Array, " states"],
    utility: Float[Array, "users actions states"],
    profiles: Int[Array, "profiles users"],
    rays: Rays,
) -> Bool[Array, " profiles"]:
    """Whether each lower action is beaten at some ray of a profile: where all mix, all are."""
    actions = utility.shape[1]
    _, size = unit_utility(utility)
    mass = sum(weight * part for weight, part in zip(prior, rays.ray, strict=True))
    possible = rays.exists & (mass > 0)
    leads = jnp.any(possible, axis=0)
    for at, rows in enumerate(_obedience(prior, utility, profiles).swapaxes(0, 1)):
        user, other = divmod(at, actions - 1)
        lead = sum(rows[None, :, s] * part for s, part in enumerate(rays.ray))
        beaten = jnp.any(possible & (lead > MARGIN * size[user] * mass), axis=0)
        leads = leads & (beaten | (other >= profiles[:, user]))
    first = jnp.all(profiles == 0, axis=1)
    return jnp.where(jnp.any(prior > 0), leads, first)


def _rays(prior, utility, profiles) -> Rays | None:
    """The rays of the obedience rows, if they are few."""
    users, actions, states = utility.shape
    if not are_few(len(profiles), users * (actions - 1), states):
        return None
    return find_rays(_obedience(prior, utility, profiles))


def playable_profiles(
    prior: Float[Array, " states"],
    utility: Float[Array, "users actions states"],
    profiles: Int[Array, "profiles users"],
) -> Bool[Array, " profiles"]:
    """Which profiles the users play at some posterior, ties to the lowest action.

    Every lower action must be beaten by more than 1e-9 of the user's range at some posterior where
    all users' actions are optimal; states of prior zero are left out. Users who never occur have no
    other states and play the first actions: everything is a tie.
    """
    rays = _rays(prior, utility, profiles)
    if rays is not None:
        return _leads(prior, utility, profiles, rays)
    return _playable_by_programs(prior, utility, profiles)


def _playable_by_programs(
    prior: Float[Array, " states"],
    utility: Float[Array, "users actions states"],
    profiles: Int[Array, "profiles users"],
) -> Bool[Array, " profiles"]:
    """The largest margin over all lower actions at once: one linear program per profile."""
    utility, _ = unit_utility(utility)
    users, actions, states = utility.shape
    rows = users * actions
    possible = prior > 0

    def margin(profile):
        chosen = utility[jnp.arange(users), profile]
        lead = (chosen[:, None] - utility).reshape(rows, states)
        lower = (jnp.arange(actions)[None, :] < profile[:, None]).ravel()
        # lead @ posterior - margin * lower - slack + shortfall = 0; margin - 2 + spare = 0
        coupling = jnp.concatenate([lead, jnp.ones((1, states)), jnp.zeros((1, states))])
        strict = jnp.concatenate([-lower.astype(lead.dtype), jnp.zeros(1), jnp.ones(1)])
        slack = jnp.concatenate([-jnp.eye(rows), jnp.zeros((2, rows))])
        shortfall = -slack
        spare = jnp.concatenate([jnp.zeros(rows + 1), jnp.ones(1)])
        program = LinearProgram(
            jnp.where(possible, 0.0, 1.0)[None],
            jnp.concatenate(
                [jnp.zeros(rows), jnp.full(rows, _SHORTFALL_PRICE), jnp.array([-1.0, 0.0])]
            ),
            jnp.zeros((1, 0, states)),
            jnp.where(possible[None, None, :], coupling[:, None, :], 0),
            jnp.concatenate([slack, shortfall, strict[:, None], spare[:, None]], axis=1),
            # The margin is shifted by one so that it may come out negative.
            jnp.concatenate([-lower.astype(lead.dtype), jnp.array([1.0, 2.0])]),
        )
        primal, _, _ = solve_linear_program(program)
        return primal.z[-2] - 1, jnp.sum(primal.z[rows : 2 * rows])

    margins, shortfalls = jax.vmap(margin)(profiles)
    first = jnp.all(profiles == 0, axis=1)
    return jnp.where(jnp.any(possible), (margins > MARGIN) & (shortfalls <= MARGIN), first)


def make_segment(prior, utility, objective, mass, profiles=None, playable=None) -> Segment:
    """A segment of users with their playable profiles, or those given; arrays as in `Market`."""
    if profiles is None:
        profiles = action_profiles(utility.shape[0], utility.shape[1])
    profiles = jnp.asarray(profiles)
    rays = _rays(prior, utility, profiles)
    if playable is None and rays is not None:
        playable = _leads(prior, utility, profiles, rays)
    elif playable is None:
        playable = _playable_by_programs(prior, utility, profiles)
    rays = None if rays is None else rays.only(playable)
    return Segment(prior, utility, objective, mass, profiles, playable, rays)
