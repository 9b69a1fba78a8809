"""How the processes of a batch come to be: by hand, by a scheduler, or all here."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import jax

from .._terminal import Refused
from ._checkpoint import BatchError
from ._processes import Processes, forget_process

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 5.0
# Of the commands: done, done with games that are not certified.
_GOOD = (0, 3)


def join_processes(
    coordinator: str | None, count: int | None, index: int | None, wait: float
) -> Processes:
    """Wait until all processes are there; returns which one this is.

    What is None the scheduler says (`jax.distributed.initialize`: SLURM, Open MPI, ...). If some
    do not come within `wait` seconds, the process ends with status 2 and one line.
    """
    met = threading.Event()

    def give_up() -> None:
        # JAX would abort the process instead of raising, so this comes before its own limit.
        if not met.wait(wait):
            who = "this process" if index is None else f"process {index} of {count}"
            where = "" if coordinator is None else f" at {coordinator}"
            print(
                f"diffgame: {who}: the others did not all join{where} within {wait:g} s; start "
                "all of them, with the same --coordinator and --processes, or raise --wait",
                file=sys.stderr,
                flush=True,
            )
            os._exit(2)

    threading.Thread(target=give_up, daemon=True).start()
    limit = int(wait) + 60
    try:
        jax.distributed.initialize(
            coordinator,
            count,
            index,
            cluster_detection_method="deactivate" if coordinator else None,
            initialization_timeout=limit,
            heartbeat_timeout_seconds=limit,
            shutdown_timeout_seconds=limit,
        )
    except (ValueError, RuntimeError) as error:
        met.set()
        said = str(error).splitlines()[0]
        where = coordinator or "what the scheduler says"
        raise BatchError(f"processes cannot meet at {where}: {said}") from error
    # The devices are found while the processes know of each other.
    found = Processes(jax.process_index(), jax.process_count(), wait)
    jax.distributed.shutdown()
    met.set()
    return found


def become_member(arguments: Sequence[str], processes: Processes) -> NoReturn:
    """Go on as one of processes that have met, with a JAX that knows only this one.

    In JAX's coordination service all processes end as soon as one dies, and all but the first
    compile everything again in every run: their devices have other numbers, and they may not write
    to the compilation cache. Blocks are independent, so nothing is lost without.
    """
    # What the scheduler told JAX of this process's accelerators.
    visible = jax.config.values["jax_cuda_visible_devices"]
    command = [*_command(arguments), "--member", f"{processes.index}/{processes.count}/{visible}"]
    os.execv(sys.executable, command)


def read_member(text: str, wait: float) -> Processes:
    """Which process this is, as whoever started it says: number, how many, visible devices."""
    index, count, visible = text.split("/")
    for name in ("jax_cuda_visible_devices", "jax_rocm_visible_devices"):
        jax.config.update(name, visible)
    return Processes(int(index), int(count), wait)


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "diffgame", *arguments]


def end_with(parent: int) -> None:
    """End this process when its parent is gone: nobody would know of it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_here(arguments: Sequence[str], count: int, folder: Path) -> int:
    """Run a `diffgame` command as several processes on this machine; returns the exit status.

    A process that is killed leaves its share undone, the others finish theirs. One that ends with
    an error has said why, and the others are ended.
    """
    command = [*_command(arguments), "--parent", str(os.getpid())]
    children = [
        subprocess.Popen([*command, "--member", f"{index}/{count}/all"], stdin=subprocess.DEVNULL)
        for index in range(count)
    ]
    try:
        statuses = _follow(children, folder)
    finally:
        for child in children:
            if child.poll() is None:
                child.terminate()
        for child in children:
            try:
                child.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                # One that was stopped does not hear of it.
                child.kill()
                child.wait()
    bad = [status for status in statuses if status not in _GOOD]
    return next((status for status in bad if status > 0), 2) if bad else statuses[0]


def _follow(children: Sequence[subprocess.Popen[bytes]], folder: Path) -> list[int]:
    """Wait for all, or for the first that ends with an error; returns the statuses so far."""
    statuses: dict[int, int] = {}
    while len(statuses) < len(children):
        for index, child in enumerate(children):
            status = child.poll()
            if status is None or index in statuses:
                continue
            statuses[index] = status
            if status < 0:
                forget_process(folder, index)
                print(
                    f"diffgame: process {index} was killed ({signal.Signals(-status).name}); "
                    "finished blocks are kept, the other processes finish their share",
                    file=sys.stderr,
                    flush=True,
                )
            elif status not in _GOOD:
                return [statuses[number] for number in sorted(statuses)]
        time.sleep(_POLL_SECONDS)
    return [statuses[number] for number in sorted(statuses)]


def check_processes(
    count: int | None, index: int | None, coordinator: str | None, scheduler: bool, wait: float
) -> None:
    """Refuse options that contradict each other."""
    if count is not None and count < 1:
        raise Refused(f"--processes {count}: give at least 1")
    if not wait > 0:
        raise Refused(f"--wait {wait:g}: give seconds above 0")
    if scheduler and (coordinator is not None or index is not None):
        raise Refused("--scheduler: leave out --coordinator and --process-id; the scheduler says")
    if (coordinator is None) != (index is None):
        raise Refused("--coordinator and --process-id: give both to every process, or neither")
    if index is not None and (count is None or not 0 <= index < count):
        raise Refused(f"--process-id {index}: is none of --processes {count}; number them from 0")
    if coordinator is not None and not coordinator.rpartition(":")[2].isdigit():
        raise Refused(f"--coordinator {coordinator}: write HOST:PORT, process 0's")
