"""A solver's own process: asked, timed, killed at the limit, started again."""

import collections
import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

import numpy as np

from ._messages import Message, read_message, write_message

# On top of a limit, for the message to travel.
_GRACE = 1.0
# For a process that has closed its answers to be gone; a core dump takes its time.
_ENDING = 30.0


@dataclass(frozen=True)
class Reply:
    """What came of one request.

    `status`: "answered", "error" (the solver raised), "timed out" or "died: ..."; `detail` in one
    line. Seconds as the process measured them, None where it did not live to tell.
    """

    status: str
    detail: str = ""
    seconds: float | None = None
    cpu_seconds: float | None = None
    answer: dict[str, np.ndarray] = field(default_factory=dict)


def _ending(code: int) -> str:
    return f"died: signal {-code}" if code < 0 else f"died: exit status {code}"


def _listen(stream: BinaryIO, messages: "queue.SimpleQueue[Message | None]") -> None:
    message: Message | None = ({}, {})
    while message is not None:
        try:
            message = read_message(stream)
        except ValueError:
            # Closed under our hands, or no message at all: both end the conversation.
            message = None
        messages.put(message)


class SolverProcess:
    """One solver's process, started when it is first asked; `close` ends it."""

    def __init__(self, command: Sequence[str], setup: Mapping[str, Any], start_limit: float):
        self._command, self._setup, self._start_limit = list(command), dict(setup), start_limit
        self._process: subprocess.Popen[bytes] | None = None
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._listeners: list[threading.Thread] = []
        # The last that the process said on its standard error.
        self._said: collections.deque[bytes] = collections.deque(maxlen=20)

    @property
    def alive(self) -> bool:
        """Is there a process that keeps what it has compiled?"""
        return self._process is not None

    def start(self) -> Reply:
        """Start the process and let it prepare its solver."""
        self._messages, self._said = queue.SimpleQueue(), collections.deque(maxlen=20)
        try:
            # A session of its own: Ctrl-C at the bench is the bench's to act on.
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            self.close()
            return Reply("error", f"{self._command[0]}: cannot be run ({error.strerror})")
        answers, errors = (cast(BinaryIO, s) for s in (self._process.stdout, self._process.stderr))
        self._listeners = [
            threading.Thread(target=_listen, args=(answers, self._messages), daemon=True),
            threading.Thread(target=self._said.extend, args=(errors,), daemon=True),
        ]
        for listener in self._listeners:
            listener.start()
        reply = self._exchange(self._setup, {}, self._start_limit)
        if reply.status != "answered":
            self.close()
        return reply

    def ask(self, game: Mapping[str, np.ndarray], limit: float) -> Reply:
        """Have a game solved within `limit` seconds; the process is dead after anything worse."""
        reply = self._exchange({}, game, limit)
        if reply.seconds is not None and reply.seconds > limit:
            return Reply("timed out", f"limit {limit:g} s", reply.seconds, reply.cpu_seconds)
        return reply

    def close(self) -> None:
        """End the process, whatever it is doing, and all that it started."""
        process, self._process = self._process, None
        if process is not None:
            if hasattr(os, "killpg"):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()
            for listener in self._listeners:
                listener.join(_GRACE)
            for stream in (process.stdin, process.stdout, process.stderr):
                # What was not sent any more is lost with the process.
                with contextlib.suppress(BrokenPipeError):
                    cast(BinaryIO, stream).close()

    def _exchange(
        self, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], limit: float
    ) -> Reply:
        process = self._process
        assert process is not None
        try:
            write_message(cast(BinaryIO, process.stdin), header, arrays)
        except BrokenPipeError:
            return self._dead(process)
        try:
            message = self._messages.get(timeout=limit + _GRACE)
        except queue.Empty:
            self.close()
            return Reply("timed out", f"limit {limit:g} s")
        if message is None:
            return self._dead(process)
        said, answer = message
        seconds, cpu_seconds = said.get("seconds"), said.get("cpu_seconds")
        if "error" in said:
            return Reply("error", said["error"], seconds, cpu_seconds)
        return Reply("answered", "", seconds, cpu_seconds, answer)

    def _dead(self, process: "subprocess.Popen[bytes]") -> Reply:
        try:
            code = process.wait(timeout=_ENDING)
        except subprocess.TimeoutExpired:
            self.close()
            return Reply("died: it closed its answers")
        self.close()
        lines = [line.decode(errors="replace").strip() for line in self._said]
        return Reply(_ending(code), next((line for line in reversed(lines) if line), ""))
