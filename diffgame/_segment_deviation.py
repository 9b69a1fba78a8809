"""What a provider gains over a learned policy by a table: one best offer per segment of users."""

import equinox as eqx
import jax
import jax.flatten_util as flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from ._ascent import ascend
from ._crowd_game import AbstractCrowdGame
from ._crowd_search import make_offers
from ._game import AbstractGame
from ._play import replace, split
from ._policy import AbstractPolicy
from ._response import AbstractResponse


class SegmentDeviations(eqx.Module):
    """What tables gain, in units of payoff, others' policies held.

    - `payoffs` [providers]: at the profile.
    - `gains` [providers, segments]: of changing the offer to one segment alone, never negative.
    - `tabular_gains` [providers]: of replacing the whole policy by its table, of any sign: negative
        where the policy beats every table that was found.
    - `tables`: policies with leading axes [providers, segments].
    """

    payoffs: Float[Array, " providers"]
    gains: Float[Array, "providers segments"]
    tabular_gains: Float[Array, " providers"]
    tables: AbstractPolicy


def _members(
    labels: Int[Array, " users"], segments: int
) -> tuple[Int[np.ndarray, "segments size"], Bool[np.ndarray, "segments size"]]:
    """Each segment's users, filled up with user 0, and who is meant."""
    own = [np.flatnonzero(np.asarray(labels) == segment) for segment in range(segments)]
    size = max(map(len, own))
    index = np.stack([np.pad(users, (0, size - len(users))) for users in own])
    return index, np.arange(size)[None] < np.array([len(users) for users in own])[:, None]


def segment_deviations(
    game: AbstractGame,
    response: AbstractResponse,
    profile: AbstractPolicy,
    table: AbstractPolicy,
    labels: Int[Array, " users"],
    *,
    segments: int,
    key: Key[Array, ""],
    starts: int = 4,
    steps: int = 100,
    chunk: int = 4096,
) -> SegmentDeviations:
    """Search the best table of every provider: one policy like `table` for each segment.

    The certificate of learned policies: a network that a table beats has not been trained enough,
    or is too small. Projected ascent from `table` and `starts` samples of it, at most `steps`
    steps, on the provider's whole payoff, so `settle` need not be linear. A search: the true gain
    of the best table may be larger.

    **Arguments:**

    - `profile`: the policies to examine. `table`: one policy without a "providers" axis, whose
        observation is ignored or constant within a segment (`Constant`), with its feasible set.
    - `labels`: each user's segment, 0 to `segments` - 1; numbers, not traced.
    - `chunk`: users evaluated at a time.

    **Errors:** ValueError for labels of another shape or out of range; TypeError for games whose
    users affect each other.

    >>> import jax, jax.numpy as jnp
    >>> from diffgame import Constant, Logit, segment_deviations
    >>> from diffgame.games import LogitBertrand
    >>> game = LogitBertrand(jnp.zeros(1), jnp.ones(1), users=jnp.array([1.0, 2.0]))
    >>> profile, table = Constant(jnp.ones(1)), Constant(jnp.array(1.0), 0.0, 5.0)
    >>> labels, key = jnp.array([0, 1]), jax.random.key(0)
    >>> found = segment_deviations(game, Logit(1.0), profile, table, labels, segments=2, key=key)
    >>> print(found.tables.offer.round(3))
    [[1.567 0.784]]
    """
    if isinstance(game, AbstractCrowdGame):
        raise TypeError(
            f"segment_deviations: in {type(game).__name__} an offer to one segment changes the "
            "crowd for everybody; use `deviation_gains` on a profile of tables instead."
        )
    outside = (np.asarray(labels) < 0) | (np.asarray(labels) >= segments)
    if labels.shape != game.mass.shape or outside.any():
        raise ValueError(
            f"segment_deviations: labels must be {game.mass.shape[0]} numbers from 0 to "
            f"{segments - 1}; got shape {labels.shape}, from {labels.min()} to {labels.max()}."
        )
    members = _members(labels, segments)
    return _search(game, response, profile, table, *members, key, starts, steps, chunk)


@eqx.filter_jit
def _search(game, response, profile, table, index, meant, key, starts, steps, chunk):
    own = table.parameters()
    varied, fixed = eqx.partition(table, own)
    flat, unravel = flatten_util.ravel_pytree(varied)
    providers = jax.tree.leaves(split(profile)[0])[0].shape[0]

    def policy_of(point):
        return eqx.combine(unravel(point), fixed)

    def flatten(policy):
        return flatten_util.ravel_pytree(eqx.filter(policy, own))[0]

    def project_flat(point):
        return flatten(policy_of(point).project())

    def add_up(users, weights, offer_of):
        def one(data):
            user, mass = data
            offers = offer_of(make_offers(game, profile, user), user)
            choice = response(game, offers, user)
            parts = game.provider_payoffs(choice, offers, user)
            return jax.tree.map(lambda leaf: mass * leaf, parts)

        each = jax.lax.map(one, (users, weights), batch_size=min(chunk, weights.shape[0]))
        return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), each)

    def as_offered(offers, user):
        del user
        return offers

    everybody = add_up(game.users, game.mass, as_offered)
    base = game.settle(everybody)

    def search(provider, index, meant):
        users = jax.tree.map(lambda leaf: leaf[index], game.users)
        mass = game.mass[index] * meant
        rest = jax.tree.map(jnp.subtract, everybody, add_up(users, mass, as_offered))

        def totals(point):
            policy = policy_of(point)

            def offer_of(offers, user):
                return replace(offers, provider, policy(game.observe(user)))

            return jax.tree.map(jnp.add, rest, add_up(users, mass, offer_of))

        def value(point):
            return game.settle(totals(point))[provider]

        drawn = jax.vmap(lambda number: flatten(table.sample(jax.random.fold_in(key, number))))
        points = jnp.concatenate([flat[None], drawn(jnp.arange(starts))])
        points, values = jax.lax.map(
            lambda start: ascend(value, project_flat, project_flat(start), steps), points
        )
        best = jnp.argmax(jnp.where(jnp.isfinite(values), values, -jnp.inf))
        change = jax.tree.map(jnp.subtract, totals(points[best]), everybody)
        return jnp.maximum(values[best] - base[provider], 0), points[best], change

    gains, points, changes = jax.lax.map(
        lambda provider: jax.lax.map(lambda part: search(provider, *part), (index, meant)),
        jnp.arange(providers),
    )
    moved = jax.tree.map(
        lambda total, change: total[None] + jnp.sum(change, axis=1), everybody, changes
    )
    tabular = jnp.diagonal(jax.vmap(game.settle)(moved))
    tables = jax.vmap(jax.vmap(unravel))(points)
    fixed = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (*points.shape[:2], *leaf.shape)), fixed
    )
    return SegmentDeviations(base, gains, tabular - base, eqx.combine(tables, fixed))
