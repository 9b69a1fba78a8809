"""Nash equilibria of two players by complementary pivoting, many games in lockstep."""

import functools

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._lanes import over_lanes, stream_lanes
from .._ties import infinitesimals
from ._check import check_nash
from ._nash import NashEquilibrium, NashStatus, judged
from ._normal_form import NormalForm

# Entries up to this size are rounding errors, not pivots: payoffs lie in [1, 2].
_SMALLEST_PIVOT = 1e-10
_TIE = 1e-11
# How many games advance together, and how few of them may run on before new ones join.
_WIDTH, _STAY = 96, 32


# In place of the label that enters next, why none does.
_ENDED, _STUCK, _TOO_LONG = -1, -2, -3


class _Dictionary(eqx.Module):
    """basic = right - table @ nonbasic, with a second right side that decides ties.

    `rows` holds [table, right, tie]; `basic` and `nonbasic` the labels of the variables: label k
    is the k-th action of both players counted through, or the slack of its constraint.
    """

    rows: Float[Array, "basic columns lanes"]
    basic: Int[Array, "basic lanes"]
    nonbasic: Int[Array, "nonbasic lanes"]

    def enter(self, label):
        """Let a nonbasic variable become basic; also the label that left, or why none did.

        Where `label` is none, but such a reason, it stays and nothing changes.
        """
        # What the large update reads ends in a reduction, a gather or a division: XLA computes
        # these once, anything cheaper anew for each of its entries.
        height, width = len(self.basic), len(self.nonbasic)
        row_numbers = jnp.arange(height, dtype=label.dtype)[:, None]
        column_numbers = jnp.arange(width + 2, dtype=label.dtype)[:, None]
        place = jnp.where(self.nonbasic == label[None], column_numbers[:width], width + 2)
        place = jnp.min(place, axis=0)
        column = jnp.take_along_axis(self.rows, place[None, None], axis=1, mode="clip")[:, 0]
        usable = (column > _SMALLEST_PIVOT) & (label >= 0)[None]
        inverse = 1 / jnp.where(usable, column, 0)
        usable = inverse < jnp.inf
        ratio = jnp.where(usable, self.rows[:, width] * inverse, jnp.inf)
        least = jnp.min(ratio, axis=0)
        tied = usable & (ratio <= (least + _TIE * (1 + jnp.abs(least)))[None])
        # Among ties the infinitesimal perturbation decides: no game is degenerate under it.
        second = jnp.where(tied, self.rows[:, width + 1] * inverse, jnp.inf)
        first = tied & (second <= jnp.min(second, axis=0, keepdims=True))
        row = jnp.min(jnp.where(first, row_numbers, height), axis=0)
        moves = row < height
        here, there = row_numbers == row[None], column_numbers == place[None]
        out = jnp.take_along_axis(self.basic, row[None], axis=0, mode="clip")[0]
        pivot = jnp.take_along_axis(column, row[None], axis=0, mode="clip")[0]
        old_row = jnp.take_along_axis(self.rows, row[None, None], axis=0, mode="clip")[0]
        # There the old entry is the pivot, the new one its inverse.
        divisor = jnp.where(there, (pivot * pivot)[None], pivot[None])
        pivot_row = old_row / jnp.where(moves[None], divisor, jnp.inf)
        factor = jnp.where(here, -1, column)
        after = _Dictionary(
            jnp.where(here[:, None] | there[None], 0, self.rows)
            - factor[:, None] * pivot_row[None],
            jnp.where(here, label[None], self.basic),
            jnp.where(there[:width], out[None], self.nonbasic),
        )
        return after, jnp.where(label < 0, label, jnp.where(moves, out, _STUCK))


class _Search(eqx.Module):
    """Both players' dictionaries and which label enters next, or why none does."""

    columns_play: _Dictionary
    rows_play: _Dictionary
    entering: Int[Array, " lanes"]
    pivots: Int[Array, " lanes"]


def _start(label: int, first, second) -> _Search:
    """Tables [rows, columns, lanes] with payoffs in [1, 2]."""
    rows, columns, lanes = first.shape

    def dictionary(table, basic, nonbasic, perturbation):
        count = len(table)
        sides = jnp.stack([jnp.ones(count), jnp.asarray(perturbation)], axis=1)
        sides = jnp.broadcast_to(sides[..., None].astype(table.dtype), (count, 2, lanes))
        labels = (jnp.broadcast_to(own[:, None], (len(own), lanes)) for own in (basic, nonbasic))
        return _Dictionary(jnp.concatenate([table, sides], axis=1), *labels)

    labels = jnp.arange(rows + columns, dtype=jnp.int32)
    mine, theirs = labels[:rows], labels[rows:]
    drawn = infinitesimals(rows + columns)
    return _Search(
        dictionary(first, mine, theirs, drawn[:rows]),
        dictionary(jnp.swapaxes(second, 0, 1), theirs, mine, drawn[rows:]),
        jnp.full(lanes, label, jnp.int32),
        jnp.zeros(lanes, int),
    )


def _pivot_twice(label: int, max_pivots: int, search: _Search) -> _Search:
    """The player whose label was dropped pivots, then the other, unless the first ended it."""
    own = label < len(search.columns_play.basic)
    first, second = search.rows_play, search.columns_play
    if not own:
        first, second = second, first
    first, out = first.enter(search.entering)
    between = jnp.where(out == label, _ENDED, out)
    second, out = second.enter(between)
    pivots = search.pivots + (search.entering >= 0) + (between >= 0)
    entering = jnp.where(out == label, _ENDED, out)
    entering = jnp.where((entering >= 0) & (pivots >= max_pivots), _TOO_LONG, entering)
    if not own:
        first, second = second, first
    return _Search(second, first, entering, pivots)


def _weights(search: _Search) -> Float[Array, "labels lanes"]:
    """Probabilities of both players' actions up to a factor each."""
    rows = len(search.columns_play.basic)
    right = search.rows_play.rows[:, -2]
    weights = jnp.zeros((rows + len(right), right.shape[1]), right.dtype)
    lanes = jnp.arange(right.shape[1])
    for play, column_player in ((search.rows_play, False), (search.columns_play, True)):
        # A player's own actions, not the slacks, which have the other's labels.
        label = jnp.where((play.basic >= rows) == column_player, play.basic, len(weights))
        weights = weights.at[label, lanes[None]].set(jnp.maximum(play.rows[:, -2], 0), mode="drop")
    return weights


def _search(label: int, max_pivots: int):
    def start(items):
        payoffs, low, span = items
        return _start(label, *((payoffs - low) / span + 1))

    @functools.partial(over_lanes, axis=0)
    def run(payoffs):
        low = jnp.min(payoffs, axis=(2, 3), keepdims=True)
        span = jnp.max(payoffs, axis=(2, 3), keepdims=True) - low
        weights, fate, pivots = stream_lanes(
            start,
            lambda search: search.entering >= 0,
            lambda search: _pivot_twice(label, max_pivots, search),
            lambda search: (_weights(search), search.entering, search.pivots),
            (payoffs, low, jnp.where(span > 0, span, 1)),
            width=_WIDTH,
            stay=_STAY,
        )
        profile = jnp.split(weights, [payoffs.shape[2]], axis=1)
        mixed, other = (own / jnp.sum(own, axis=1, keepdims=True) for own in profile)
        return mixed, other, fate, pivots

    return run


def lemke_howson(
    game: NormalForm, *, label: int = 0, tolerance: float = 1e-9, max_steps: int = 2000
) -> NashEquilibrium:
    """A Nash equilibrium of two players by the method of Lemke and Howson; batch with `jax.vmap`.

    Ties are broken by an infinitesimal perturbation, so that degenerate games end too.

    **Arguments:** `label`: the action dropped first, counted through both players' actions;
    different labels may lead to different equilibria. `tolerance`: of the check, on regret relative
    to the range of payoffs. `max_steps`: most pivots.

    **Errors:** `ValueError` for other than two players, or a label that does not exist.

    **Source:** Lemke, Howson (1964), Equilibrium points of bimatrix games; Shapley (1974), A note
    on the Lemke-Howson algorithm.

    >>> import jax.numpy as jnp
    >>> rows = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    >>> found = lemke_howson(NormalForm([rows, -rows]))
    >>> print(found.profile[0], found.check.certified)
    [0.5 0.5] True
    """
    actions = game.actions
    if len(actions) != 2:
        raise ValueError(f"lemke_howson: the game has {len(actions)} players; give one of two")
    if not 0 <= label < sum(actions):
        raise ValueError(f"label: {label} is no action; give one from 0 to {sum(actions) - 1}")
    mixed, other, fate, pivots = _search(label, max_steps)(game.payoffs)
    profile = mixed, other
    check = check_nash(game, profile, tolerance)
    finite = jnp.all(jnp.isfinite(game.payoffs))
    otherwise = NashStatus.where(fate == _STUCK, NashStatus.lost, NashStatus.max_steps)
    status = judged(check, fate == _ENDED, otherwise, finite)
    return NashEquilibrium(profile, check, status, pivots)
