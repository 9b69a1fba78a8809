"""The peer: markets whose users all see one signal, with HiGHS, one program after another."""

import itertools

import highspy
import numpy as np

from ._highs import FREE, OPTIMAL, linear_program

_TIE = 1e-9
_MARGIN = 1e-9
_WON_BY = 0.02


def playable_profiles(highs: highspy.Highs, utility: np.ndarray) -> np.ndarray:
    """The action profiles [profiles, users] that users play at some belief, ties to the lowest."""
    users, actions, states = utility.shape
    found = []
    for profile in itertools.product(range(actions), repeat=users):
        lead = utility[np.arange(users), profile][:, None] - utility
        lower = np.arange(actions)[None] < np.array(profile)[:, None]
        # Beliefs and the margin over lower actions, plus one so that it is nonnegative.
        matrix = np.zeros((users * actions + 1, states + 1))
        matrix[:-1, :states] = lead.reshape(-1, states)
        matrix[:-1, states] = -1.0 * lower.ravel()
        matrix[-1, :states] = 1
        floor = np.append(-1.0 * lower.ravel(), 1.0)
        ceiling = np.append(np.full(users * actions, FREE), 1.0)
        program = linear_program(np.append(np.zeros(states), -1.0), matrix, floor, ceiling)
        program.col_upper_ = np.append(np.full(states, FREE), 2.0)
        highs.passModel(program)
        highs.run()
        if highs.getModelStatus() == OPTIMAL:
            margin = highs.getSolution().col_value[states] - 1
            if margin > _MARGIN:
                found.append(profile)
    return np.array(found)


class Group:
    """Users who see the same signal: their outcomes as one HiGHS model that is kept warm.

    Columns: the signal [profiles, states] and the margin by which new users are won. Rows:
    obedience, probabilities, and each user's value. Utilities and objectives range from 0 to 1.
    """

    def __init__(self, highs: highspy.Highs, prior, utility, objective):
        self.highs = highs
        users, actions, states = utility.shape
        providers = len(objective)
        self.profiles = playable_profiles(highs, utility)
        count, each = len(self.profiles), np.arange(users)
        self.size = count * states
        picked = utility[each, self.profiles] * prior
        self.value = picked.swapaxes(0, 1).reshape(users, self.size)
        own = objective[:, each, self.profiles].swapaxes(1, 2) * prior
        self.payoff = own.reshape(providers, users, self.size) / users
        rows = []
        for at, profile in enumerate(self.profiles):
            for user, action in enumerate(profile):
                for other in range(actions):
                    if other != action:
                        row = np.zeros((count, states))
                        row[at] = (utility[user, action] - utility[user, other]) * prior
                        rows.append(row.ravel())
        obedience = len(rows)
        self.first = obedience + states
        self.matrix = np.zeros((self.first + users, self.size + 1))
        self.matrix[:obedience, : self.size] = rows
        self.matrix[obedience : self.first, : self.size] = np.tile(np.eye(states), count)
        self.matrix[self.first :, : self.size] = self.value
        # A coefficient that comes and goes: present in the model from the start.
        self.matrix[self.first :, self.size] = -1
        self.lower = np.concatenate([np.zeros(obedience), np.ones(states), np.full(users, -FREE)])
        self.upper = np.concatenate(
            [np.full(obedience, FREE), np.ones(states), np.full(users, FREE)]
        )
        cost = np.zeros(self.size + 1)
        highs.passModel(linear_program(cost, self.matrix, self.lower, self.upper))
        self.columns = np.arange(self.size + 1, dtype=np.int32)
        self.full = prior @ np.max(utility, axis=1).T
        best = np.argmax(utility @ prior, axis=1)
        silent = np.zeros((count, states))
        silent[np.flatnonzero(np.all(self.profiles == best, axis=1))[0]] = 1
        self.silent = silent.ravel()
        self.sets = list(itertools.product([False, True], repeat=users))[1:]

    def solve(self, gain, on_margin, low, high) -> np.ndarray | None:
        """Maximise gain @ x + on_margin * margin, low <= margin <= high; the signal and margin."""
        self.cost = np.append(-gain, -on_margin)
        self.low, self.high = low, high
        self.highs.changeColsCost(len(self.cost), self.columns, self.cost)
        self.highs.changeColBounds(self.size, low, high)
        self.highs.run()
        if self.highs.getModelStatus() != OPTIMAL:
            return None
        return np.array(self.highs.getSolution().col_value)

    def hold(self, captured, outside, fresh) -> None:
        """The users `captured` get at least what they have outside, the others at most."""
        for user, (own, value, new) in enumerate(zip(captured, outside, fresh, strict=True)):
            row = self.first + user
            self.lower[row], self.upper[row] = (value, FREE) if own else (-FREE, value)
            self.highs.changeRowBounds(row, float(self.lower[row]), float(self.upper[row]))
            self.matrix[row, self.size] = -new
            self.highs.changeCoeff(row, self.size, -float(new))

    def bound(self) -> float:
        """What the multipliers of the last program prove of its maximum, by weak duality."""
        rows = np.array(self.highs.getSolution().row_dual)
        rows = np.where(np.isfinite(self.lower) | (rows < 0), rows, 0)
        rows = np.where(np.isfinite(self.upper) | (rows > 0), rows, 0)
        reduced = self.cost - rows @ self.matrix
        sides = np.where(rows > 0, self.lower, self.upper)
        sides = np.where(rows == 0, 0, sides)
        reach = np.append(np.ones(self.size), self.high)
        floor = np.append(np.zeros(self.size), self.low)
        return -float(sides @ rows + np.sum(np.where(reduced < 0, reach, floor) * reduced))


def _choose(values, incumbent):
    tied = values >= values.max(axis=0) - _TIE
    stays = tied[incumbent, np.arange(len(incumbent))]
    return np.where(stays, incumbent, np.argmax(tied, axis=0))


def _meet(group: Group, posted, incumbent):
    """What each signal is worth to each user, her provider, and all payoffs."""
    values = np.array(posted) @ group.value.T
    chosen = _choose(values, incumbent)
    taken = np.array(posted)[chosen]
    return values, chosen, np.einsum("ijx,jx->ij", group.payoff, taken)


def _without(group: Group, posted, values, chosen, provider):
    """Each user's best value elsewhere, what it is worth to the provider, and whom it holds."""
    others = np.where((np.arange(len(values)) != provider)[:, None], values, -1.0)
    fallback = _choose(others, chosen)
    payoff = np.einsum("jx,jx->j", group.payoff[provider], np.array(posted)[fallback])
    return others.max(axis=0), payoff, chosen == provider


def _respond(group: Group, provider, outside, elsewhere, held):
    """A response that wins users by a margin: its payoff, its signal, None to hold nobody."""
    room = np.maximum(group.full - outside, 0)
    margins = np.minimum(_WON_BY, room / 2)
    best = elsewhere.sum(), None
    for captured in map(np.array, group.sets):
        fresh = captured & ~held
        if np.any(fresh & (room <= _MARGIN)):
            continue
        level = outside + np.where(fresh, margins, 0)
        group.hold(captured, level, np.zeros(len(fresh)))
        gain = group.payoff[provider][captured].sum(axis=0)
        found = group.solve(gain, 0.0, 0.0, 0.0)
        if found is not None:
            reached = elsewhere[~captured].sum() + gain @ found[:-1]
            if reached > best[0]:
                best = reached, found[:-1]
    return best


def _dynamics(group: Group, tolerance=1e-7, rounds=12):
    """Where best responses in turn, with copying, end when all babble first."""
    providers, users = group.payoff.shape[:2]
    posted = [group.silent] * providers
    values, chosen, payoffs = _meet(group, posted, np.zeros(users, int))
    last, idle, turn = chosen[0], 0, 0
    while idle < providers and turn < rounds * providers:
        provider = (last + 1 + turn) % providers
        against = _without(group, posted, values, chosen, provider)
        reached, post = _respond(group, provider, *against)
        moves = reached - payoffs[provider].sum() > tolerance
        if moves:
            posted[provider] = group.silent if post is None else post
        elif np.all(chosen == chosen[0]):
            posted[provider] = posted[chosen[0]]
        values, chosen, payoffs = _meet(group, posted, chosen)
        idle = 0 if moves else idle + 1
        turn += 1
    return posted, chosen


def _most(group: Group, provider, outside, elsewhere, held) -> float:
    """An upper bound, by multipliers, of what the provider can get by any signal."""
    most = elsewhere.sum()
    for captured in map(np.array, group.sets):
        fresh = captured & ~held
        group.hold(captured, outside, fresh * 1.0)
        if fresh.any():
            found = group.solve(np.zeros(group.size), 1.0, 0.0, 1.0)
            if found is None or group.bound() <= _MARGIN:
                continue
        gain = group.payoff[provider][captured].sum(axis=0)
        if group.solve(gain, 0.0, 0.0, 0.0) is None:
            if fresh.any():
                return np.inf
            continue
        most = max(most, elsewhere[~captured].sum() + group.bound())
    return most


def _gain(group: Group, posted, incumbent):
    """The most that any provider can gain, and the users' values."""
    values, chosen, payoffs = _meet(group, posted, incumbent)
    gains = []
    for provider in range(len(posted)):
        against = _without(group, posted, values, chosen, provider)
        gains.append(max(_most(group, provider, *against) - payoffs[provider].sum(), 0.0))
    return max(gains), values.max(axis=0)


def settle(group: Group) -> tuple[float, np.ndarray]:
    """From babbling: of what the library proposes, in its order, what is left for the least.

    Proposals that repeat an earlier one are passed over, and it stops at the first that nobody
    leaves.
    """
    providers, users = group.payoff.shape[:2]
    nobody = np.zeros(users, int)
    before = [group.silent] * providers
    after, chosen = _dynamics(group)
    proposals = [(before, nobody), (after, chosen)]
    proposals += [([post] * providers, nobody) for post in after]
    best, seen = (np.inf, np.zeros(users)), []
    for posted, incumbent in proposals:
        signature = np.concatenate([*posted, incumbent])
        if any(np.array_equal(signature, other) for other in seen):
            continue
        seen.append(signature)
        found = _gain(group, posted, incumbent)
        if max(found[0], 1e-9) < max(best[0], 1e-9):
            best = found
        if best[0] <= 1e-9:
            break
    return best
