"""Nash equilibria of two players by complementary pivoting, many games in lockstep."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ._check import check_nash
from ._lanes import advance_lanes, lanes_first, lanes_last, over_lanes
from ._nash import NashEquilibrium, NashStatus, judged
from ._normal_form import NormalForm

# Entries up to this size are rounding errors, not pivots: payoffs lie in [1, 2].
_SMALLEST_PIVOT = 1e-10
_TIE = 1e-11


class _Dictionary(eqx.Module):
    """basic = right - table @ nonbasic, with a second right side that decides ties.

    `rows` holds [table, right, tie]; `basic` and `nonbasic` the labels of the variables: label k
    is the k-th action of both players counted through, or the slack of its constraint.
    """

    rows: Float[Array, "basic columns lanes"]
    basic: Int[Array, "basic lanes"]
    nonbasic: Int[Array, "nonbasic lanes"]

    def enter(self, label):
        """Let a nonbasic variable become basic; also the label that left, and whether one did."""
        width = len(self.nonbasic)
        entering = jnp.where(self.nonbasic == label[None], 1.0, 0.0)
        column = jnp.sum(self.rows[:, :width] * entering[None], axis=1)
        usable = column > _SMALLEST_PIVOT
        divisor = jnp.where(usable, column, 1)
        ratio = jnp.where(usable, self.rows[:, width] / divisor, jnp.inf)
        least = jnp.min(ratio, axis=0)
        tied = usable & (ratio <= (least + _TIE * (1 + jnp.abs(least)))[None])
        # Among ties the infinitesimal perturbation decides: no game is degenerate under it.
        row = jnp.argmin(jnp.where(tied, self.rows[:, width + 1] / divisor, jnp.inf), axis=0)
        here = jnp.arange(len(self.rows))[:, None] == row[None]
        leaving = jnp.where(here, 1.0, 0.0)
        pivot = jnp.sum(divisor * leaving, axis=0)
        padded = jnp.concatenate([entering, jnp.zeros((2, *label.shape), entering.dtype)])
        pivot_row = jnp.sum(self.rows * leaving[:, None], axis=0)
        pivot_row = jnp.where(padded > 0, 1.0, pivot_row) / pivot[None]
        kept = jnp.where((padded[None] > 0) | here[:, None], 0.0, self.rows)
        factor = jnp.where(here, -1.0, column)
        out = jnp.sum(jnp.where(here, self.basic, 0), axis=0)
        after = _Dictionary(
            kept - factor[:, None] * pivot_row[None],
            jnp.where(here, label[None], self.basic),
            jnp.where(entering > 0, out[None], self.nonbasic),
        )
        return after, out, jnp.any(usable, axis=0)


class _Search(eqx.Module):
    """Both players' dictionaries and which label enters next."""

    columns_play: _Dictionary
    rows_play: _Dictionary
    entering: Int[Array, " lanes"]
    ended: Bool[Array, " lanes"]
    stuck: Bool[Array, " lanes"]
    pivots: Int[Array, " lanes"]


def _perturbation(count: int) -> np.ndarray:
    # Fixed irrational numbers: two different bases give no equal ratios of sums of them.
    return 0.5 + np.modf(np.arange(1, count + 1) * np.sqrt(np.arange(2, count + 2)))[0]


def _start(first, second, label: int) -> _Search:
    """Tables [rows, columns, lanes] with payoffs in [1, 2]."""
    rows, columns, lanes = first.shape

    def dictionary(table, basic, nonbasic, perturbation):
        count = len(table)
        sides = jnp.stack([jnp.ones(count), jnp.asarray(perturbation)], axis=1)
        sides = jnp.broadcast_to(sides[..., None].astype(table.dtype), (count, 2, lanes))
        labels = (jnp.broadcast_to(own[:, None], (len(own), lanes)) for own in (basic, nonbasic))
        return _Dictionary(jnp.concatenate([table, sides], axis=1), *labels)

    mine, theirs = jnp.arange(rows), rows + jnp.arange(columns)
    drawn = _perturbation(rows + columns)
    no = jnp.zeros(lanes, bool)
    return _Search(
        dictionary(first, mine, theirs, drawn[:rows]),
        dictionary(jnp.swapaxes(second, 0, 1), theirs, mine, drawn[rows:]),
        jnp.full(lanes, label),
        no,
        no,
        jnp.zeros(lanes, int),
    )


def _pivot_twice(label: int, search: _Search) -> _Search:
    """The player whose label was dropped pivots, then the other, unless the first ended it."""
    own = label < len(search.columns_play.basic)
    first, second = search.rows_play, search.columns_play
    if not own:
        first, second = second, first
    first, out, found = first.enter(search.entering)
    ended, stuck = found & (out == label), ~found
    going = ~ended & ~stuck
    after, next_out, found = second.enter(jnp.where(going, out, search.entering))
    second = jax.tree.map(
        lambda new, old: jnp.where(going[(None,) * (new.ndim - 1)], new, old), after, second
    )
    ended = ended | (going & found & (next_out == label))
    stuck = stuck | (going & ~found)
    if not own:
        first, second = second, first
    pivots = search.pivots + 1 + going
    return _Search(second, first, next_out, ended, stuck, pivots)


def _values(play: _Dictionary, labels) -> Array:
    """Probabilities of the actions with these labels, lanes first."""
    right = jnp.maximum(play.rows[:, :, -2], 0)
    mine = play.basic[:, :, None] == labels[None, None]
    values = jnp.sum(jnp.where(mine, right[:, :, None], 0), axis=1)
    return values / jnp.sum(values, axis=1, keepdims=True)


def _search(label: int, max_pivots: int):
    def goes_on(search):
        return ~search.ended & ~search.stuck & (search.pivots < max_pivots)

    @over_lanes
    def run(first, second):
        _, rows, columns = first.shape
        found = advance_lanes(
            goes_on,
            lambda _, search: _pivot_twice(label, search),
            (),
            lanes_first(_start(lanes_last(first), lanes_last(second), label)),
        )
        mixed = _values(found.rows_play, jnp.arange(rows))
        other = _values(found.columns_play, rows + jnp.arange(columns))
        return mixed, other, found.ended, found.stuck, found.pivots

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
    low = jnp.min(game.payoffs, axis=(1, 2), keepdims=True)
    span = jnp.max(game.payoffs, axis=(1, 2), keepdims=True) - low
    first, second = (game.payoffs - low) / jnp.where(span > 0, span, 1) + 1
    mixed, other, ended, stuck, pivots = _search(label, max_steps)(first, second)
    profile = mixed, other
    check = check_nash(game, profile, tolerance)
    finite = jnp.all(jnp.isfinite(game.payoffs))
    otherwise = NashStatus.where(stuck, NashStatus.lost, NashStatus.max_steps)
    status = judged(check, ended, otherwise, finite)
    return NashEquilibrium(profile, check, status, pivots)
