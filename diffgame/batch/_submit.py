"""A batch as a job of a cluster, by submitit: on SLURM, or on this machine to try it out."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from .._terminal import Refused

EXECUTORS = ("local", "slurm")
_POLL_SECONDS = 0.5
_MINUTES = 24 * 60


def _submitit() -> ModuleType:
    try:
        import submitit
    except ModuleNotFoundError:
        raise Refused(
            "--submit needs submitit: python -m pip install 'diffgame[cluster]'"
        ) from None
    return submitit


def run_task(executor: str, arguments: Sequence[str]) -> int:
    """What every task of the job runs; returns the command's exit status."""
    command = [sys.executable, "-m", "diffgame", *arguments, "--parent", str(os.getpid())]
    if executor == "slurm":
        command += ["--scheduler"]
    else:
        here = _submitit().JobEnvironment()
        command += ["--member", f"{here.global_rank}/{here.num_tasks}/all"]
    return subprocess.call(command)


def _settings(text: str, count: int) -> dict[str, int | str]:
    found: dict[str, int | str] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not (name and equals and value):
            raise Refused(f"--submit-options has {part!r}; write NAME=VALUE,NAME=VALUE")
        found[name] = int(value) if value.isdigit() else value
    nodes = found.setdefault("nodes", 1)
    if not isinstance(nodes, int) or nodes < 1 or count % nodes:
        raise Refused(f"--submit-options nodes={nodes}: must divide --processes {count}")
    return {"timeout_min": _MINUTES, "tasks_per_node": count // nodes, **found}


def submit(executor: str, arguments: Sequence[str], count: int, options: str, folder: Path) -> int:
    """Submit a `diffgame` command as one job of `count` tasks and wait for its end.

    Shows what process 0 says; returns its exit status, or 2 if a task did not end well. Logs are
    kept in `folder`.
    """
    submitit = _submitit()
    settings = _settings(options, count)
    try:
        submitter = submitit.AutoExecutor(folder=folder, cluster=executor)
        submitter.update_parameters(name="diffgame", **settings)
        job = submitter.submit(run_task, executor, list(arguments))
    except (RuntimeError, NameError, ValueError, OSError) as error:
        raise Refused(f"--submit {executor}: {' '.join(str(error).split())}") from error
    paths = job.task(0).paths
    print(f"diffgame: job {job.job_id}; logs in {folder}", file=sys.stderr, flush=True)
    shown = _show(paths.stderr, 0, sys.stderr)
    while not job.done():
        time.sleep(_POLL_SECONDS)
        shown = _show(paths.stderr, shown, sys.stderr)
    # The logs may reach a shared folder later than the news of the end.
    statuses = []
    for number in range(count):
        task = job.task(number)
        try:
            statuses.append(task.result())
        except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError):
            raise Refused(
                f"task {number} of job {job.job_id} died; see {task.paths.stderr}"
            ) from None
    _show(paths.stderr, shown, sys.stderr)
    _show(paths.stdout, 0, sys.stdout)
    bad = [status for status in statuses if status not in (0, 3)]
    return bad[0] if bad else statuses[0]


def _show(log: Path, shown: int, stream) -> int:
    """Print the whole lines of a log from byte `shown` on, but submitit's own; returns the next."""
    if not log.exists():
        return shown
    with log.open("rb") as file:
        file.seek(shown)
        text, newline, _ = file.read().rpartition(b"\n")
    for line in text.decode(errors="replace").splitlines():
        if not line.startswith("submitit "):
            print(line, file=stream, flush=True)
    return shown + len(text) + len(newline)
