"""What all benchmarks share: clocks, the machine, the table and the JSON file."""

import argparse
import concurrent.futures
import dataclasses
import functools
import importlib
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison; seconds are for the same `n` items on both sides, compile time apart.

    - `ours_certified`, `peer_certified`: share of the items, from 0 to 1.
    - `compile_seconds`, `measured`, `remark`: only printed: compile time of ours, how many items
        the peer was timed on, and what else there is to say.
    """

    work: str
    n: int
    ours_seconds: float
    peer: str
    peer_seconds: float
    ours_certified: float
    peer_certified: float
    compile_seconds: float
    measured: int
    remark: str = ""

    @property
    def ratio(self) -> float:
        """How many times longer the peer takes."""
        return self.peer_seconds / self.ours_seconds

    def record(self) -> dict[str, Any]:
        """The row as it goes into the file."""
        return {
            "work": self.work,
            "n": self.n,
            "ours_seconds": self.ours_seconds,
            "peer": self.peer,
            "peer_seconds": self.peer_seconds,
            "ratio": self.ratio,
            "ours_certified": self.ours_certified,
            "peer_certified": self.peer_certified,
        }


def arguments(name: str, description: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--json", metavar="OUT", type=Path, help="also write the rows here")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    return parser


def require(module: str) -> ModuleType:
    """Import a peer, or end with status 2 and one line that says how to get it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        print(f"{module} is not installed: pip install 'diffgame[bench]'", file=sys.stderr)
        raise SystemExit(2) from None


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@functools.cache
def _threads() -> concurrent.futures.ThreadPoolExecutor:
    """One per core for the whole run, as the peers' processes are."""
    return concurrent.futures.ThreadPoolExecutor(cores())


@dataclasses.dataclass(frozen=True)
class Batched:
    """A jitted function of a batch, compiled for one part per core.

    XLA runs a loop of small operations on one core: the parts are dispatched by one thread each.
    """

    compiled: Callable
    parts: Sequence[tuple[jax.Array, ...]]
    count: int
    compile_seconds: float

    def one_core(self) -> Any:
        """All parts, one after another."""
        return self._join([jax.block_until_ready(self.compiled(*part)) for part in self.parts])

    def all_cores(self) -> Any:
        """All parts at once."""
        run = _threads().map(lambda part: jax.block_until_ready(self.compiled(*part)), self.parts)
        return self._join(list(run))

    def _join(self, found: Sequence[Any]) -> Any:
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: self.count], *found)


def compile_batched(function: Callable, *arrays: jax.Array) -> Batched:
    """Compile a function of arrays with a leading batch axis; the last part is filled up."""
    count, pieces = len(arrays[0]), cores()
    size = -(-count // pieces)
    index = np.arange(pieces * size)
    index = np.where(index < count, index, 0).reshape(pieces, size)
    parts = [tuple(array[own] for array in arrays) for own in index]
    begin = time.perf_counter()
    compiled = jax.jit(function).lower(*parts[0]).compile()
    return Batched(compiled, parts, count, time.perf_counter() - begin)


def median_seconds(function: Callable[[], Any], repeats: int = 3) -> float:
    """Run time of a function that has been run before."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def alternate(
    ours: Callable[[], Any], peer: Callable[[Any], Any], parts: Sequence[Any]
) -> tuple[float, list[float], list[Any]]:
    """Time all of ours, then the peer on one part, in turn until the parts are used up.

    Other work on the machine then disturbs both alike. Ours is run once beforehand.

    **Returns:** the median of ours, the peer's seconds and answers part by part.
    """
    ours()
    own, seconds, answers = [], [], []
    for part in parts:
        own.append(median_seconds(ours))
        begin = time.perf_counter()
        answers.append(peer(part))
        seconds.append(time.perf_counter() - begin)
    return statistics.median(own), seconds, answers


def machine(peers: Sequence[str]) -> dict[str, Any]:
    """What the figures depend on."""
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        names = [
            line.partition(":")[2].strip()
            for line in information.read_text().splitlines()
            if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    return {
        "processor": processor,
        "cores": cores(),
        "device": jax.devices()[0].device_kind,
        "load": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("jax", "jaxlib", *peers)},
    }


_COLUMNS = (
    ("work", 34, lambda row: row.work),
    ("n", 6, lambda row: str(row.n)),
    ("ours", 9, lambda row: _duration(row.ours_seconds / row.n)),
    ("peer", 9, lambda row: _duration(row.peer_seconds / row.n)),
    ("ratio", 9, lambda row: f"{row.ratio:.3g}" if row.ratio < 1000 else f"{row.ratio:.0f}"),
    ("certified", 12, lambda row: f"{row.ours_certified:.4g} {row.peer_certified:.4g}"),
)


def _duration(seconds: float) -> str:
    for unit, size in (("us", 1e-6), ("ms", 1e-3), ("s", 1.0)):
        if seconds < 1000 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 3600:.3g} h"


def _line(cells: Sequence[str]) -> str:
    widths = [width for _, width, _ in _COLUMNS]
    first = cells[0].ljust(widths[0])
    return first + "".join(
        f"{cell:>{width}}" for cell, width in zip(cells[1:], widths[1:], strict=True)
    )


def report(rows: Sequence[Row], about: dict[str, Any], out: Path | None) -> None:
    """Print the table, and write the file whole or not at all."""
    print("; ".join(f"{name} {value}" for name, value in about.items()))
    print(
        "seconds per item; ours on all cores, peer on one unless it says so; ratio = peer / ours;"
    )
    print("certified = share of ours, of the peer's\n")
    print(_line([title for title, _, _ in _COLUMNS]))
    for row in rows:
        print(_line([cell(row) for _, _, cell in _COLUMNS]))
        details = f"  peer: {row.peer}, timed on {row.measured}"
        print(f"{details}; ours compiles in {row.compile_seconds:.1f} s")
        if row.remark:
            print(f"  {row.remark}")
    if out is not None:
        write(out, {"machine": about, "rows": [row.record() for row in rows]})


def write(out: Path, content: dict[str, Any]) -> None:
    """Write the file whole or not at all."""
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    beside.write_text(json.dumps(content, indent=2) + "\n")
    beside.replace(out)
