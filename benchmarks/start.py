"""How long a whole `diffgame audit` takes: the first run of all, and the runs after it.

Tracing, lowering and XLA are what JAX reports of the process, added over its threads: while one
traces, the other waits for the interpreter, and its waiting counts. So the last run, with an empty
cache of its own, compiles one program after another.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from diffgame._stored_program import WORKERS

from . import _harness

_MARKET = Path(__file__).parent.parent / "examples" / "markets" / "opposed_users.json"
# The modes of `--quick` leave half of the programs out.
_QUICK = ("--modes", "personalized", "--starts", "2")


def _children() -> float:
    used = os.times()
    return used.children_user + used.children_system


# The command, and then what JAX says it spent on programs, as the last line of stderr.
_COMMAND = """
import collections, json, sys
import jax
from diffgame import _stored_program
from diffgame._command import main
_stored_program.WORKERS = int(sys.argv.pop(1))
spent = collections.Counter()
def add(name, seconds, **_):
    spent[name.rsplit("/", 1)[-1]] += seconds
jax.monitoring.register_event_duration_secs_listener(add)
status = main()
print(json.dumps(spent), file=sys.stderr)
sys.exit(status)
"""
# The names of these events are JAX's.
_EVENTS = {
    "tracing": "jaxpr_trace_duration",
    "lowering": "jaxpr_to_mlir_module_duration",
    "XLA": "backend_compile_duration",
}


def _run(
    cache: Path, workers: int, options: tuple[str, ...]
) -> tuple[float, float, int, str, dict[str, float]]:
    """Seconds, processor seconds, exit status, report, and what was spent on programs."""
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    begun, used = time.perf_counter(), _children()
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, str(workers), "audit", str(_MARKET), *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds, processor = time.perf_counter() - begun, _children() - used
    spent = json.loads(done.stderr.splitlines()[-1])
    own = {name: spent.get(event, 0.0) for name, event in _EVENTS.items()}
    return seconds, processor, done.returncode, done.stdout, own


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line per run; the exit status is 0 if all runs reported the same."""
    parser = _harness.arguments("start", __doc__ or "")
    parser.add_argument("--runs", type=int, default=4, help="the first with an empty cache")
    options = parser.parse_args(arguments)
    if options.runs < 2:
        parser.error(f"--runs is {options.runs}; give at least 2, the first has an empty cache")
    print("; ".join(f"{name} {value}" for name, value in _harness.machine(()).items()))
    print(f"diffgame audit {_MARKET.name}, whole process\n")
    print(f"{'run':22}{'seconds':>9}{'processor':>11}{'exit':>6}", end="")
    print("".join(f"{name:>10}" for name in _EVENTS))
    reports, rows = set(), []
    quick = _QUICK if options.quick else ()
    names = ["first, empty cache", *(f"run {number + 1}" for number in range(1, options.runs))]
    names.append("first, one worker")
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as other:
        for name in names:
            folder, workers = (other, 1) if name == names[-1] else (cache, WORKERS)
            seconds, used, status, report, spent = _run(Path(folder), workers, quick)
            print(f"{name:22}{seconds:9.1f}{used:11.1f}{status:6}", end="")
            print("".join(f"{own:10.1f}" for own in spent.values()), flush=True)
            reports.add((status, report))
            rows.append({"run": name, "seconds": seconds, "processor_seconds": used, **spent})
        size = sum(path.stat().st_size for path in Path(cache).rglob("*") if path.is_file())
    print(
        f"cache: {size / 1e6:.0f} MB; reports are {'equal' if len(reports) == 1 else 'DIFFERENT'}"
    )
    if options.json is not None:
        _harness.write(options.json, {"machine": _harness.machine(()), "rows": rows})
    return 0 if len(reports) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
