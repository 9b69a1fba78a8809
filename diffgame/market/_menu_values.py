"""All values that a user with private types can have in a personalized equilibrium: computed.

The set of `_equilibrium_values.py`, with menus in the place of signals (docs/menus.md, Theorem 11).
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int

from ._menu_outcomes import BestOutcomes, best_outcomes, list_pairs
from ._segment import EQUAL
from ._typed_tables import TypedTables

# In units where the user's and each provider's payoffs range over one unit:
_NARROW = 1e-8  # values this near to full information are full information
_MISSED = 1e-9  # a provider that misses its frontier by less stays
_RESOLUTION = 1e-7  # how exactly the ends of the set are known at worst
_IMPROVEMENT = 1e-10  # a point nearer than this to a chord lies on it
_CERTIFIED = 1e-8  # between an outcome and what multipliers prove
_FAR = -9.0  # a floor that says nothing
# Rounds of chords in the search for a frontier: each may double its vertices.
_ROUNDS = 12


@dataclasses.dataclass(frozen=True)
class MenuValues:
    """The lowest and the highest personalized equilibrium value of some users.

    - `low`, `high` [users]: in units of her utility; NaN for users who were not asked about.
    - `certified` [users]: whether multipliers prove that no value is outside.
    - `worst`, `best` [users, values, actions, states]: what all providers post for these values.
    """

    low: Float[np.ndarray, " users"]
    high: Float[np.ndarray, " users"]
    certified: Bool[np.ndarray, " users"]
    worst: Float[np.ndarray, "users values actions states"]
    best: Float[np.ndarray, "users values actions states"]


@dataclasses.dataclass(frozen=True)
class _Setting:
    """Users and providers in units of one.

    - `user` [users, pairs, actions, states], `own` [users, providers, pairs, actions, states]:
        what a recommendation is worth, per conditional probability.
    - `ask`: the best outcomes of users (first argument) for an aim, rows, floors and leads.
    """

    user: Float[np.ndarray, "users pairs actions states"]
    own: Float[np.ndarray, "users providers pairs actions states"]
    ask: Callable[..., BestOutcomes]

    def worth(self, users: Int[np.ndarray, " n"], menus: Float[np.ndarray, "n p a s"]):
        """What menus are worth to their users [n] and to all providers [n, providers]."""
        value = np.einsum("npas,npas->n", self.user[users], menus)
        return value, np.einsum("nipas,npas->ni", self.own[users], menus)


def _setting(tables: TypedTables) -> tuple[_Setting, np.ndarray, np.ndarray]:
    """In units of one, with the low end and the size of each user's utility."""

    def unit(table):
        axes = tuple(range(table.ndim - 3, table.ndim))
        low, size = table.min(axis=axes, keepdims=True), np.ptp(table, axis=axes, keepdims=True)
        size = np.where(size > 0, size, 1)
        return (table - low) / size, low[..., 0, 0, 0], size[..., 0, 0, 0]

    utility, low, size = unit(tables.utility)
    objective, *_ = unit(np.swapaxes(tables.objective, 0, 1))
    weight = tables.joint[:, :, None]
    user, own = utility * weight, objective * weight[:, None]
    count, values, *_ = user.shape
    table = ~np.eye(values, dtype=bool)
    tempted = tuple(tuple(row) for row in table.tolist())
    ask = partial(best_outcomes, list_pairs(tables, count), tempted)
    return _Setting(user, own, ask), low, size


def _full_menus(tables: TypedTables, favour: Float[np.ndarray, "users pairs actions states"]):
    """Full information; among actions as good for her, the one of the largest `favour`."""
    utility = tables.utility
    size = np.ptp(utility, axis=(1, 2, 3), keepdims=True)
    tied = utility >= utility.max(axis=2, keepdims=True) - EQUAL * size
    pick = np.where(tied, favour, -np.inf).argmax(axis=2)
    return np.swapaxes(np.eye(utility.shape[2])[pick], 2, 3)


@dataclasses.dataclass
class _Frontier:
    """The most that a provider gets from a user who must get a value: vertices by rising value."""

    user: int
    provider: int
    points: list[tuple[float, float]]
    complete: bool = True

    def most(self, value):
        places, payoffs = np.array(self.points).T
        return np.interp(value, places, payoffs)


def _frontiers(
    tables: TypedTables, setting: _Setting, users: Sequence[int]
) -> list[list[_Frontier]]:
    """By dichotomic search (Aneja, Nair 1979), the chords of all frontiers in the same rounds."""
    providers = setting.own.shape[1]
    frontiers = []
    for i in range(providers):
        menus = _full_menus(tables, setting.own[:, i])
        value, payoff = setting.worth(np.arange(len(menus)), menus)
        frontiers.append({j: _Frontier(j, i, [(value[j], payoff[j, i])]) for j in users})
    rows = np.zeros((1, providers + 2, *setting.user.shape[1:]))
    # Beyond the end, in the provider's own favour; then beyond each chord.
    chords = [(own[j], (-1.0, 2.0), own[j].points[0]) for own in frontiers for j in users]
    for n in range(_ROUNDS + 1):
        if not chords:
            break
        who = np.array([frontier.user for frontier, *_ in chords])
        whose = np.array([frontier.provider for frontier, *_ in chords])
        weights = np.array(
            [
                (max(left[1] - right[1], 0), max(right[0] - left[0], 0)) if n else (0, 1)
                for _, left, right in chords
            ]
        )
        weights = weights / weights.sum(axis=1, keepdims=True)
        aim = np.einsum("n,npas->npas", weights[:, 0], setting.user[who])
        aim += np.einsum("n,npas->npas", weights[:, 1], setting.own[who, whose])
        floors = np.full((len(chords), providers + 2), _FAR)
        found = setting.ask(who, aim, rows.repeat(len(chords), 0), floors, floors * 0)
        value, payoffs = setting.worth(who, found.menu)
        reached = np.einsum("npas,npas->n", aim, found.menu)
        more = []
        for m, (frontier, left, right) in enumerate(chords):
            fine = found.disobeyed[m] <= _MISSED and found.bound[m] - reached[m] <= _CERTIFIED
            frontier.complete &= bool(fine)
            new = min(value[m], frontier.points[-1][0]), payoffs[m, frontier.provider]
            beyond = weights[m] @ new - weights[m] @ left
            if n and not (beyond > _IMPROVEMENT and left[0] < new[0] < right[0]):
                continue
            if new[0] < right[0]:
                frontier.points = sorted({*frontier.points, new})
                more += [(frontier, left, new)] if n else []
                more += [(frontier, new, right)]
        # A level chord has nothing above it.
        chords = [chord for chord in more if chord[1][1] > chord[2][1]]
    for frontier, *_ in chords:
        frontier.complete = False
    return [[own[j] for own in frontiers] for j in users]


@dataclasses.dataclass(frozen=True)
class _Cell:
    """Between two neighbouring bends: there each provider's frontier is a line."""

    user: int
    left: float
    right: float
    floor: Float[np.ndarray, " providers"]
    slope: Float[np.ndarray, " providers"]

    def value(self, setting: _Setting, found: BestOutcomes, n: int) -> float:
        """What the n-th menu found is worth to the user."""
        return float(setting.worth(self._who, found.menu[n : n + 1])[0][0])

    def lead(self, setting: _Setting, found: BestOutcomes, n: int) -> float:
        """The least by which it exceeds a frontier; minus infinity if it is not of this cell."""
        value, payoffs = setting.worth(self._who, found.menu[n : n + 1])
        outside = max(self.left - value[0], value[0] - self.right, found.disobeyed[n])
        lead = np.min(payoffs[0] - self.slope * value[0] - self.floor)
        return float(lead) if outside <= _MISSED else -np.inf

    @property
    def _who(self) -> Int[np.ndarray, "1"]:
        return np.array([self.user])


def _list_cells(user: int, frontiers: list[_Frontier], uninformed: float) -> list[_Cell]:
    full = frontiers[0].points[-1][0]
    bends = [value for frontier in frontiers for value, _ in frontier.points]
    # With nobody to go to, a provider insists on its optimum at any value.
    bends = [] if len(frontiers) == 1 else [value for value in bends if value > uninformed]
    ends = np.unique([min(uninformed, full), *bends, full])
    cells = []
    for left, right in itertools.pairwise(ends.tolist()):
        if right - left > _NARROW:
            low, high = (np.array([own.most(end) for own in frontiers]) for end in (left, right))
            if len(frontiers) == 1:
                low = high = np.array([frontiers[0].points[0][1]])
            slope = (high - low) / (right - left)
            cells.append(_Cell(user, left, right, low - slope * left, slope))
    return cells


def _ask_cells(setting: _Setting, cells: list[_Cell], way: int) -> BestOutcomes:
    """The menu of each cell that leads most (`way` 0), or of largest (1) or least (-1) value.

    The latter among those that no provider leaves.
    """
    who = np.array([cell.user for cell in cells], int)
    user = setting.user[who]
    slope = np.stack([cell.slope for cell in cells])
    above = setting.own[who] - np.einsum("ni,npas->nipas", slope, user)
    rows = np.concatenate([above, user[:, None], -user[:, None]], axis=1)
    floors = np.array([[*cell.floor, cell.left, -cell.right] for cell in cells])
    lead = np.zeros(floors.shape)
    lead[:, :-2] = way == 0
    return setting.ask(who, float(way) * user, rows, floors, lead)


def menu_values(tables: TypedTables, users: Sequence[int]) -> MenuValues:
    """The exact range of the personalized equilibrium values of `users`, by their numbers.

    Users pick a provider before they learn their types, and any menu can be posted. With one
    provider the set is that of its optima.

    **Source:** docs/menus.md (Theorem 11).
    """
    setting, base, size = _setting(tables)
    every = _frontiers(tables, setting, users)
    uninformed = (tables.uninformed() - base) / size
    competition = len(tables.objective) > 1
    worst = _full_menus(tables, np.zeros(tables.utility.shape))
    best = worst.copy()
    count = len(worst)
    low, high, sure = np.full(count, np.nan), np.full(count, np.nan), np.zeros(count, bool)
    for j, own in zip(users, every, strict=True):
        sure[j] = all(frontier.complete for frontier in own)
        opt = own[0].points[-1][0]
        # With competition full information is an equilibrium, and nothing is better.
        low[j], high[j] = (opt, opt) if competition else (np.inf, -np.inf)
    cells = [
        cell
        for j, own in zip(users, every, strict=True)
        for cell in _list_cells(j, own, uninformed[j])
    ]
    ways = (-1,) if competition else (-1, 1)
    asked = {way: _ask_cells(setting, cells, way) for way in (0, *ways)} if cells else {}
    for n, cell in enumerate(cells):
        j = cell.user
        stays = cell.lead(setting, asked[0], n) >= -_MISSED
        if not stays and asked[0].bound[n] < 0:
            continue
        sure[j] &= stays
        for way in ways:
            found = asked[way]
            value, stays = cell.value(setting, found, n), cell.lead(setting, found, n) >= -_MISSED
            sure[j] &= stays and found.bound[n] - way * value <= _RESOLUTION
            if stays and way < 0 and value < low[j]:
                low[j], worst[j] = value, found.menu[n]
            if stays and way > 0 and value > high[j]:
                high[j], best[j] = value, found.menu[n]
    return MenuValues(base + size * low, base + size * high, sure, worst, best)
