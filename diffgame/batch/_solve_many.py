"""Any number of games, each to its own end: the driver on the host."""

import dataclasses
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from .._response import AbstractResponse
from ._blocks import Block, block_bounds, join_blocks, run_blocks
from ._ladder import Rung, check_ladder, default_ladder
from ._lanes import Lanes
from ._processes import Processes
from ._progress import Progress
from ._search import (
    FROM_HERE,
    FROM_ITS_START,
    GOES_ON,
    STATUSES,
    Examination,
    Search,
    advance,
    begin,
    examine,
)
from ._source import AbstractSource, Made, stack_source

# Steps between two looks at which lanes are done.
_PAUSE = 16
_NONFINITE = STATUSES.index("nonfinite")


@dataclasses.dataclass(frozen=True)
class CertificateSettings:
    """How every end is examined; see `certify`.

    - `tolerance`: of residual, gains, curvature and the users' gaps.
    - `starts`, `steps`: of the search for deviations.
    """

    tolerance: float = 1e-6
    starts: int = 16
    steps: int = 100


@dataclasses.dataclass(frozen=True)
class BatchResult:
    """What became of every game; NumPy arrays with a leading axis of games, in order.

    - `status`: codes of `statuses`, whose texts are those of `Status`. `certified`: whether it is
        the best one that was asked for: `certified`, or `stationary_only` without certificates.
    - `residual`: sup norm of the natural residual, NaN if not finite. `rung`: the ladder's rung
        (its number) that the search ended on. `steps`: of the solvers, all rungs together.
    - `payoffs` [games, providers]; `user_total`: mass-weighted utilities.
    - `gain`, `curvature`, `user_gap`: the largest of the certificate; NaN without.
    - `profiles`: one policy, leaves with leading axes of games and providers.
    - `errors`: what games that raised said, by their number; their status is `nonfinite`.
    - `games`: how many were asked for; after an early stop the arrays are shorter.
    """

    games: int
    status: Int[np.ndarray, " games"]
    certified: Bool[np.ndarray, " games"]
    residual: Float[np.ndarray, " games"]
    rung: Int[np.ndarray, " games"]
    steps: Int[np.ndarray, " games"]
    payoffs: Float[np.ndarray, "games providers"]
    user_total: Float[np.ndarray, " games"]
    gain: Float[np.ndarray, " games"]
    curvature: Float[np.ndarray, " games"]
    user_gap: Float[np.ndarray, " games"]
    profiles: PyTree
    errors: dict[int, str]
    ladder: tuple[Rung, ...]

    @property
    def statuses(self) -> tuple[str, ...]:
        """What the codes of `status` mean."""
        return STATUSES

    def counts(self) -> dict[str, int]:
        """How many games ended with which status, most frequent first."""
        counted = Counter(self.statuses[code] for code in self.status.tolist())
        return dict(counted.most_common())


class _Engine:
    """A batch's parts, and one block of it at a time."""

    def __init__(
        self,
        source: AbstractSource,
        response: AbstractResponse,
        ladder: Sequence[Rung],
        certificate: CertificateSettings | None,
        key: Key[Array, ""],
        lanes: int,
        devices: Sequence[Any],
    ):
        self.lanes = Lanes(lanes, devices)
        self.ladder = tuple(ladder)
        self.searches = [
            Search(
                source,
                response,
                rung.solver,
                jnp.asarray(rung.tolerance),
                jnp.asarray(rung.max_steps),
                jnp.asarray(_PAUSE),
                rung.precision,
            )
            for rung in ladder
        ]
        settings = CertificateSettings() if certificate is None else certificate
        # The last search is in float64, whatever the others are in.
        self.examination = Examination(
            self.searches[-1],
            key,
            None if certificate is None else settings.tolerance,
            settings.starts,
            settings.steps,
        )
        self.goal = STATUSES.index("stationary_only" if certificate is None else "certified")
        self.placed = [self.lanes.place(search) for search in self.searches]
        self.placed_examination = self.lanes.place(self.examination)
        self.profiles = eqx.filter_eval_shape(lambda: source.game(jnp.array(0))[1])

    def _blank(self, shape: PyTree, size: int) -> PyTree:
        return jax.tree.map(lambda leaf: np.zeros((size, *leaf.shape), leaf.dtype), shape)

    def block(self, first: int, stop: int) -> Block:
        """Solve and certify the games from `first` to before `stop`."""
        size = stop - first
        shape = eqx.filter_eval_shape(begin, self.searches[-1], jnp.array(0), None)
        ends = _Ends(
            self._blank(shape.parameters, size),
            # Not finite: a search that has not begun begins at the game's own start.
            np.full(size, np.nan, shape.residual.dtype),
            np.ones(size, bool),
            np.zeros(size, np.int64),
            np.zeros(size, np.int64),
            {},
        )
        queue = np.arange(size)
        for number in range(len(self.ladder)):
            queue = self._climb(number, first, queue, ends)
            if len(queue) == 0:
                break
        return self._examine(first, ends)

    def _climb(self, number: int, first: int, queue: np.ndarray, ends: "_Ends") -> np.ndarray:
        """One rung for the games of the queue; returns those that it left unfinished."""
        search, width = self.searches[number], self.lanes.width
        shape = eqx.filter_eval_shape(begin, search, jnp.array(0), None)
        carry = self._blank(shape, width)
        place = np.full(width, -1)
        mode = np.full(width, FROM_ITS_START)
        waiting = deque(queue.tolist())
        left = []
        while waiting or np.any(place >= 0):
            for lane in np.flatnonzero(place < 0)[: len(waiting)].tolist():
                game = waiting.popleft()
                place[lane] = game
                stands = ends.bounded[game] and np.isfinite(ends.residual[game])
                mode[lane] = FROM_HERE if stands else FROM_ITS_START
                _put(carry.parameters, lane, ends.parameters, game)
            active = place >= 0
            lanes = first + np.maximum(place, 0), mode, carry
            found, failed = self.lanes.run(advance, self.placed[number], lanes, active)
            goes_on = np.zeros(width, bool)
            if found is not None:
                carry, goes_on = found
            mode[:] = GOES_ON
            for lane in np.flatnonzero(active & ~goes_on).tolist():
                game = int(place[lane])
                place[lane] = -1
                if lane in failed:
                    ends.errors[game] = failed[lane]
                    ends.residual[game] = np.nan
                    continue
                _put(ends.parameters, game, carry.parameters, lane)
                ends.residual[game] = carry.residual[lane]
                ends.bounded[game] = carry.bounded[lane]
                ends.steps[game] += carry.steps[lane]
                ends.rung[game] = number
                residual = carry.residual[lane]
                done = np.isfinite(residual) and residual <= self.ladder[number].tolerance
                done = done and self.ladder[number].precision == "float64"
                if not (done and carry.bounded[lane]):
                    left.append(game)
        return np.array(sorted(left), int)

    def _examine(self, first: int, ends: "_Ends") -> Block:
        size, width = len(ends.residual), self.lanes.width
        tolerance = np.array([rung.tolerance for rung in self.ladder])[ends.rung]
        parts = []
        for begun in range(0, size, width):
            games = np.minimum(np.arange(begun, begun + width), size - 1)
            active = np.arange(begun, begun + width) < size
            active &= ~np.isin(games, list(ends.errors))
            here = (ends.parameters, ends.residual, ends.bounded, tolerance)
            lanes = (first + games, *jax.tree.map(lambda leaf, at=games: leaf[at], here))
            found = None
            if np.any(active):
                found, failed = self.lanes.run(examine, self.placed_examination, lanes, active)
                ends.errors.update({int(games[lane]): text for lane, text in failed.items()})
            if found is None:
                shape = eqx.filter_eval_shape(
                    examine, self.examination, jax.tree.map(lambda leaf: leaf[0], lanes)
                )
                found = self._blank(shape, width)
            parts.append(jax.tree.map(lambda leaf, n=size - begun: leaf[:n], found))
        end = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
        leaves = jax.tree.leaves(eqx.filter(end.profile, eqx.is_array))
        bad = list(ends.errors)
        for values in (end.payoffs, end.user_total, end.gain, end.curvature, end.user_gap):
            values[bad] = np.nan
        for leaf in leaves:
            if np.issubdtype(leaf.dtype, np.inexact):
                leaf[bad] = np.nan
        ends.residual[bad] = np.nan
        end.status[bad] = _NONFINITE
        messages = np.array([ends.errors.get(game, "") for game in range(size)], str)
        return {
            "status": end.status,
            "certified": end.status == self.goal,
            "residual": ends.residual,
            "rung": ends.rung,
            "steps": ends.steps,
            "payoffs": end.payoffs,
            "user_total": end.user_total,
            "gain": end.gain,
            "curvature": end.curvature,
            "user_gap": end.user_gap,
            "errors": messages,
            **{f"profile_{number}": leaf for number, leaf in enumerate(leaves)},
        }


@dataclasses.dataclass
class _Ends:
    """Where the games of a block stand between rungs, by their place in it."""

    parameters: PyTree
    residual: np.ndarray
    bounded: np.ndarray
    steps: np.ndarray
    rung: np.ndarray
    errors: dict[int, str]


def _put(into: PyTree, at: int, source: PyTree, where: int) -> None:
    for kept, new in zip(jax.tree.leaves(into), jax.tree.leaves(source), strict=True):
        kept[at] = new[where]


def _result(blocks: list[Block], engine: _Engine, games: int) -> BatchResult:
    found = join_blocks(blocks)
    leaves = [
        found.pop(f"profile_{n}") for n in range(sum(name.startswith("profile_") for name in found))
    ]
    arrays, rest = eqx.partition(
        engine.profiles, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)
    )
    profiles = eqx.combine(jax.tree.unflatten(jax.tree.structure(arrays), leaves), rest)
    messages = found.pop("errors")
    errors = {int(game): str(messages[game]) for game in np.flatnonzero(messages != "")}
    return BatchResult(games=games, profiles=profiles, errors=errors, ladder=engine.ladder, **found)


def solve_many(
    games: Any,
    response: AbstractResponse,
    profiles: Any = None,
    *,
    key: Key[Array, ""],
    count: int | None = None,
    ladder: Sequence[Rung] | None = None,
    certificate: CertificateSettings | None = CertificateSettings(),
    chunk: int = 4096,
    lanes: int = 64,
    devices: Sequence[Any] | None = None,
    checkpoint: str | Path | None = None,
    progress: Callable[[Progress], Any] | None = None,
    until: Callable[[Progress], bool] | None = None,
    processes: Processes | None = None,
) -> BatchResult:
    """Solve any number of games, each to its own end, and certify every end.

    The host drives a fixed number of lanes; a lane whose game is done takes the next game. What a
    rung of the ladder leaves unfinished meets the next rung: from where it stands, or from its own
    start if that is not finite or without bound.

    **Arguments:**

    - `games`, `profiles`: one game and one start, all array leaves with a leading axis of games.
        Or `games(index, key) -> (game, profile)`, a traceable function of the game's global
        number and `jax.random.fold_in(key, number)`, with `count` in place of `profiles`: then
        games are made where they are solved, and a million of them need no memory.
    - `response`: how users choose, the same in all games.
    - `key`: of made games and, folded with the game's number, of the certificates' searches.
    - `ladder`: rungs, tried in order; default: `default_ladder()`.
    - `certificate`: None leaves ends uncertified (status `stationary_only` at best).
    - `chunk`: games per block: the unit of progress, checkpoint and early stop. No result depends
        on it.
    - `lanes`: games at a time on each device. CPU: 64; a GPU wants thousands. Results may differ
        in the last digit between different `lanes`, and between kinds of device.
    - `devices`: default: all of `jax.local_devices()`. No result depends on how many.
    - `checkpoint`: a folder. Every finished block becomes a file, whole or absent; a run with the
        same arguments continues from there and ends bitwise equal.
    - `progress`: called after every block. `until`: stops after the block for which it is true.
    - `processes`: which of how many processes this is, if several call with the same arguments.
        They take turns with the blocks and need `checkpoint`, a folder that all of them see; each
        returns the whole result, and `progress` and `until` are those of process 0. Default: what
        `jax.distributed` says. No result depends on how many.

    Games' arrays must be float64 (`jax.config.update("jax_enable_x64", True)`): so are searches,
    except on rungs of `precision="float32"`, and all certificates.

    **Errors:** ValueError for settings out of range or arrays that disagree; `BatchError` for a
    checkpoint that cannot be used or written. A game that raises (or is not finite, or diverges)
    is a row of the result and changes no other.

    >>> import jax, jax.numpy as jnp
    >>> from diffgame import Concave, Constant
    >>> from diffgame.batch import solve_many
    >>> from diffgame.games import Cournot
    >>> def duopoly(index, key):
    ...     return Cournot(cost=jax.random.uniform(key, (2,)) / 4), Constant(jnp.zeros(2))
    >>> found = solve_many(duopoly, Concave(), count=100, key=jax.random.key(0))
    >>> found.counts()
    {'certified': 100}
    """
    if chunk < 1 or lanes < 1:
        raise ValueError(f"solve_many: chunk is {chunk}, lanes {lanes}; give at least 1 of each.")
    ladder = default_ladder() if ladder is None else tuple(ladder)
    check_ladder(ladder)
    made, searched = jax.random.split(key)
    if profiles is not None:
        if count is not None:
            raise ValueError(
                f"solve_many: count is {count} beside profiles; leave it out, the arrays say it."
            )
        source, number = stack_source(games, profiles)
    else:
        if not callable(games) or count is None or count < 1:
            raise ValueError(
                f"solve_many: without profiles, games must be a function of (index, key) and count "
                f"at least 1; they are {type(games).__name__} and {count}."
            )
        source, number = Made(games, made), count
    devices = jax.local_devices() if devices is None else devices
    engine = _Engine(source, response, ladder, certificate, searched, lanes, devices)
    for shape in jax.tree.leaves(eqx.filter_eval_shape(source.game, jnp.array(0))):
        if getattr(shape, "dtype", None) == jnp.float32:
            raise ValueError(
                "solve_many: the games have arrays in float32, and certificates need float64: set "
                'jax.config.update("jax_enable_x64", True) before making them.'
            )
    folder, settings = None, {}
    if checkpoint is not None:
        folder = Path(checkpoint)
        settings = {
            "games": number,
            "source": source.describe(number),
            "response": eqx.tree_pformat(response, short_arrays=False, width=10_000),
            "key": np.asarray(jax.random.key_data(key)).tolist(),
            "ladder": eqx.tree_pformat(ladder, short_arrays=False, width=10_000),
            "certificate": repr(certificate),
            "chunk": chunk,
            "lanes": lanes,
            "platform": engine.lanes.devices[0].platform,
        }
    bounds = list(block_bounds(number, chunk))
    if processes is None:
        processes = Processes(jax.process_index(), jax.process_count())
    blocks = run_blocks(bounds, engine.block, folder, settings, progress, until, processes)
    return _result(blocks, engine, number)
