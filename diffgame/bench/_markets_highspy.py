"""The peer of the suite `markets`: best responses in turn, one HiGHS program after another.

The same dynamics and the same end as diffgame's exact search, user by user, in plain Python.
"""

import importlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from ._suite import Answer, Budget, Game

# What HiGHS counts as no bound at all (kHighsInf).
_FREE = np.inf


def make_solver(highspy: Any) -> Any:
    """HiGHS as fast as it gets here: presolve costs more than it saves on programs this small."""
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("presolve", "off")
    highs.setOptionValue("small_matrix_value", 1e-12)
    for side in ("primal", "dual"):
        highs.setOptionValue(f"{side}_feasibility_tolerance", 1e-10)
    return highs


def linear_program(highspy: Any, cost, matrix, row_lower, row_upper) -> Any:
    """Minimise cost @ x with row_lower <= matrix @ x <= row_upper and x >= 0."""
    rows, columns = matrix.shape
    used = matrix != 0
    program = highspy.HighsLp()
    program.num_row_, program.num_col_ = rows, columns
    program.col_cost_ = cost
    program.col_lower_, program.col_upper_ = np.zeros(columns), np.full(columns, _FREE)
    program.row_lower_, program.row_upper_ = row_lower, row_upper
    program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    program.a_matrix_.num_row_, program.a_matrix_.num_col_ = rows, columns
    program.a_matrix_.start_ = np.concatenate([[0], np.cumsum(used.sum(axis=1))]).astype(np.int32)
    program.a_matrix_.index_ = np.nonzero(used)[1].astype(np.int32)
    program.a_matrix_.value_ = matrix[used]
    return program


def signal_matrix(prior, utility) -> np.ndarray:
    """Rows of obedience (by action, then by other action), then of the states' probabilities."""
    actions, states = utility.shape
    matrix = np.zeros((actions * (actions - 1) + states, actions * states))
    pairs = [(a, b) for a in range(actions) for b in range(actions) if a != b]
    for row, (a, b) in enumerate(pairs):
        matrix[row, a * states : (a + 1) * states] = (utility[a] - utility[b]) * prior
    matrix[len(pairs) :] = np.tile(np.eye(states), actions)
    return matrix


class User:
    """One user of a personalized market: her outcomes as one HiGHS model that is kept warm.

    Columns: the signal x and her value v. Rows: obedience, probabilities, v = E[u], and one per
    provider for E[U_i] - slope_i v, which is free unless an equilibrium is asked for. Utility and
    objectives range from 0 to 1.
    """

    def __init__(self, highspy: Any, highs: Any, prior, utility, objective):
        self.highs, self.optimal = highs, highspy.HighsModelStatus.kOptimal
        states, size = len(prior), utility.size
        self.utility = (utility * prior).ravel()
        self.objective = (objective * prior).reshape(len(objective), size)
        signal = signal_matrix(prior, utility)
        providers, rows = len(objective), len(signal)
        self.first = rows + 1
        self.matrix = np.zeros((rows + 1 + providers, size + 1))
        self.matrix[:rows, :size] = signal
        self.matrix[rows, :size], self.matrix[rows, size] = self.utility, -1
        self.matrix[rows + 1 :, :size] = self.objective
        self.lower = np.zeros(len(self.matrix))
        self.lower[rows - states : rows] = 1
        self.lower[rows + 1 :] = -_FREE
        upper = np.full(len(self.matrix), _FREE)
        upper[rows - states : rows], upper[rows] = 1, 0
        self.upper = upper
        self.slope = np.zeros(providers)
        highs.passModel(linear_program(highspy, np.zeros(size + 1), self.matrix, self.lower, upper))
        self.columns = np.arange(size + 1, dtype=np.int32)
        self.full = np.zeros_like(utility)
        self.full[np.argmax(utility, axis=0), np.arange(states)] = 1
        self.full = self.full.ravel()
        self.silent = np.zeros_like(utility)
        self.silent[np.argmax(utility @ prior)] = 1
        self.silent = self.silent.ravel()
        self.best = float(self.utility @ self.full)

    def maximise(self, gain, low=0.0, high=_FREE, on_value=0.0) -> np.ndarray | None:
        """The signal that maximises gain @ x + on_value * v with low <= v <= high, if any."""
        size = len(gain)
        self.cost = np.append(-gain, -on_value)
        self.low, self.high = low, high
        self.highs.changeColsCost(size + 1, self.columns, self.cost)
        self.highs.changeColBounds(size, low, high)
        self.highs.run()
        if self.highs.getModelStatus() != self.optimal:
            return None
        return np.array(self.highs.getSolution().col_value[:size])


def run_dynamics(user: User, margin=0.02, tolerance=1e-7, rounds=12) -> tuple[float, int]:
    """The value that best responses in turn, with copying, end at when all babble; and moves."""
    providers = len(user.objective)
    posted = [user.silent] * providers
    values = [float(user.utility @ user.silent)] * providers
    held = idle = turn = 0
    while idle < providers and turn < rounds * providers:
        # As in the library, the provider that holds her first moves last.
        mover = (turn + 1) % providers
        gain = user.objective[mover]
        others = [i for i in range(providers) if i != mover]
        outside = max(values[i] for i in others)
        tied = [i for i in others if values[i] >= outside - 1e-9]
        elsewhere = float(gain @ posted[held if held in tied else tied[0]])
        now = float(gain @ posted[held])
        room = max(user.best - outside, 0.0)
        reached, post = elsewhere, None
        if held == mover or room > 1e-9:
            more = 0.0 if held == mover else min(margin, room / 2)
            signal = user.maximise(gain, low=outside + more)
            if signal is not None and gain @ signal > elsewhere:
                reached, post = float(gain @ signal), signal
        moves = reached - now > tolerance
        posted[mover] = (user.silent if post is None else post) if moves else posted[held]
        values[mover] = float(user.utility @ posted[mover])
        best = max(values)
        if values[held] < best - 1e-9:
            held = next(i for i in range(providers) if values[i] >= best - 1e-9)
        idle = 0 if moves else idle + 1
        turn += 1
    return max(values), turn


def _frontier(user: User, provider: int, reached: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (value, payoff) of what the provider can get from `reached` upwards."""
    gain = user.objective[provider]

    def corner(signal):
        return float(user.utility @ signal), float(gain @ signal)

    first = user.maximise(gain, low=min(reached, user.best))
    last = corner(user.full)
    points = [last if first is None else corner(first), last]
    at = 0
    while at < len(points) - 1:
        (low, high_payoff), (high, low_payoff) = points[at], points[at + 1]
        drop, rise = max(high_payoff - low_payoff, 0.0), high - low
        if rise <= 1e-10:
            at += 1
            continue
        total = drop + rise
        signal = user.maximise(rise / total * gain, on_value=drop / total)
        if signal is None:
            at += 1
            continue
        value, payoff = corner(signal)
        beyond = (drop * (value - low) + rise * (payoff - high_payoff)) / total
        if beyond > 1e-10 and low < value < high:
            points.insert(at + 1, (value, payoff))
        else:
            at += 1
    return np.array([value for value, _ in points]), np.array([payoff for _, payoff in points])


def find_nearest(user: User, reached: float) -> np.ndarray:
    """Signal of the lowest equilibrium value at or above the one reached: cell by cell upwards."""
    frontiers = [_frontier(user, i, reached) for i in range(len(user.objective))]
    breaks = np.unique(np.concatenate([[reached, user.best], *(value for value, _ in frontiers)]))
    breaks = breaks[(breaks >= reached) & (breaks <= user.best)]
    size = len(user.utility)
    found = None
    for low, high in itertools.pairwise(breaks):
        if high - low <= 1e-8:
            continue
        for i, (value, payoff) in enumerate(frontiers):
            floor, ceiling = np.interp([low, high], value, payoff)
            slope = (ceiling - floor) / (high - low)
            # Missing the frontier by less than 1e-9 counts as reaching it.
            user.highs.changeCoeff(user.first + i, size, -slope)
            user.highs.changeRowBounds(user.first + i, floor - slope * low - 1e-9, _FREE)
        found = user.maximise(np.zeros(size), low=low, high=high, on_value=-1.0)
        if found is not None:
            break
    for i in range(len(frontiers)):
        user.highs.changeCoeff(user.first + i, size, 0.0)
        user.highs.changeRowBounds(user.first + i, -_FREE, _FREE)
    return user.full if found is None else found


def _unit(table: np.ndarray) -> np.ndarray:
    """From 0 to 1 over the last two axes."""
    low = table.min(axis=(-2, -1), keepdims=True)
    size = np.ptp(table, axis=(-2, -1), keepdims=True)
    return (table - low) / np.where(size > 0, size, 1)


def highspy_best_responses(budget: Budget) -> Callable[[Game], Answer]:
    """At most `budget.steps` moves per user."""
    highspy = importlib.import_module("highspy")
    highs = make_solver(highspy)

    def solve(game: Game) -> Answer:
        utility, objective = _unit(game["utility"]), _unit(game["objective"])
        providers = len(objective)
        rounds = 12 if budget.steps is None else -(-budget.steps // providers)
        signals, moves = [], 0
        for user in range(len(utility)):
            model = User(highspy, highs, game["prior"], utility[user], objective[:, user])
            reached, turns = run_dynamics(model, rounds=rounds)
            signals.append(find_nearest(model, reached).reshape(utility[user].shape))
            moves += turns
        signal = np.maximum(np.stack(signals), 0)
        signal = signal / signal.sum(axis=1, keepdims=True)
        return {
            "signal": np.broadcast_to(signal, (providers, *signal.shape)),
            "chosen": np.zeros(len(utility)),
            "steps": np.array(moves),
            "claimed": np.array(True),
        }

    return solve
