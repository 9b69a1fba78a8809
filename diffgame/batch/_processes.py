"""Several processes on one batch: they meet in its folder, and none waits for another for ever.

Blocks of games are independent, so nothing needs a collective operation: every process writes its
blocks to a folder that all of them see, and takes the others' from there. What else they must know
of each other stands in small files beside the blocks, each written whole by one process alone:

- `run.json`, by process 0: which run this is, who was admitted to it, and where it ended.
- `process-0001.json`, by that process, again every second: that it still works.
"""

import contextlib
import dataclasses
import json
import secrets
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypeVar

from ._checkpoint import BatchError, write_whole

_Opened = TypeVar("_Opened")
_BEAT_SECONDS = 1.0
_POLL_SECONDS = 0.2
_RUN = "run.json"
_KEPT = "finished blocks are kept: run again to go on (diffgame search: with --resume)"


@dataclasses.dataclass(frozen=True)
class Processes:
    """Which of how many processes this one is, for a batch that they work on together.

    - `index`: from 0 to `count - 1`. Process 0 shows progress and decides on an early stop.
    - `wait`: seconds without a sign of life after which another process counts as gone.

    >>> from diffgame.batch import Processes
    >>> Processes(1, 4).owner(6)
    2
    """

    index: int = 0
    count: int = 1
    wait: float = 120.0

    def __post_init__(self):
        if not 0 <= self.index < self.count:
            raise ValueError(
                f"Processes: index is {self.index} of count {self.count}; number them from 0."
            )
        if not self.wait > 0:
            raise ValueError(f"Processes: wait is {self.wait}; give seconds above 0.")

    def owner(self, block: int) -> int:
        """Who computes a block: they take turns."""
        return block % self.count


ALONE = Processes()


def forget_process(folder: Path, index: int) -> None:
    """Tell the others that a process is dead, if somebody knows it."""
    _file(folder, index).unlink(missing_ok=True)


def remove_meeting(folder: Path) -> None:
    """Remove the files by which processes know of each other."""
    for path in (*folder.glob("process-*.json"), folder / _RUN):
        path.unlink(missing_ok=True)


def _file(folder: Path, index: int) -> Path:
    return folder / f"process-{index:04d}.json"


def _read(path: Path) -> dict[str, Any] | None:
    """What a file says; None if it is not there."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BatchError(f"{path}: cannot be read ({error}); remove it and run again") from error
    return found


def _write(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content).encode()
    write_whole(path, lambda file: file.write(text), sync=False)


class Alone:
    """One process that shares its folder with nobody."""

    def __init__(self, folder: Path | None):
        self._folder = folder

    @contextlib.contextmanager
    def meet(self, opened: Callable[[], _Opened]) -> Generator[_Opened, None, None]:
        """Open the folder. Processes of an earlier run that still work there find out and end."""
        found = opened()
        if self._folder is not None:
            remove_meeting(self._folder)
        yield found

    def ended(self) -> int | None:
        """After how many blocks process 0 ended the batch; None if it goes on."""
        return None

    def end(self, blocks: int) -> None:
        """End the batch: nobody else needs to know."""

    def expect(self, index: int, missing: str) -> None:
        """Wait for another process: there is none."""
        raise AssertionError(f"process {index} is nobody: {missing}")


class Crew:
    """This process among the others."""

    def __init__(self, folder: Path, processes: Processes):
        self._folder, self._me = folder, processes
        self._run = folder / _RUN
        # Tells this run's files from those of an earlier one.
        self._mark = secrets.token_hex(8)
        self._of_run = self._mark
        self._admitted = {0: self._mark}
        self._end: int | None = None
        self._beats = 0
        self._writing = threading.Lock()
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._failure: BatchError | None = None
        self._begun = time.monotonic()
        self._seen: dict[int, tuple[int, float]] = {}

    @contextlib.contextmanager
    def meet(self, opened: Callable[[], _Opened]) -> Generator[_Opened, None, None]:
        """Open the folder together: process 0 first. On the way out, process 0 leaves last."""
        try:
            if self._me.index == 0:
                found = opened()
                self._begin()
            else:
                self._join()
                found = opened()
            yield found
        except BaseException:
            self._leave()
            # If even that cannot be written, the others notice the silence.
            with contextlib.suppress(BatchError):
                self._announce("failed")
            raise
        self._leave()
        self._announce("finished")
        if self._me.index == 0:
            self._wait_until_others_left()

    def ended(self) -> int | None:
        """After how many blocks process 0 ended the batch; None if it goes on.

        **Errors:** BatchError if this process should stop: the folder is no longer its run's.
        """
        if self._failure is not None:
            raise self._failure
        run = _read(self._run)
        if run is None or run.get("run") != self._of_run:
            raise BatchError(f"{self._folder}: another run has taken it over; this one ends")
        self._admitted = {int(index): mark for index, mark in run["admitted"].items()}
        return run["end"]

    def end(self, blocks: int) -> None:
        """Process 0: the batch ends after so many blocks."""
        self._end = blocks
        self._tell()

    def expect(self, index: int, missing: str) -> None:
        """Wait a moment for a process; `missing` is what it still has to do.

        **Errors:** BatchError if that process is gone.
        """
        why = self._gone(index)
        # Process 0 may have ended the batch since, and then everybody leaves.
        if why is not None and self.ended() is None:
            raise BatchError(f"process {index} {why}; {missing}; {_KEPT}")
        time.sleep(_POLL_SECONDS)

    def _announce(self, state: str) -> None:
        with self._writing:
            self._beats += 1
            content = {"mark": self._mark, "state": state, "beat": self._beats}
            _write(_file(self._folder, self._me.index), content)

    def _tell(self) -> None:
        with self._writing:
            _write(self._run, {"run": self._mark, "admitted": self._admitted, "end": self._end})

    def _admit(self) -> None:
        """Process 0: whoever announced itself since."""
        admitted = dict(self._admitted)
        for index in range(1, self._me.count):
            if (said := _read(_file(self._folder, index))) is not None:
                admitted[index] = said["mark"]
        if admitted != self._admitted:
            self._admitted = admitted
            self._tell()

    def _live(self) -> None:
        """Announce this process again and again; process 0 lets others in soon after they come."""
        try:
            while not self._leaving.wait(self._pause()):
                self._announce("works")
                if self._me.index == 0:
                    self._admit()
        except BatchError as error:
            self._failure = error

    def _pause(self) -> float:
        complete = self._me.index > 0 or len(self._admitted) == self._me.count
        return _BEAT_SECONDS if complete else _POLL_SECONDS

    def _begin(self) -> None:
        """Process 0: this is a new run, and what the folder says of others is of an old one."""
        remove_meeting(self._folder)
        self._announce("works")
        self._tell()
        self._thread.start()

    def _join(self) -> None:
        """Wait until process 0 has admitted this one."""
        limit = self._begun + self._me.wait
        announced = False
        while time.monotonic() < limit:
            if self._folder.is_dir() and not announced:
                self._announce("works")
                self._thread.start()
                announced = True
            if self._failure is not None:
                raise self._failure
            run = _read(self._run)
            if run is not None and run["admitted"].get(str(self._me.index)) == self._mark:
                self._of_run = run["run"]
                return
            time.sleep(_POLL_SECONDS)
        raise BatchError(
            f"{self._folder}: process 0 did not begin there within {self._me.wait:g} s; start it, "
            "or name a folder that all processes see"
        )

    def _leave(self) -> None:
        self._leaving.set()
        if self._thread.is_alive():
            self._thread.join()

    def _gone(self, index: int) -> str | None:
        """Why nothing more is to be expected of a process; None if it still works."""
        now, mark = time.monotonic(), self._admitted.get(index)
        if mark is None:
            late = now - self._begun > self._me.wait
            return f"did not begin within {self._me.wait:g} s" if late else None
        said = _read(_file(self._folder, index))
        if said is None or (said["mark"] == mark and said["state"] != "works"):
            return "has ended"
        beat, since = self._seen.get(index, (-1, now))
        if said["beat"] != beat:
            self._seen[index] = said["beat"], now
            return None
        if now - since > self._me.wait:
            return f"gave no sign of life for {self._me.wait:g} s"
        return None

    def _wait_until_others_left(self) -> None:
        """They may still read; what comes next may remove the folder."""
        self._admit()
        while any(self._gone(index) is None for index in range(1, self._me.count)):
            time.sleep(_POLL_SECONDS)
            self._admit()
