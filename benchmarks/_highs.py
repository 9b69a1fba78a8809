"""The peer: persuasion programs and equilibrium search with HiGHS, one program after another."""

import itertools
import time
from typing import Any

import highspy
import numpy as np

FREE = highspy.kHighsInf
OPTIMAL = highspy.HighsModelStatus.kOptimal


def solver() -> highspy.Highs:
    """HiGHS as fast as it gets here: presolve costs more than it saves on programs this small."""
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("presolve", "off")
    highs.setOptionValue("small_matrix_value", 1e-12)
    for side in ("primal", "dual"):
        highs.setOptionValue(f"{side}_feasibility_tolerance", 1e-10)
    return highs


def linear_program(cost, matrix, row_lower, row_upper) -> highspy.HighsLp:
    """Minimise cost @ x with row_lower <= matrix @ x <= row_upper and x >= 0."""
    rows, columns = matrix.shape
    used = matrix != 0
    program = highspy.HighsLp()
    program.num_row_, program.num_col_ = rows, columns
    program.col_cost_ = cost
    program.col_lower_, program.col_upper_ = np.zeros(columns), np.full(columns, FREE)
    program.row_lower_, program.row_upper_ = row_lower, row_upper
    program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    program.a_matrix_.num_row_, program.a_matrix_.num_col_ = rows, columns
    program.a_matrix_.start_ = np.concatenate([[0], np.cumsum(used.sum(axis=1))]).astype(np.int32)
    program.a_matrix_.index_ = np.nonzero(used)[1].astype(np.int32)
    program.a_matrix_.value_ = matrix[used]
    return program


def _signal_matrix(prior, utility) -> np.ndarray:
    """Rows of obedience (by action, then by other action), then of the states' probabilities."""
    actions, states = utility.shape
    matrix = np.zeros((actions * (actions - 1) + states, actions * states))
    pairs = [(a, b) for a in range(actions) for b in range(actions) if a != b]
    for row, (a, b) in enumerate(pairs):
        matrix[row, a * states : (a + 1) * states] = (utility[a] - utility[b]) * prior
    matrix[len(pairs) :] = np.tile(np.eye(states), actions)
    return matrix


def persuasion_program(prior, utility, objective) -> highspy.HighsLp:
    """The signal [actions, states] of a lone provider that maximises its expected objective."""
    matrix = _signal_matrix(prior, utility)
    states = len(prior)
    obedience = len(matrix) - states
    lower = np.concatenate([np.zeros(obedience), np.ones(states)])
    upper = np.concatenate([np.full(obedience, FREE), np.ones(states)])
    return linear_program((-objective * prior).ravel(), matrix, lower, upper)


def solve_each(programs: list[highspy.HighsLp]) -> list[tuple[bool, Any, Any]]:
    """Whether each is optimal, with its primal point and multipliers of the rows."""
    return _solve_each(solver(), programs)


def _solve_each(highs: highspy.Highs, programs) -> list[tuple[bool, Any, Any]]:
    answers = []
    for program in programs:
        highs.passModel(program)
        highs.run()
        solution = highs.getSolution()
        optimal = highs.getModelStatus() == OPTIMAL
        answers.append((optimal, solution.col_value, solution.row_dual))
    return answers


def solve_share(data) -> tuple[float, list[tuple[bool, Any, Any]]]:
    """In a process of its own: seconds without building models, and what `solve_each` returns."""
    programs = [persuasion_program(*item) for item in zip(*data, strict=True)]
    begin = time.perf_counter()
    answers = solve_each(programs)
    seconds = time.perf_counter() - begin
    return seconds, [(one, np.array(x), np.array(rows)) for one, x, rows in answers]


def solve_by_interior_point(programs: list[highspy.HighsLp]) -> list[tuple[bool, Any, Any]]:
    """The same by HiGHS's interior point, without crossover, which only adds to its time."""
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    for option, value in (("solver", "ipm"), ("presolve", "off"), ("run_crossover", "off")):
        highs.setOptionValue(option, value)
    return _solve_each(highs, programs)


class User:
    """One user of a personalized market: her outcomes as one HiGHS model that is kept warm.

    Columns: the signal x and her value v. Rows: obedience, probabilities, v = E[u], and one per
    provider for E[U_i] - slope_i v, which is free unless an equilibrium is asked for. Utility and
    objectives range from 0 to 1.
    """

    def __init__(self, highs: highspy.Highs, prior, utility, objective):
        self.highs = highs
        states, size = len(prior), utility.size
        self.utility = (utility * prior).ravel()
        self.objective = (objective * prior).reshape(len(objective), size)
        signal = _signal_matrix(prior, utility)
        providers, rows = len(objective), len(signal)
        self.first = rows + 1
        self.matrix = np.zeros((rows + 1 + providers, size + 1))
        self.matrix[:rows, :size] = signal
        self.matrix[rows, :size], self.matrix[rows, size] = self.utility, -1
        self.matrix[rows + 1 :, :size] = self.objective
        self.lower = np.zeros(len(self.matrix))
        self.lower[rows - states : rows] = 1
        self.lower[rows + 1 :] = -FREE
        upper = np.full(len(self.matrix), FREE)
        upper[rows - states : rows], upper[rows] = 1, 0
        self.upper = upper
        self.slope = np.zeros(providers)
        highs.passModel(linear_program(np.zeros(size + 1), self.matrix, self.lower, upper))
        self.columns = np.arange(size + 1, dtype=np.int32)
        self.full = np.zeros_like(utility)
        self.full[np.argmax(utility, axis=0), np.arange(states)] = 1
        self.full = self.full.ravel()
        self.silent = np.zeros_like(utility)
        self.silent[np.argmax(utility @ prior)] = 1
        self.silent = self.silent.ravel()
        self.best = float(self.utility @ self.full)

    def maximise(self, gain, low=0.0, high=FREE, on_value=0.0) -> np.ndarray | None:
        """The signal that maximises gain @ x + on_value * v with low <= v <= high, if any."""
        size = len(gain)
        self.cost = np.append(-gain, -on_value)
        self.low, self.high = low, high
        self.highs.changeColsCost(size + 1, self.columns, self.cost)
        self.highs.changeColBounds(size, low, high)
        self.highs.run()
        if self.highs.getModelStatus() != OPTIMAL:
            return None
        return np.array(self.highs.getSolution().col_value[:size])

    def bound(self) -> float:
        """What the multipliers of the last program prove of its maximum, by weak duality."""
        rows = np.array(self.highs.getSolution().row_dual)
        rows = np.where(np.isfinite(self.lower) | (rows < 0), rows, 0)
        rows = np.where(np.isfinite(self.upper) | (rows > 0), rows, 0)
        reduced = self.cost - rows @ self.matrix
        sides = np.where(rows > 0, self.lower, self.upper)
        sides = np.where(rows == 0, 0, sides)
        # Probabilities and the value are at most 1, whatever the rest says.
        reach = np.append(np.ones(len(reduced) - 1), min(self.high, 1.0))
        floor = np.append(np.zeros(len(reduced) - 1), self.low)
        return -float(sides @ rows + np.sum(np.where(reduced < 0, reach, floor) * reduced))


def _dynamics(user: User, margin=0.02, tolerance=1e-7, rounds=12) -> float:
    """The value that best responses in turn, with copying, end at when all babble first."""
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
    return max(values)


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


def _nearest(user: User, reached: float) -> np.ndarray:
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
            user.highs.changeRowBounds(user.first + i, floor - slope * low - 1e-9, FREE)
        found = user.maximise(np.zeros(size), low=low, high=high, on_value=-1.0)
        if found is not None:
            break
    for i in range(len(frontiers)):
        user.highs.changeCoeff(user.first + i, size, 0.0)
        user.highs.changeRowBounds(user.first + i, -FREE, FREE)
    return user.full if found is None else found


def settle(user: User) -> tuple[float, float]:
    """Her value where dynamics from babbling end, and what a provider can gain there, proved."""
    signal = _nearest(user, _dynamics(user))
    value = float(user.utility @ signal)
    gains = []
    for gain in user.objective:
        if user.maximise(gain, low=min(value, user.best)) is None:
            return value, np.inf
        gains.append(user.bound() - float(gain @ signal))
    return value, max(gains)
